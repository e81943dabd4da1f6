"""`ServerCall`: the server handle, which a manager routine gets and completes its call with."""

from __future__ import annotations

import asyncio
import numbers
from collections.abc import Generator, Iterable
from contextvars import ContextVar
from typing import Any, Final, Generic, NoReturn, TypeVar

import grpc
from google.protobuf.message import Message

from rpc_async.checks import checked_code, checked_messages, checked_text
from rpc_async.core.outcome import Progress
from rpc_async.errors import InvalidArgument, PayloadTooLarge
from rpc_async.notification.targets import Target
from rpc_async.serving.interruptible import Interruptible
from rpc_async.serving.record import CallRecord
from rpc_async.status import CancelReason, Notifications, RpcStatus
from rpc_async.wire.faults import to_details
from rpc_async.wire.metadata import check_metadata

__all__ = ["Aborted", "ServerCall", "current_call", "running_record"]

MAX_PROGRESS: Final = 60 * 1024
"""Bytes: the largest progress report, so that it is one frame of a session."""

ReplyT = TypeVar("ReplyT")

running_record: Final[ContextVar[CallRecord | None]] = ContextVar("rpc_async.running_record", default=None)
"""The call whose manager routine runs in this task or thread. A record, not a handle: see S14."""


def current_call() -> ServerCall[Any] | None:
    """Return the handle of the call whose manager routine runs here, in its task or in its thread (S17).

    Tasks and `asyncio.to_thread` functions that the routine starts inherit it. None where no manager routine
    runs, and in what a routine left behind once its handle is gone.
    """
    record = running_record.get()
    return None if record is None else record.handle()


class Aborted:
    """What `ServerCall.abort` returns: the call has settled already, and awaiting this ends the routine."""

    __slots__ = ("status",)

    def __init__(self, status: RpcStatus) -> None:
        self.status: Final = status
        """OK, or CALL_CANCELLED if the client no longer waited (S11)."""

    def __await__(self) -> Generator[Any, None, NoReturn]:
        """Raise, as awaiting gRPC's `context.abort(...)` does."""
        raise grpc.aio.AbortError("the call was aborted")
        yield


