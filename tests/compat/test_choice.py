"""Which wire a call takes: what docs/grpc.md says decides it, and nothing else."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import grpc.aio
import pytest

import rpc_async
from tests.compat.certificates import certificates
from tests.compat.interceptors import MarkBoth, MarkDown, MarkUnary, MarkUp
from tests.compat.lab import ALL_KINDS, Lab, Mix, method
from tests.compat.security import Tokens


def composite() -> grpc.ChannelCredentials:
    """Return credentials that are asked for each call."""
    return grpc.composite_channel_credentials(certificates().client(), grpc.metadata_call_credentials(Tokens()))


HINDRANCES: dict[str, Callable[[], dict[str, Any]]] = {
    "a unary interceptor": lambda: {"interceptors": [MarkUnary("x")]},
    "a server-streaming interceptor": lambda: {"interceptors": [MarkDown()]},
    "a client-streaming interceptor": lambda: {"interceptors": [MarkUp()]},
    "a both-streaming interceptor": lambda: {"interceptors": [MarkBoth()]},
    "composite credentials": lambda: {"credentials": composite()},
    "compression": lambda: {"compression": grpc.Compression.Gzip},
    "compression in the options": lambda: {"options": [("grpc.default_compression_algorithm", 2)]},
    "a service config": lambda: {"options": [("grpc.service_config", json.dumps({}))]},
    "a load-balancing policy": lambda: {"options": [("grpc.lb_policy_name", "round_robin")]},
    "channelz": lambda: {"options": [("grpc.enable_channelz", 1)]},
    "a small limit for what is sent": lambda: {"options": [("grpc.max_send_message_length", 1000)]},
    "a small limit for what is received": lambda: {"options": [("grpc.max_receive_message_length", 1000)]},
}


@pytest.mark.parametrize("name", HINDRANCES)
async def test_what_a_session_cannot_do_goes_natively_or_is_refused(name: str) -> None:
    with pytest.raises(rpc_async.InvalidArgument, match="transport 'session'"):
        rpc_async.connect("localhost:1", transport="session", **HINDRANCES[name]())
    lab, made = Lab(Mix("auto", "ours")), HINDRANCES[name]()
    async with lab.stack:
        secure: dict[str, Any] = {"credentials": certificates().server()} if "credentials" in made else {}
        served = await lab.serve(ALL_KINDS, address="localhost:0", **secure)
        call = method(lab.connect(served.target, **made), "Echo")(b"x")
        assert (await call, call.transport) == (b"x", "native")
        assert call.transport_reason


@pytest.mark.parametrize(
    "made",
    [
        {"options": [("grpc.enable_channelz", 0)]},
        {"options": [("grpc.keepalive_time_ms", 10_000), ("grpc.primary_user_agent", "mine")]},
        {"options": [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", 1 << 20)]},
        {"options": [("grpc.ssl_target_name_override", "localhost")], "tls": True},
    ],
)
async def test_nothing_else_keeps_a_call_from_a_session(made: dict[str, Any]) -> None:
    lab, made = Lab(Mix("auto", "ours")), dict(made)
    async with lab.stack:
        secure: dict[str, Any] = {}
        if made.pop("tls", False):
            secure, made["credentials"] = {"credentials": certificates().server()}, certificates().client()
        served = await lab.serve(ALL_KINDS, address="localhost:0", **secure)
        channel = lab.connect(served.target, **made)
        call = method(channel, "Echo")(b"x", timeout=60, metadata=(("key", "value"),), wait_for_ready=True)
        assert (await call, call.transport) == (b"x", "session")
        assert call.transport_reason


@pytest.mark.parametrize(
    "own", [{"compression": grpc.Compression.Gzip}, {"credentials": grpc.metadata_call_credentials(Tokens())}]
)
async def test_a_call_with_what_is_its_own_goes_natively_or_is_refused(own: dict[str, Any]) -> None:
    lab = Lab(Mix("auto", "ours"))
    async with lab.stack:
        served = await lab.serve(ALL_KINDS, address="localhost:0", credentials=certificates().server())
        echo = method(lab.connect(served.target, credentials=certificates().client()), "Echo")
        plain, special = echo(b"plain"), echo(b"special", **own)
        assert (await plain, await special) == (b"plain", b"special")
        assert (plain.transport, special.transport) == ("session", "native")
        async with rpc_async.connect(
            served.target, transport="session", credentials=certificates().client()
        ) as channel:
            with pytest.raises(rpc_async.InvalidArgument, match="transport='session'"):
                method(channel, "Echo")(b"special", **own)
            assert await method(channel, "Echo")(b"plain") == b"plain"


async def test_a_server_without_sessions_gets_native_calls(caplog: pytest.LogCaptureFixture) -> None:
    lab = Lab(Mix("auto", "theirs"))
    with caplog.at_level(logging.INFO, "rpc_async.calling"):
        async with lab.stack:
            channel = await lab.channel(ALL_KINDS)
            calls = [method(channel, "Echo")(b"x") for _ in range(3)]
            for call in calls:
                assert (await call, call.transport) == (b"x", "native")
                assert call.transport_reason
    lines = [record.getMessage() for record in caplog.records if "go natively" in record.getMessage()]
    assert len(lines) == 1, lines


async def test_a_channel_for_sessions_only_fails_calls_to_a_server_without_them() -> None:
    lab = Lab(Mix("theirs", "theirs"))
    async with lab.stack:
        served = await lab.serve(ALL_KINDS)
        async with rpc_async.connect(served.target, transport="session") as channel:
            with pytest.raises(rpc_async.CallError) as caught:
                await method(channel, "Echo")(b"x")
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
            assert caught.value.executed is False


async def test_what_is_made_is_grpcs() -> None:
    lab = Lab(Mix("auto", "ours"))
    async with AsyncExitStack() as stack:
        stack.push_async_exit(lab.stack)
        served = await lab.serve(ALL_KINDS)
        channel: Any = lab.connect(served.target)
        assert isinstance(served.server, grpc.aio.Server)
        assert isinstance(channel, grpc.aio.Channel)
        assert isinstance(channel.unary_unary("/a/B"), grpc.aio.UnaryUnaryMultiCallable)
        assert isinstance(channel.unary_stream("/a/B"), grpc.aio.UnaryStreamMultiCallable)
        assert isinstance(channel.stream_unary("/a/B"), grpc.aio.StreamUnaryMultiCallable)
        assert isinstance(channel.stream_stream("/a/B"), grpc.aio.StreamStreamMultiCallable)
        assert isinstance(method(channel, "Count", "unary_stream")(b"0"), grpc.aio.UnaryStreamCall)
        assert isinstance(method(channel, "Join", "stream_unary")(), grpc.aio.StreamUnaryCall)
        assert isinstance(method(channel, "Chat", "stream_stream")(), grpc.aio.StreamStreamCall)
