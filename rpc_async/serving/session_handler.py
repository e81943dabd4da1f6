"""Calls of a session that no manager routine serves directly: ordinary handlers, and what stands behind interceptors.

Each gets a task of its own, in which the interceptors and the handler run as gRPC runs them, with a context that
looks like gRPC's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import grpc
import grpc.aio

from rpc_async.core.frames import FrameKind
from rpc_async.core.outcome import Fault, fault
from rpc_async.errors import BadStubData
from rpc_async.serving.dispatcher import Dispatcher
from rpc_async.serving.handler_context import HandlerContext, Pairs
from rpc_async.serving.interceptors import Gate
from rpc_async.serving.record import CallRecord, shutdown_fault
from rpc_async.serving.running import run_handler
from rpc_async.serving.session_call import SessionCall
from rpc_async.status import CancelReason, RpcStatus
from rpc_async.wire.faults import fault_from_failure
from rpc_async.wire.metadata import Metadatum, call_metadata
from rpc_async.wire.session import BothMetadata, fault_head, reply_head

if TYPE_CHECKING:
    from rpc_async.serving.session import Identity, ManagerMethod, ServedSession

__all__ = ["Behind", "CallDetails", "HandlerCall", "HandlerCalls"]

_REPLY, _REPLY_WITH_HEAD, _FAULT = int(FrameKind.REPLY), int(FrameKind.REPLY_WITH_HEAD), int(FrameKind.FAULT)

MAX_CALLS: Final = 65_536
"""Calls of one server: those that wait behind an interceptor count nowhere else."""

Handler = Any  # grpc.RpcMethodHandler, whose type arguments exist in its stubs only
Find = Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]


class Behind(NamedTuple):
    """A manager routine's method that stands behind interceptors."""

    handler: Handler
    """What the interceptors are given."""
    target: ManagerMethod
    """What serves a call whose handler they have left as it was."""


