"""What must hold in the readers and the machines, whatever comes: only `ProtocolError` is raised, nothing leaks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import strategies as st

from rpc_async.core.assembly import BUFFER_MEMORY, Assembly
from rpc_async.core.client_session import ClientSession
from rpc_async.core.frames import MAX_PAYLOAD, Frame, FrameKind, ProtocolError
from rpc_async.core.link import FRAME_COST, FRAME_MEMORY, Link, _Large
from rpc_async.core.server_session import ServerSession
from rpc_async.core.session import Session
from rpc_async.errors import error_class
from rpc_async.wire.session import (
    read_abort_head,
    read_call_head,
    read_cancel_note,
    read_fault_head,
    read_progress,
    read_reply_head,
    read_request,
    read_response,
)
from tests.fuzz.frames import ANY_FRAME, HEADS, REQUESTS, RESPONSES, client_frames, mutated, server_frames

READERS: tuple[Callable[[bytes], Any], ...] = (
    read_request,
    read_response,
    read_call_head,
    read_abort_head,
    read_reply_head,
    read_cancel_note,
    read_progress,
)
MAX_MESSAGE = 1 << 20

ANYTHING = st.one_of(
    st.binary(max_size=200), mutated(st.sampled_from(HEADS)), mutated(REQUESTS), mutated(RESPONSES), REQUESTS, RESPONSES
)


def check_readers(data: bytes) -> None:
    """Read something with every reader; a failure that can be read can be raised and shown."""
    for read in READERS:
        try:
            read(data)
        except ProtocolError as error:
            assert str(error)
    try:
        failure, _ = read_fault_head(data)
    except ProtocolError:
        return
    assert failure.status != 0
    str(error_class(failure)(failure))


def check_assembly(assembly: Assembly) -> None:
    """What an assembly says that it holds is what it holds."""
    partials = assembly._partial.values()
    held = [partial for partial in partials if partial._buffer is not None]
    assert assembly.held_bytes == sum(partial.so_far + BUFFER_MEMORY for partial in held)
    assert all(partial.wanted for partial in held)


def check_link(link: Link) -> None:
    """What a link says that it holds is what it holds, and the counts agree."""
    waiting = [*link._queue, *link._large]
    larges = [item for item in waiting if isinstance(item, _Large)]
    small = [item for item in waiting if not isinstance(item, _Large)]
    assert link.queued_bytes == sum(len(frame[2]) for frame in small) + sum(large.remaining for large in larges)
    over = link._over_bytes + sum(batch.begun for batch in (*link._retained, *link._again))
    assert link._begun_bytes == sum(large.taken for large in larges) + over
    assert link._queued_large == sum(isinstance(item, _Large) for item in link._queue)
    assert {id(large) for large in larges if large.remaining} == {id(large) for large in link._unfinished.values()}
    kept = [frame for batch in (*link._retained, *link._again) for frame in batch.frames]
    assert len(kept) == link._sent - link.acknowledged
    size = sum(len(frame[2]) + FRAME_COST for frame in kept)
    assert link._retained_bytes + link._again_bytes == size
    assert link._again_frames == sum(len(batch.frames) for batch in link._again)
    assert link._pacer._in_flight == sum(batch.size for batch in link._pacer._flight)
    queued = link.queued_bytes + link._begun_bytes
    assert link.held == queued + size + FRAME_MEMORY * (len(kept) + len(link._queue))


def check_forgotten(session: Session) -> None:
    """A session that has ended holds nothing."""
    session.forget()
    assert session.held == 0
    assert session.link.idle
    assert not list(session.link.never_left())
    assert not list(session.link.unfinished())


def check_server(frames: list[Frame], data: st.DataObject) -> None:
    """A server's machine hears what a client might say, ends some calls, and sends what it has to."""
    machine: ServerSession[str] = ServerSession(max_payload=MAX_MESSAGE)
    try:
        for frame in frames:
            before = machine.begun
            machine.link.arrived(1, len(frame[2]), machine.link.acknowledged, 0)
            for told in machine.receive([frame]):
                if told.kind in (FrameKind.CALL, FrameKind.CALL_WITH_HEAD):
                    assert told.method.isprintable()
                    assert machine.begun >= told.number > 0
                    machine.calls[told.number] = "call"
                elif told.kind == FrameKind.START:
                    machine.refuse(told.number, FrameKind.FAULT, b"")
                elif told.kind == FrameKind.ABORT:
                    machine.release(told.number)
            assert machine.begun >= before
            assert set(machine._early) <= set(machine.assembly._partial)
            check_assembly(machine.assembly)
            ends: bool = data.draw(st.booleans())
            if machine.calls and ends:
                size = data.draw(st.sampled_from([0, 10, MAX_PAYLOAD + 1, 3 * MAX_PAYLOAD]))
                machine.end(next(iter(machine.calls)), FrameKind.REPLY, bytes(size))
                machine.link.take(0)
            if not data.draw(st.integers(0, 9)):
                for number in machine.relieve():
                    machine.refuse(number, FrameKind.FAULT, b"")
                assert machine.assembly.held_bytes == 0
            check_link(machine.link)
            if machine.closed:
                break
    except ProtocolError as error:
        assert str(error)
    check_assembly(machine.assembly)
    check_link(machine.link)
    check_forgotten(machine)


