"""Faults: from an abort to gRPC's trailers, and from a failed gRPC call back.

A fault travels as an ordinary gRPC status. Its details (`google.rpc.Status` in the trailing metadata
`grpc-status-details-bin`) begin with a `google.rpc.ErrorInfo` of the domain `rpc_async`, which carries the
status number; the application's own chain of details follows it. So a client in any language can read the
number with what it already has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from rpc_async.core.outcome import Detail, Fault, fault
from rpc_async.errors import InvalidArgument, PayloadTooLarge
from rpc_async.status import (
    NEVER_AN_OUTCOME,
    STATUS_OF_GRPC_CODE,
    U32_MAX,
    CancelReason,
    GrpcCode,
    RpcStatus,
    status_name,
)

__all__ = [
    "MAX_STATUS_SIZE",
    "STATUS_DETAILS_KEY",
    "abort_fault",
    "check_size",
    "encodable",
    "fault_from_details",
    "fault_from_failure",
    "fault_to_status",
    "grpc_status_code",
    "to_details",
]

MAX_STATUS_SIZE: Final = 64 * 1024
"""Bytes: the largest fault, with its text and its chain of details."""

_DOMAIN: Final = "rpc_async"
STATUS_DETAILS_KEY: Final = "grpc-status-details-bin"
"""gRPC's own key of a `google.rpc.Status` in trailing metadata."""
_STATUS_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


def grpc_status_code(code: int) -> grpc.StatusCode:
    """Return gRPC's enum member for a canonical number; UNKNOWN for a number that gRPC does not know."""
    return _STATUS_CODES.get(code, grpc.StatusCode.UNKNOWN)


def abort_fault(code: int | grpc.StatusCode, message: str, details: Iterable[Message]) -> Fault:
    """Make the fault of an explicit abort (S6).

    Raises:
        InvalidArgument: `code` is 0, no 32-bit number, or a number that cannot be an outcome (997, 1791).
    """
    chain = to_details(details)
    if isinstance(code, grpc.StatusCode):
        number = code.value[0]
        if number == 0:
            raise InvalidArgument("abort with StatusCode.OK: an abort is a failure; complete the call instead")
        status = STATUS_OF_GRPC_CODE.get(number, RpcStatus.CALL_FAILED)
        return Fault(status, message, number, executed=True, details=chain, grpc_only=True)
    if not 0 < code <= U32_MAX:
        raise InvalidArgument(f"abort with code {code}: the code must be from 1 to {U32_MAX} (S6)")
    if code in NEVER_AN_OUTCOME:
        raise InvalidArgument(f"abort with {status_name(code)} ({int(code)}): a call that has settled cannot be that")
    return fault(code, message, executed=True, details=chain)


def to_details(messages: Iterable[Message]) -> tuple[Detail, ...]:
    """Pack messages into a chain of details; an `Any` is taken as it is."""
    return tuple(_to_detail(message) for message in messages)


def _to_detail(message: Message) -> Detail:
    if not isinstance(message, any_pb2.Any):
        packed = any_pb2.Any()
        packed.Pack(message)
        message = packed
    return Detail(message.type_url, message.value)


def check_size(failure: Fault) -> None:
    """Raise PayloadTooLarge for a fault that is larger than `MAX_STATUS_SIZE`, which no wire carries."""
    size = fault_to_status(failure).ByteSize()
    if size > MAX_STATUS_SIZE:
        raise PayloadTooLarge(
            f"the fault's text and details take {size} bytes and may take {MAX_STATUS_SIZE}: they were not sent"
        )


def encodable(text: str) -> str:
    """Return a text as it can be sent: what is no character at all is a question mark."""
    return text.encode(errors="replace").decode()


def fault_to_status(failure: Fault) -> status_pb2.Status:
    """Return a fault as a `google.rpc.Status`: an `ErrorInfo` with the number first, then the chain of details."""
    proto = status_pb2.Status(code=failure.grpc_code, message=encodable(failure.message))
    if not failure.grpc_only or failure.shed:
        info = error_details_pb2.ErrorInfo(domain=_DOMAIN, reason=_reason_name(failure.status))
        if not failure.grpc_only:
            info.metadata["status"] = f"{int(failure.status)}"
        if failure.shed:
            info.metadata["shed"] = ",".join(failure.shed)
        if failure.cancel_reason is not None:
            info.metadata["cancel_reason"] = failure.cancel_reason.value
        if failure.executed is not None:
            info.metadata["executed"] = str(failure.executed).lower()
        proto.details.add().Pack(info)
    for detail in failure.details:
        proto.details.add(type_url=detail.type_url, value=detail.value)
    return proto


def _reason_name(status: int) -> str:
    name = status_name(status)
    return "APPLICATION" if name == "application code" else name


def fault_from_failure(
    code: int, message: str, trailing_metadata: Iterable[tuple[str, Any]], *, unreached: bool = False
) -> Fault:
    """Read a fault from a failed gRPC call: from its `ErrorInfo`, or, without one, from the bare code and gRPC's text.

    Args:
        code: gRPC's number.
        message: The text.
        trailing_metadata: What came with it.
        unreached: gRPC's channel reaches nobody, as it says itself. Only then is gRPC's text that nobody was reached
            its own, and a proof that nothing was sent (C14): else a server may have passed on what it met itself.
    """
    proto = _status_details(trailing_metadata)
    return fault_from_details(code, message, () if proto is None else proto.details, unreached=unreached)


