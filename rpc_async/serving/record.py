"""The server's record of one call: holds the call's machine and carries out what it decides.

The record is the library's; `ServerCall` is the user's handle on it. They are two objects so that the
library can tell when nobody holds the handle any more (S14).
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

import grpc
from google.protobuf.message import Message

from rpc_async.core.outcome import Fault, Outcome, Progress, Reply, fault
from rpc_async.core.server_call import ServerCallMachine, ServerState, ServerStep
from rpc_async.errors import CallCancelled, InvalidAsyncHandle, PayloadTooLarge, UsageError
from rpc_async.fork import refuse_in_child
from rpc_async.mailbox import Mailbox
from rpc_async.serving.notifier import Notifier
from rpc_async.status import CancelReason, GrpcCode, RpcStatus
from rpc_async.wire.faults import abort_fault, check_size

if TYPE_CHECKING:
    from rpc_async.serving.call import ServerCall
    from rpc_async.serving.codec import Codec

__all__ = ["CallOwner", "CallRecord", "shutdown_fault", "text_of"]

_LOGGER: Final = logging.getLogger("rpc_async.serving")

# An enumeration's members are looked up by a function, which takes a tenth of a microsecond each time (Python 3.11).
_PENDING: Final = RpcStatus.ASYNC_CALL_PENDING
_OK: Final = RpcStatus.OK
_DESTROYED: Final = RpcStatus.INVALID_ASYNC_HANDLE
_SETTLED: Final = ServerState.SETTLED


class CallOwner(Protocol):
    """Whoever keeps count of the running calls."""

    @property
    def mailbox(self) -> Mailbox:
        """The way into the server's loop."""
        ...

    @property
    def disclose_errors(self) -> bool:
        """Whether clients are told what a manager routine raised (S7)."""
        ...

    def let_through(self, error: BaseException) -> None:
        """Have what is to end the process end it, once its call's outcome is on its way. From any thread."""

    def finished(self, record: CallRecord) -> None:
        """A call has settled: its manager's part is done. On the server's loop."""


