"""OpenTelemetry's interceptors and instrumentors: each call is answered as without, and has its spans, joined."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest
from opentelemetry.instrumentation.grpc import (
    GrpcAioInstrumentorClient,
    GrpcAioInstrumentorServer,
    aio_client_interceptors,
    aio_server_interceptor,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

import rpc_async
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
from tests.harness import outcome, serve, until
from tests.peers.traced import KINDS, METHODS, SERVICE, Managed, call_each, fail

NOT_FOUND = 5
Transport = Literal["auto", "session", "native"]


class Traces:
    """What was recorded."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def of(self, kind: SpanKind) -> dict[str, ReadableSpan]:
        """Return the spans of a side by their methods; one each."""
        spans = [span for span in self._exporter.get_finished_spans() if span.kind is kind]
        found = {span.name.lstrip("/").rpartition("/")[2]: span for span in spans}
        assert len(found) == len(spans), [span.name for span in spans]
        assert all(SERVICE in span.name for span in spans), [span.name for span in spans]
        return found


@pytest.fixture
def traces() -> Iterator[Traces]:
    recorded = Traces()
    yield recorded
    recorded.provider.shutdown()


@pytest.fixture(params=list(KINDS))
def servicer(request: pytest.FixtureRequest) -> Any:
    return KINDS[request.param]()


def code_of(span: ReadableSpan) -> Any:
    assert span.attributes is not None
    return span.attributes["rpc.grpc.status_code"]


@pytest.mark.parametrize("transport", ["session", "native"])
async def test_server_interceptor(traces: Traces, servicer: Any, transport: Transport) -> None:
    """Its users have `transport="session"` too: what carries the session has no span, and each call has one."""
    interceptor = aio_server_interceptor(tracer_provider=traces.provider)
    async with (
        serve(servicer, interceptors=[interceptor]) as (_, target),
        rpc_async.connect(target, transport=transport) as channel,
    ):
        await call_each(channel)
        await fail(channel)
        await until(lambda: set(traces.of(SpanKind.SERVER)) == {*METHODS, "Fail"})
        assert traces.of(SpanKind.CLIENT) == {}
        assert {code_of(span) for method, span in traces.of(SpanKind.SERVER).items() if method != "Fail"} == {0}


@pytest.mark.parametrize("transport", ["auto", "native"])
async def test_client_interceptors(traces: Traces, servicer: Any, transport: Transport) -> None:
    interceptors = aio_client_interceptors(tracer_provider=traces.provider)
    async with (
        serve(servicer) as (_, target),
        rpc_async.connect(target, transport=transport, interceptors=interceptors) as channel,
    ):
        await call_each(channel)
        await fail(channel)
        await until(lambda: set(traces.of(SpanKind.CLIENT)) == {*METHODS, "Fail"})
        assert code_of(traces.of(SpanKind.CLIENT)["Fail"]) == NOT_FOUND


@pytest.mark.parametrize("transport", ["auto", "native"])
async def test_both_sides_are_one_trace(traces: Traces, servicer: Any, transport: Transport) -> None:
    async with (
        serve(servicer, interceptors=[aio_server_interceptor(tracer_provider=traces.provider)]) as (_, target),
        rpc_async.connect(
            target, transport=transport, interceptors=aio_client_interceptors(tracer_provider=traces.provider)
        ) as channel,
    ):
        await call_each(channel)
        await until(lambda: set(traces.of(SpanKind.CLIENT)) == set(traces.of(SpanKind.SERVER)) == set(METHODS))
    ours, theirs = traces.of(SpanKind.CLIENT), traces.of(SpanKind.SERVER)
    for method in METHODS:
        parent = theirs[method].parent
        assert parent is not None, method
        assert parent.span_id == ours[method].context.span_id, method


@pytest.mark.parametrize("transport", ["session", "native"])
async def test_a_manager_works_inside_its_calls_span(traces: Traces, transport: Transport) -> None:
    """What a routine traces belongs to its own call, and to no other that the session carries."""
    tracer = traces.provider.get_tracer("user")

    class Working(Managed):
        @rpc_async.manager
        async def EchoFromThread(self, request: Any, call: Any) -> None:
            with tracer.start_as_current_span(f"{SERVICE}/work-{request.payload.decode()}"):
                call.complete(demo_pb2.EchoFromThreadResponse(payload=request.payload))

    interceptor = aio_server_interceptor(tracer_provider=traces.provider)
    count = 20
    async with (
        serve(Working(), interceptors=[interceptor]) as (_, target),
        rpc_async.connect(target, transport=transport) as channel,
    ):
        stub = demo_pb2_grpc.DemoStub(channel)
        requests = [demo_pb2.EchoFromThreadRequest(payload=str(number).encode()) for number in range(count)]
        for call in [rpc_async.begin(stub.EchoFromThread, request) for request in requests]:
            assert (await outcome(call)).payload
    work = traces.of(SpanKind.INTERNAL)
    parents = {span.parent.span_id for span in work.values() if span.parent is not None}
    assert len(work) == len(parents) == count


@asynccontextmanager
async def instrumented(instrumentor: Any, traces: Traces) -> AsyncIterator[None]:
    """Do what its users do once, at the start of their program."""
    instrumentor.instrument(tracer_provider=traces.provider)
    try:
        yield
    finally:
        instrumentor.uninstrument()


@pytest.mark.parametrize("transport", ["session", "native"])
async def test_server_instrumentor(traces: Traces, servicer: Any, transport: Transport) -> None:
    async with (
        instrumented(GrpcAioInstrumentorServer(), traces),
        serve(servicer) as (_, target),
        rpc_async.connect(target, transport=transport) as channel,
    ):
        await call_each(channel)
        await fail(channel)
        await until(lambda: set(traces.of(SpanKind.SERVER)) == {*METHODS, "Fail"})


@pytest.mark.parametrize("transport", ["auto", "native"])
async def test_client_instrumentor(traces: Traces, servicer: Any, transport: Transport) -> None:
    async with (
        serve(servicer) as (_, target),
        instrumented(GrpcAioInstrumentorClient(), traces),
        rpc_async.connect(target, transport=transport) as channel,
    ):
        await call_each(channel)
        await fail(channel)
        await until(lambda: set(traces.of(SpanKind.CLIENT)) == {*METHODS, "Fail"})


async def test_client_instrumentor_and_a_session_that_was_asked_for(traces: Traces, servicer: Any) -> None:
    """The calls are answered."""
    async with (
        serve(servicer) as (_, target),
        instrumented(GrpcAioInstrumentorClient(), traces),
        rpc_async.connect(target, transport="session") as channel,
    ):
        await call_each(channel)