def check_client(frames: list[Frame], data: st.DataObject) -> None:
    """A client's machine hears what a server might say about its four calls."""
    machine: ClientSession[str] = ClientSession(causal=data.draw(st.booleans()), max_payload=MAX_MESSAGE)
    for number in range(1, 5):
        assert machine.begin("/m", bytes(data.draw(st.sampled_from([0, 3 * MAX_PAYLOAD]))), f"call {number}") == number
    ended: set[str] = set()
    try:
        for frame in frames:
            machine.link.arrived(1, len(frame[2]), machine.link.acknowledged, 0)
            for call, (kind, _, _) in machine.receive([frame]):
                assert call not in ended
                if kind not in (FrameKind.CANCEL_NOTE, FrameKind.PROGRESS):
                    ended.add(call)
            assert ended.isdisjoint(machine.outstanding.values())
            check_assembly(machine.assembly)
            check_link(machine.link)
            what = data.draw(st.integers(0, 4))
            if what == 0:
                machine.link.take(0)
            elif what == 1:
                machine.abort(data.draw(st.integers(1, 4)))
            if machine.closed:
                break
    except ProtocolError as error:
        assert str(error)
    check_assembly(machine.assembly)
    gone = machine.lose()
    lost = {*gone.sent, *(one.call for one in gone.unsent)}
    assert lost.isdisjoint(ended)
    check_forgotten(machine)


def _odd(frame: Frame) -> bool:
    return frame[1] % 2 == 1


def _even(frame: Frame) -> bool:
    return not _odd(frame)


def check_acks(acks: list[tuple[str, int]], data: st.DataObject) -> None:
    """A link is told of arrivals, acknowledgements and cuts that may or may not be; a wrong one changes nothing."""
    link = Link(causal=data.draw(st.booleans()))
    for number, (what, count) in enumerate(acks, 1):
        if what == "push":
            link.push(1, number, bytes(count % 5 * 20_000))
        elif what == "take":
            link.take(number)
        elif what == "drop":
            link.drop(count)
        elif what == "withdraw":
            link.withdraw(_odd if count % 2 else _even)
        else:
            sent = link._sent - (0 if what == "resume" else link._again_frames)
            allowed = link.acknowledged <= count <= sent
            before = link.acknowledged, link.held, link._sent
            act = link.resume if what == "resume" else partial(link.acknowledge, now=number)
            if allowed:
                act(count)
                assert link.acknowledged == count
            else:
                with pytest.raises(ProtocolError):
                    act(count)
                assert before == (link.acknowledged, link.held, link._sent)
        check_link(link)


ACKS = st.lists(
    st.tuples(
        st.sampled_from(["push", "push", "push", "take", "take", "drop", "withdraw", "ack", "ack", "resume"]),
        st.integers(0, 12),
    ),
    max_size=40,
)
SERVER_HEARS = st.one_of(client_frames(), st.lists(ANY_FRAME, max_size=6))
CLIENT_HEARS = st.one_of(server_frames(), st.lists(ANY_FRAME, max_size=6))