def fault_from_details(
    code: int, message: str, packed_details: Iterable[any_pb2.Any], *, unreached: bool = False
) -> Fault:
    """Read a fault from the parts of a `google.rpc.Status`. A code that is none of gRPC's failures is UNKNOWN."""
    code = code if code in _STATUS_CODES and code != GrpcCode.OK else GrpcCode.UNKNOWN
    details = []
    info: error_details_pb2.ErrorInfo | None = None
    for packed in packed_details:
        if info is None and packed.TypeName() == "google.rpc.ErrorInfo":
            info = _own_info(packed)
            if info is not None:
                continue
        details.append(Detail(packed.type_url, packed.value))
    status = _status_number(info)
    if info is None or status is None:
        return replace(_plain_fault(code, message, tuple(details), unreached), shed=_shed(info))
    executed = {"true": True, "false": False}.get(info.metadata.get("executed", ""))
    return Fault(status, message, code, _cancel_reason(info), executed, tuple(details), shed=_shed(info))


def _status_details(metadata: Iterable[tuple[str, Any]]) -> status_pb2.Status | None:
    for key, value in metadata:
        if key == STATUS_DETAILS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:  # not ours to judge: the code and the text are there all the same
                return None
    return None


def _own_info(packed: any_pb2.Any) -> error_details_pb2.ErrorInfo | None:
    try:
        info = error_details_pb2.ErrorInfo.FromString(packed.value)
    except DecodeError:
        return None
    return info if info.domain == _DOMAIN else None


def _status_number(info: error_details_pb2.ErrorInfo | None) -> int | None:
    text = "" if info is None else info.metadata.get("status", "")
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        return None
    number = int(text)
    return number if number <= U32_MAX and number not in NEVER_AN_OUTCOME else None


def _shed(info: error_details_pb2.ErrorInfo | None) -> tuple[str, ...]:
    text = "" if info is None else info.metadata.get("shed", "")
    return tuple(text.split(",")) if text else ()


def _cancel_reason(info: error_details_pb2.ErrorInfo) -> CancelReason | None:
    try:
        return CancelReason(info.metadata.get("cancel_reason", ""))
    except ValueError:
        return None


_Texts = tuple[tuple[GrpcCode, re.Pattern[str], RpcStatus, bool | None], ...]

NOTHING_SENT: Final = (
    "failed to connect to all addresses",  # refused, no such socket, no TLS, no HTTP/2, no answer, closed at once
    "connections to all backends failing",  # the same, of the policy round_robin
    "errors resolving ",  # gRPC since 1.83 or so: no such name
    "DNS resolution failed for ",  # gRPC before that
)
"""How gRPC's texts begin that say, with UNAVAILABLE, that nobody was reached: nothing was sent (C14).

Each is met for real, on each version of gRPC that the tests run on, in `tests/integration/test_executed.py`. Any other
UNAVAILABLE proves nothing: the connection may have been lost while the call ran, or a proxy or a server have said it.
"""
_NOTHING_SENT: Final = re.compile("|".join(map(re.escape, NOTHING_SENT)))

_NO_SUCH_METHOD: Final = re.compile(
    "Method not found!"  # Python, and others on C-core
    "|Method not found: .*"  # Java
    "|(unknown service|unknown method) .*"  # Go
    "|malformed method name: .*"
    "|The server does not implement the method .*"  # Node
    "|(Service|Method) is unimplemented\\.",  # .NET
    re.DOTALL,
)
"""The whole texts with which gRPC's libraries refuse a call that they have no handler for. A handler's own
UNIMPLEMENTED, and a proxy's 404, say nothing of execution."""

_TEXTS: Final[_Texts] = (
    # gRPC's own failures, which carry a code that says less than their text. First match of the whole text wins.
    (
        GrpcCode.RESOURCE_EXHAUSTED,
        re.compile(r"SERVER: Received message larger than max \(\d+ vs\. \d+\)"),
        RpcStatus.OUT_OF_MEMORY,
        False,
    ),
    (GrpcCode.RESOURCE_EXHAUSTED, re.compile(".*larger than max.*", re.DOTALL), RpcStatus.OUT_OF_MEMORY, None),
    # What the server said is lost with its trailers, or with its stream: it was not too busy to run the call.
    (
        GrpcCode.RESOURCE_EXHAUSTED,
        re.compile(".*(received (initial |trailing )?metadata size exceeds|RST_STREAM).*", re.DOTALL),
        RpcStatus.CALL_FAILED,
        None,
    ),
    # A server that stops cancels calls in gRPC's own words before any handler sees them: nobody here cancelled them.
    (
        GrpcCode.CANCELLED,
        re.compile("CANCELLED|.*RST_STREAM with error code 8.*", re.DOTALL),
        RpcStatus.CALL_FAILED,
        None,
    ),
    (GrpcCode.UNIMPLEMENTED, _NO_SUCH_METHOD, RpcStatus.PROCNUM_OUT_OF_RANGE, False),
)


def _plain_fault(code: int, message: str, details: tuple[Detail, ...], unreached: bool) -> Fault:
    """Read a failure that carries no number of ours (C14: a lost connection is not an absent server)."""
    if unreached and code == GrpcCode.UNAVAILABLE and _NOTHING_SENT.match(message):
        return Fault(RpcStatus.SERVER_UNAVAILABLE, message, code, None, False, details)
    if unreached and code == GrpcCode.UNKNOWN and message.startswith("Failed to create channel"):
        return Fault(RpcStatus.INVALID_BINDING, message, code, None, False, details)
    for failure_code, text, status, executed in _TEXTS:
        if code == failure_code and text.fullmatch(message):
            return Fault(status, message, code, None, executed, details)
    status = STATUS_OF_GRPC_CODE.get(code, RpcStatus.CALL_FAILED)
    reason = CancelReason.DEADLINE if code == GrpcCode.DEADLINE_EXCEEDED else None
    return Fault(status, message, code, reason, None, details)
