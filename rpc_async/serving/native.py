"""The native wire, server's side: each call is a gRPC call of its own."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextvars import ContextVar, copy_context
from typing import Any, Final, NoReturn, Protocol

import grpc
import grpc.aio

from rpc_async.core.outcome import Fault, Reply, fault
from rpc_async.errors import BadStubData
from rpc_async.serving.codec import Codec
from rpc_async.serving.connections import Connections
from rpc_async.serving.dispatcher import Dispatcher, Routine
from rpc_async.serving.manager import RoutineKind
from rpc_async.serving.native_call import Context, NativeCall
from rpc_async.serving.pipe import UNARY, PipeRecord, Shape
from rpc_async.status import CancelReason, RpcStatus
from rpc_async.wire.faults import grpc_status_code
from rpc_async.wire.metadata import CALL_ID_KEY, client_call_id
from rpc_async.wire.trailers import DEFAULT_MAX_TRAILERS, fault_to_trailers

__all__ = ["NativeManagers", "abort_call", "call_details"]

_CALL_ID: Final = re.compile(r"[A-Za-z0-9_\-]{22,128}\Z")
"""At least 22 characters: 128 random bits in base64."""

call_details: Final[ContextVar[grpc.HandlerCallDetails | None]] = ContextVar("rpc_async.call_details", default=None)
"""What gRPC knew of the call in this task when it looked for the call's handler: its metadata, read already."""


async def abort_call(
    context: Context,
    failure: Fault,
    trailing: Iterable[tuple[str, str | bytes]] = (),
    max_trailers: int = DEFAULT_MAX_TRAILERS,
) -> NoReturn:
    """End a gRPC call with a fault, of which so many bytes of trailers are sent at the most (C15)."""
    trailers = fault_to_trailers(failure, tuple(trailing), max_trailers)
    await context.abort(grpc_status_code(failure.grpc_code), *trailers)
    raise AssertionError("unreachable: context.abort raises")


class Peers(Protocol):
    """Knows who is connected."""

    def is_open(self, peer: str) -> bool | None:
        """Tell whether the connection from `peer` (as gRPC writes it) is open; None if that is not known."""
        ...


