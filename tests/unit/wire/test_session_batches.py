"""Batches with pieces of large frames are written and read by hand: exactly what protobuf writes and reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpc_async.core.frames import MAX_PAYLOAD, Frame, FrameKind, ProtocolError
from rpc_async.v1 import session_pb2
from rpc_async.wire import session
from rpc_async.wire.session import (
    MAX_BULK_BYTES,
    encode_request,
    encode_response,
    open_request,
    read_request,
    read_response,
)

PIECE = int(FrameKind.PIECE)
BIG = bytes(range(256)) * (MAX_PAYLOAD // 256) + b"more"
NUMBERS = st.one_of(st.integers(0, 300), st.integers(0, (1 << 64) - 1))
PAYLOADS = st.one_of(st.binary(max_size=300), st.sampled_from([BIG, bytes(MAX_PAYLOAD), b""]))
FRAMES = st.lists(st.tuples(st.integers(0, 255), NUMBERS, PAYLOADS), max_size=20)


def with_protobuf(frames: list[Frame], ack: int) -> bytes:
    message = session_pb2.SessionRequest(ack=ack)
    message.kinds = bytes(kind for kind, _, _ in frames)
    message.numbers.extend(number for _, number, _ in frames)
    message.payloads.extend(payload for _, _, payload in frames)
    return message.SerializeToString()


@given(frames=FRAMES, at=st.integers(0, 20), ack=st.integers(0, (1 << 64) - 1))
def test_what_is_written_is_what_protobuf_writes(frames: list[Frame], at: int, ack: int) -> None:
    frames.insert(at, (PIECE, 7, memoryview(BIG)[3:]))  # type: ignore[arg-type]
    expected = session_pb2.SessionRequest.FromString(
        with_protobuf([(kind, number, bytes(payload)) for kind, number, payload in frames], ack)
    )
    for encoded in (encode_request(frames, ack), encode_response(frames, ack)):
        assert session_pb2.SessionRequest.FromString(encoded) == expected
        for read in (read_request, read_response):
            opening, said, heard = read(encoded)
            assert (opening, said, heard) == (None, ack, frames)
            assert all(isinstance(payload, bytes) for kind, _, payload in heard if kind != PIECE)


def test_a_piece_is_not_copied_before_it_is_put_to_its_place() -> None:
    _, _, (frame,) = read_request(encode_request([(PIECE, 7, BIG)], 1))
    assert isinstance(frame[2], memoryview)


@given(data=st.data(), frames=FRAMES, ack=st.integers(0, 300))
def test_what_is_read_by_hand_is_what_protobuf_reads(data: st.DataObject, frames: list[Frame], ack: int) -> None:
    """Of anything at all: messages of which some bytes are others, are missing, or are there twice."""
    whole = bytearray(with_protobuf([*frames[:10], (PIECE, 7, BIG)], ack))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, min(len(whole), 400)))
        how = data.draw(st.sampled_from(["change", "drop", "insert"]))
        if how == "insert":
            whole[at:at] = data.draw(st.binary(max_size=3))
        elif how == "drop":
            del whole[at : at + data.draw(st.integers(1, 3))]
        elif at < len(whole):
            whole[at] = data.draw(st.integers(0, 255))
    by_hand = session._read_pieces(bytes(whole))
    if by_hand is not None:
        message = session_pb2.SessionRequest.FromString(bytes(whole))
        columns = zip(message.kinds, message.numbers, message.payloads, strict=True)
        assert by_hand == (message.ack, list(columns))
        assert not message.HasField("open")


@pytest.mark.parametrize("read", [read_request, read_response])
def test_a_batch_that_is_too_large_is_refused_unread(read: object) -> None:
    assert callable(read)
    with pytest.raises(ProtocolError, match="a batch of 1310721 bytes"):
        read(bytes(MAX_BULK_BYTES + 1))


def test_a_first_message_says_what_its_side_takes() -> None:
    opening, _, _ = read_request(open_request(bytes(32), resume=True, ack=3, max_batch=70_000))
    assert opening == (bytes(32), True, 70_000)
