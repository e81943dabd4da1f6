"""What a session's machines refuse, and what they know of a call when a session is lost."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from itertools import pairwise

import pytest

from rpc_async.core import assembly, link
from rpc_async.core.assembly import Assembly
from rpc_async.core.client_session import ClientSession
from rpc_async.core.frames import MAX_PAYLOAD, Frame, FrameKind, ProtocolError
from rpc_async.core.link import MAX_BATCH, Link
from rpc_async.core.server_session import ServerSession
from rpc_async.core.session import HEAD_ROOM, MAX_METHODS

LARGE = bytes(MAX_PAYLOAD + 1)


def client(causal: bool = True, max_payload: int = 1 << 20) -> ClientSession[str]:
    return ClientSession(causal=causal, max_payload=max_payload)


def server() -> ServerSession[str]:
    machine: ServerSession[str] = ServerSession(max_payload=1 << 20)
    assert list(machine.receive([(FrameKind.METHOD, 0, b"/m")])) == []
    return machine


def start(kind: int, size: int) -> bytes:
    return bytes((kind,)) + size.to_bytes(8)


@pytest.mark.parametrize(
    "frame",
    [
        (0, 1, b""),
        (FrameKind.REPLY, 1, b""),
        (FrameKind.CANCEL, 1, b""),
        (FrameKind.ABORT, 0, b""),
        (FrameKind.CALL, 0, b""),
        (FrameKind.CALL, 1 << 12 | 1, b""),
        (FrameKind.PIECE, 1, b"x"),
        (FrameKind.DROP, 1, b""),
        (FrameKind.START, 1 << 12, b"short"),
        (FrameKind.START, 1 << 12, start(FrameKind.REPLY, 1 << 20)),
        (FrameKind.START, 1 << 12, start(FrameKind.CALL, MAX_PAYLOAD)),
        (FrameKind.METHOD, 0, b"/again"),
        (FrameKind.METHOD, 2, b"/gap"),
        (FrameKind.METHOD, 1, b"x" * 1025),
        (FrameKind.METHOD, 1, b"\xff"),
    ],
)
def test_a_server_refuses_what_no_client_may_say(frame: Frame) -> None:
    with pytest.raises(ProtocolError):
        list(server().receive([frame]))


def test_C14_a_call_whose_number_was_used_is_refused() -> None:
    machine = server()
    assert len(list(machine.receive([(FrameKind.CALL, 5 << 12, b"")]))) == 1
    for number in (5, 4):
        with pytest.raises(ProtocolError, match="rise"):
            list(machine.receive([(FrameKind.CALL, number << 12, b"")]))


@pytest.mark.parametrize(
    "frame",
    [
        (FrameKind.CALL, 1, b""),
        (FrameKind.REPLY, 2, b""),
        (FrameKind.PROGRESS, 2, b""),
        (FrameKind.START, 2, start(FrameKind.REPLY, 1 << 20)),
        (FrameKind.START, 1, start(FrameKind.CALL, 1 << 20)),
        (FrameKind.PIECE, 1, b""),
    ],
)
def test_a_client_refuses_what_no_server_may_say(frame: Frame) -> None:
    machine = client()
    machine.begin("/m", b"", "one")
    with pytest.raises(ProtocolError):
        list(machine.receive([frame]))


def test_a_close_ends_both_sides() -> None:
    ours, theirs = client(), server()
    ours.close()
    theirs.close()
    assert ours.link.take(0)[-1][0] == theirs.link.take(0)[-1][0] == FrameKind.CLOSE
    assert list(ours.receive([(FrameKind.CLOSE, 0, b"")])) == []
    assert list(theirs.receive([(FrameKind.CLOSE, 0, b"")])) == []
    assert ours.closed
    assert theirs.closed


def test_a_large_message_over_the_limit_takes_no_memory() -> None:
    size = (1 << 20) + HEAD_ROOM + 1
    theirs = server()
    told = list(theirs.receive([(FrameKind.START, 1 << 12, start(FrameKind.CALL, size))]))
    assert [one.kind for one in told] == [FrameKind.START]
    assert list(theirs.receive([(FrameKind.PIECE, 1, LARGE)])) == []
    assert theirs.assembly.held_bytes == 0
    theirs.refuse(1, FrameKind.FAULT, b"too large")
    assert theirs.link.take(0) == [(FrameKind.FAULT, 1, b"too large")]

    ours = client()
    ours.begin("/m", b"", "one")
    heard = list(ours.receive([(FrameKind.START, 1, start(FrameKind.REPLY, size))]))
    assert [(call, frame[0]) for call, frame in heard] == [("one", FrameKind.START)]
    assert not ours.outstanding
    assert list(ours.receive([(FrameKind.PIECE, 1, LARGE)])) == []


def test_a_reply_a_little_over_the_limit_is_not_given() -> None:
    ours = client(max_payload=MAX_PAYLOAD)
    ours.begin("/m", b"", "one")
    pieces = [(int(FrameKind.START), 1, start(FrameKind.REPLY, len(LARGE))), (int(FrameKind.PIECE), 1, LARGE)]
    assert [frame[0] for _, frame in ours.receive(pieces)] == [FrameKind.PIECE]


def test_a_large_reply_to_a_call_that_was_aborted_is_thrown_away() -> None:
    ours = client()
    ours.begin("/m", b"", "one")
    ours.abort(1)
    pieces = [(int(FrameKind.START), 1, start(FrameKind.REPLY, len(LARGE))), (int(FrameKind.PIECE), 1, LARGE)]
    assert list(ours.receive(pieces)) == []
    assert list(ours.receive([(FrameKind.START, 1, start(FrameKind.REPLY, 99999)), (FrameKind.DROP, 1, b"")])) == []


def test_what_is_said_of_a_call_that_is_still_arriving_waits_for_it() -> None:
    theirs = server()
    frames: list[Frame] = [
        (FrameKind.START, 1 << 12, start(FrameKind.CALL, len(LARGE))),
        (FrameKind.CANCEL, 1, b""),
        (FrameKind.CANCEL, 1, b""),
        (FrameKind.WATCH, 1, b""),
    ]
    assert list(theirs.receive(frames)) == []
    told = list(theirs.receive([(FrameKind.PIECE, 1, LARGE)]))
    assert [one.kind for one in told] == [FrameKind.CALL, FrameKind.CANCEL, FrameKind.WATCH]


def test_a_call_that_is_aborted_while_it_arrives_is_not_executed() -> None:
    theirs = server()
    begun: list[Frame] = [(FrameKind.START, 1 << 12, start(FrameKind.CALL, len(LARGE))), (FrameKind.PIECE, 1, b"x")]
    assert list(theirs.receive([*begun, (FrameKind.ABORT, 1, b""), (FrameKind.PIECE, 1, LARGE[1:])])) == []
    assert (
        list(theirs.receive([(FrameKind.START, 2 << 12, start(FrameKind.CALL, 99999)), (FrameKind.DROP, 2, b"")])) == []
    )
    assert theirs.assembly.held_bytes == 0


def test_C14_what_never_left_can_be_taken_back() -> None:
    ours = client(causal=False)
    for name, payload in (("one", b"1"), ("two", LARGE), ("three", b"3")):
        ours.begin("/m", payload, name)
    ours.ask(3)
    taken = ours.withdraw(lambda call: call != "one")
    assert [(item.call, item.method, len(item.payload), item.with_head) for item in taken] == [
        ("two", "/m", len(LARGE), False),
        ("three", "/m", 1, False),
    ]
    assert list(ours.outstanding.values()) == ["one"]
    assert ours.link.take(0) == [(FrameKind.METHOD, 0, b"/m"), (FrameKind.CALL, 1 << 12, b"1")]
    assert ours.link.queued_bytes == 0
    assert ours.withdraw(lambda _: True) == []  # it has left
    assert not ours.ask(2)
    ours.watch(2)
    assert not ours.link.wants_to_send


@pytest.mark.parametrize("causal", [True, False])
def test_C14_a_lost_session_tells_which_calls_were_sent(causal: bool) -> None:
    ours = client(causal)
    ours.begin("/m", b"1", "sent")
    ours.link.take(0)
    ours.begin("/m", bytes(10 * MAX_PAYLOAD), "begun")
    ours.link.take(0)
    ours.begin("/m", LARGE, "large")
    ours.begin("/m", b"4", "small")
    assert ours.withdraw(lambda call: call == "nobody") == []
    lost = ours.lose()
    assert lost.sent == ["sent"]
    assert [(one.call, one.method, one.in_part) for one in lost.unsent] == [
        ("begun", "/m", True),
        ("large", "/m", False),
        ("small", "/m", False),
    ]
    assert [len(one.payload) for one in lost.unsent] == [10 * MAX_PAYLOAD, len(LARGE), 1], "whole, to be sent anew"
    assert not ours.outstanding


def test_a_large_call_is_kept_by_a_withdrawal_that_is_not_about_it() -> None:
    ours = client()
    ours.begin("/m", LARGE, "large")
    ours.begin("/m", bytes(10 * MAX_PAYLOAD), "larger")
    ours.begin("/m", b"", "small")
    assert ours.withdraw(lambda call: call == "nobody") == []
    ours.begin("/m", b"", "smaller")
    assert [item.call for item in ours.withdraw(lambda call: call == "smaller")] == ["smaller"]
    ours.link.take(0)
    assert [item.call for item in ours.withdraw(lambda call: call == "small")] == ["small"]
    assert ours.abort(2) == "larger"  # it is on its way, and is dropped
    kinds = []
    while ours.link.wants_to_send:
        kinds += [frame[0] for frame in ours.link.take(0)]
    assert FrameKind.DROP in kinds
    assert kinds[-1] == FrameKind.ABORT


def test_a_session_names_so_many_methods_and_no_more() -> None:
    ours = client()
    for number in range(MAX_METHODS):
        ours.begin(f"/m{number}", b"", "call")
    with pytest.raises(ProtocolError):
        ours.begin("/one/more", b"", "call")


@pytest.mark.parametrize(
    "broken",
    [
        lambda it: it.acknowledge(3, 0),
        lambda it: (it.acknowledge(2, 0), it.acknowledge(1, 0)),
        lambda it: [it.arrived(0, 0, 0, 0) for _ in range(link.MAX_EMPTY + 1)],
        lambda it: (it.resume(0), it.acknowledge(1, 0)),  # it was not sent again yet
    ],
)
def test_a_link_refuses_an_acknowledgement_that_cannot_be(broken: Callable[[Link], object]) -> None:
    it = Link(causal=True)
    it.push(1, 1, b"")
    it.push(1, 2, b"")
    assert len(it.take(0)) == 2
    with pytest.raises(ProtocolError):
        broken(it)


def test_a_link_stops_at_its_window_and_goes_on_when_it_is_acknowledged() -> None:
    it = Link(causal=True)
    count = 0
    for _ in range(2 * link.WINDOW // MAX_PAYLOAD):
        it.push(1, 1, bytes(MAX_PAYLOAD))
    while it.wants_to_send:
        count += len(it.take(0))
    assert it.take(0) == []
    assert not it.idle
    assert count * MAX_PAYLOAD <= link.WINDOW + MAX_BATCH + MAX_PAYLOAD
    it.acknowledge(count - 1, 0)
    assert it.wants_to_send
    while it.wants_to_send:
        count += len(it.take(0))
        it.acknowledge(count, 0)
    assert it.idle


def test_an_acknowledgement_is_due_after_so_many_frames_or_bytes() -> None:
    it = Link(causal=True)
    assert it.backlog == 0
    assert not it.ack_due
    assert it.take(0) == []
    it.arrived(link.ACK_FRAMES, 1, 0, 0)
    assert it.ack_due
    assert it.ack() == link.ACK_FRAMES
    assert not it.ack_due
    it.arrived(1, link.ACK_BYTES, 0, 0)
    assert it.ack_due


def test_no_batch_is_over_256_KiB_and_small_frames_do_not_wait_for_large_ones() -> None:
    it = Link(causal=False)
    for number in range(1, 7):
        it.push(1, number, bytes(5 * MAX_PAYLOAD))
    for _ in range(4000):
        it.push(1, 9, bytes(100))
    first = it.take(0)
    assert sum(frame[0] == 1 for frame in first) > 500
    it.drop(2)
    assert not it.drop(99)
    sizes = [sum(len(frame[2]) + link.FRAME_COST for frame in first)]
    sent = len(first)
    while it.wants_to_send:
        frames = it.take(0)
        sent += len(frames)
        it.acknowledge(sent, 0)
        sizes.append(sum(len(frame[2]) + link.FRAME_COST for frame in frames))
    assert max(sizes) < 256 * 1024
    assert it.idle
    assert it.queued_bytes == 0


def test_an_assembly_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "MAX_TRANSFERS", 2)
    it = Assembly(100_000)
    for call in (1, 2):
        it.start(call, call, start(1, 80_000), (1,))
    with pytest.raises(ProtocolError, match="more than"):
        it.start(3, 3, start(1, 80_000), (1,))
    with pytest.raises(ProtocolError, match="inside another"):
        it.start(1, 1, start(1, 80_000), (1,))
    with pytest.raises(ProtocolError, match="past the frame"):
        it.piece(1, bytes(80_001))
    it.discard(99)
    it.drop(1)
    it.start(1, 1, start(1, 80_000), (1,))
    it.piece(1, bytes(60_000))
    with pytest.raises(ProtocolError, match="take more than"):
        it.piece(2, bytes(60_000))


def test_a_large_reply_is_given_whole() -> None:
    ours = client()
    ours.begin("/m", b"", "one")
    pieces = [(int(FrameKind.START), 1, start(FrameKind.REPLY, len(LARGE))), (int(FrameKind.PIECE), 1, LARGE)]
    assert list(ours.receive(pieces)) == [("one", (FrameKind.REPLY, 1, LARGE))]


def test_an_outcome_that_nobody_waits_for_is_not_sent() -> None:
    theirs = server()
    for told in theirs.receive([(FrameKind.CALL, 1 << 12, b"")]):
        theirs.calls[told.number] = "call"
    assert theirs.release(1) == "call"
    assert not theirs.end(1, FrameKind.REPLY, b"")
    assert not theirs.link.wants_to_send


def test_dropping_costs_little_however_much_waits() -> None:
    it = Link(causal=False)
    for number in range(1, 200_001):
        it.push(1, number, b"")
    it.push(1, 999_999, LARGE)
    assert not any(it.drop(1) for _ in range(100_000))  # a search each time would take minutes
    assert it.drop(999_999)
    assert it.queued_bytes == 9


def test_S16_a_client_whose_server_takes_nothing_begins_no_more_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "FULL_BYTES", 100)
    monkeypatch.setattr(link, "FULL_FRAMES", 5)
    ours = client()
    assert ours.begin("/m", bytes(101), "one") == 1
    assert ours.begin("/m", b"", "two") == 0
    assert list(ours.outstanding) == [1]
    assert ours.ask(1)  # what is said of calls that have begun is not refused
    ours.link.take(0)
    number = 1
    while ours.begin("/m", b"", "more"):
        number += 1
    assert number == 1 + 6
    ours.link.take(0)
    assert ours.begin("/m", b"", "another") == number + 1


@pytest.mark.parametrize("name", ["/" + "m" * 1024, "/m\n", "/\ud800"])
def test_a_method_that_has_no_name_for_the_wire_is_refused_here(name: str) -> None:
    ours = client()
    with pytest.raises(ProtocolError, match="1024 bytes at the most"):
        ours.begin(name, b"", "call")
    assert not ours.outstanding
    assert not ours.link.wants_to_send
    with pytest.raises(ProtocolError, match="cannot be printed"):
        list(server().receive([(FrameKind.METHOD, 1, b"/m\n")]))


def test_a_fault_ends_a_request_that_is_still_on_its_way() -> None:
    ours = client()
    ours.begin("/m", bytes(10 * MAX_PAYLOAD), "large")
    ours.link.take(0)
    assert [call for call, _ in ours.receive([(FrameKind.FAULT, 1, b"no room")])] == ["large"]
    kinds = [frame[0] for frame in ours.link.take(0)]
    assert kinds == [FrameKind.DROP]
    assert ours.link.held < 1000 + 4 * MAX_PAYLOAD


def test_large_requests_that_have_not_arrived_whole_can_be_thrown_away() -> None:
    theirs = server()
    size = len(LARGE)
    frames: list[Frame] = [
        (FrameKind.START, 1 << 12, start(FrameKind.CALL, size)),
        (FrameKind.START, 2 << 12, start(FrameKind.CALL, size)),
        (FrameKind.PIECE, 1, bytes(100)),
        (FrameKind.ABORT, 2, b""),
        (FrameKind.WATCH, 1, b""),
    ]
    assert list(theirs.receive(frames)) == []
    assert theirs.held == theirs.assembly.held_bytes == 100 + assembly.BUFFER_MEMORY
    assert theirs.relieve() == [1]
    assert theirs.held == 0
    assert list(theirs.receive([(FrameKind.PIECE, 1, LARGE[100:]), (FrameKind.PIECE, 2, LARGE)])) == []
    assert not theirs._early


def test_a_large_frame_takes_the_memory_that_has_come_and_no_more() -> None:
    it = Assembly(10_000)
    it.start(1, 1, start(1, 80_000_000), (1,))
    for so_far in range(1, 2000):
        assert it.piece(1, b"x") is None
        assert it.held_bytes == so_far + assembly.BUFFER_MEMORY
    with pytest.raises(ProtocolError, match="take more than"):
        it.piece(1, bytes(8_000))


@pytest.mark.parametrize("size", [80_000, assembly.RESERVE_AT, 3_000_000, assembly.RESERVE + 1])
def test_a_large_frame_is_put_together_from_pieces_of_any_size(size: int) -> None:
    it = Assembly(2 * assembly.RESERVE)
    it.start(1, 1, start(1, size), (1,))
    whole = random.Random(size).randbytes(size)
    ends = [0, 1, 70_000, *range(75_000, size, 777_777), size]
    for begin, end in pairwise(ends[:-1]):
        assert it.piece(1, whole[begin:end]) is None
    assert it.piece(1, whole[ends[-2] :]) == (1, 1, whole)
    assert it.held_bytes == 0


def test_room_is_set_aside_for_a_few_large_frames_at_once() -> None:
    it = Assembly(1 << 30)
    size = 2 * assembly.RESERVE_AT
    calls = range(1, assembly.RESERVATIONS + 2)
    for call in calls:
        it.start(call, call, start(1, size), (1,))
        for _ in range(size // MAX_PAYLOAD - 1):
            assert it.piece(call, bytes(MAX_PAYLOAD)) is None
    assert [partial.reserved for partial in it._partial.values()] == [True] * assembly.RESERVATIONS + [False]
    for call in calls:
        assert it.piece(call, bytes(MAX_PAYLOAD)) == (1, call, bytes(size))
    it.start(1, 1, start(1, size), (1,))
    assert it.piece(1, bytes(assembly.RESERVE_AT)) is None  # a large piece comes where nothing small is beside it
    assert it.held_bytes == assembly.RESERVE_AT + assembly.BUFFER_MEMORY
    assert not it._partial[1].reserved
    it.drop(1)
    it.start(1, 1, start(1, size), (1,))
    it.discard(1)
    for _ in range(assembly.RESERVE_AT // MAX_PAYLOAD):
        assert it.piece(1, bytes(MAX_PAYLOAD)) is None
    assert not it._partial[1].reserved
    assert it.held_bytes == 0


def test_a_large_frame_grows_where_no_room_can_be_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "RESERVE", 1 << 62)
    it = Assembly(1 << 30)
    it.start(1, 1, start(1, 2 * assembly.RESERVE_AT), (1,))
    pieces = [bytes((number,)) * MAX_PAYLOAD for number in range(2 * assembly.RESERVE_AT // MAX_PAYLOAD)]
    assert [it.piece(1, piece) for piece in pieces][-1] == (1, 1, b"".join(pieces))


def test_what_an_abort_touches_is_touched_under_the_lock_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """An abort, in any thread, throws away what has come of a reply, and ends the request on its way out."""
    lock = threading.Lock()
    touched = []

    def guarded(kind: type[object], name: str) -> None:
        original = getattr(kind, name)

        def function(*arguments: object) -> object:
            assert lock.locked()
            touched.append(name)
            return original(*arguments)

        monkeypatch.setattr(kind, name, function)

    ours = client()
    for number in range(1, 5):
        assert ours.begin("/m", LARGE, f"call {number}") == number
    for name in ("start", "piece", "discard"):
        guarded(Assembly, name)
    guarded(Link, "drop")
    frames: list[Frame] = [
        (FrameKind.START, 1, start(FrameKind.REPLY, len(LARGE))),
        (FrameKind.START, 2, start(FrameKind.REPLY, len(LARGE))),
        (FrameKind.START, 3, start(FrameKind.REPLY, 1 << 40)),
        (FrameKind.PIECE, 1, LARGE[1:]),
        (FrameKind.PIECE, 1, LARGE[:1]),
        (FrameKind.DROP, 2, b""),
        (FrameKind.FAULT, 4, b"no room"),
    ]
    heard = [(call, frame[0]) for call, frame in ours.receive(frames, lock)]
    assert heard == [("call 3", FrameKind.START), ("call 1", FrameKind.REPLY), ("call 4", FrameKind.FAULT)]
    assert touched == ["start", "start", "start", "discard", "piece", "piece", "discard", "drop"]
    assert not lock.locked()


def test_a_session_that_has_ended_holds_nothing() -> None:
    theirs = server()
    frames: list[Frame] = [(FrameKind.START, 1 << 12, start(FrameKind.CALL, 99999)), (FrameKind.PIECE, 1, b"x")]
    assert list(theirs.receive(frames)) == []
    for _ in range(100):
        theirs.refuse(1, FrameKind.FAULT, LARGE)
    theirs.link.take(0)
    assert theirs.held > 100 * len(LARGE)
    theirs.forget()
    assert theirs.held == 0
    assert theirs.link.idle
    assert not theirs.link.wants_to_send


def test_a_link_counts_what_was_sent_of_a_large_frame_until_it_is_gone() -> None:
    it = Link(causal=True)
    it.push(1, 1, bytes(10 * MAX_PAYLOAD))
    before = it.held
    sent = len(it.take(0))
    assert sent > 1
    assert it.held > before
    while not it.idle:
        sent += len(it.take(0))
        it.acknowledge(sent, 0)
    assert sent == 11
    assert it.held == 0
    assert it.carried == 11


def test_a_link_that_is_resumed_wrongly_has_not_changed() -> None:
    it = Link(causal=True)
    it.push(1, 1, b"x")
    it.take(0)
    held = it.held
    for count in (2, -1):
        with pytest.raises(ProtocolError):
            it.resume(count)
    assert it.held == held
    assert not it.wants_to_send
    it.resume(0)
    assert it.held == held
    assert it.take(0) == [(1, 1, b"x")]
    assert it.held == held
    assert not it.wants_to_send


def test_what_is_said_of_a_call_that_has_left_does_not_wait_for_a_large_request() -> None:
    machine = client()
    early = machine.begin("/m", b"", "early")
    sent = len(machine.link.take(0))
    large = machine.begin("/m", bytes(10 * MAX_PAYLOAD), "large")
    late = machine.begin("/m", b"", "late")
    assert machine.ask(early)
    assert machine.ask(late)
    assert machine.abort(early) == "early"
    first = machine.link.take(0)
    sent += len(first)
    assert [frame[:2] for frame in first[:3]] == [
        (FrameKind.ABORT, early),
        (FrameKind.CANCEL, early),
        (FrameKind.START, large << 12),
    ]
    assert machine.ask(large)  # its first pieces have left
    rest = []
    while not machine.link.idle:
        rest += machine.link.take(0)
        machine.link.acknowledge(sent + len(rest), 0)
    assert rest[0][:2] == (FrameKind.CANCEL, large)
    assert [frame[:2] for frame in rest[-2:]] == [(FrameKind.CALL, late << 12), (FrameKind.CANCEL, late)]
    told = list(server().receive([*first[2:], *rest]))
    assert [(one.kind, one.number) for one in told] == [
        (FrameKind.CALL, large),
        (FrameKind.CANCEL, large),
        (FrameKind.CALL, late),
        (FrameKind.CANCEL, late),
    ]


def test_C14_a_session_goes_on_after_a_cut_where_the_other_side_left_off() -> None:
    ours = client()
    theirs: ServerSession[str] = ServerSession(max_payload=1 << 20)
    first = ours.begin("/m", b"one", "first")
    arrived = ours.link.take(0)
    theirs.link.arrived(len(arrived), 1, ours.link.ack(), 0)
    assert [told.number for told in theirs.receive(arrived)] == [first]
    theirs.calls[first] = "first"
    second = ours.begin("/m", b"two", "second")
    ours.link.take(0)  # and it is lost
    for side in (ours, theirs):
        side.cut(10.0)
        side.cut(15.0)  # the first one counts
        assert side.time_left(12.0, 3.0) == 1.0
    theirs.resumed(ours.link.received)
    ours.resumed(theirs.link.received)
    assert ours.time_left(12.0, 3.0) is None
    again = ours.link.take(0)
    assert [told.number for told in theirs.receive(again)] == [second]
    ours.watch(second)
    ours.watch(99)  # no such call: nothing is said
    assert [frame[:2] for frame in ours.link.take(0)] == [(FrameKind.WATCH, second)]
    assert ours.abort(99) is None
    assert theirs.end(first, FrameKind.REPLY, b"done")
    assert not theirs.end(first, FrameKind.REPLY, b"again")
    reply = theirs.link.take(0)
    ours.link.arrived(len(reply), 1, theirs.link.ack(), 0)
    assert [call for call, _ in ours.receive(reply)] == ["first"]


def test_a_sign_of_life_between_empty_batches_counts() -> None:
    ours, theirs = Link(causal=True), Link(causal=True)
    for number in range(3 * link.MAX_EMPTY):
        if number % link.MAX_EMPTY == 0:
            theirs.push(FrameKind.WATCH, 1, b"")
        frames = theirs.take(0)
        ours.arrived(len(frames), 1, theirs.ack(), 0)
    with pytest.raises(ProtocolError, match="empty batches"):
        for _ in range(link.MAX_EMPTY + 1):
            ours.arrived(0, 1, 0, 0)
    ours.push(FrameKind.WATCH, 1, b"")
    ours.take(0)
    ours.arrived(0, 1, 1, 0)  # an acknowledgement is one too
    assert ours.idle
