"""Blocking calls, and how another thread cancels them.

A cancel asks the server to stop. How long the calling thread then waits for an answer is its cancel time-out; when
that lapses the call is abandoned, and fails with the status that goes with the function that cancelled it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

import grpc
import grpc.aio

import rpc_async
from rpc_async import AsyncCall, CallCancelled, CallFailed, CancelReason, Channel, Fault, RpcStatus
from rpc_async.dce.binding import call_timeout
from rpc_async.dce.names import RPC_C_CANCEL_INFINITE_TIMEOUT, RPC_S_INVALID_TIMEOUT

__all__ = ["RpcCancelThread", "RpcCancelThreadEx", "RpcMgmtSetCancelTimeout", "call"]

T = TypeVar("T")
RequestT = TypeVar("RequestT")
ReplyT = TypeVar("ReplyT")


class _Settings(threading.local):
    """What each thread has of its own."""

    cancel_timeout: int = RPC_C_CANCEL_INFINITE_TIMEOUT


class _Blocked:
    """One blocking call: what other threads need to cancel it."""

    def __init__(self, cancel_timeout: int) -> None:
        self.cancel_timeout: Final = cancel_timeout
        self.abandoned: RpcStatus | None = None
        """The status that it was abandoned with, if it was."""
        self._call: AsyncCall[Any] | None = None
        self._lock = threading.RLock()  # a signal's handler can cancel the call of its own thread
        self._timer: threading.Timer | None = None
        self._lapses_at = float("inf")

    def begin(self, begin: Callable[[], AsyncCall[T]]) -> AsyncCall[T]:
        """Begin the call; whoever cancels it meanwhile waits until it has begun."""
        with self._lock:
            call = self._call = begin()
        return call

    def cancel(self, timeout: int, status: RpcStatus) -> bool:
        """Ask the server to stop; abandon the call with `status` if it has not settled `timeout` seconds later.

        Returns False if there is no call.
        """
        with self._lock:
            if self._call is None:
                return False
            self._call.request_cancel()
            if timeout != RPC_C_CANCEL_INFINITE_TIMEOUT:
                self._abandon_after(timeout, status)
            return True

    def _abandon_after(self, timeout: int, status: RpcStatus) -> None:
        with self._lock:
            lapses_at = time.monotonic() + timeout
            if lapses_at >= self._lapses_at:
                return
            self._lapses_at = lapses_at
            self._stop_timer()
            if timeout:
                self._timer = threading.Timer(min(timeout, threading.TIMEOUT_MAX), self._abandon, (status,))
                self._timer.daemon = True
                self._timer.start()
                return
        self._abandon(status)

    def _abandon(self, status: RpcStatus) -> None:
        with self._lock:
            if self._call is not None and self._call.cancel():
                self.abandoned = status

    def end(self) -> RpcStatus | None:
        """The call has settled: return the status that it was abandoned with, if it was."""
        with self._lock:
            self._lapses_at = 0.0
            self._stop_timer()
            return self.abandoned

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


_SETTINGS: Final = _Settings()
_BLOCKED: Final[dict[int, _Blocked]] = {}
"""The blocking call of each thread that is in one, by the thread's identifier."""


def call(
    method: grpc.aio.UnaryUnaryMultiCallable[RequestT, ReplyT],
    request: RequestT,
    *,
    timeout: float | None = None,
    metadata: Iterable[tuple[str, str | bytes]] | None = None,
    wait_for_ready: bool | None = None,
) -> ReplyT:
    """Make a call and block this thread until it has settled, in place of a client stub's `Method(hBinding, request)`.

    Another thread cancels it with `RpcCancelThread` or `RpcCancelThreadEx`. If the channel has a
    `RPC_C_OPT_CALL_TIMEOUT` too, the lower of the two time-outs counts, and the server is told of it.

    Args:
        method: A unary method of a generated stub on a `Channel`.
        request: The request.
        timeout: Seconds until the call's deadline; None: no deadline.
        metadata: gRPC's metadata, as pairs.
        wait_for_ready: As in gRPC.

    Raises:
        CallError: The call failed. 1818: its time-out lapsed, it was cancelled, or it was abandoned after
            `RpcCancelThreadEx`; 1726: it was abandoned after `RpcCancelThread`, or failed.
        InvalidAsyncCall: This thread runs the channel's event loop, and would wait for itself.
        UsageError: As from `rpc_async.begin`.
    """
    channel = getattr(method, "channel", None)
    limits = [timeout, call_timeout(channel) if isinstance(channel, Channel) else None]
    lowest = min((limit for limit in limits if limit is not None), default=None)
    blocked = _Blocked(_SETTINGS.cancel_timeout)
    thread = threading.get_ident()
    outer = _BLOCKED.get(thread)  # a signal's handler can make a call while the thread is in one
    _BLOCKED[thread] = blocked
    try:
        begun = blocked.begin(
            lambda: rpc_async.begin(method, request, timeout=lowest, metadata=metadata, wait_for_ready=wait_for_ready)
        )
        try:
            begun.wait()
        except BaseException:  # nobody will collect it
            begun.cancel()
            raise
    finally:
        abandoned = blocked.end()
        if outer is None:
            del _BLOCKED[thread]
        else:
            _BLOCKED[thread] = outer
    if abandoned is not None:
        raise _abandoned(begun, abandoned)
    return begun.complete()


