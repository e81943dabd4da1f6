"""The session wire's messages, into core's types and back, and the call ids of a session's calls."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple, TypeVar

from google.protobuf import any_pb2
from google.protobuf.message import DecodeError, Message

from rpc_async.core.frames import Frame, ProtocolError
from rpc_async.core.outcome import Fault, Progress
from rpc_async.errors import InvalidArgument
from rpc_async.status import CancelReason, RpcStatus
from rpc_async.v1 import session_pb2, types_pb2
from rpc_async.wire.calls import REASONS, progress_from_proto, progress_to_proto
from rpc_async.wire.faults import fault_from_details, fault_to_status
from rpc_async.wire.metadata import check_metadata

__all__ = [
    "MAX_BATCH_BYTES",
    "SESSION_ID_SIZE",
    "SESSION_METHOD",
    "BothMetadata",
    "CallHead",
    "CallIds",
    "Opened",
    "abort_head",
    "call_head",
    "cancel_note",
    "encode_request",
    "encode_response",
    "fault_head",
    "new_session_id",
    "open_request",
    "opened_response",
    "progress_payload",
    "read_abort_head",
    "read_call_head",
    "read_cancel_note",
    "read_fault_head",
    "read_progress",
    "read_reply_head",
    "read_request",
    "read_response",
    "reply_head",
]

SESSION_METHOD: Final = "/rpc_async.v1.AsyncCalls/Session"
MAX_BATCH_BYTES: Final = 512 * 1024
"""Bytes: a batch that is larger is refused unread. Batches are made smaller than half of it."""

MessageT = TypeVar("MessageT", bound=Message)
Pairs = Iterable[tuple[str, str | bytes]]


# -- batches --------------------------------------------------------------------------------------------


class Opened(NamedTuple):
    """What the server says to a stream that was opened."""

    found: bool
    linger: float
    max_payload: int


def open_request(session_id: bytes, *, resume: bool, ack: int) -> bytes:
    """Return the message that opens a stream."""
    opening = session_pb2.Open(session_id=session_id, resume=resume)
    return session_pb2.SessionRequest(open=opening, ack=ack).SerializeToString()


def opened_response(opened: Opened, ack: int) -> bytes:
    """Return the message that answers it."""
    answer = session_pb2.Opened(found=opened.found, linger=opened.linger, max_payload=opened.max_payload)
    return session_pb2.SessionResponse(opened=answer, ack=ack).SerializeToString()


def encode_request(frames: Sequence[Frame], ack: int) -> bytes:
    """Return the message for a batch of the client's frames."""
    if not frames:
        return session_pb2.SessionRequest(ack=ack).SerializeToString()
    kinds, numbers, payloads = zip(*frames, strict=True)
    return session_pb2.SessionRequest(
        ack=ack, kinds=bytes(kinds), numbers=numbers, payloads=payloads
    ).SerializeToString()


def encode_response(frames: Sequence[Frame], ack: int) -> bytes:
    """Return the message for a batch of the server's frames."""
    if not frames:
        return session_pb2.SessionResponse(ack=ack).SerializeToString()
    kinds, numbers, payloads = zip(*frames, strict=True)
    return session_pb2.SessionResponse(
        ack=ack, kinds=bytes(kinds), numbers=numbers, payloads=payloads
    ).SerializeToString()


def read_request(data: bytes) -> tuple[tuple[bytes, bool] | None, int, list[Frame]]:
    """Read a client's message: the session id and whether it is resumed, if it opens a stream; the ack; the frames.

    Raises:
        ProtocolError: It is none.
    """
    _check_size(data)
    message = _parse(session_pb2.SessionRequest, data, "a message")
    opening = (message.open.session_id, message.open.resume) if message.HasField("open") else None
    return opening, message.ack, _frames(message)


