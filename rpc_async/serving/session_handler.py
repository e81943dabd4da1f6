"""Calls of a session that no manager routine serves directly: ordinary handlers, and what stands behind interceptors.

Each gets a task of its own, in which the interceptors and the handler run as gRPC runs them, with a context that
looks like gRPC's.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio

from rpc_async.core.frames import FrameKind
from rpc_async.core.outcome import Fault, fault
from rpc_async.serving.dispatcher import Dispatcher
from rpc_async.serving.handler_context import HandlerContext, SyncHandlerContext
from rpc_async.serving.record import CallRecord
from rpc_async.status import CancelReason, RpcStatus
from rpc_async.wire.faults import fault_from_failure
from rpc_async.wire.metadata import CALL_ID_KEY, Metadatum
from rpc_async.wire.session import fault_head, reply_head

if TYPE_CHECKING:
    from rpc_async.serving.session import Identity, ServedSession

__all__ = ["HandlerCall", "HandlerCalls"]

_LOGGER: Final = logging.getLogger("rpc_async.serving")

_REPLY, _REPLY_WITH_HEAD, _FAULT = int(FrameKind.REPLY), int(FrameKind.REPLY_WITH_HEAD), int(FrameKind.FAULT)

MAX_CALLS: Final = 65_536
"""Calls of one server: those that wait behind an interceptor count nowhere else."""

Handler = Any  # grpc.RpcMethodHandler, whose type arguments exist in its stubs only
Find = Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]


class HandlerCalls:
    """Serves such calls of one server."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        find: Callable[[grpc.HandlerCallDetails], Handler | None],
        interceptors: Iterable[grpc.aio.ServerInterceptor],
        max_payload: int,
    ) -> None:
        """Make it: `find` looks a method's handler up, `interceptors` stand before it, the first one outermost."""
        self.dispatcher: Final = dispatcher
        self.max_payload: Final = max_payload
        self.running: int = 0
        """How many have not ended."""

        async def found(details: grpc.HandlerCallDetails) -> Handler | None:
            return find(details)

        self.find: Find = found
        for interceptor in reversed(tuple(interceptors)):
            self.find = _intercepted(interceptor, self.find)

    def start(
        self,
        session: ServedSession,
        number: int,
        method: str,
        payload: bytes,
        timeout: float | None,
        metadata: tuple[tuple[str, str | bytes], ...],
    ) -> HandlerCall | None:
        """Start a call. See `ServeOtherwise`."""
        if self.running >= MAX_CALLS:
            return None
        self.running += 1
        return HandlerCall(self, session, number, method, payload, timeout, metadata)

    def ended(self, _: object) -> None:
        """A call has ended."""
        self.running -= 1


def _intercepted(interceptor: grpc.aio.ServerInterceptor, find: Find) -> Find:
    async def intercepted(details: grpc.HandlerCallDetails) -> Handler | None:
        return await interceptor.intercept_service(find, details)

    return intercepted