class NativeManagers:
    """Makes gRPC handlers of manager routines."""

    def __init__(self, dispatcher: Dispatcher, *, intercepted: bool, max_trailers: int) -> None:
        """Make it.

        Args:
            dispatcher: Starts the routines.
            intercepted: Users' interceptors stand before the handlers.
            max_trailers: Bytes that a fault may take in gRPC's trailers.
        """
        self._max_trailers = max_trailers
        self.peers: Peers | None = None
        """Tells an aborted call from a lost connection. None: it is made when it is asked."""
        self._dispatcher = dispatcher
        self._intercepted = intercepted
        self._serving = 0
        self._flushed = asyncio.Event()

    def handler(
        self, codec: Codec, kind: RoutineKind, routine: Routine, shape: Shape = UNARY
    ) -> Callable[[Any, Context], Any]:
        """Return the behaviour of a gRPC handler that serves one method's calls.

        It is a coroutine where one reply comes out, and an async generator where chunks do: interceptors await the one,
        and iterate over the other.
        """
        return (self._pushing if shape.pushes else self._replying)(codec, kind, routine, shape)

    def _replying(
        self, codec: Codec, kind: RoutineKind, routine: Routine, shape: Shape
    ) -> Callable[[Any, Context], Awaitable[Any]]:
        async def serve(payload: Any, context: Context) -> Any:
            self._serving += 1
            try:
                call = self._open(context, codec, shape)
                if type(call) is Fault:
                    await abort_call(context, call)
                assert isinstance(call, NativeCall)
                piped = call if isinstance(call, PipeRecord) else None
                try:
                    self._start(call, codec, kind, routine, shape, payload)
                    if piped is not None:
                        piped.carry(context, payload if self._intercepted else None)
                    del payload  # a parked call holds no copy of what its manager has read
                    if call.outcome is None and kind is RoutineKind.TASK:
                        await asyncio.sleep(0)
                    if call.outcome is None:
                        call.keep_peer()
                        if call.chose_id and piped is None:
                            await self._tell_id(call, context)
                    if call.outcome is None:
                        await call.wait()
                    if piped is not None:
                        await piped.introduced()
                except asyncio.CancelledError:
                    # gRPC injects this when the client cancels, is gone, or the deadline passes. It ends here:
                    # the manager routine is told by a flag, in a task or thread of its own.
                    self._gone(call)
                    raise
                finally:
                    call.close()
                return await self._outcome(call, context)
            finally:
                self._served()

        return serve

    def _pushing(
        self, codec: Codec, kind: RoutineKind, routine: Routine, shape: Shape
    ) -> Callable[[Any, Context], AsyncIterator[Any]]:
        async def serve(payload: Any, context: Context) -> AsyncIterator[Any]:
            self._serving += 1
            try:
                call = self._open(context, codec, shape)
                if type(call) is Fault:
                    await abort_call(context, call)
                assert isinstance(call, PipeRecord)
                pushes = call.push_end
                assert pushes is not None
                # A client that is gone while gRPC writes ends gRPC's task, and nobody asks for the next chunk.
                call_at_end: Callable[[Any], object] | None = getattr(context, "add_done_callback", None)
                if call_at_end is not None:
                    call_at_end(lambda _: self._ended(call))
                try:
                    self._start(call, codec, kind, routine, shape, payload)
                    call.carry(context, payload if self._intercepted else None)
                    del payload
                    if call.chose_id and call.pull_end is None:
                        await call.introduce(context)
                    while (chunk := await pushes.take()) is not None:
                        await call.introduce(context)
                        yield chunk
                        pushes.sent()
                    if call.outcome is None:
                        await call.wait()
                    await call.introduced()
                except (asyncio.CancelledError, GeneratorExit, grpc.aio.BaseError):
                    self._gone(call)  # as above; or nobody iterates any more
                    raise
                except Exception as error:
                    call.broke(error)
                finally:
                    call.close()
                await self._outcome(call, context)
            finally:
                self._served()

        return serve

    def _start(
        self, call: NativeCall, codec: Codec, kind: RoutineKind, routine: Routine, shape: Shape, payload: Any
    ) -> None:
        dispatcher = self._dispatcher
        try:
            request = None if shape.pulls else codec.decode(payload)
        except BadStubData as error:
            call.refuse(fault(RpcStatus.BAD_STUB_DATA, str(error), executed=False))
        except (KeyboardInterrupt, SystemExit) as error:
            call.refuse(fault(RpcStatus.BAD_STUB_DATA, f"{call.method}: the request was not read", executed=False))
            dispatcher.let_through(error)
        else:
            dispatcher.start(call, kind, routine, request, copy_context(), shape.handle_type)

    async def _outcome(self, call: NativeCall, context: Context) -> Any:
        """Return the reply, or end the call with its fault."""
        outcome = call.outcome
        if type(outcome) is Reply:
            if call.trailing:
                context.set_trailing_metadata(call.trailing)
            return outcome.message
        assert isinstance(outcome, Fault)
        return await abort_call(context, outcome, call.trailing, self._max_trailers)

    def _gone(self, call: NativeCall) -> None:
        call.keep_peer()
        call.orphan(self._cause(call))

    def _ended(self, call: PipeRecord) -> None:
        """GRPC's task has ended. That is the end of the call, if its end has not come before."""
        if not call.closed:
            self._gone(call)
            call.close()

    def _served(self) -> None:
        self._serving -= 1
        if not self._serving:
            self._flushed.set()

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
        details = None if self._intercepted else call_details.get()  # interceptors may have changed it
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
        if self.peers is None:
            self.peers = Connections(self._dispatcher.loop)
        if self.peers.is_open(call.peer()) is False:
            return CancelReason.CLIENT_DISCONNECTED
        return CancelReason.CLIENT_ABORTED


def _bad_id(what: str) -> Fault:
    return fault(RpcStatus.INVALID_ARG, f"the metadata {CALL_ID_KEY} {what}", executed=False)