def read_response(data: bytes) -> tuple[Opened | None, int, list[Frame]]:
    """Read a server's message: the answer to an opened stream, if it is one; the ack; the frames.

    Raises:
        ProtocolError: It is none.
    """
    _check_size(data)
    message = _parse(session_pb2.SessionResponse, data, "a message")
    opened = None
    if message.HasField("opened"):
        opened = Opened(message.opened.found, message.opened.linger, message.opened.max_payload)
        if not opened.linger >= 0:  # or no number at all
            raise ProtocolError(f"a session that lingers for {opened.linger} seconds")
    return opened, message.ack, _frames(message)


def _parse(kind: type[MessageT], data: bytes, what: str) -> MessageT:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise ProtocolError(f"{what} of {len(data)} bytes that does not parse") from error


def _check_size(data: bytes) -> None:
    if len(data) > MAX_BATCH_BYTES:
        raise ProtocolError(f"a batch of {len(data)} bytes, where {MAX_BATCH_BYTES} are the most")


def _frames(message: session_pb2.SessionRequest | session_pb2.SessionResponse) -> list[Frame]:
    try:
        return list(zip(message.kinds, message.numbers, message.payloads, strict=True))
    except ValueError as error:
        raise ProtocolError("a batch whose columns are not equally long") from error


# -- what is in a frame ---------------------------------------------------------------------------------


class CallHead(NamedTuple):
    """A call with something more than its request."""

    request: bytes
    timeout: float | None
    """Seconds."""
    metadata: tuple[tuple[str, str | bytes], ...]


def call_head(request: bytes, timeout: float | None, metadata: Pairs) -> bytes:
    """Return the payload of a CALL_WITH_HEAD. `timeout` is in seconds."""
    timeout_us = 0 if timeout is None else max(int(timeout * 1e6), 1)
    return session_pb2.CallHead(
        request=request, timeout_us=timeout_us, metadata=_to_metadata(metadata)
    ).SerializeToString()


def read_call_head(payload: bytes) -> CallHead:
    """Read it. Raises ProtocolError."""
    head = _parse(session_pb2.CallHead, payload, "a call's head")
    return CallHead(head.request, head.timeout_us / 1e6 if head.timeout_us else None, _from_metadata(head.metadata))


def abort_head(reason: CancelReason) -> bytes:
    """Return the payload of an ABORT; the usual one is empty."""
    if reason is CancelReason.CLIENT_ABORTED:
        return b""
    return session_pb2.AbortHead(reason=REASONS[reason]).SerializeToString()


def read_abort_head(payload: bytes) -> CancelReason:
    """Read it. A client can say that its deadline passed; else it has aborted."""
    reason = _parse(session_pb2.AbortHead, payload, "an abort's head").reason
    return CancelReason.DEADLINE if reason == types_pb2.CANCEL_REASON_DEADLINE else CancelReason.CLIENT_ABORTED


class BothMetadata(NamedTuple):
    """What comes with an outcome."""

    initial: tuple[tuple[str, str | bytes], ...] = ()
    trailing: tuple[tuple[str, str | bytes], ...] = ()


def reply_head(reply: bytes, metadata: BothMetadata) -> bytes:
    """Return the payload of a REPLY_WITH_HEAD."""
    return session_pb2.ReplyHead(
        reply=reply, trailing=_to_metadata(metadata.trailing), initial=_to_metadata(metadata.initial)
    ).SerializeToString()


def read_reply_head(payload: bytes) -> tuple[bytes, BothMetadata]:
    """Read it. Raises ProtocolError."""
    head = _parse(session_pb2.ReplyHead, payload, "a reply's head")
    return head.reply, BothMetadata(_from_metadata(head.initial), _from_metadata(head.trailing))


def fault_head(failure: Fault, metadata: BothMetadata) -> bytes:
    """Return the payload of a FAULT."""
    status = fault_to_status(failure)
    return session_pb2.FaultHead(
        code=status.code,
        message=status.message,
        details=status.details,
        trailing=_to_metadata(metadata.trailing),
        initial=_to_metadata(metadata.initial),
    ).SerializeToString()


