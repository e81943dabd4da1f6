"""Status codes, cancel reasons and what can be notified: the words that every other module speaks.

The numbers are Win32's and travel unchanged. The two tables below are the semantics' table of status codes,
one for each direction; gRPC codes are the canonical numbers (0 to 16), so that nothing here needs gRPC.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag, StrEnum
from typing import Final

__all__ = ["U32_MAX", "AsyncEvent", "CancelReason", "GrpcCode", "Notifications", "RpcStatus", "status_name"]

U32_MAX: Final = 0xFFFF_FFFF


class RpcStatus(IntEnum):
    """What became of a call, or of a function of the façade, as documented for Microsoft RPC."""

    OK = 0
    """It succeeded. From `RpcServerTestCancel`: the call was cancelled."""
    ACCESS_DENIED = 5
    """The caller may not do this."""
    OUT_OF_MEMORY = 14
    """A message is larger than a limit allows, or there is no memory for it."""
    INVALID_ARG = 87
    """A parameter has a value that it may not have."""
    ASYNC_CALL_PENDING = 997
    """The call has not settled yet."""
    INVALID_BINDING = 1702
    """The channel or the handle is not bound to a call or a server."""
    SERVER_UNAVAILABLE = 1722
    """The server was not reached or takes no calls: the call was surely not executed."""
    SERVER_TOO_BUSY = 1723
    """The server runs as many calls as it may: the call was surely not executed. A plain gRPC server's
    RESOURCE_EXHAUSTED is read as this too, and says nothing of execution."""
    NO_CALL_ACTIVE = 1725
    """There is no running call that this could be about."""
    CALL_FAILED = 1726
    """The call failed, and may have been executed, wholly or in part."""
    CALL_FAILED_DNE = 1727
    """The call failed, and was surely not executed ("did not execute")."""
    PROCNUM_OUT_OF_RANGE = 1745
    """The server has no such method."""
    CANNOT_SUPPORT = 1764
    """The other side does not support what was asked for."""
    INTERNAL_ERROR = 1766
    """A fault in the library or in gRPC."""
    BAD_STUB_DATA = 1783
    """A message could not be read or written as the type that the method declares."""
    CALL_IN_PROGRESS = 1791
    """From `RpcServerTestCancel`: the call was not cancelled. Never a failure."""
    CALL_CANCELLED = 1818
    """The call was cancelled, or its deadline passed."""
    WRONG_PIPE_ORDER = 1831
    """Pipes were used in the wrong order."""
    INVALID_ASYNC_HANDLE = 1914
    """The handle is no handle, or is destroyed: its call was completed or aborted before."""
    INVALID_ASYNC_CALL = 1915
    """The handle is a handle, but not for this operation."""
    PIPE_CLOSED = 1916
    """Something was pushed after the end of the pipe."""
    PIPE_DISCIPLINE_ERROR = 1917
    """The call was completed before all its pipes were drained."""
    PIPE_EMPTY = 1918
    """The pipe has no more data."""

    def __str__(self) -> str:
        return self.name


class CancelReason(StrEnum):
    """Why a call was cancelled (S13). The values are those of the metadata `cancel_reason` on the wire."""

    CLIENT_REQUESTED = "client_requested"
    """The client asked, and waits for the server's answer."""
    CLIENT_ABORTED = "client_aborted"
    """The client aborted the call, and does not wait."""
    CLIENT_DISCONNECTED = "client_disconnected"
    """The client's connection was lost."""
    DEADLINE = "deadline"
    """The call's deadline passed."""
    SHUTDOWN = "shutdown"
    """The server is shutting down and its grace period is over."""


class AsyncEvent(IntEnum):
    """What a notification tells. Source: RPC_ASYNC_EVENT, whose numbers these are but for the last."""

    CALL_COMPLETE = 0
    """The call has settled: its outcome can be collected."""
    SEND_COMPLETE = 1
    """What was pushed into a pipe is sent."""
    RECEIVE_COMPLETE = 2
    """A pipe has something to pull."""
    CLIENT_DISCONNECT = 3
    """The client of the call is gone. On the server."""
    CLIENT_CANCEL = 4
    """The call was cancelled while its client was there. On the server."""
    PROGRESS = 256
    """A progress report is there: see the call's `last_progress`. Ours."""

    def __str__(self) -> str:
        return self.name


class Notifications(IntFlag):
    """What a manager can ask to be told of (S12). Source: RPC_NOTIFICATIONS."""

    NONE = 0
    """Nothing."""
    CLIENT_DISCONNECT = 1
    """The client is gone."""
    CALL_CANCEL = 2
    """The call was cancelled for any other reason: asked, aborted, out of time, or the server is shutting down."""