class HandlerCalls:
    """Serves such calls of one server."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        find: Callable[[grpc.HandlerCallDetails], Handler | None],
        interceptors: Iterable[grpc.aio.ServerInterceptor],
        gate: Gate | None,
        behind: Callable[[str], Behind | None],
        max_payload: int,
    ) -> None:
        """Make it.

        Args:
            dispatcher: What all wires of the server share.
            find: Looks a method's handler up.
            interceptors: They stand before it, the first one outermost.
            gate: It stands before them, if there are any.
            behind: Finds the manager routine behind them, if one serves a method.
            max_payload: Bytes: the largest reply.
        """
        self.gate: Final = gate
        self.behind: Final = behind
        self.dispatcher: Final = dispatcher
        self.max_payload: Final = max_payload
        self._running: set[HandlerCall] = set()

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
        if len(self._running) >= MAX_CALLS:
            return None
        call = HandlerCall(self, session, number, method, payload, timeout, metadata)
        self._running.add(call)
        return call

    def ended(self, call: HandlerCall) -> None:
        """A call has ended."""
        self._running.discard(call)

    def cut_off(self) -> None:
        """The server has shut down: end the calls that still run (S15)."""
        for call in tuple(self._running):
            call.orphan(CancelReason.SHUTDOWN)


def _intercepted(interceptor: grpc.aio.ServerInterceptor, find: Find) -> Find:
    async def intercepted(details: grpc.HandlerCallDetails) -> Handler | None:
        return await interceptor.intercept_service(find, details)

    return intercepted


class HandlerCall:
    """One call."""

    __slots__ = (
        "_asked",
        "_calls",
        "_found",
        "_given",
        "_payload",
        "_record",
        "_task",
        "_timer",
        "_watched",
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
        self.metadata: Final = call_metadata(metadata, self.call_id, session.identity.user_agent)
        self.deadline: Final = None if timeout is None else loop.time() + timeout
        self.cause: CancelReason | None = None
        """Why the client does not wait any more."""
        self.context: Final = _SessionContext(self, payload)
        self._calls = calls
        self._given = metadata
        self._payload = payload
        self._record: CallRecord | None = None
        self._found = self._asked = self._watched = False
        self._timer: asyncio.TimerHandle | None = None
        if self.deadline is not None:
            self._timer = loop.call_at(self.deadline, self.orphan, CancelReason.DEADLINE)
        self._task = loop.create_task(self._run(), context=calls.dispatcher.context.copy())

    @property
    def identity(self) -> Identity:
        """Who calls."""
        return self.session.identity

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The server's loop."""
        return self.session.loop

    # -- what the client says ---------------------------------------------------------------------------

    def ask(self) -> RpcStatus | None:
        """Ask the manager routine behind the interceptors, if it is one, and once that is known."""
        if not self._found:
            self._asked = True
            return None
        table, now = self._calls.dispatcher.table, self.session.loop.time()
        record = table.find(self.call_id, now)
        if record is not None:
            record.ask_cancel()
        elif self._calls.behind(self.method) is None:
            return RpcStatus.CANNOT_SUPPORT
        else:
            table.keep_cancel(self.call_id, False, now)  # an interceptor's part runs, and the manager's is to come
        return RpcStatus.OK

    def orphan(self, reason: CancelReason) -> None:
        """Cancel the handler's task, as gRPC does. A client that still waits is told why."""
        if self.cause is not None:
            return
        self.cause = reason
        if not self.context.cut_off():
            executed = None if self.context.begun else False  # what was begun may be an interceptor's part
            if reason is CancelReason.DEADLINE:
                text = "Deadline Exceeded"  # gRPC's own words
                self.fail(fault(RpcStatus.CALL_CANCELLED, text, cancel_reason=reason, executed=executed))
            elif reason is CancelReason.SHUTDOWN:
                self.fail(shutdown_fault(executed=executed))
        self._task.cancel()

    def watch(self) -> None:
        """Watch the manager routine behind the interceptors, once it runs, if it is one."""
        self._watched = True
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

    async def _run(self) -> None:
        dispatcher, context = self._calls.dispatcher, self.context
        try:
            finding = self._calls.find(CallDetails(self.method, self.metadata))
            await run_handler(finding, context, dispatcher.pool, self._take)
        except asyncio.CancelledError:
            if self.cause is None and not context.cut_off():
                text = "the handler raised CancelledError, though nobody cancelled the call"
                self.fail(fault(RpcStatus.CALL_FAILED, text, executed=True))
        except (KeyboardInterrupt, SystemExit) as error:
            dispatcher.let_through(error)
        finally:
            if self._timer is not None:
                self._timer.cancel()
            dispatcher.table.expect(self.call_id, None)
            self._calls.ended(self)
            context.ended()

    def _take(self, handler: Handler) -> Handler | None:
        """The interceptors have given the call's handler: run it, unless it is that of a manager routine as it was."""
        calls = self._calls
        self._found = True
        behind = calls.behind(self.method)
        if behind is not None and handler is behind.handler:
            self._hand_over(behind.target)
            return None
        if self._asked and (status := self.ask()) is not None:
            self.session.note(self.number, status)
        return handler if calls.gate is None else calls.gate.decode_first(self.method, handler)

    def _hand_over(self, target: ManagerMethod) -> None:
        """Have a manager routine serve the call, as it serves one that no interceptor stands before."""
        session, number, dispatcher = self.session, self.number, self._calls.dispatcher
        if self.context.cut_off() or self.cause is not None:
            return
        refusal = dispatcher.refusal()
        if refusal is not None:
            self.fail(refusal)
            return
        codec, kind, routine = target
        try:
            request = codec.decode(self._payload)
        except BadStubData as error:
            self.fail(fault(RpcStatus.BAD_STUB_DATA, str(error), executed=False))
            return
        except (KeyboardInterrupt, SystemExit) as error:
            self.fail(fault(RpcStatus.BAD_STUB_DATA, f"{self.method}: the request was not read", executed=False))
            dispatcher.let_through(error)
            return
        session.machine.calls[number] = record = SessionCall(session, number, codec, dispatcher, self._given)
        dispatcher.running += 1
        if self.deadline is not None:
            record.expire_in(max(self.deadline - session.loop.time(), 0.0), session.loop)
        if dispatcher.table.expects:
            dispatcher.table.meet(record, session.loop)
        if self._asked:
            session.note(number, record.ask())
        if self._watched:
            record.watch()
        dispatcher.start(record, kind, routine, request, copy_context())

    def succeed(self, reply: bytes, metadata: BothMetadata) -> None:
        """Send the reply."""
        limit = self._calls.max_payload
        if len(reply) > limit:
            text = f"SERVER: Sent message larger than max ({len(reply)} vs. {limit})"  # gRPC's own words
            self.fail(fault(RpcStatus.OUT_OF_MEMORY, text, executed=True))
        elif any(metadata):
            self.session.end(self.number, _REPLY_WITH_HEAD, reply_head(reply, metadata))
        else:
            self.session.end(self.number, _REPLY, reply)

    def fail(self, failure: Fault, metadata: BothMetadata = BothMetadata()) -> None:  # noqa: B008  # it is immutable
        """Send a failure."""
        self.session.end(self.number, _FAULT, fault_head(failure, metadata))


class _SessionContext(HandlerContext):
    """The context of such a call: one request came with it, and one reply may go with its outcome."""

    def __init__(self, call: HandlerCall, payload: bytes) -> None:
        super().__init__(call)
        self._call = call
        self._payload: bytes | None = payload
        self._replies: list[bytes] = []

    async def receive(self) -> bytes | None:
        payload, self._payload = self._payload, None
        return payload

    async def put(self, message: bytes) -> None:
        if self._replies:
            raise grpc.aio.UsageError("a unary call has one reply, and it was written before")
        self._replies.append(message)

    def send_outcome(self, number: int, text: str, trailing: Pairs) -> None:
        metadata = self.both()
        if number:
            self._call.fail(fault_from_failure(number, text, trailing), metadata)
        elif self._replies:
            self._call.succeed(self._replies[0], metadata)
        else:
            text = f"{self.call.method}: the handler has written no reply to a unary call"
            self._call.fail(fault(RpcStatus.INTERNAL_ERROR, text, executed=True), metadata)


class CallDetails(grpc.HandlerCallDetails):
    """What interceptors and handlers are looked up by."""

    def __init__(self, method: str, metadata: tuple[Metadatum, ...]) -> None:
        self.method: str = method
        self.invocation_metadata: Any = metadata  # the base class leaves its type to its users
