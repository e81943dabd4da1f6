"""The session wire's messages, into core's types and back, and the call ids of a session's calls."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple, TypeVar, cast

from google.protobuf import any_pb2
from google.protobuf.message import DecodeError, Message

from rpc_async.core.frames import MAX_PAYLOAD, Frame, FrameKind, ProtocolError
from rpc_async.core.outcome import Fault, Progress
from rpc_async.errors import InvalidArgument
from rpc_async.status import CancelReason, RpcStatus
from rpc_async.v1 import session_pb2, types_pb2
from rpc_async.wire.calls import REASONS, progress_from_proto, progress_to_proto
from rpc_async.wire.faults import fault_from_details, fault_to_status
from rpc_async.wire.metadata import check_metadata

__all__ = [
    "MAX_BATCH_BYTES",
    "MAX_BULK_BYTES",
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
"""Bytes: every side takes batches of so many. They are made smaller than half of it, unless the other takes more."""
MAX_BULK_BYTES: Final = 1280 * 1024
"""Bytes: a batch that is larger is refused unread. A side says that it takes so many, where gRPC's limits let it."""

Buffer = bytes | memoryview

_PIECE: Final = int(FrameKind.PIECE)
_VARINT, _BYTES = 0, 2
_TAG_ACK, _TAG_KINDS, _TAG_NUMBERS, _TAG_PAYLOADS = (
    bytes((field << 3 | form,)) for field, form in ((2, _VARINT), (3, _BYTES), (4, _BYTES), (5, _BYTES))
)
"""What protobuf writes before each field's value."""
_FEW: Final = 16
"""Frames: with more of them protobuf is quicker, whatever it copies."""
_MAX_SHIFT: Final = 56
"""Bits: numbers of the last byte of 64 bits are for protobuf."""

MessageT = TypeVar("MessageT", bound=Message)
Pairs = Iterable[tuple[str, str | bytes]]


# -- batches --------------------------------------------------------------------------------------------


class Opened(NamedTuple):
    """What the server says to a stream that was opened."""

    found: bool
    linger: float
    max_payload: int
    max_batch: int = 0
    """Bytes of the largest message that the server takes; 0: it does not say."""


class Opening(NamedTuple):
    """What a client opens a stream with."""

    session_id: bytes
    resume: bool
    max_batch: int
    """As in `Opened`, of the client."""


def open_request(session_id: bytes, *, resume: bool, ack: int, max_batch: int = 0) -> bytes:
    """Return the message that opens a stream."""
    opening = session_pb2.Open(session_id=session_id, resume=resume, max_batch=max_batch)
    return session_pb2.SessionRequest(open=opening, ack=ack).SerializeToString()


def opened_response(opened: Opened, ack: int) -> bytes:
    """Return the message that answers it."""
    answer = session_pb2.Opened(**opened._asdict())
    return session_pb2.SessionResponse(opened=answer, ack=ack).SerializeToString()


def encode_request(frames: Sequence[Frame], ack: int) -> bytes:
    """Return the message for a batch of the client's frames."""
    if not frames:
        return session_pb2.SessionRequest(ack=ack).SerializeToString()
    kinds, numbers, payloads = zip(*frames, strict=True)
    packed = bytes(kinds)
    if _PIECE in packed:
        return _with_pieces(packed, numbers, payloads, ack)
    return session_pb2.SessionRequest(ack=ack, kinds=packed, numbers=numbers, payloads=payloads).SerializeToString()


def encode_response(frames: Sequence[Frame], ack: int) -> bytes:
    """Return the message for a batch of the server's frames."""
    if not frames:
        return session_pb2.SessionResponse(ack=ack).SerializeToString()
    kinds, numbers, payloads = zip(*frames, strict=True)
    packed = bytes(kinds)
    if _PIECE in packed:
        return _with_pieces(packed, numbers, payloads, ack)
    return session_pb2.SessionResponse(ack=ack, kinds=packed, numbers=numbers, payloads=payloads).SerializeToString()