class CallRecord(ABC):
    """One call on the server. Everything here may be called from any thread.

    The abstract methods are what a call needs of the wire that it came by; there is a subclass for each wire.
    """

    __slots__ = (
        "__weakref__",
        "_codec",
        "_handle",
        "_hooks",
        "_lock",
        "_machine",
        "_metadata",
        "_owner",
        "asked_for",
        "ended_at",
        "listed",
        "machine",
        "method",
        "status",
    )  # fmt: skip

    def __init__(
        self,
        codec: Codec,
        owner: CallOwner,
        invocation_metadata: tuple[tuple[str, str | bytes], ...],
    ) -> None:
        self.method: Final[str] = codec.method
        self._metadata = invocation_metadata
        self.status: int = _PENDING
        self.ended_at: float = 0.0
        self.asked_for: bool = False
        """Somebody has looked the call up by its id."""
        self.listed: bool = False
        """The table's: whether it keeps the call under its id."""
        self._codec = codec
        self._owner = owner
        self.machine: Final[ServerCallMachine] = ServerCallMachine()
        """Decides. Ask it anything; tell it something only through this record, which holds the lock."""
        self._lock = owner.mailbox.lock
        self._handle: ServerCall[Any] | weakref.ref[ServerCall[Any]] | None = None
        self._hooks: list[Callable[[], None]] | None = None

    # -- the wire ---------------------------------------------------------------------------------------

    @property
    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """The metadata that came with the call."""
        return self._metadata

    @property
    @abstractmethod
    def call_id(self) -> str:
        """The call's id."""

    @abstractmethod
    def deliver(self, outcome: Outcome) -> None:
        """End the call for its client. Called at most once, on the server's loop."""

    @abstractmethod
    def peer(self) -> str:
        """Return the client's address, as gRPC writes it."""

    @abstractmethod
    def peer_identities(self) -> Iterable[bytes] | None:
        """Return who the client is, if it was authenticated."""

    @abstractmethod
    def peer_identity_key(self) -> str | None:
        """Return the name of the property that identifies the client."""

    @abstractmethod
    def auth_context(self) -> dict[str, Iterable[bytes]]:
        """Return the properties of the client's authentication."""

    @abstractmethod
    def time_remaining(self) -> float | None:
        """Return the seconds until the deadline, or None where there is none."""

    @abstractmethod
    def set_trailing_metadata(self, metadata: tuple[tuple[str, str | bytes], ...]) -> None:
        """Send this with the outcome."""

    # -- looking ----------------------------------------------------------------------------------------

    @property
    def state(self) -> ServerState:
        """Where the call stands."""
        return self.machine.state

    @property
    def settled(self) -> bool:
        """Whether the handle is destroyed (S4)."""
        return self.machine.state is _SETTLED

    @property
    def cancel_reason(self) -> CancelReason | None:
        """Why the call was cancelled, if it was (S13)."""
        return self.machine.cancel_reason

    @property
    def last_progress(self) -> Progress | None:
        """The latest progress report."""
        return self.machine.last_progress

    def test_cancel(self) -> bool:
        """Look, and change nothing (S8, S10)."""
        return self.machine.test_cancel()

    def __repr__(self) -> str:
        return f"{self.method} [{self.call_id[:8]}…]"

    # -- the handle -------------------------------------------------------------------------------------

    def hold(self, handle: ServerCall[Any]) -> None:
        """Keep the handle alive while the manager routine runs."""
        self._handle = handle

    def handle(self) -> ServerCall[Any] | None:
        """Return the user's handle, or None once nobody else holds it."""
        handle = self._handle
        return handle() if isinstance(handle, weakref.ref) else handle

    def returned(self) -> None:
        """The manager routine has returned: from here on, only the user keeps the handle alive (S14)."""
        handle = self._handle
        if self.machine.state is _SETTLED:
            self._handle = None
        elif handle is not None and not isinstance(handle, weakref.ref):
            self._handle = weakref.ref(handle)

    def handle_dropped(self) -> None:
        """The last reference to the handle is gone. Called by a destructor: may run inside any other line."""
        if self.machine.state is not _SETTLED:
            self._owner.mailbox.post(self._forgotten)

    def _forgotten(self) -> None:
        step = self._end()
        if step.verdict is _DESTROYED:
            return
        message = (
            "the manager routine returned without completing the call, and nothing holds the call's handle any "
            "more: it could never have been completed"
        )
        level = logging.DEBUG if self.cancel_reason is CancelReason.SHUTDOWN else logging.ERROR
        _LOGGER.log(level, "%r: %s", self, message)
        self._settle(step, fault(RpcStatus.CALL_FAILED, message, executed=True))

    # -- the manager's side -----------------------------------------------------------------------------

    def complete(self, reply: Any) -> RpcStatus:
        """See `ServerCall.complete`."""
        with self._lock:
            step = self.machine.end()
        if step.verdict is _DESTROYED:
            raise self._destroyed()
        try:
            outcome = Reply(self._codec.encode(reply))
        except UsageError as error:  # final all the same (S5)
            self._settle(step, fault(error.status, str(error), executed=True))
            raise
        except BaseException:  # as is what the user's serialiser raises to end the process
            text = f"{self.method}: the reply was not serialised"
            self._settle(step, fault(RpcStatus.BAD_STUB_DATA, text, executed=True))
            raise
        self._settle(step, outcome)
        return step.verdict

    def abort(self, code: int | grpc.StatusCode, message: str, details: Iterable[Message]) -> RpcStatus:
        """See `ServerCall.abort`."""
        failure = abort_fault(code, message, details)  # raises before anything is changed (S6)
        step = self._end()
        if step.verdict is _DESTROYED:
            raise self._destroyed()
        try:
            check_size(failure)
        except PayloadTooLarge as error:
            self._settle(step, Fault(failure.status, str(error), failure.grpc_code, executed=True))
            raise
        self._settle(step, failure)
        return step.verdict

    def raised(self, error: BaseException) -> None:
        """An exception came out of the manager routine (S7)."""
        cancelled = isinstance(error, CallCancelled) and self.cancel_reason is not None
        was_cut_off = isinstance(
            error, asyncio.CancelledError
        )  # the loop is at its end, or a user has cancelled the task
        step = self._end()
        if step.verdict is _DESTROYED:
            if not isinstance(error, (grpc.aio.AbortError, asyncio.CancelledError)):
                _LOGGER.error("%r: the manager routine raised after the call had settled", self, exc_info=error)
            return
        if not step.deliver and (was_cut_off or self.cancel_reason is CancelReason.SHUTDOWN):
            _LOGGER.debug("%r: the manager routine ended when nobody waited for it any more", self, exc_info=error)
            self._settle(step, _cancelled_fault(self.cancel_reason))
            return
        if cancelled:  # `raise_if_cancelled()` or `interruptible()`: the manager's verdict is to stop (C5)
            self._settle(step, _cancelled_fault(self.cancel_reason))
            return
        trace = None if was_cut_off else error
        _LOGGER.error(
            "%r: the manager routine raised %s, and the call fails", self, type(error).__name__, exc_info=trace
        )
        text = "the manager routine raised an exception"
        if self._owner.disclose_errors:
            text = f"the manager routine raised {type(error).__qualname__}: {text_of(error)}"[:4096]
        self._settle(step, fault(RpcStatus.CALL_FAILED, text, executed=True))

    def progress(self, progress: Progress) -> None:
        """Keep a progress report and tell who watches."""
        with self._lock:
            wanted = self.machine.progress(progress)
        if wanted:
            self._changed()

    # -- the client's side ------------------------------------------------------------------------------

    def ask_cancel(self) -> None:
        """The client asked the call to stop, and waits (C5)."""
        with self._lock:
            step = self.machine.ask()
        if step.changed:
            self._changed()

    def orphan(self, reason: CancelReason) -> None:
        """Nobody waits for the call any more (C6, C12, S15)."""
        with self._lock:
            step = self.machine.orphan(reason)
        if step.release:
            self._owner.mailbox.run(self.deliver, _cancelled_fault(reason))
        if step.changed:
            self._changed()

    def refuse(self, failure: Fault) -> None:
        """End a call whose manager routine was not begun."""
        step = self._end()
        if step.verdict is not _DESTROYED:
            self._settle(step, failure)

    # -- being told -------------------------------------------------------------------------------------

    def subscribe(self, hook: Callable[[], None]) -> Callable[[], None]:
        """Have `hook` called after each change, in whatever thread made it; it must not block or raise.

        Returns:
            A function that ends the subscription.
        """
        with self._lock:
            if self._hooks is None:
                self._hooks = []
            self._hooks.append(hook)
        return lambda: self._unsubscribe(hook)

    def notifier(self) -> Notifier:
        """Return what tells of the call's cancel; it is made when it is asked for (S12)."""
        made = Notifier(self)
        with self._lock:
            if self._hooks is None:
                self._hooks = []
            for hook in self._hooks:
                if isinstance(hook, Notifier):
                    return hook
            self._hooks.append(made)
            return made

    @property
    def mailbox(self) -> Mailbox:
        """The way into the server's loop."""
        return self._owner.mailbox

    @property
    def watchers(self) -> int:
        """How many subscriptions there are."""
        return len(self._hooks or ())

    def subscribed(self, hook: Callable[[], None]) -> bool:
        """Tell whether `hook` is called already."""
        return hook in (self._hooks or ())

    def _unsubscribe(self, hook: Callable[[], None]) -> None:
        with self._lock:
            if self._hooks is not None and hook in self._hooks:
                self._hooks.remove(hook)

    def _changed(self) -> None:
        if self._hooks is not None:
            for hook in tuple(self._hooks):
                hook()

    # -- ending -----------------------------------------------------------------------------------------

    def cancelled_error(self) -> CallCancelled:
        """Return what is raised to a manager that is to stop; let out of the routine, it settles the call so."""
        text = "the call was cancelled" if self.cancel_reason is not None else "the call has settled"
        failure = fault(RpcStatus.CALL_CANCELLED, text, cancel_reason=self.cancel_reason, executed=True)
        return CallCancelled(failure, method=self.method, call_id=self.call_id)

    def _end(self) -> ServerStep:
        with self._lock:
            return self.machine.end()

    def _destroyed(self) -> InvalidAsyncHandle:
        refuse_in_child(self)
        return InvalidAsyncHandle(
            f"{self!r} was completed or aborted before, which destroyed its handle: nothing was sent (S4)"
        )

    def _settle(self, step: ServerStep, outcome: Outcome) -> None:
        if not step.deliver:
            self.status = _cancelled_fault(self.machine.cancel_reason).status
        else:
            self.status = outcome.status if isinstance(outcome, Fault) else _OK
        self._owner.mailbox.run(self._finish, outcome, step.deliver)  # a closed loop has no client
        if self._hooks is not None:
            self._changed()

    def _finish(self, outcome: Outcome, deliver: bool) -> None:
        if deliver:
            self.deliver(outcome)
        self._owner.finished(self)