class ServerCall(Generic[ReplyT]):
    """The server handle of one call. Every method may be called from any thread.

    The call is completed explicitly, by `complete` or `abort`; the manager routine's return does not complete
    it (S1). Either one, or an exception out of the routine, destroys the handle (S4). A handle that nobody
    holds any more once the routine has returned is aborted at once with CALL_FAILED (S14).
    """

    __slots__ = ("__weakref__", "_record")

    def __init__(self, record: CallRecord) -> None:
        self._record = record

    def __del__(self) -> None:
        self._record.handle_dropped()

    def __repr__(self) -> str:
        return f"<ServerCall {self._record!r} {self._record.state.name}>"

    # -- ending the call --------------------------------------------------------------------------------

    def complete(self, reply: ReplyT) -> RpcStatus:
        """Complete the call with its reply. Source: RpcAsyncCompleteCall; S1 to S5, S9, S11.

        The reply is serialised before this returns: a later change to it never reaches the client (S3).

        Returns:
            OK; or CALL_CANCELLED if nobody waited for the reply any more, which was then dropped (S11).

        Raises:
            InvalidAsyncHandle: The call was completed or aborted before (S4).
            BadStubData: The reply is not of the method's type. The call has settled as a failure (S5).
            PayloadTooLarge: The reply is over the size limit. The call has settled as a failure (S5).
        """
        return self._record.complete(reply)

    def abort(self, code: int | grpc.StatusCode, message: str = "", details: Iterable[Message] = ()) -> Aborted:
        """Settle the call as a fault, at once. Source: RpcAsyncAbortCall; S6.

        Args:
            code: Any non-zero 32-bit number, the application's own or an `RpcStatus`, or a gRPC status code.
                It reaches the client unchanged.
            message: What happened, for a person.
            details: A chain of messages, of any types, that tell more (C15).

        Returns:
            An object that need not be awaited. Awaiting it raises, which ends an `async def` routine, so that
            `await call.abort(...)` reads and works as gRPC's `await context.abort(...)`.

        Raises:
            InvalidArgument: The code is 0 or no 32-bit number, or text or details are none; nothing changed.
            InvalidAsyncHandle: The call was completed or aborted before (S4).
            PayloadTooLarge: Text and details are too large. The call was aborted with the code alone.
        """
        text, chain = checked_text("message", message), checked_messages("details", details)
        return Aborted(self._record.abort(checked_code(code), text, chain))

    # -- cancel -----------------------------------------------------------------------------------------

    def test_cancel(self) -> bool:
        """Tell whether the call was cancelled, for whatever reason; True too once it has settled (S10).

        Only looks: no state changes on either side, and the call must still be completed (S8).
        Source: RpcServerTestCancel.
        """
        return self._record.test_cancel()

    @property
    def settled(self) -> bool:
        """Whether the call was completed or aborted, or its routine raised: the handle is destroyed (S4)."""
        return self._record.settled

    @property
    def cancel_reason(self) -> CancelReason | None:
        """Why the call was cancelled; None if it was not (S13). An abort outranks an earlier request."""
        return self._record.cancel_reason

    def raise_if_cancelled(self) -> None:
        """Raise `CallCancelled` if `test_cancel()`. Let out of the routine, it settles the call as cancelled.

        Raises:
            CallCancelled: The call was cancelled, or has settled.
        """
        if self._record.test_cancel():
            raise self._record.cancelled_error()

    async def wait_cancelled(self) -> None:
        """Wait until `test_cancel()` is true. On any event loop."""
        loop = asyncio.get_running_loop()
        changed = loop.create_future()
        unsubscribe = self._record.subscribe(lambda: _wake(loop, changed, self._record))
        try:
            if not self._record.test_cancel():
                await changed
        finally:
            unsubscribe()

    def interruptible(self) -> Interruptible:
        """Return an async context manager inside which a cancel raises `CallCancelled` at the next await.

        For code that awaits and has no place to look with `test_cancel`. On any event loop.
        """
        return Interruptible(self._record)

    def on_cancel(self, target: Target, key: object = None) -> None:
        """Be told, once, that the call was cancelled while its client was there, in place of looking (S12).

        That is: the client asked or aborted, the deadline passed, or the server is shutting down; `cancel_reason` says
        which. At once if it has happened already. Raises as `subscribe` does.

        Args:
            target: A `CompletionQueue`, an `asyncio.Event` or `threading.Event`, an `Apc`, a `Post`, or something to
                call with a `Completion`, soon, on the server's event loop, where it must not block: see `Target`.
            key: Yours: it is handed back verbatim.
        """
        self.subscribe(Notifications.CALL_CANCEL, target, key)

    def on_disconnect(self, target: Target, key: object = None) -> None:
        """Be told, once, that the client is gone (S12). Otherwise as `on_cancel`."""
        self.subscribe(Notifications.CLIENT_DISCONNECT, target, key)

    def subscribe(self, notifications: int, target: Target | None, key: object = None) -> None:
        """Be told of each of these kinds, once a call. Source: RpcServerSubscribeForNotification; S12.

        Each cancel is of one kind, so whoever asks for both is told of every one. What a subscription holds is held
        until the call has settled: a routine that holds the call's handle keeps the call from being forgotten (S14).

        Args:
            notifications: A mask of `Notifications`.
            target: As for `on_cancel`.
            key: Yours: it is handed back verbatim.

        Raises:
            CannotSupport: A kind that there is not, or none.
            InvalidArgument: The target is None or no target.
            InvalidAsyncCall: Somebody is subscribed to one of these kinds, or its one notification was queued.
            InvalidAsyncHandle: The call was completed or aborted before (S4).
            QueueClosed: The target is a queue that is closed.

        When it raises, nothing was subscribed.
        """
        self._record.notifier().subscribe(self, notifications, target, key)

    def unsubscribe(self, notification: int) -> int:
        """End a subscription, if there is one. Source: RpcServerUnsubscribeForNotification; S12.

        Args:
            notification: One kind of `Notifications`.

        Returns:
            How many notifications of this kind were queued for the call, 0 or 1. If that is more than have been
            received, one is on its way to its target: it will still come.

        Raises:
            CannotSupport: Not exactly one of the kinds that there are.
        """
        return self._record.notifier().unsubscribe(notification)

    # -- progress ---------------------------------------------------------------------------------------

    def progress(self, fraction: float, message: str = "", details: Message | None = None) -> None:
        """Report how far the call has come. The latest report wins; nobody may be looking.

        Args:
            fraction: From 0 (nothing done) to 1 (all done).
            message: A word for a person.
            details: Whatever else there is to tell, in a type of its own.

        Raises:
            InvalidArgument: The fraction is not from 0 to 1, or text or details are none.
            PayloadTooLarge: Text and details take more than 60 KiB; nothing was reported.
        """
        if not (isinstance(fraction, numbers.Real) and 0 <= fraction <= 1):
            raise InvalidArgument(f"progress {fraction!r}: the fraction must be from 0 to 1; nothing was reported")
        checked_text("message", message)
        chain = () if details is None else to_details(checked_messages("details", (details,)))
        size = len(message.encode()) + sum(len(detail.value) + len(detail.type_url) for detail in chain)
        if size > MAX_PROGRESS:
            raise PayloadTooLarge(f"progress of {size} bytes: it may take {MAX_PROGRESS}; nothing was reported")
        self._record.progress(Progress(float(fraction), message, chain[0] if chain else None))

    # -- who calls --------------------------------------------------------------------------------------

    @property
    def call_id(self) -> str:
        """The call's id. To hold it is the permission to look at the call and to cancel it: keep it secret."""
        return self._record.call_id

    @property
    def method(self) -> str:
        """The method's full name, as `/package.Service/Method`."""
        return self._record.method

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """Return the metadata that came with the call."""
        return self._record.invocation_metadata

    def peer(self) -> str:
        """Return the client's address, as gRPC writes it. Raises InvalidAsyncHandle once settled."""
        return self._record.peer()

    def peer_identities(self) -> Iterable[bytes] | None:
        """Return who the client is, if it was authenticated. Raises InvalidAsyncHandle once settled."""
        return self._record.peer_identities()

    def peer_identity_key(self) -> str | None:
        """Return the name of the property that identifies the client. Raises InvalidAsyncHandle once settled."""
        return self._record.peer_identity_key()

    def auth_context(self) -> dict[str, Iterable[bytes]]:
        """Return the properties of the client's authentication. Raises InvalidAsyncHandle once settled."""
        return self._record.auth_context()

    def time_remaining(self) -> float | None:
        """Return the seconds until the deadline, 0 once it has passed, or None where there is none."""
        return self._record.time_remaining()

    def set_trailing_metadata(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Send this metadata with the outcome, in place of any set before.

        Raises:
            InvalidArgument: A key or a value that gRPC does not allow.
        """
        self._record.set_trailing_metadata(check_metadata(metadata))


def _wake(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None], record: CallRecord) -> None:
    if record.test_cancel():
        try:
            loop.call_soon_threadsafe(_set, future)
        except RuntimeError:  # the waiting loop is closed: nobody waits there
            return


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