class HandlerCall:
    """One call."""

    __slots__ = (
        "_calls",
        "_record",
        "_task",
        "call_id",
        "cause",
        "context",
        "deadline",
        "metadata",
        "method",
        "number",
        "session",
    )

    def __init__(
        self,
        calls: HandlerCalls,
        session: ServedSession,
        number: int,
        method: str,
        payload: bytes,
        timeout: float | None,
        metadata: tuple[tuple[str, str | bytes], ...],
    ) -> None:
        loop = session.loop
        self.session: Final[ServedSession] = session
        self.number: Final = number
        self.method: Final = method
        self.call_id: Final = session.ids.of(number)
        own = tuple(pair for pair in metadata if pair[0] != CALL_ID_KEY)  # a session's calls have ids already
        self.metadata: Final = tuple(Metadatum(*pair) for pair in (*own, (CALL_ID_KEY, self.call_id)))
        self.deadline: Final = None if timeout is None else loop.time() + timeout
        self.cause: CancelReason | None = None
        """Why the client does not wait any more."""
        self.context: Final[HandlerContext] = HandlerContext(self)
        self._calls = calls
        self._record: CallRecord | None = None
        self._task = loop.create_task(self._run(payload))
        self._task.add_done_callback(calls.ended)
        if self.deadline is not None:
            timer = loop.call_at(self.deadline, self.orphan, CancelReason.DEADLINE)
            self._task.add_done_callback(lambda _: timer.cancel())

    @property
    def identity(self) -> Identity:
        """Who calls."""
        return self.session.identity

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The server's loop."""
        return self.session.loop

    # -- what the client says ---------------------------------------------------------------------------

    def ask(self) -> RpcStatus:
        """Ask the manager routine behind the interceptors, if it is one."""
        record = self._calls.dispatcher.table.find(self.call_id, self.session.loop.time())
        if record is None:
            return RpcStatus.CANNOT_SUPPORT
        record.ask_cancel()
        return RpcStatus.OK

    def orphan(self, reason: CancelReason) -> None:
        """Cancel the handler's task, as gRPC does."""
        if self.cause is None:
            self.cause = reason
            self._task.cancel()

    def watch(self) -> None:
        """Watch the manager routine behind the interceptors, once it runs, if it is one."""
        table = self._calls.dispatcher.table
        record = table.find(self.call_id, self.session.loop.time())
        if record is None:
            table.expect(self.call_id, self._watch)
        else:
            self._watch(record)

    def _watch(self, record: CallRecord) -> None:
        if self._record is None:
            self._record = record
            record.subscribe(self._progressed)
        self._progressed()

    def _progressed(self) -> None:
        record = self._record
        if record is not None and record.last_progress is not None:
            self._calls.dispatcher.mailbox.run(self.session.progressed, self.number, record)

    # -- running ----------------------------------------------------------------------------------------

    async def _run(self, payload: bytes) -> None:
        context = self.context
        failure: Fault | None = None
        reply = b""
        try:
            reply = await self._serve(payload)
            if context.status is not grpc.StatusCode.OK:
                failure = self._failure(context.status, context.text)
            elif len(reply) > self._calls.max_payload:
                text = f"{self.method}: the reply takes {len(reply)} bytes and may take {self._calls.max_payload}"
                failure = fault(RpcStatus.OUT_OF_MEMORY, text, executed=True)
        except grpc.aio.AbortError:
            failure = self._failure(context.status, context.text)
        except asyncio.CancelledError:
            if self.cause is CancelReason.DEADLINE:
                failure = fault(
                    RpcStatus.CALL_CANCELLED, "the deadline passed", cancel_reason=self.cause, executed=True
                )
            elif self.cause is None:
                text = "the handler raised CancelledError, though nobody cancelled the call"
                failure = fault(RpcStatus.CALL_FAILED, text, executed=True)
        except Exception as error:
            _LOGGER.exception("%s [%s…]: the handler raised, and the call fails", self.method, self.call_id[:8])
            code = grpc.StatusCode.UNKNOWN if context.status is grpc.StatusCode.OK else context.status
            failure = self._failure(code, f"Unexpected {type(error)}: {error}")
        context.ended()
        self._calls.dispatcher.table.expect(self.call_id, None)
        if failure is not None:
            self._end(_FAULT, fault_head(failure, context.both()))
        elif any(context.both()):
            self._end(_REPLY_WITH_HEAD, reply_head(reply, context.both()))
        else:
            self._end(_REPLY, reply)

    async def _serve(self, payload: bytes) -> bytes:
        handler = await self._calls.find(_Details(self.method, self.metadata))
        context = self.context
        if handler is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        if handler.request_streaming or handler.response_streaming:
            text = f"{self.method} is a streaming method: a session carries unary calls only"
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, text)
        request = handler.request_deserializer(payload) if handler.request_deserializer else payload
        behaviour: Any = handler.unary_unary
        if inspect.iscoroutinefunction(behaviour):
            reply = await behaviour(request, context)
        else:
            pool = self._calls.dispatcher.pool
            reply = await self.session.loop.run_in_executor(pool, behaviour, request, SyncHandlerContext(context))
        if context.status is not grpc.StatusCode.OK:
            return b""
        return handler.response_serializer(reply) if handler.response_serializer else bytes(reply)

    def _failure(self, code: grpc.StatusCode, text: str) -> Fault:
        failure = fault_from_failure(code.value[0], text, self.context.trailing)
        return failure

    def _end(self, kind: int, payload: bytes) -> None:
        self.session.end(self.number, kind, payload)


class _Details(grpc.HandlerCallDetails):
    """What interceptors and handlers are looked up by."""

    def __init__(self, method: str, metadata: tuple[Metadatum, ...]) -> None:
        self.method = method
        self.invocation_metadata = metadata