def _cancelled_fault(reason: CancelReason | None) -> Fault:
    if reason is CancelReason.SHUTDOWN:
        return shutdown_fault(executed=True)
    text = "the server stopped the call, as it was asked to"
    if reason is not CancelReason.CLIENT_REQUESTED:
        text = "the call was cancelled"
    return fault(RpcStatus.CALL_CANCELLED, text, cancel_reason=reason, executed=True)


def shutdown_fault(*, executed: bool | None) -> Fault:
    """Return how a call ends that a server which has shut down had no time for (S15). None: it may have been begun."""
    reason = CancelReason.SHUTDOWN
    if executed is not False:
        text = "the server shut down before the call was completed, and its grace period is over"
        failure = fault(RpcStatus.CALL_FAILED, text, cancel_reason=reason, executed=executed)
        return replace(failure, grpc_code=GrpcCode.UNAVAILABLE)  # as gRPC has it
    text = "the server shut down before the call was begun: not executed"
    return fault(RpcStatus.SERVER_UNAVAILABLE, text, cancel_reason=reason)


def text_of(error: BaseException) -> str:
    """Return an exception's text, as it can be sent. It is the user's: whatever is wrong with it, its call must end."""
    try:
        return str(error).encode("utf-8", "backslashreplace").decode()
    except BaseException:
        return "(its text cannot be had)"
