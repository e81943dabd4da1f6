"""nginx between client and servers: what docs/proxies.md says, with its own configuration and with nginx' defaults."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

import rpc_async
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
from tests.harness import PATIENCE, outcome, until
from tests.peers.counting import named
from tests.peers.proxied import DEFAULTS, Proxied, documented, proxied

CALLS, SIZE = 60, 64 * 1024
LINGER = 30.0
"""Seconds: the default."""

Transport = Literal["auto", "session", "native"]
TRANSPORTS: tuple[Transport, ...] = ("auto", "session", "native")


@pytest.fixture
def as_documented(tmp_path: Path) -> Iterator[Proxied]:
    with proxied(tmp_path, documented()) as all_of_it:
        yield all_of_it


@pytest.fixture
def by_default(tmp_path: Path) -> Iterator[Proxied]:
    with proxied(tmp_path, DEFAULTS) as all_of_it:
        yield all_of_it


def echoes(stub: demo_pb2_grpc.DemoAsyncStub, count: int = CALLS, size: int = SIZE) -> list[Any]:
    """Begin so many calls at once."""
    return [rpc_async.begin(stub.Echo, named(f"echo-{number}", size)) for number in range(count)]


def begin_waiting(stub: demo_pb2_grpc.DemoAsyncStub, count: int) -> list[Any]:
    """Begin calls that wait until they are let go."""
    requests = [demo_pb2.EchoFromThreadRequest(payload=f"waits-{number}.".encode()) for number in range(count)]
    return [rpc_async.begin(stub.EchoFromThread, request) for request in requests]


async def settled(calls: list[Any]) -> list[Any]:
    """Wait until all have settled; return the failures."""
    return [found for found in [await outcome(call) for call in calls] if isinstance(found, rpc_async.CallError)]


def check_truth(all_of_it: Proxied, failures: list[Any]) -> None:
    """No call was executed twice, and none that was said not to be was executed."""
    assert [name for name, times in Counter(all_of_it.executed).items() if times > 1] == []
    assert [failure for failure in failures if failure.executed is False] == []


# -- the documented configuration -----------------------------------------------------------------------------


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_all_calls_succeed_as_documented(as_documented: Proxied, transport: Transport) -> None:
    async with rpc_async.connect(as_documented.target, transport=transport) as channel:
        assert await settled(echoes(demo_pb2_grpc.DemoStub(channel))) == []
        assert as_documented.streams_ended() == 0, "cut and resumed, which nothing in this configuration should do"
    assert Counter(as_documented.executed) == Counter(f"echo-{number}" for number in range(CALLS))


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_long_faults_and_metadata_arrive_as_documented(as_documented: Proxied, transport: Transport) -> None:
    """Ones that nginx' defaults have no room for."""
    async with rpc_async.connect(as_documented.target, transport=transport) as channel:
        stub = demo_pb2_grpc.DemoStub(channel)
        for _ in range(3):
            failing = rpc_async.begin(stub.Fail, demo_pb2.FailRequest(code=4711, message="m" * 5000))
            failure = await outcome(failing)
            assert (failure.status, failure.details()) == (4711, "m" * 5000)
        call = rpc_async.begin(stub.Echo, named("with-metadata", 100), metadata=(("x-long", "y" * 30_000),))
        assert await settled([call]) == []


async def test_a_server_is_not_shut_out_for_a_fault_that_nginx_has_no_room_for(tmp_path: Path) -> None:
    """What `max_fails=0` is for."""
    with proxied(tmp_path, documented().replace("grpc_buffer_size 64k;", "")) as all_of_it:
        async with rpc_async.connect(all_of_it.target, transport="native") as channel:
            stub = demo_pb2_grpc.DemoStub(channel)
            for _ in range(3):
                failing = rpc_async.begin(stub.Fail, demo_pb2.FailRequest(code=4711, message="m" * 5000))
                failure = await outcome(failing)
                assert (failure.status, failure.executed) == (rpc_async.RpcStatus.CALL_FAILED, None)
            assert await settled(echoes(stub)) == []


