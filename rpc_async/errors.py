"""The exceptions.

    RpcAsyncError
    ├── UsageError                  misuse here: nothing was sent, and no call changed
    │   ├── AsyncCallPending        997   `complete()` before the call has settled
    │   ├── InvalidArgument         87    a parameter with a value that it may not have (also a ValueError)
    │   ├── InvalidBinding          1702  a channel that is closed or was never opened (also a grpc.aio.UsageError)
    │   ├── InvalidAsyncHandle      1914  a server handle that was completed or aborted before
    │   ├── InvalidAsyncCall        1915  a handle that is not for this operation
    │   ├── BadStubData             1783  a message of another type than the method's (also a TypeError)
    │   ├── PayloadTooLarge         14    a message over the size limit (also a ValueError)
    │   ├── PipeClosed              1916  a push after the end of the pipe
    │   ├── PipeDisciplineError     1917  a call completed before all its pipes were drained
    │   ├── PipeEmpty               1918  a pull after the end of the pipe
    │   ├── WrongPipeOrder          1831  pipes used in another order than the documented one, where that is asked for
    │   ├── QueueClosed             1702  a completion queue that was closed
    │   ├── ForkedProcess           1764  a channel or a server in a process that was forked after gRPC was used
    │   └── CannotSupport           1764  what was asked for cannot be had here
    └── CallError                   an outcome from there: the call failed (also a grpc.aio.AioRpcError)
        ├── CallCancelled           1818  the call was cancelled, or the server's verdict was to stop
        │   └── DeadlineExceeded    1818  the deadline passed
        ├── CallFailed              1726, 1727 and what has no class of its own
        ├── ServerUnavailable       1722  surely not executed
        ├── ServerTooBusy           1723  surely not executed
        └── CallAborted             the application's own code

`asyncio.CancelledError` is not here: it means only that your own task was cancelled, never that a call was.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

import grpc
import grpc.aio

from rpc_async.core.outcome import Detail, Fault
from rpc_async.status import CancelReason, RpcStatus, status_name

__all__ = [
    "AsyncCallPending",
    "BadStubData",
    "CallAborted",
    "CallCancelled",
    "CallError",
    "CallFailed",
    "CannotSupport",
    "DeadlineExceeded",
    "ForkedProcess",
    "InvalidArgument",
    "InvalidAsyncCall",
    "InvalidAsyncHandle",
    "InvalidBinding",
    "PayloadTooLarge",
    "PipeClosed",
    "PipeDisciplineError",
    "PipeEmpty",
    "QueueClosed",
    "RpcAsyncError",
    "ServerTooBusy",
    "ServerUnavailable",
    "UsageError",
    "WrongPipeOrder",
]

_GRPC_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


class RpcAsyncError(Exception):
    """The root of everything that this library raises."""


class UsageError(RpcAsyncError):
    """Misuse here: nothing was sent, and no call changed its state."""

    status: ClassVar[RpcStatus]
    """The documented status of this misuse."""


class AsyncCallPending(UsageError):
    """The call has not settled yet. It stays outstanding, and nothing was consumed (C1)."""

    status = RpcStatus.ASYNC_CALL_PENDING


class InvalidArgument(UsageError, ValueError):
    """A parameter has a value that it may not have."""

    status = RpcStatus.INVALID_ARG


class InvalidBinding(UsageError, grpc.aio.UsageError):
    """The channel is closed, or was never opened. It is gRPC's own error for that, too."""

    status = RpcStatus.INVALID_BINDING


class InvalidAsyncHandle(UsageError):
    """The server handle is destroyed: its call was completed or aborted before (S4)."""

    status = RpcStatus.INVALID_ASYNC_HANDLE


class InvalidAsyncCall(UsageError):
    """The handle cannot be used for this operation."""

    status = RpcStatus.INVALID_ASYNC_CALL


class BadStubData(UsageError, TypeError):
    """A message is not of the type that the method declares, or cannot be serialised."""

    status = RpcStatus.BAD_STUB_DATA


class PayloadTooLarge(UsageError, ValueError):
    """A message is larger than the limit of this side."""

    status = RpcStatus.OUT_OF_MEMORY


class QueueClosed(UsageError):
    """The completion queue is closed, and everything that it held was taken."""

    status = RpcStatus.INVALID_BINDING


class PipeClosed(UsageError):
    """The pipe was ended before, or the server has completed the call and wants no more (P3)."""

    status = RpcStatus.PIPE_CLOSED


class PipeDisciplineError(UsageError):
    """The call was completed before every one of its pipes was drained (P5)."""

    status = RpcStatus.PIPE_DISCIPLINE_ERROR


class PipeEmpty(UsageError):
    """The end of the pipe was pulled before, or the pipe was discarded: there is no more data."""

    status = RpcStatus.PIPE_EMPTY


class WrongPipeOrder(UsageError):
    """The pipes were used in another order than the documented one, which `strict_pipes` asks for (P5)."""

    status = RpcStatus.WRONG_PIPE_ORDER


class CannotSupport(UsageError):
    """What was asked for cannot be had here."""

    status = RpcStatus.CANNOT_SUPPORT


