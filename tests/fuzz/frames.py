"""Strategies: batches and frames, from nonsense to what is nearly right."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from rpc_async.core.frames import MAX_PAYLOAD, Frame, FrameKind
from rpc_async.core.outcome import Fault, Progress
from rpc_async.status import CancelReason, RpcStatus
from rpc_async.wire.session import (
    BothMetadata,
    Opened,
    abort_head,
    call_head,
    cancel_note,
    encode_request,
    encode_response,
    fault_head,
    open_request,
    opened_response,
    progress_payload,
    reply_head,
)

K = FrameKind
ECHO = b"/rpc_async.demo.v1.Demo/Echo"
CLIENT_KINDS = [int(kind) for kind in (K.CALL, K.CALL_WITH_HEAD, K.METHOD, K.CANCEL, K.ABORT, K.WATCH, K.CLOSE)]
SERVER_KINDS = [int(kind) for kind in (K.REPLY, K.REPLY_WITH_HEAD, K.FAULT, K.CANCEL_NOTE, K.PROGRESS, K.CLOSE)]
LARGE_KINDS = [int(kind) for kind in (K.START, K.PIECE, K.DROP)]
SIZES = st.sampled_from(
    [MAX_PAYLOAD + 1, 2 * MAX_PAYLOAD, 3 * MAX_PAYLOAD + 7, 1 << 20, 1 << 24, 2**64 - 1, MAX_PAYLOAD, 0]
)
PAIRS: list[tuple[str, str | bytes]] = [("x-key", "value"), ("x-key-bin", b"\x00\xff")]
HEADS = [
    call_head(b"request", 1.5, PAIRS),
    call_head(b"", 1e12, ()),
    reply_head(b"reply", BothMetadata(tuple(PAIRS), tuple(PAIRS))),
    fault_head(Fault(RpcStatus.CALL_FAILED, "text", 2, executed=True), BothMetadata()),
    fault_head(Fault(4711, "text", 0), BothMetadata()),
    fault_head(Fault(RpcStatus.OK, "", 99), BothMetadata()),
    fault_head(Fault(RpcStatus.CALL_CANCELLED, "", 1, CancelReason.CLIENT_REQUESTED), BothMetadata()),
    cancel_note(RpcStatus.OK),
    progress_payload(Progress(0.5, "half")),
    progress_payload(Progress(float("nan"))),
    progress_payload(Progress(-1.0)),
    abort_head(CancelReason.DEADLINE),
    ECHO,
    b"",
]
BYTES = st.one_of(st.binary(max_size=64), st.sampled_from(HEADS))


@st.composite
def mutated(draw: st.DrawFn, base: st.SearchStrategy[bytes]) -> bytes:
    """Draw something that was right before a few of its bytes were changed, cut off or put in."""
    data = bytearray(draw(base))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(data)))
        if draw(st.booleans()):
            data[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
        elif place < len(data):
            data[place] ^= 1 << draw(st.integers(0, 7))
    return bytes(data)


NUMBERS = st.one_of(st.integers(0, 5), st.integers(0, 5).map(lambda it: it << 12), st.integers(0, 2**64 - 1))
START = st.builds(
    lambda kind, size: bytes((kind,)) + size.to_bytes(8), st.sampled_from(CLIENT_KINDS + SERVER_KINDS), SIZES
)
ANY_FRAME = st.tuples(
    st.one_of(st.sampled_from(CLIENT_KINDS + SERVER_KINDS + LARGE_KINDS), st.integers(0, 255)),
    NUMBERS,
    st.one_of(BYTES, START, mutated(st.sampled_from(HEADS)), st.just(bytes(MAX_PAYLOAD))),
)


@st.composite
def _large(draw: st.DrawFn, number: int, start: Frame, size: int) -> list[Frame]:
    """Draw the frames of a large one, maybe without its end."""
    frames = [start]
    left = min(size, 4 * MAX_PAYLOAD)
    while left > 0 and draw(st.integers(0, 9)):
        piece = min(left, draw(st.sampled_from([MAX_PAYLOAD, MAX_PAYLOAD, 1000, 1])))
        frames.append((int(K.PIECE), number, bytes(piece)))
        left -= piece
    if left and draw(st.booleans()):
        frames.append((int(K.DROP), number, b""))
    return frames


@st.composite
def client_frames(draw: st.DrawFn) -> list[Frame]:
    """Draw what a client might say: mostly what it may."""
    frames: list[Frame] = [(int(K.METHOD), 0, ECHO)]
    begun = 0
    for _ in range(draw(st.integers(0, 12))):
        what = draw(st.integers(0, 11))
        if what <= 3:
            begun += draw(st.integers(1, 2))
            with_head = draw(st.booleans())
            payload = draw(st.sampled_from(HEADS) if with_head else BYTES)
            frames.append((int(K.CALL_WITH_HEAD if with_head else K.CALL), begun << 12, payload))
        elif what <= 5:
            begun += 1
            size = draw(SIZES)
            head = bytes((int(draw(st.sampled_from([K.CALL, K.CALL_WITH_HEAD]))),)) + size.to_bytes(8)
            frames += draw(_large(begun, (int(K.START), begun << 12, head), size))
        elif what <= 8:
            kind = draw(st.sampled_from([K.CANCEL, K.ABORT, K.WATCH]))
            frames.append((int(kind), draw(st.integers(1, max(begun, 1))), b""))
        elif what == 9:
            frames.append(draw(ANY_FRAME))
        else:
            frames.insert(draw(st.integers(0, len(frames))), draw(ANY_FRAME))
    return frames


@st.composite
def server_frames(draw: st.DrawFn, calls: int = 4) -> list[Frame]:
    """Draw what a server might say about calls 1 to `calls`: mostly what it may."""
    frames: list[Frame] = []
    for _ in range(draw(st.integers(0, 12))):
        what, number = draw(st.integers(0, 11)), draw(st.integers(1, calls))
        if what <= 7:
            kind = draw(st.sampled_from(SERVER_KINDS[:-1]))
            frames.append((kind, number, draw(st.sampled_from(HEADS))))
        elif what <= 9:
            size = draw(SIZES)
            head = bytes((draw(st.sampled_from(SERVER_KINDS[:3])),)) + size.to_bytes(8)
            frames += draw(_large(number, (int(K.START), number, head), size))
        else:
            frames.append(draw(ANY_FRAME))
    return frames


def cut_up(draw: st.DrawFn, frames: Sequence[Frame]) -> list[list[Frame]]:
    """Part frames into batches."""
    batches: list[list[Frame]] = []
    rest = list(frames)
    while rest:
        count = draw(st.integers(1, len(rest)))
        batch: list[Frame] = []
        while rest and len(batch) < count and sum(len(frame[2]) for frame in batch) < 200_000:
            batch.append(rest.pop(0))
        batches.append(batch)
    return batches


ACKS = st.one_of(st.just(0), st.integers(0, 3), st.integers(0, 2**64 - 1))
REQUESTS = st.one_of(
    st.builds(encode_request, st.lists(ANY_FRAME, max_size=4), ACKS),
    st.builds(
        lambda session_id, resume, ack: open_request(session_id, resume=resume, ack=ack),
        st.binary(min_size=32, max_size=32),
        st.booleans(),
        ACKS,
    ),
)
RESPONSES = st.one_of(
    st.builds(encode_response, st.lists(ANY_FRAME, max_size=4), ACKS),
    st.builds(
        lambda found, linger, most, ack: opened_response(Opened(found, linger, most), ack),
        st.booleans(),
        st.floats(),
        st.integers(0, 2**64 - 1),
        ACKS,
    ),
)


@st.composite
def client_messages(draw: st.DrawFn) -> list[bytes]:
    """Draw what a client might send after its `Open`: batches, and now and then something else."""
    acks = st.sampled_from([0, 0, 0, 0, 0, 0, 1, 2])
    messages = [encode_request(batch, draw(acks)) for batch in cut_up(draw, draw(client_frames()))]
    if not draw(st.integers(0, 3)):
        messages.insert(draw(st.integers(0, len(messages))), draw(st.one_of(st.binary(max_size=40), mutated(REQUESTS))))
    return messages


@st.composite
def server_messages(draw: st.DrawFn) -> list[bytes]:
    """Draw what a server might send, its answer to the `Open` among it."""
    messages = [opened_response(Opened(True, draw(st.sampled_from([0.0, 0.5, 30.0])), 1 << 20), 0)]
    acks = st.sampled_from([0, 0, 0, 1, 1, 2, 3, 9])
    messages += [encode_response(batch, draw(acks)) for batch in cut_up(draw, draw(server_frames()))]
    if not draw(st.integers(0, 3)):
        messages.insert(
            draw(st.integers(0, len(messages))), draw(st.one_of(st.binary(max_size=40), mutated(RESPONSES)))
        )
    return messages
