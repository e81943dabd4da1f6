"""py-async-grpc-prometheus and grpc-interceptor: interceptors of other people's, on each wire and kind of servicer."""

# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any, Literal

import grpc
import pytest
from grpc_interceptor import AsyncServerInterceptor
from grpc_interceptor.exception_to_status import AsyncExceptionToStatusInterceptor
from grpc_interceptor.exceptions import NotFound
from prometheus_client import CollectorRegistry
from py_async_grpc_prometheus.prometheus_async_client_interceptor import get_client_interceptors
from py_async_grpc_prometheus.prometheus_async_server_interceptor import PromAsyncServerInterceptor

import rpc_async
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
from tests.harness import Servicer, outcome, serve, until
from tests.peers.traced import KINDS, METHODS, SERVICE, call_each, fail

TYPES = {"Echo": "UNARY", "EchoFromThread": "UNARY", "Upload": "CLIENT_STREAMING", "Download": "SERVER_STREAMING",
         "Chat": "BIDI_STREAMING"}  # fmt: skip
Transport = Literal["auto", "session", "native"]


@pytest.fixture(params=list(KINDS))
def servicer(request: pytest.FixtureRequest) -> Any:
    return KINDS[request.param]()


def count(registry: CollectorRegistry, side: str, what: str, method: str, **labels: str) -> float:
    """Return a counter of a method's."""
    given = {"grpc_service": SERVICE, "grpc_method": method, "grpc_type": TYPES.get(method, "UNARY"), **labels}
    return registry.get_sample_value(f"grpc_{side}_{what}_total", given) or 0.0


@pytest.mark.parametrize("transport", ["session", "native"])
async def test_prometheus_counts_calls_of_the_server(servicer: Any, transport: Transport) -> None:
    registry = CollectorRegistry()
    interceptor = PromAsyncServerInterceptor(enable_handling_time_histogram=True, registry=registry)
    async with (
        serve(servicer, interceptors=[interceptor]) as (_, target),
        rpc_async.connect(target, transport=transport) as channel,
    ):
        await call_each(channel)
        for method in METHODS:
            assert count(registry, "server", "started", method) == 1, method
        await until(
            lambda: all(count(registry, "server", "handled", method, grpc_code="OK") == 1 for method in METHODS)
        )
        assert count(registry, "server", "msg_sent", "Download") == count(registry, "server", "msg_sent", "Chat") == 3
    services = {sample.labels.get("grpc_service") for metric in registry.collect() for sample in metric.samples}
    assert services == {SERVICE}, "the session's own stream is no call of anybody's"


def counted(registry: CollectorRegistry) -> set[Any]:
    """Return every count, but for those of seconds."""
    samples = [sample for metric in registry.collect() for sample in metric.samples]
    return {
        (sample.name, *sorted(sample.labels.items()), sample.value)
        for sample in samples
        if sample.name.endswith("_total")
    }


@pytest.mark.parametrize("transport", ["auto", "native"])
async def test_prometheus_counts_calls_of_the_client_as_on_a_plain_channel(servicer: Any, transport: Transport) -> None:
    ours, plain = CollectorRegistry(), CollectorRegistry()
    async with serve(servicer) as (_, target):
        interceptors = get_client_interceptors(registry=ours)
        async with rpc_async.connect(target, transport=transport, interceptors=interceptors) as channel:
            await call_each(channel)
        async with grpc.aio.insecure_channel(target, interceptors=get_client_interceptors(registry=plain)) as theirs:
            await call_each(theirs)
    assert counted(ours) == counted(plain)
    assert count(ours, "client", "started", "Echo") == 1


class Seeing(AsyncServerInterceptor):
    """Notes the calls, what they ask, and what they answer."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []

    async def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
        answer = method(request_or_iterator, context)
        if not hasattr(answer, "__aiter__"):
            answer = await answer
        self.seen.append((method_name, type(request_or_iterator).__name__, type(answer).__name__))
        return answer


@pytest.mark.parametrize("transport", ["session", "native"])
async def test_grpc_interceptor_sees_messages(servicer: Any, transport: Transport) -> None:
    interceptor = Seeing()
    async with (
        serve(servicer, interceptors=[interceptor]) as (_, target),
        rpc_async.connect(target, transport=transport) as channel,
    ):
        await call_each(channel)
        await fail(channel)
    assert [name for name, _, _ in interceptor.seen] == [f"/{SERVICE}/{method}" for method in METHODS]
    assert interceptor.seen[0][1:] == ("EchoRequest", "EchoResponse")
    assert interceptor.seen[1][1:] == ("EchoFromThreadRequest", "EchoFromThreadResponse")


@pytest.mark.parametrize("transport", ["session", "native"])
async def test_grpc_interceptor_turns_exceptions_into_codes(transport: Transport) -> None:
    class Raising(Servicer):
        async def Echo(self, request: demo_pb2.EchoRequest, context: Any) -> demo_pb2.EchoResponse:
            raise NotFound("no such echo")

    async with (
        serve(Raising(), interceptors=[AsyncExceptionToStatusInterceptor()]) as (_, target),
        rpc_async.connect(target, transport=transport) as channel,
    ):
        failure = await outcome(demo_pb2_grpc.DemoStub(channel).Echo(demo_pb2.EchoRequest()))
    assert (failure.code(), failure.details()) == (grpc.StatusCode.NOT_FOUND, "no such echo")