class ForkedProcess(UsageError):
    """This process was forked from one that had used gRPC, which cannot go on in a forked child."""

    status = RpcStatus.CANNOT_SUPPORT


class CallError(RpcAsyncError, grpc.aio.AioRpcError):
    """The call failed. Raised anew for every `complete()`, `result()` and `await`.

    Attributes:
        fault: All that is known of the failure.
        method: The method's full name, as `/package.Service/Method`.
        call_id: The call's id; a secret, so the message shows its beginning only.
    """

    def __init__(
        self,
        fault: Fault,
        *,
        method: str = "",
        call_id: str = "",
        initial_metadata: grpc.aio.Metadata | None = None,
        trailing_metadata: grpc.aio.Metadata | None = None,
        debug_error_string: str | None = None,
    ) -> None:
        super().__init__(
            _GRPC_CODES[fault.grpc_code],
            grpc.aio.Metadata() if initial_metadata is None else initial_metadata,
            grpc.aio.Metadata() if trailing_metadata is None else trailing_metadata,
            details=fault.message,
            debug_error_string=debug_error_string or f"{_GRPC_CODES[fault.grpc_code].name}:{fault.message}",
        )
        self.fault = fault
        self.method = method
        self.call_id = call_id

    @property
    def status(self) -> int:
        """An `RpcStatus`, or the application's own code, unchanged."""
        try:
            return RpcStatus(self.fault.status)
        except ValueError:
            return self.fault.status

    @property
    def cancel_reason(self) -> CancelReason | None:
        """Why the call was cancelled, if it was and the reason is known (S13)."""
        return self.fault.cancel_reason

    @property
    def executed(self) -> bool | None:
        """False: the server surely did not execute the call. True: it surely did. None: unknown (C14)."""
        return self.fault.executed

    @property
    def status_details(self) -> tuple[Detail, ...]:
        """The chain of details that the server gave with its failure, unchanged (C15)."""
        return self.fault.details

    @property
    def shed(self) -> tuple[str, ...]:
        """What was left out on the way, as the peer may not take more (C15): "details", "text", "trailing_metadata"."""
        return self.fault.shed

    def details(self) -> str:
        """Return the failure's text."""
        return self.fault.message

    def debug_error_string(self) -> str:
        """Return what there is for who looks for the failure's cause: gRPC's own words where there are any."""
        return super().debug_error_string() or ""

    def __str__(self) -> str:
        fault = self.fault
        call = f"{self.method or 'call'} [{self.call_id[:8]}…]" if self.call_id else self.method or "call"
        why = f", {fault.cancel_reason}" if fault.cancel_reason is not None else ""
        ran = {False: " (surely not executed)", True: "", None: " (may have been executed)"}[fault.executed]
        code = _GRPC_CODES[fault.grpc_code].name
        return f"{call}: {status_name(fault.status)} ({int(fault.status)}), {code}{why}: {fault.message}{ran}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, (
            type(self),
            self.fault,
            self.method,
            self.call_id,
            tuple(self.initial_metadata() or ()),
            tuple(self.trailing_metadata() or ()),
            self.debug_error_string(),
        )


class CallCancelled(CallError):
    """The call was cancelled: here, or by the server's own verdict after a request (C5)."""


class DeadlineExceeded(CallCancelled):
    """The deadline passed before the call settled (C12)."""


class CallFailed(CallError):
    """The call failed. `executed` tells what is known about its execution (C14)."""


class ServerUnavailable(CallError):
    """No server was reached, or it takes no calls: surely not executed (C14)."""


class ServerTooBusy(CallError):
    """The server runs as many calls as it may: surely not executed (S16), as `executed` then says.

    A plain gRPC server's RESOURCE_EXHAUSTED is read as this too, and says nothing of execution: `executed` is None.
    """


class CallAborted(CallError):
    """The application aborted the call with a code of its own (S6)."""


_CLASS_OF: Final[dict[int, type[CallError]]] = {
    RpcStatus.CALL_CANCELLED: CallCancelled,
    RpcStatus.SERVER_UNAVAILABLE: ServerUnavailable,
    RpcStatus.SERVER_TOO_BUSY: ServerTooBusy,
}


def error_class(fault: Fault) -> type[CallError]:
    """Return the class of exception that a fault is raised as."""
    if fault.cancel_reason is CancelReason.DEADLINE and fault.status == RpcStatus.CALL_CANCELLED:
        return DeadlineExceeded
    known = status_name(fault.status) != "application code"
    return _CLASS_OF.get(fault.status, CallFailed if known else CallAborted)


def _unpickle(
    cls: type[CallError],
    fault: Fault,
    method: str,
    call_id: str,
    initial: tuple[tuple[str, str | bytes], ...],
    trailing: tuple[tuple[str, str | bytes], ...],
    debug_error_string: str,
) -> CallError:
    return cls(
        fault,
        method=method,
        call_id=call_id,
        initial_metadata=grpc.aio.Metadata(*initial),
        trailing_metadata=grpc.aio.Metadata(*trailing),
        debug_error_string=debug_error_string,
    )