def _with_pieces(kinds: bytes, numbers: Iterable[int], payloads: Iterable[Buffer], ack: int) -> bytes:
    """Return the same message, of either side, for a batch with pieces of large frames in it.

    protobuf takes bytes only, and copies them twice, into memory that is new each time. Joined here, what a piece shows
    of its large frame is copied once.
    """
    packed = b"".join(map(_varint, numbers))
    parts: list[Buffer] = [
        _TAG_ACK, _varint(ack), _TAG_KINDS, _varint(len(kinds)), kinds, _TAG_NUMBERS, _varint(len(packed)), packed
    ]  # fmt: skip
    for payload in payloads:
        parts += (_TAG_PAYLOADS, _varint(len(payload)), payload)
    return b"".join(parts)


def _varint(value: int) -> bytes:
    """Return a number as protobuf writes it: seven bits a byte, the lowest first."""
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def read_request(data: bytes) -> tuple[Opening | None, int, list[Frame]]:
    """Read a client's message: how it opens a stream, if it does; the ack; the frames.

    Raises:
        ProtocolError: It is none.
    """
    _check_size(data)
    if len(data) > MAX_PAYLOAD and (read := _read_pieces(data)) is not None:
        return None, *read
    message = _parse(session_pb2.SessionRequest, data, "a message")
    opening = None
    if message.HasField("open"):
        opening = Opening(message.open.session_id, message.open.resume, message.open.max_batch)
    return opening, message.ack, _frames(message)


def read_response(data: bytes) -> tuple[Opened | None, int, list[Frame]]:
    """Read a server's message: the answer to an opened stream, if it is one; the ack; the frames.

    Raises:
        ProtocolError: It is none.
    """
    _check_size(data)
    if len(data) > MAX_PAYLOAD and (read := _read_pieces(data)) is not None:
        return None, *read
    message = _parse(session_pb2.SessionResponse, data, "a message")
    opened = None
    if message.HasField("opened"):
        opened = Opened(
            message.opened.found, message.opened.linger, message.opened.max_payload, message.opened.max_batch
        )
        if not opened.linger >= 0:  # or no number at all
            raise ProtocolError(f"a session that lingers for {opened.linger} seconds")
    return opened, message.ack, _frames(message)


def _read_pieces(data: bytes) -> tuple[int, list[Frame]] | None:
    """Read what `_with_pieces` wrote, of few frames; None of anything else, which is for protobuf to read.

    A piece is a view of the message, since it is put to its place at once, which copies it.
    """
    try:
        at = _expect(data, 0, _TAG_ACK)
        ack, at = _read_varint(data, at)
        count, at = _read_varint(data, _expect(data, at, _TAG_KINDS))
        if not 0 < count <= _FEW:
            return None
        kinds = data[at : at + count]
        size, at = _read_varint(data, _expect(data, at + count, _TAG_NUMBERS))
        end, numbers = at + size, list[int]()
        while at < end:
            number, at = _read_varint(data, at)
            numbers.append(number)
        frames, view = list[Frame](), memoryview(data)
        for kind, number in zip(kinds, numbers, strict=True):
            size, at = _read_varint(data, _expect(data, at, _TAG_PAYLOADS))
            payload = view[at : at + size]
            if len(payload) != size:
                return None
            frames.append((kind, number, cast("bytes", payload) if kind == _PIECE else bytes(payload)))
            at += size
    except (IndexError, ValueError):
        return None
    return (ack, frames) if at == len(data) else None


def _expect(data: bytes, at: int, tag: bytes) -> int:
    if data[at] != tag[0]:
        raise ValueError(tag)
    return at + 1


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > _MAX_SHIFT:
            raise ValueError(shift)


def _parse(kind: type[MessageT], data: bytes, what: str) -> MessageT:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise ProtocolError(f"{what} of {len(data)} bytes that does not parse") from error


def _check_size(data: bytes) -> None:
    if len(data) > MAX_BULK_BYTES:
        raise ProtocolError(f"a batch of {len(data)} bytes, where {MAX_BULK_BYTES} are the most")


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
