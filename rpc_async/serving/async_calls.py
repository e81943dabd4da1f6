"""The service `AsyncCalls`: what gRPC lacks for a call that runs, by call id, for clients in any language."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final, NoReturn

import grpc
import grpc.aio

from rpc_async.core.outcome import fault
from rpc_async.serving.dispatcher import Dispatcher
from rpc_async.serving.native import abort_call
from rpc_async.serving.record import CallRecord
from rpc_async.serving.table import cancel
from rpc_async.status import RpcStatus
from rpc_async.v1 import calls_pb2, calls_pb2_grpc, types_pb2
from rpc_async.wire.calls import info_to_proto, state_to_proto

__all__ = ["AsyncCallsServicer"]

MAX_WATCHERS: Final = 64
"""How many may watch one call at a time."""

_ORDINARY: Final = "the call is served by an ordinary gRPC handler, which cannot be asked to stop"

_Context = grpc.aio.ServicerContext[Any, Any]


class AsyncCallsServicer(calls_pb2_grpc.AsyncCallsServicer):
    """Serves one server's calls, whatever wire they came by."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def GetCall(self, request: calls_pb2.GetCallRequest, context: Any) -> calls_pb2.GetCallResponse:
        record = await self._find(request.call_id, context)
        return calls_pb2.GetCallResponse(call=_info(record))

    async def WatchCall(
        self, request: calls_pb2.WatchCallRequest, context: Any
    ) -> AsyncIterator[calls_pb2.WatchCallResponse]:
        record = await self._find(request.call_id, context)
        if record.watchers >= MAX_WATCHERS:
            await _abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_WATCHERS} watch this call already")
        changed = asyncio.Event()
        unsubscribe = record.subscribe(lambda: self._wake(changed))
        told: types_pb2.CallInfo | None = None
        try:
            while True:
                changed.clear()
                info = _info(record)
                if info != told:
                    yield calls_pb2.WatchCallResponse(call=info)
                    told = info
                if info.state == types_pb2.CALL_STATE_SETTLED:
                    return
                await changed.wait()
        finally:
            unsubscribe()

    async def CancelCall(self, request: calls_pb2.CancelCallRequest, context: Any) -> calls_pb2.CancelCallResponse:
        table, now = self._dispatcher.table, self._dispatcher.loop.time()
        record = table.find(request.call_id, now)
        if record is None:
            if request.call_id in table.ordinary:
                await abort_call(context, fault(RpcStatus.CANNOT_SUPPORT, _ORDINARY, executed=False))
            table.keep_cancel(request.call_id[:128], request.abort, now)
            return calls_pb2.CancelCallResponse()
        cancel(record, abort=request.abort)
        return calls_pb2.CancelCallResponse(state=state_to_proto(record.state))

    async def Session(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:
        """Say no: where there are sessions, another handler comes first (`serving/session.py`)."""
        await _abort(context, grpc.StatusCode.UNIMPLEMENTED, "the server does not offer sessions")
        yield

    def _wake(self, changed: asyncio.Event) -> None:
        self._dispatcher.mailbox.post(changed.set)

    async def _find(self, call_id: str, context: _Context) -> CallRecord:
        record = self._dispatcher.table.find(call_id, self._dispatcher.loop.time())
        if record is None:
            await _abort(
                context,
                grpc.StatusCode.NOT_FOUND,
                "no such call: it has not arrived yet, or it settled some time ago",
            )
        return record


async def _abort(context: _Context, code: grpc.StatusCode, text: str) -> NoReturn:
    await context.abort(code, text)
    raise AssertionError("unreachable: context.abort raises")


def _info(record: CallRecord) -> types_pb2.CallInfo:
    return info_to_proto(record.state, record.cancel_reason, record.last_progress, record.status)
