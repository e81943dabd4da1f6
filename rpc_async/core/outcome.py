"""How a call ends: one `Reply` or one `Fault`, the same on every wire and on both sides."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from rpc_async.status import GRPC_CODE_OF, NOT_EXECUTED, CancelReason, GrpcCode, RpcStatus

__all__ = ["Detail", "Fault", "Outcome", "Progress", "Reply", "fault", "not_executed"]


@dataclass(frozen=True, slots=True)
class Detail:
    """One record of a fault's chain of details (C15): a message of any type, packed."""

    type_url: str
    value: bytes


@dataclass(slots=True)  # not frozen, which makes an instance three times as dear: there is one for every call
class Reply:
    """The call succeeded."""

    message: Any
    """The reply: a message on the client's side, its bytes on the server's."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The call failed."""

    status: int
    """An `RpcStatus`, or the application's own code: any other non-zero 32-bit number."""
    message: str
    grpc_code: int
    """The canonical gRPC code that goes with it."""
    cancel_reason: CancelReason | None = None
    executed: bool | None = None
    """False: the server surely did not execute the call. True: it surely did, at least in part (C14)."""
    details: tuple[Detail, ...] = ()
    grpc_only: bool = False
    """The code is gRPC's own (S6), and no number of ours goes with it over the wire."""
    shed: tuple[str, ...] = ()
    """What was left out on the way, for want of room (C15): of "details", "text" and "trailing_metadata"."""


Outcome = Reply | Fault


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a call has come."""

    fraction: float
    """From 0 (nothing done) to 1 (all done)."""
    message: str = ""
    details: Detail | None = None


def not_executed(failure: Fault) -> Fault:
    """Return a failure as that of a call that surely was not executed, which is known from elsewhere (C14)."""
    status = failure.status
    if status == RpcStatus.CALL_FAILED:
        unreached = failure.grpc_code == GrpcCode.UNAVAILABLE
        status = RpcStatus.SERVER_UNAVAILABLE if unreached else RpcStatus.CALL_FAILED_DNE
    return replace(failure, status=status, executed=False)


def fault(
    status: int,
    message: str,
    *,
    cancel_reason: CancelReason | None = None,
    executed: bool | None = None,
    details: tuple[Detail, ...] = (),
) -> Fault:
    """Make the fault for a status, with the gRPC code of the table in the semantics.

    Args:
        status: An `RpcStatus` or the application's own code, not 0.
        message: What happened, for a person.
        cancel_reason: Why, if the call was cancelled.
        executed: What is known beyond what the status says of itself (C14).
        details: The chain of details, first to last.
    """
    code = GRPC_CODE_OF.get(status, _APPLICATION)
    if status == RpcStatus.CALL_CANCELLED and cancel_reason is CancelReason.DEADLINE:
        code = GrpcCode.DEADLINE_EXCEEDED  # C12
    if executed is None and status in NOT_EXECUTED:
        executed = False
    return Fault(status, message, code, cancel_reason, executed, details)


_APPLICATION: Final = GrpcCode.ABORTED
