"""`grpc.testing.TestService`, which gRPC's interop clients call: by ordinary handlers, and by manager routines.

What it says of its load goes the way that ORCA has: per call in the trailing metadata, and by a service of its own.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Iterable
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio

import rpc_async
from tests.peers import interop_pb2 as pb
from tests.peers import interop_pb2_grpc

__all__ = ["OAUTH_SCOPE", "TOKEN", "USER", "Managed", "Ordinary", "add_load_reports"]

INITIAL: Final = "x-grpc-test-echo-initial"
TRAILING: Final = "x-grpc-test-echo-trailing-bin"
LOAD: Final = "endpoint-load-metrics-bin"
SERVER_ID: Final = "rpc_async"

USER: Final = "caller@example.test"
OAUTH_SCOPE: Final = "https://example.test/auth/interop"
TOKEN: Final = "token-of-the-tests-own-making"

Pairs = Iterable[tuple[str, str | bytes]]
Request = pb.StreamingOutputCallRequest
Response = pb.StreamingOutputCallResponse


def _payload(size: int) -> pb.Payload:
    return pb.Payload(body=bytes(size))


def _echoed(metadata: Pairs, key: str) -> tuple[tuple[str, str | bytes], ...]:
    return tuple(pair for pair in metadata if pair[0] == key)


def _report(asked: pb.TestOrcaReport) -> pb.LoadReport:
    return pb.LoadReport(
        cpu_utilization=asked.cpu_utilization,
        mem_utilization=asked.memory_utilization,
        request_cost=dict(asked.request_cost),
        utilization=dict(asked.utilization),
    )


def _caller(metadata: Pairs) -> tuple[str, str]:
    """Return who calls, and for which scope, as the call's credentials say."""
    token = str(dict(metadata).get("authorization", "")).removeprefix("Bearer ")
    if token == TOKEN:
        return USER, OAUTH_SCOPE
    claims = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["iss"], ""


def _answer(request: pb.SimpleRequest, metadata: Pairs) -> pb.SimpleResponse:
    response = pb.SimpleResponse(payload=_payload(request.response_size))
    if request.fill_username or request.fill_oauth_scope:
        response.username, response.oauth_scope = _caller(metadata)
    if request.fill_server_id:
        response.server_id = SERVER_ID
    return response


def _trailing(request: pb.SimpleRequest, metadata: Pairs) -> tuple[tuple[str, str | bytes], ...]:
    pairs = _echoed(metadata, TRAILING)
    if request.HasField("orca_per_query_report"):
        pairs += ((LOAD, _report(request.orca_per_query_report).SerializeToString()),)
    return pairs


class Load:
    """What the server reports of itself, and who waits for the next report."""

    def __init__(self) -> None:
        self.now = pb.LoadReport()

    async def reports(self, request: bytes, context: Any) -> AsyncIterator[pb.LoadReport]:
        """Serve the stream of reports: one a second, which is the least that a client may ask for."""
        while True:
            yield self.now
            await asyncio.sleep(1)


def add_load_reports(load: Load, server: grpc.aio.Server) -> None:
    """Register the service that a client reads the reports from."""
    handler: grpc.RpcMethodHandler[Any, Any] = grpc.unary_stream_rpc_method_handler(
        load.reports, response_serializer=pb.LoadReport.SerializeToString
    )
    service = "xds.service.orca.v3.OpenRcaService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"StreamCoreMetrics": handler}),))


class _Servicer(interop_pb2_grpc.TestServiceServicer):
    """The generated servicer, whose methods answer UNIMPLEMENTED until they are overridden."""

    def __init__(self) -> None:
        self.load = Load()

    if TYPE_CHECKING:  # the stubs call them abstract; the generated class does not

        def EmptyCall(self, request: Any, context: Any) -> Awaitable[pb.Empty]: ...
        def UnaryCall(self, request: Any, context: Any) -> Awaitable[pb.SimpleResponse]: ...
        def StreamingOutputCall(self, request: Any, context: Any) -> AsyncIterator[Response]: ...
        def StreamingInputCall(self, request_iterator: Any, context: Any) -> Awaitable[Any]: ...
        def FullDuplexCall(self, request_iterator: Any, context: Any) -> AsyncIterator[Response]: ...
        def HalfDuplexCall(self, request_iterator: Any, context: Any) -> AsyncIterator[Response]: ...
        def UnimplementedCall(self, request: Any, context: Any) -> Awaitable[pb.Empty]: ...


