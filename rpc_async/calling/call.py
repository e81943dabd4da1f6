"""`AsyncCall`: the completion handle, which the client holds for one call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Generator, Sequence
from contextvars import Context, copy_context
from typing import Any, Final, Literal, NoReturn, Protocol, TypeVar

import grpc
import grpc.aio

from rpc_async.calling.cancel_request import CancelRequest
from rpc_async.checks import checked_seconds
from rpc_async.core.client_call import ClientCall
from rpc_async.core.outcome import Fault, Outcome, Progress, Reply, fault
from rpc_async.errors import AsyncCallPending, CallError, error_class
from rpc_async.latch import Change, Latch
from rpc_async.mailbox import Mailbox, let_through
from rpc_async.notification.targets import Target
from rpc_async.notification.told import Told
from rpc_async.status import AsyncEvent, CancelReason, RpcStatus
from rpc_async.wire.faults import grpc_status_code

__all__ = ["AsyncCall", "CallDriver", "CallNames"]

_LOGGER: Final = logging.getLogger("rpc_async.calling")

ReplyT = TypeVar("ReplyT")
T = TypeVar("T")

_Callback = tuple[Context, Callable[[Any], object]]
"""A done-callback, and the context in which it was added."""


class CallNames(Protocol):
    """Gives calls their ids."""

    def of(self, number: int) -> str:
        """Return the id of the call with this number."""
        ...


class CallDriver(Protocol):
    """What a handle needs of the wire that its call goes by. Usable from any thread, and none of it blocks."""

    @property
    def mailbox(self) -> Mailbox:
        """The way into the channel's loop."""
        ...

    @property
    def transport(self) -> Literal["session", "native"]:
        """The wire."""
        ...

    def why(self, call: AsyncCall[Any]) -> str:
        """Return why the call goes by it."""
        ...

    def tell_cancel(self, call: AsyncCall[Any], request: CancelRequest) -> None:
        """Ask the server to stop the call, and answer the request once it is known that it was told."""

    def tell_abort(self, call: AsyncCall[Any], failure: Fault) -> None:
        """Tell the server that nobody waits for the call any more, and why."""

    def watch(self, call: AsyncCall[Any]) -> None:
        """See to it that progress reports arrive."""

    def initial_metadata(self, call: AsyncCall[Any]) -> Coroutine[Any, Any, grpc.aio.Metadata]:
        """Wait, on the channel's loop, for the server's initial metadata."""
        ...

    def trailing_metadata(self, call: AsyncCall[Any]) -> Coroutine[Any, Any, grpc.aio.Metadata]:
        """Wait, on the channel's loop, for the server's trailing metadata."""
        ...

    def run(self, coroutine: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        """Run a coroutine on the channel's loop and wait for it on whichever loop runs here."""
        ...


class _Settled:
    """Awaits a call's end, and not its outcome."""

    __slots__ = ("_call",)

    def __init__(self, call: AsyncCall[Any]) -> None:
        self._call = call

    def __await__(self) -> Generator[Any, None, None]:
        return self._call._wait_here(lambda: None)


class AsyncCall(grpc.aio.UnaryUnaryCall[Any, ReplyT], Latch):
    """The completion handle of one call. Every method may be called from any thread and any event loop.

    Poll it (`status`), wait for it (`wait`, `result`, `await`), or be told (`add_done_callback`); then collect
    the outcome (`complete`, `result`, `await`). Awaiting or waiting does not own the call: a wait that times
    out or is cancelled leaves it outstanding (C11). It is a `grpc.aio.UnaryUnaryCall` too.
    """

    __slots__ = ("_machine", "deserialize", "driver", "ids", "method", "number")

    # What most calls never have is not made for each: these are defaults, and a call that has one keeps it beside.
    _events: Collection[AsyncEvent] = (AsyncEvent.CALL_COMPLETE, AsyncEvent.PROGRESS)
    user_info: object = None
    """Yours, as in RPC_ASYNC_STATE: the library does not look at it."""
    native: grpc.aio.Call | None = None
    """The driver's: the gRPC call that carries this one, if one does."""
    metadata: tuple[grpc.aio.Metadata, grpc.aio.Metadata] | None = None
    """The driver's: the initial and the trailing metadata, where they came with the outcome."""
    debug_text: str | None = None
    """The driver's: what gRPC says of a failure to who looks for its cause."""
    wait_for_ready: bool = False
    """The driver's: whether the call waits for a connection, in place of failing where there is none."""
    reason: str | None = None
    """The driver's: why the call goes the way it goes, where that is not so of all its channel's calls."""
    watched: bool = False
    """The driver's: somebody wants progress reports."""
    tries: int = 0
    """The driver's: sessions that were lost in the middle of the call's request."""
    options: Any = None
    """The driver's: the metadata and credentials that go with the call, where it has some."""
    cancel_request: CancelRequest | None = None
    """The driver's: to be answered once it is known that the server was asked to stop."""
    timer: asyncio.TimerHandle | None = None
    """The driver's: runs until the deadline."""
    deadline: float | None = None
    """When the call's deadline passes, on the clock of the channel's event loop; None: never."""
    _channel: None = None
    """A channel of gRPC 1.76 that closes goes over the calls of all tasks, and asks each for the channel it is on."""
    _listened: bool = False
    """Somebody is to be told of the end, or of progress: one of the three below is there."""
    _callbacks: list[_Callback] | None = None
    _progress_waiters: list[Change] | None = None
    _told: Told | None = None

    def __init__(self, driver: CallDriver, method: str, deserialize: Callable[[bytes], Any] | None) -> None:
        self._mailbox = driver.mailbox  # as `Latch` does, which is not called: there is one of these for every call
        self._waiters = None
        self._machine = ClientCall()
        self.driver: CallDriver = driver
        """What carries the call."""
        self.method: Final = method
        """The method's full name, as `/package.Service/Method`."""
        self.deserialize: Callable[[bytes], Any] | None = deserialize
        """The driver's: reads the reply."""
        self.ids: CallNames | None = None
        """The driver's: gives the call its id."""
        self.number: int = 0
        """The driver's: the call's number in its session."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.method} [{self.call_id[:8]}…] {self._machine.state.name}>"

    @property
    def call_id(self) -> str:
        """The call's id, chosen at random. To hold it is the permission to look at the call and to cancel it."""
        ids = self.ids
        return "" if ids is None else ids.of(self.number)

    @property
    def transport(self) -> Literal["session", "native"]:
        """The wire that carries the call: "session", or "native" for a gRPC call of its own.

        A call that waits for the server to say whether it offers sessions reads "session", and may still go natively.
        """
        return self.driver.transport

    @property
    def transport_reason(self) -> str:
        """Why it is that wire, for a person."""
        return self.driver.why(self)

    # -- looking ----------------------------------------------------------------------------------------

    def status(self) -> int:
        """Return ASYNC_CALL_PENDING until the call has settled, then OK or the failure (C2).

        Consumes nothing. An `RpcStatus`, or the application's own code. Source: RpcAsyncGetCallStatus.
        """
        status = self._machine.status()
        try:
            return RpcStatus(status)
        except ValueError:
            return status

    def done(self) -> bool:
        """Tell whether the call has settled."""
        return self._machine.outcome is not None

    def cancelled(self) -> bool:
        """Tell whether the call has settled as cancelled; not so where the deadline did it, as in gRPC."""
        outcome = self._machine.outcome
        return isinstance(outcome, Fault) and outcome.grpc_code == grpc.StatusCode.CANCELLED.value[0]

    def time_remaining(self) -> float | None:
        """Return the seconds until the deadline, 0 once it has passed, or None where there is none."""
        return None if self.deadline is None else max(self.deadline - self._mailbox.time(), 0.0)

    # -- collecting -------------------------------------------------------------------------------------

    def complete(self) -> ReplyT:
        """Return the reply of a call that has settled. Source: RpcAsyncCompleteCall; C1, C3.

        Raises:
            AsyncCallPending: The call has not settled; it stays outstanding, and nothing was consumed.
            CallError: The call failed.
        """
        outcome = self._machine.outcome
        if type(outcome) is Reply:
            reply: ReplyT = outcome.message
            return reply
        if outcome is None:
            raise AsyncCallPending(
                f"{self.method} [{self.call_id[:8]}…] has not settled: it stays outstanding; wait for it first (C1)"
            )
        assert isinstance(outcome, Fault)
        self._raise(outcome)

    def result(self, timeout: float | None = None) -> ReplyT:
        """Block this thread until the call has settled, and return its reply; in a coroutine, `await` instead.

        Args:
            timeout: Seconds; None waits for ever.

        Raises:
            TimeoutError: It did not settle in time; it stays outstanding (C11).
            CallError: The call failed.
            InvalidAsyncCall: This thread runs the channel's event loop, and would wait for itself.
        """
        if not self.wait(timeout):
            raise TimeoutError(f"{self!r} did not settle within {timeout} s; it stays outstanding (C11)")
        return self.complete()

    def __await__(self) -> Generator[Any, None, ReplyT]:
        """Wait for the call to settle and return its reply; raises `CallError` if it failed.

        `asyncio.CancelledError` out of it means that your own task was cancelled; the call stays outstanding.
        """
        return self._wait_here(self.complete)

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Have `callback(call)` called once, on the channel's event loop, when the call has settled (C8).

        It is called soon if it has settled already, and in the context (`contextvars`) in which it was added, as
        asyncio's and gRPC's own are. It must not block; what it raises is logged.
        """
        added = copy_context(), callback
        with self._mailbox.lock:
            if self._machine.outcome is None:
                if self._callbacks is None:
                    self._callbacks = []
                self._callbacks.append(added)
                self._listened = True
                return
        self._mailbox.post(self._call_back, (added,))

    def notify(self, target: Target, key: object = None, events: Collection[AsyncEvent] = ()) -> None:
        """Have a target told, once, that the call has settled; at once if it has settled already (C8, C9).

        Each target that is named for a call is told once, with a `Completion` where it takes one. A target that is
        closed, dead or raises loses its notification, which is logged; the call is not lost (C10).

        Args:
            target: A `CompletionQueue`, an `asyncio.Event` or `threading.Event`, an `Apc`, a `Post`, or something to
                call with a `Completion`, soon, on the channel's event loop, where it must not block: see `Target`.
            key: Yours: it is handed back verbatim.
            events: What else to tell of: PROGRESS, that there is a new `last_progress`. The latest wins: while such a
                notification was not taken, no other is sent.

        Raises:
            InvalidArgument: The target is none, or an `asyncio.Event` whose loop is not known.
            QueueClosed: The target is a queue that is closed.
            CannotSupport: An event that this call does not have.
        """
        self.listen(target, key, events)
        if events:
            self.watch()

    # -- cancelling -------------------------------------------------------------------------------------

    def request_cancel(self, abort_after: float | None = None) -> CancelRequest:
        """Ask the server to stop. What it then does is the call's outcome: a reply, a fault, or CALL_CANCELLED.

        Source: RpcAsyncCancelCall with fAbortCall FALSE; C5. Asking again asks no more often.

        Args:
            abort_after: Seconds. If the call has not settled by then, abort it. None: wait for ever.

        Returns:
            An object that need not be looked at, and tells whether the server was told: see `CancelRequest`.

        Raises:
            InvalidArgument: `abort_after` is negative or no number; nobody was asked to stop.
        """
        abort_after = checked_seconds("abort_after", abort_after)  # raises before anybody is asked
        with self._mailbox.lock:
            step = self._machine.request_cancel()
            request = self.cancel_request
            if request is None:
                request = self.cancel_request = CancelRequest(self._mailbox)
        if step.tell_cancel:
            self.driver.tell_cancel(self, request)
        elif self._machine.outcome is not None:
            request.answer(RpcStatus.NO_CALL_ACTIVE)  # C7
        if abort_after is not None and self._machine.outcome is None:
            self._mailbox.run(self._abort_later, abort_after)
        return request

    def cancel(self) -> bool:
        """Abort: settle the call here and now as CALL_CANCELLED, and tell the server (C6).

        The server may go on with the work, and may have completed it. Source: RpcAsyncCancelCall with
        fAbortCall TRUE, and gRPC's `cancel`.

        Returns:
            False if the call had settled already: then nothing changed (C7).
        """
        return self.abort("the client aborted the call; the server may go on with it")

    def abort(self, text: str) -> bool:
        """Abort as `cancel` does, with a text that says why."""
        return self._abort(fault(RpcStatus.CALL_CANCELLED, text, cancel_reason=CancelReason.CLIENT_ABORTED))

    def expire(self) -> bool:
        """The deadline has passed: abort for that reason (C12)."""
        text = "Deadline Exceeded"  # gRPC's own words
        return self._abort(fault(RpcStatus.CALL_CANCELLED, text, cancel_reason=CancelReason.DEADLINE))

    def _abort(self, failure: Fault) -> bool:
        with self._mailbox.lock:
            step = self._machine.abort(failure)
        if not step.notify:
            return False
        self.driver.tell_abort(self, failure)
        self._release()
        self._notify()
        return True

    def _abort_later(self, seconds: float) -> None:
        text = f"the server did not settle the call within {seconds:g} s of being asked to stop; the client aborted it"
        timer = self._mailbox.loop.call_later(seconds, self.abort, text)
        self.add_done_callback(lambda _: timer.cancel())

    # -- progress ---------------------------------------------------------------------------------------

    @property
    def last_progress(self) -> Progress | None:
        """The latest report that has arrived. Reports arrive once `progress()` was called."""
        return self._machine.last_progress

    async def progress(self) -> AsyncIterator[Progress]:
        """Iterate over the server's progress reports until the call settles. On any event loop.

        The latest wins: a report that comes while you handle another replaces the one before it. With a plain
        gRPC server there are none.
        """
        self.driver.watch(self)
        seen: Progress | None = None
        while True:
            change = self._next_change()
            report = self._machine.last_progress
            if report is not seen and report is not None:
                seen = report
                yield report
            elif self._machine.outcome is not None:
                return
            else:
                await change

    def _next_change(self) -> Change:
        change = Change(self._mailbox)
        with self._mailbox.lock:
            if self._machine.outcome is None:
                if self._progress_waiters is None:
                    self._progress_waiters = []
                self._progress_waiters.append(change)
                self._listened = True
                return change
        change.happen()
        return change

    # -- gRPC's own -------------------------------------------------------------------------------------

    async def code(self) -> grpc.StatusCode:
        """Wait for the call to settle, without raising its failure, and return gRPC's status code."""
        outcome = await self._outcome()
        return grpc_status_code(outcome.grpc_code) if isinstance(outcome, Fault) else grpc.StatusCode.OK

    async def details(self) -> str:
        """Wait for the call to settle, without raising its failure, and return the failure's text."""
        outcome = await self._outcome()
        return outcome.message if isinstance(outcome, Fault) else ""

    async def debug_error_string(self) -> str:
        """Wait for the call to settle, and return what there is of a failure for who looks for its cause."""
        outcome = await self._outcome()
        if isinstance(outcome, Fault):
            return self._error(outcome).debug_error_string()
        native: Any = self.native
        if native is None:
            return ""
        text: str = await self.driver.run(native.debug_error_string())  # None, of an interceptor's own reply
        return text

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """Wait for the server's initial metadata, which grpc.aio hands over when a unary call ends."""
        return await self.driver.run(self.driver.initial_metadata(self))

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """Wait for the call to settle, and return the server's trailing metadata."""
        await self._outcome()
        return await self.driver.run(self.driver.trailing_metadata(self))

    async def wait_for_connection(self) -> None:
        """Wait as gRPC's own does, which for a unary call is for its end; raises `CallError` if the call failed."""
        outcome = await self._outcome()
        if isinstance(outcome, Fault):
            self._raise(outcome)

    def after_fork(self) -> None:
        """This is a forked child: the call goes on in its parent, where all are told, and has ended here."""
        self._told = self._callbacks = self._progress_waiters = self._waiters = None
        text = "this process was forked from the one that began the call, where it goes on"
        self._machine.answer(fault(RpcStatus.CALL_FAILED, text))

    # -- the driver's side ------------------------------------------------------------------------------

    def settle(self, outcome: Outcome) -> bool:
        """The call's outcome has arrived. False, and nothing changed, if it had settled before."""
        with self._mailbox.lock:
            step = self._machine.answer(outcome)
            if not step.notify:
                return False
            waiters, self._waiters = self._waiters, None
        if waiters is not None:
            self._wake(waiters)
        if self._listened:
            self._notify()
        return True

    def watch(self) -> None:
        """See to it that whoever wants progress reports is told of them."""
        told = self._told
        if told is not None and told.wants(AsyncEvent.PROGRESS):
            self.driver.watch(self)
            if self._machine.last_progress is not None:
                self._mailbox.run(self._tell_progress)

    def listen(self, target: Target, key: object, events: Collection[AsyncEvent]) -> None:
        """Do as `notify` does, but for a call that has not begun, which cannot be watched yet."""
        told = Told(target, key, events, self._mailbox, self._events)
        with self._mailbox.lock:
            if self._machine.outcome is None:
                self._told = told.join(self._told)
                self._listened = True
                return
        told.end(self)

    def report(self, progress: Progress) -> None:
        """A progress report has arrived."""
        with self._mailbox.lock:
            if progress == self._machine.last_progress or not self._machine.progress(progress):
                return
        self._changed()
        self._tell_progress()

    def _notify(self) -> None:
        told = self._told
        try:
            if told is not None:
                self._told = None
                if not (told.watched and self._mailbox.post(told.end, self)):  # progress may be being told there now
                    told.end(self)
        finally:
            self._call_all_back()

    def _call_all_back(self) -> None:
        if self._progress_waiters is not None:
            self._changed()
        if self._callbacks is not None:
            callbacks, self._callbacks = self._callbacks, None
            if not self._mailbox.post(self._call_back, callbacks):
                _LOGGER.warning("%r: the channel's event loop is closed: done-callbacks were not called", self)

    def _tell_progress(self) -> None:
        if self._told is not None:
            self._told.tell(AsyncEvent.PROGRESS, self)

    def _changed(self) -> None:
        with self._mailbox.lock:
            waiters, self._progress_waiters = self._progress_waiters, None
        for waiter in waiters or ():
            waiter.happen()

    def _call_back(self, callbacks: Sequence[_Callback]) -> None:
        for context, callback in callbacks:
            try:
                context.run(callback, self)
            except (KeyboardInterrupt, SystemExit) as error:
                let_through(error)
            except BaseException:
                _LOGGER.exception("%r: a done-callback raised", self)

    def _happened(self) -> bool:
        return self._machine.outcome is not None

    async def _outcome(self) -> Outcome:
        if self._machine.outcome is None:
            await _Settled(self)
        assert self._machine.outcome is not None
        return self._machine.outcome

    def _raise(self, failure: Fault) -> NoReturn:
        raise self._error(failure)

    def _error(self, failure: Fault) -> CallError:
        initial, trailing = self.metadata or (None, None)
        return error_class(failure)(
            failure,
            method=self.method,
            call_id=self.call_id,
            initial_metadata=initial,
            trailing_metadata=trailing,
            debug_error_string=self.debug_text,
        )