@pytest.mark.parametrize("transport", ["auto", "session"])
async def test_a_silence_is_no_more_than_a_cut(tmp_path: Path, transport: Transport) -> None:
    """Where a proxy gives up a stream that is silent, the session is resumed with its own server."""
    with proxied(tmp_path, documented().replace("24h", "1s")) as all_of_it:
        async with rpc_async.connect(all_of_it.target, transport=transport) as channel:
            stub = demo_pb2_grpc.DemoStub(channel)
            waiting = begin_waiting(stub, 20)
            await until(lambda: all_of_it.streams_ended() >= 2)
            more = echoes(stub)
            assert await settled(more) == []
            all_of_it.let_go()
            assert await settled(waiting) == []
        check_truth(all_of_it, [])


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_reload_is_not_noticed(as_documented: Proxied, transport: Transport) -> None:
    async with rpc_async.connect(as_documented.target, transport=transport) as channel:
        stub = demo_pb2_grpc.DemoStub(channel)
        waiting = begin_waiting(stub, 20)
        await until(lambda: len(as_documented.executed) == 20)
        as_documented.reload_nginx()
        assert await settled(echoes(stub)) == []
        as_documented.let_go()
        assert await settled(waiting) == []
        assert as_documented.streams_ended() == 0
    check_truth(as_documented, [])


@pytest.mark.parametrize("transport", ["auto", "session"])
async def test_nginx_killed_and_started_anew_is_a_cut(as_documented: Proxied, transport: Transport) -> None:
    """The session is resumed with the same server, and the calls do not see it."""
    async with rpc_async.connect(as_documented.target, transport=transport) as channel:
        stub = demo_pb2_grpc.DemoStub(channel)
        waiting = begin_waiting(stub, 20)
        await until(lambda: len(as_documented.executed) == 20)
        more = echoes(stub)
        as_documented.kill_nginx()
        as_documented.start_nginx()
        as_documented.let_go()
        assert await settled(waiting + more) == []
    check_truth(as_documented, [])


async def test_nginx_killed_in_the_middle_of_native_calls(as_documented: Proxied) -> None:
    """They live on one connection. What is said of those that fail is true, and later calls succeed."""
    async with rpc_async.connect(as_documented.target, transport="native") as channel:
        stub = demo_pb2_grpc.DemoStub(channel)
        waiting = begin_waiting(stub, 20)
        await until(lambda: len(as_documented.executed) == 20)
        as_documented.kill_nginx()
        failures = await settled(waiting)
        assert len(failures) == 20
        check_truth(as_documented, failures)
        as_documented.start_nginx()
        channel.get_state(try_to_connect=True)
        await asyncio.wait_for(channel.channel_ready(), PATIENCE)
        assert await settled(echoes(stub)) == []


@pytest.mark.parametrize("again", [True, False], ids=["and started anew", "for good"])
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_both_servers_killed(as_documented: Proxied, transport: Transport, again: bool) -> None:
    """Nobody can resume the session, so nobody waits for that until the linger is over."""
    async with rpc_async.connect(as_documented.target, transport=transport, linger=LINGER) as channel:
        stub = demo_pb2_grpc.DemoStub(channel)
        waiting = begin_waiting(stub, 20)
        await until(lambda: len(as_documented.executed) == 20)
        as_documented.kill_servers()
        began = time.monotonic()
        if again:
            as_documented.start_servers()
        failures = await settled(waiting)
        assert time.monotonic() - began < LINGER / 2
        assert {failure.status for failure in failures} == {rpc_async.RpcStatus.CALL_FAILED}
        assert len(failures) == 20
        if again:
            assert await settled(echoes(stub)) == []
    check_truth(as_documented, failures)


# -- nginx' defaults ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_none_is_executed_twice_by_default(by_default: Proxied, transport: Transport) -> None:
    """A session is cut after each MiB, and resumed with the other server, which does not know it."""
    async with rpc_async.connect(by_default.target, transport=transport) as channel:
        failures = await settled(echoes(demo_pb2_grpc.DemoStub(channel)))
    check_truth(by_default, failures)
    names = set(by_default.executed)
    assert len(names) >= CALLS - len(failures)
    if transport == "native":
        assert failures == []


@pytest.mark.parametrize("transport", ["auto", "session"])
async def test_a_known_limit_is_kept(tmp_path: Path, transport: Transport) -> None:
    """The session goes over to a fresh stream before the limit, where it meets its server again."""
    block = documented().replace("client_max_body_size 0;", "client_max_body_size 1m;")
    with proxied(tmp_path, block) as all_of_it:
        async with rpc_async.connect(all_of_it.target, transport=transport, max_stream_bytes=1_000_000) as channel:
            for _ in range(3):
                assert await settled(echoes(demo_pb2_grpc.DemoStub(channel))) == []
        assert "too large" not in all_of_it.errors()
    assert Counter(all_of_it.executed) == Counter([f"echo-{number}" for number in range(CALLS)] * 3)