class Ordinary(_Servicer):
    """Serves by gRPC's own handlers."""

    async def EmptyCall(self, request: pb.Empty, context: Any) -> pb.Empty:
        return pb.Empty()

    async def UnaryCall(self, request: pb.SimpleRequest, context: Any) -> pb.SimpleResponse:
        metadata = context.invocation_metadata()
        if initial := _echoed(metadata, INITIAL):
            await context.send_initial_metadata(initial)
        context.set_trailing_metadata(_trailing(request, metadata))
        if request.response_status.code:
            await context.abort(_code(request.response_status), request.response_status.message)
        return _answer(request, metadata)

    async def StreamingOutputCall(self, request: Request, context: Any) -> AsyncIterator[Response]:
        for parameters in request.response_parameters:
            await asyncio.sleep(parameters.interval_us / 1e6)
            yield Response(payload=_payload(parameters.size))

    async def StreamingInputCall(self, request_iterator: Any, context: Any) -> pb.StreamingInputCallResponse:
        size = 0
        async for request in request_iterator:
            size += len(request.payload.body)
        return pb.StreamingInputCallResponse(aggregated_payload_size=size)

    async def FullDuplexCall(self, request_iterator: Any, context: Any) -> AsyncIterator[Response]:
        metadata = context.invocation_metadata()
        if initial := _echoed(metadata, INITIAL):
            await context.send_initial_metadata(initial)
        context.set_trailing_metadata(_echoed(metadata, TRAILING))
        async for request in request_iterator:
            if request.response_status.code:
                await context.abort(_code(request.response_status), request.response_status.message)
            if request.HasField("orca_oob_report"):
                self.load.now = _report(request.orca_oob_report)
            for parameters in request.response_parameters:
                yield Response(payload=_payload(parameters.size))


class Managed(_Servicer):
    """Serves by manager routines, which complete their calls explicitly. They have no say in the initial metadata."""

    @rpc_async.manager(inline=True)
    def EmptyCall(self, request: pb.Empty, call: rpc_async.ServerCall[pb.Empty]) -> None:
        call.complete(pb.Empty())

    @rpc_async.manager
    async def UnaryCall(self, request: pb.SimpleRequest, call: rpc_async.ServerCall[pb.SimpleResponse]) -> None:
        metadata = call.invocation_metadata()
        call.set_trailing_metadata(_trailing(request, metadata))
        if request.response_status.code:
            await call.abort(_code(request.response_status), request.response_status.message)
        call.complete(_answer(request, metadata))

    @rpc_async.manager
    def StreamingOutputCall(self, request: Request, call: rpc_async.ServerPushCall[Response]) -> None:
        for parameters in request.response_parameters:
            call.put(Response(payload=_payload(parameters.size)))
        call.complete()

    @rpc_async.manager
    async def StreamingInputCall(
        self, call: rpc_async.ServerPullCall[pb.StreamingInputCallRequest, pb.StreamingInputCallResponse]
    ) -> None:
        size = 0
        async for request in call:
            size += len(request.payload.body)
        call.complete(pb.StreamingInputCallResponse(aggregated_payload_size=size))

    @rpc_async.manager
    async def FullDuplexCall(self, call: rpc_async.ServerPushPullCall[Response, Request]) -> None:
        async for request in call:
            if request.response_status.code:
                await call.abort(_code(request.response_status), request.response_status.message)
            if request.HasField("orca_oob_report"):
                self.load.now = _report(request.orca_oob_report)
            for parameters in request.response_parameters:
                await call.write(Response(payload=_payload(parameters.size)))
        call.complete()


def _code(status: pb.EchoStatus) -> grpc.StatusCode:
    return next(code for code in grpc.StatusCode if code.value[0] == status.code)