def _abandoned(begun: AsyncCall[Any], status: RpcStatus) -> rpc_async.CallError:
    text = "the server did not settle the call in the time that a cancel waits for it; the client abandoned it"
    cancelled = status is RpcStatus.CALL_CANCELLED
    code = grpc.StatusCode.CANCELLED if cancelled else grpc.StatusCode.UNKNOWN
    failure = Fault(status, text, code.value[0], cancel_reason=CancelReason.CLIENT_ABORTED)
    return (CallCancelled if cancelled else CallFailed)(failure, method=begun.method, call_id=begun.call_id)


def RpcMgmtSetCancelTimeout(Timeout: int) -> int:
    """Set how long the blocking calls of this thread wait for the server's answer to a cancel.

    It counts for calls that begin after this, in this thread, when `RpcCancelThread` cancels them.
    Source: RpcMgmtSetCancelTimeout.

    Args:
        Timeout: Seconds; 0: a call is abandoned as soon as it is cancelled; `RPC_C_CANCEL_INFINITE_TIMEOUT`, which is
            how each thread starts: it waits for ever.

    Returns:
        RPC_S_OK: It is set.
        RPC_S_INVALID_TIMEOUT: It is no such number; nothing was changed.
    """
    if not _is_timeout(Timeout):
        return RPC_S_INVALID_TIMEOUT
    _SETTINGS.cancel_timeout = Timeout
    return RpcStatus.OK


def RpcCancelThread(Thread: threading.Thread | int) -> int:
    """Cancel the blocking call of another thread, with that thread's own cancel time-out.

    The server is asked to stop, and what it then does is the call's outcome; if the time-out lapses first, the call
    is abandoned and fails with RPC_S_CALL_FAILED. Not for asynchronous calls. Source: RpcCancelThread.

    Args:
        Thread: The thread, or its identifier.

    Returns:
        RPC_S_OK: The request was processed.
        RPC_S_INVALID_ARG: It is no thread.
        RPC_S_NO_CALL_ACTIVE: The thread is in no blocking call; nothing was cancelled, and nothing will be.
    """
    return _cancel(Thread, None, RpcStatus.CALL_FAILED)


def RpcCancelThreadEx(Thread: threading.Thread | int, Timeout: int) -> int:
    """Cancel the blocking call of another thread, with a time-out of its own.

    As `RpcCancelThread`, but if the time-out lapses first, the call fails with RPC_S_CALL_CANCELLED.
    Source: RpcCancelThreadEx.

    Args:
        Thread: The thread, or its identifier.
        Timeout: Seconds; 0: the call is abandoned at once; `RPC_C_CANCEL_INFINITE_TIMEOUT`: it waits for ever.

    Returns:
        RPC_S_OK: The request was processed.
        RPC_S_INVALID_ARG: It is no thread.
        RPC_S_INVALID_TIMEOUT: It is no such number; nothing was cancelled.
        RPC_S_NO_CALL_ACTIVE: The thread is in no blocking call; nothing was cancelled, and nothing will be.
    """
    return _cancel(Thread, Timeout, RpcStatus.CALL_CANCELLED) if _is_timeout(Timeout) else RPC_S_INVALID_TIMEOUT


def _is_timeout(seconds: object) -> bool:
    return isinstance(seconds, int) and RPC_C_CANCEL_INFINITE_TIMEOUT <= seconds < 2**31


def _cancel(thread: object, timeout: int | None, status: RpcStatus) -> RpcStatus:
    identifier = thread.ident if isinstance(thread, threading.Thread) else thread
    if not isinstance(identifier, int):
        return RpcStatus.INVALID_ARG
    blocked = _BLOCKED.get(identifier)
    if blocked is None:
        return RpcStatus.NO_CALL_ACTIVE
    there = blocked.cancel(blocked.cancel_timeout if timeout is None else timeout, status)
    return RpcStatus.OK if there else RpcStatus.NO_CALL_ACTIVE