class GrpcCode(IntEnum):
    """gRPC's canonical status codes, by number. See gRPC's documentation of status codes."""

    OK = 0
    """Success."""
    CANCELLED = 1
    """The operation was cancelled."""
    UNKNOWN = 2
    """An error of which no more is known."""
    INVALID_ARGUMENT = 3
    """The client gave a wrong argument."""
    DEADLINE_EXCEEDED = 4
    """The deadline passed first."""
    NOT_FOUND = 5
    """Something asked for is not there."""
    ALREADY_EXISTS = 6
    """Something to be made is there already."""
    PERMISSION_DENIED = 7
    """The caller may not."""
    RESOURCE_EXHAUSTED = 8
    """A limit was reached."""
    FAILED_PRECONDITION = 9
    """The system is not in the state that this needs."""
    ABORTED = 10
    """The operation was aborted by the application."""
    OUT_OF_RANGE = 11
    """Past the valid range."""
    UNIMPLEMENTED = 12
    """No such method."""
    INTERNAL = 13
    """A broken invariant."""
    UNAVAILABLE = 14
    """The service is not available now."""
    DATA_LOSS = 15
    """Unrecoverable loss."""
    UNAUTHENTICATED = 16
    """No valid credentials."""


GRPC_CODE_OF: Final[dict[int, GrpcCode]] = {
    RpcStatus.OK: GrpcCode.OK,
    RpcStatus.ACCESS_DENIED: GrpcCode.PERMISSION_DENIED,
    RpcStatus.OUT_OF_MEMORY: GrpcCode.RESOURCE_EXHAUSTED,
    RpcStatus.INVALID_ARG: GrpcCode.INVALID_ARGUMENT,
    RpcStatus.INVALID_BINDING: GrpcCode.FAILED_PRECONDITION,
    RpcStatus.SERVER_UNAVAILABLE: GrpcCode.UNAVAILABLE,
    RpcStatus.SERVER_TOO_BUSY: GrpcCode.RESOURCE_EXHAUSTED,
    RpcStatus.NO_CALL_ACTIVE: GrpcCode.FAILED_PRECONDITION,
    RpcStatus.CALL_FAILED: GrpcCode.UNKNOWN,
    RpcStatus.CALL_FAILED_DNE: GrpcCode.UNAVAILABLE,
    RpcStatus.PROCNUM_OUT_OF_RANGE: GrpcCode.UNIMPLEMENTED,
    RpcStatus.CANNOT_SUPPORT: GrpcCode.UNIMPLEMENTED,
    RpcStatus.INTERNAL_ERROR: GrpcCode.INTERNAL,
    RpcStatus.BAD_STUB_DATA: GrpcCode.INTERNAL,
    RpcStatus.CALL_CANCELLED: GrpcCode.CANCELLED,
    RpcStatus.WRONG_PIPE_ORDER: GrpcCode.FAILED_PRECONDITION,
    RpcStatus.INVALID_ASYNC_HANDLE: GrpcCode.FAILED_PRECONDITION,
    RpcStatus.INVALID_ASYNC_CALL: GrpcCode.FAILED_PRECONDITION,
    RpcStatus.PIPE_CLOSED: GrpcCode.FAILED_PRECONDITION,
    RpcStatus.PIPE_DISCIPLINE_ERROR: GrpcCode.FAILED_PRECONDITION,
    RpcStatus.PIPE_EMPTY: GrpcCode.FAILED_PRECONDITION,
}
"""The gRPC code that each status becomes; any other number is the application's own and becomes ABORTED."""

STATUS_OF_GRPC_CODE: Final[dict[int, RpcStatus]] = {
    GrpcCode.OK: RpcStatus.OK,
    GrpcCode.CANCELLED: RpcStatus.CALL_CANCELLED,
    GrpcCode.DEADLINE_EXCEEDED: RpcStatus.CALL_CANCELLED,
    GrpcCode.INVALID_ARGUMENT: RpcStatus.INVALID_ARG,
    GrpcCode.PERMISSION_DENIED: RpcStatus.ACCESS_DENIED,
    GrpcCode.UNAUTHENTICATED: RpcStatus.ACCESS_DENIED,
    GrpcCode.RESOURCE_EXHAUSTED: RpcStatus.SERVER_TOO_BUSY,
    GrpcCode.UNIMPLEMENTED: RpcStatus.PROCNUM_OUT_OF_RANGE,
    GrpcCode.INTERNAL: RpcStatus.INTERNAL_ERROR,
}
"""The status read back from a plain gRPC failure; every code not named here is CALL_FAILED.

UNAVAILABLE is not: it is SERVER_UNAVAILABLE, "surely not executed", only where gRPC's own text proves that nothing was
sent (`wire/faults.py`). RESOURCE_EXHAUSTED is SERVER_TOO_BUSY, whose number says nothing of execution then."""

NOT_EXECUTED: Final = frozenset(
    {
        RpcStatus.SERVER_UNAVAILABLE,
        RpcStatus.SERVER_TOO_BUSY,
        RpcStatus.CALL_FAILED_DNE,
        RpcStatus.PROCNUM_OUT_OF_RANGE,
    }
)
"""The statuses that say: surely not executed (C14)."""

NEVER_AN_OUTCOME: Final = frozenset({RpcStatus.OK, RpcStatus.ASYNC_CALL_PENDING, RpcStatus.CALL_IN_PROGRESS})
"""The numbers that cannot be the failure of a settled call."""


def status_name(status: int) -> str:
    """Return the name of a status number, or "application code" for a number that is the application's own."""
    try:
        return RpcStatus(status).name
    except ValueError:
        return "application code"
