"""The native wire, server's side: each call is a gRPC call of its own."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from typing import Any, Final, NoReturn, Protocol

import grpc
import grpc.aio

from rpc_async.core.outcome import Fault, Reply, fault
from rpc_async.errors import BadStubData
from rpc_async.serving.codec import Codec, MessageCodec
from rpc_async.serving.connections import Connections
from rpc_async.serving.dispatcher import Dispatcher, Routine
from rpc_async.serving.manager import RoutineKind
from rpc_async.serving.native_call import Context, NativeCall
from rpc_async.serving.pipe import UNARY, PipeRecord, Shape
from rpc_async.status import CancelReason, RpcStatus
from rpc_async.wire.faults import grpc_status_code, status_trailer
from rpc_async.wire.metadata import CALL_ID_KEY, client_call_id

__all__ = ["DecodeFirst", "NativeManagers", "abort_call", "call_details"]

_CALL_ID: Final = re.compile(r"[A-Za-z0-9_\-]{22,128}\Z")
"""At least 22 characters: 128 random bits in base64."""

call_details: Final[ContextVar[grpc.HandlerCallDetails | None]] = ContextVar("rpc_async.call_details", default=None)
"""What gRPC knew of the call in this task when it looked for the call's handler: its metadata, read already."""


async def abort_call(context: Context, failure: Fault, trailing: Iterable[tuple[str, str | bytes]] = ()) -> NoReturn:
    """End a gRPC call with a fault."""
    await context.abort(grpc_status_code(failure.grpc_code), failure.message, (*trailing, status_trailer(failure)))
    raise AssertionError("unreachable: context.abort raises")


class Peers(Protocol):
    """Knows who is connected."""

    def is_open(self, peer: str) -> bool | None:
        """Tell whether the connection from `peer` (as gRPC writes it) is open; None if that is not known."""
        ...


class NativeManagers:
    """Makes gRPC handlers of manager routines."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.peers: Peers = Connections(dispatcher.loop)
        """Tells an aborted call from a lost connection."""
        self._dispatcher = dispatcher
        self._serving = 0
        self._flushed = asyncio.Event()

    def handler(
        self, codec: Codec, kind: RoutineKind, routine: Routine, shape: Shape = UNARY
    ) -> Callable[..., Awaitable[Any]]:
        """Return the behaviour of a gRPC handler that serves one method's calls."""
        handle_type, pulls = shape.handle_type, shape.pulls

        async def serve(payload: Any, context: Context) -> Any:
            self._serving += 1
            try:
                call = self._open(context, codec, shape)
                if type(call) is Fault:
                    await abort_call(context, call)
                assert isinstance(call, NativeCall)
                piped = call if isinstance(call, PipeRecord) else None
                try:
                    try:
                        request = None if pulls else codec.decode(payload)
                    except BadStubData as error:
                        call.refuse(fault(RpcStatus.BAD_STUB_DATA, str(error), executed=False))
                    else:
                        self._dispatcher.start(call, kind, routine, request, handle_type)
                        del request
                    del payload  # a parked call holds no copy of what its manager has read
                    if piped is not None:
                        piped.carry(context)
                    if call.outcome is None and kind is RoutineKind.TASK:
                        await asyncio.sleep(0)
                    if call.outcome is None:
                        call.keep_peer()
                        if call.chose_id and piped is None:
                            await self._tell_id(call, context)
                    if call.outcome is None:
                        await call.wait()
                    if piped is not None:
                        await piped.flushed()
                except asyncio.CancelledError:
                    # gRPC injects this when the client cancels, is gone, or the deadline passes. It ends here:
                    # the manager routine is told by a flag, in a task or thread of its own.
                    call.keep_peer()
                    call.orphan(self._cause(call))
                    raise
                finally:
                    call.close()
                outcome = call.outcome
                if type(outcome) is Reply:
                    if call.trailing:
                        context.set_trailing_metadata(call.trailing)
                    return outcome.message
                assert isinstance(outcome, Fault)
                await abort_call(context, outcome, call.trailing)
            finally:
                self._serving -= 1
                if not self._serving:
                    self._flushed.set()

        return serve

    async def flush(self, timeout: float) -> None:
        """Wait until the outcomes of all settled calls are written, at most `timeout` seconds."""
        if self._serving:
            self._flushed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._flushed.wait(), timeout)

    def _open(self, context: Context, codec: Codec, shape: Shape) -> NativeCall | Fault:
        """Take a call in, or say why not."""
        dispatcher = self._dispatcher
        refusal = dispatcher.refusal()
        if refusal is not None:
            return refusal
        details = call_details.get()
        found = context.invocation_metadata() if details is None else details.invocation_metadata
        metadata: tuple[tuple[str, str | bytes], ...] = tuple(found or ())
        call_id = client_call_id(metadata)
        if call_id is not None and not _CALL_ID.match(call_id):
            return _bad_id("must be 22 to 128 letters, digits, _ or -, at random")
        if shape is UNARY:
            call = NativeCall(call_id, codec, dispatcher, metadata, context)
        else:
            call = PipeRecord(call_id, codec, dispatcher, metadata, context, shape)
        if not dispatcher.open(call):
            return _bad_id("is that of a call that runs: ids are for one call only")
        return call

    async def _tell_id(self, call: NativeCall, context: Context) -> None:
        """Tell the client the id that the server chose, if the call takes long enough for it to be of use."""
        await asyncio.sleep(0)  # let a task take its first step
        if not call.settled:
            await context.send_initial_metadata(((CALL_ID_KEY, call.call_id),))

    def _cause(self, call: NativeCall) -> CancelReason:
        """Find out why gRPC cancelled the call (S13)."""
        if self._dispatcher.stopped:
            return CancelReason.SHUTDOWN
        if call.deadline_is_past():
            return CancelReason.DEADLINE
        if self.peers.is_open(call.peer()) is False:
            return CancelReason.CLIENT_DISCONNECTED
        return CancelReason.CLIENT_ABORTED


def _bad_id(what: str) -> Fault:
    return fault(RpcStatus.INVALID_ARG, f"the metadata {CALL_ID_KEY} {what}", executed=False)


class DecodeFirst(grpc.aio.ServerInterceptor):
    """Goes before the user's interceptors: a request that does not parse is refused as BAD_STUB_DATA.

    gRPC itself would answer UNKNOWN, which says less.
    """

    def __init__(self, codecs: dict[str, MessageCodec], max_payload: int) -> None:
        self._codecs = codecs
        self._max_payload = max_payload

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method not in self._codecs:
            return handler
        behaviour: Any = handler.unary_unary
        if not inspect.iscoroutinefunction(behaviour):
            return handler
        codec = Codec(
            handler_call_details.method,
            handler.request_deserializer,
            handler.response_serializer,
            self._max_payload,
        )

        async def serve(payload: bytes, context: Context) -> bytes:
            try:
                request = codec.decode(payload)
            except BadStubData as error:
                await abort_call(context, fault(RpcStatus.BAD_STUB_DATA, str(error), executed=False))
            reply: bytes = codec.encode(await behaviour(request, context))
            return reply

        return grpc.unary_unary_rpc_method_handler(serve)