def read_fault_head(payload: bytes) -> tuple[Fault, BothMetadata]:
    """Read it. Raises ProtocolError."""
    head = _parse(session_pb2.FaultHead, payload, "a fault's head")
    details: list[any_pb2.Any] = list(head.details)
    metadata = BothMetadata(_from_metadata(head.initial), _from_metadata(head.trailing))
    return fault_from_details(head.code, head.message, details), metadata


def cancel_note(status: RpcStatus) -> bytes:
    """Return the payload of a CANCEL_NOTE."""
    return session_pb2.CancelNote(status=status).SerializeToString()


def read_cancel_note(payload: bytes) -> RpcStatus:
    """Read it. Raises ProtocolError."""
    status = _parse(session_pb2.CancelNote, payload, "a note on a cancel").status
    try:
        return RpcStatus(status)
    except ValueError as error:
        raise ProtocolError(f"a note on a cancel with the status {status}") from error


def progress_payload(progress: Progress) -> bytes:
    """Return the payload of a PROGRESS."""
    return progress_to_proto(progress).SerializeToString()


def read_progress(payload: bytes) -> Progress:
    """Read it. Raises ProtocolError."""
    progress = progress_from_proto(_parse(types_pb2.Progress, payload, "a progress report"))
    if not 0 <= progress.fraction <= 1:
        raise ProtocolError(f"a progress report of {progress.fraction}")
    return progress


def _to_metadata(pairs: Pairs) -> list[session_pb2.Metadatum]:
    return [
        session_pb2.Metadatum(key=key, value=value.encode() if isinstance(value, str) else value)
        for key, value in pairs
    ]


def _from_metadata(metadata: Iterable[session_pb2.Metadatum]) -> tuple[tuple[str, str | bytes], ...]:
    try:
        return check_metadata(
            (one.key, one.value if one.key.endswith("-bin") else one.value.decode("ascii")) for one in metadata
        )
    except (UnicodeDecodeError, InvalidArgument) as error:
        raise ProtocolError("metadata that gRPC does not allow") from error


# -- call ids -------------------------------------------------------------------------------------------


SESSION_ID_SIZE: Final = 32


def new_session_id() -> bytes:
    """Return a session id, at random."""
    return secrets.token_bytes(SESSION_ID_SIZE)


class CallIds:
    """The call ids of one session, which are computed when somebody asks for them.

    An id is `TAG-NUMBER-SEAL`: the tag finds the session, the seal (128 bits, keyed with the session id) is what
    makes the id a secret. So an id opens its own call only, and no table of ids is needed.
    """

    __slots__ = ("_key", "tag")

    def __init__(self, session_id: bytes) -> None:
        self._key = session_id
        self.tag: Final = blake2b(session_id, digest_size=8, person=b"rpc_async tag").hexdigest()

    def of(self, number: int) -> str:
        """Return the id of a call."""
        seal = blake2b(number.to_bytes(8), key=self._key, digest_size=16, person=b"rpc_async call").hexdigest()
        return f"{self.tag}-{number:x}-{seal}"

    def number(self, call_id: str) -> int | None:
        """Return the number of the call with this id; None if it is not one of this session's."""
        number = _number(call_id)
        return number if number is not None and hmac.compare_digest(call_id, self.of(number)) else None

    @staticmethod
    def tag_of(call_id: str) -> str | None:
        """Return the tag of the session that an id belongs to; None if it belongs to none."""
        return call_id[:16] if call_id.count("-") == 2 and call_id[16:17] == "-" and call_id.isascii() else None


def _number(call_id: str) -> int | None:
    text = call_id.split("-")[1] if call_id.count("-") == 2 and call_id.isascii() else ""
    try:
        return int(text, 16) if 0 < len(text) <= 16 and text.isalnum() else None
    except ValueError:
        return None
