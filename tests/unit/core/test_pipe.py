"""The machine of a pipe, and that of a call's pipes together: every state and every event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rpc_async.core.outcome import Reply, fault
from rpc_async.core.pipe import MAX_BYTES, MAX_CHUNKS, Pipe, Pipes, PipeState, PipeStep
from rpc_async.status import RpcStatus

O, E, D, F, B, X = PipeState  # noqa: E741
OK, PENDING, CLOSED = RpcStatus.OK, RpcStatus.ASYNC_CALL_PENDING, RpcStatus.PIPE_CLOSED
EMPTY, OVER = RpcStatus.PIPE_EMPTY, RpcStatus.NO_CALL_ACTIVE


def pipe_in(state: PipeState, *, chunks: int = 0) -> Pipe:
    """Make a pipe in a state, with chunks in it where the state can have some."""
    pipe = Pipe()
    for number in range(chunks):
        pipe.push(number, 1)
    lead: dict[PipeState, Callable[[], PipeStep]] = {
        E: pipe.end,
        D: pipe.end,
        F: pipe.fail,
        B: pipe.break_,
        X: pipe.discard,
    }
    if state in lead:
        lead[state]()
    if state is D:
        pipe.pull()
    assert pipe.state is state
    return pipe


EVENTS: dict[str, tuple[Callable[[Pipe], PipeStep], tuple[tuple[PipeState, RpcStatus], ...]]] = {
    "push": (
        lambda pipe: pipe.push("chunk", 1),
        ((O, OK), (E, CLOSED), (D, CLOSED), (F, OVER), (B, OVER), (X, OK)),
    ),
    "end": (Pipe.end, ((E, OK), (E, CLOSED), (D, CLOSED), (F, OVER), (B, OVER), (X, OK))),
    "pull": (Pipe.pull, ((O, PENDING), (D, OK), (D, EMPTY), (B, OVER), (B, OVER), (X, EMPTY))),
    "fail": (Pipe.fail, ((F, OK), (F, OK), (D, OK), (F, OK), (B, OK), (X, OK))),
    "break": (Pipe.break_, ((B, OK), (B, OK), (D, OK), (B, OK), (B, OK), (X, OK))),
    "discard": (Pipe.discard, ((X, OK), (X, OK), (X, OK), (X, OK), (B, OK), (X, OK))),
}


@pytest.mark.parametrize("name", EVENTS)
@pytest.mark.parametrize("state", PipeState)
def test_P2_P3_every_event_in_every_state_of_an_empty_pipe(name: str, state: PipeState) -> None:
    event, table = EVENTS[name]
    pipe = pipe_in(state)
    step = event(pipe)
    assert (pipe.state, step.verdict) == table[state]
    assert step.chunk is None


@pytest.mark.parametrize("state", [O, E, F])
def test_P2_what_is_there_comes_out_first_and_in_order(state: PipeState) -> None:
    pipe = pipe_in(state, chunks=2)
    assert pipe.chunks == 2
    assert [pipe.pull().chunk, pipe.pull().chunk] == [0, 1]
    assert (pipe.state, pipe.chunks) == (state, 0)
    assert pipe.pull() == PipeStep({O: PENDING, E: OK, F: OVER}[state])
    assert pipe.state is {O: O, E: D, F: B}[state]


@pytest.mark.parametrize("state", [B, X])
def test_P6_what_is_of_no_use_is_dropped(state: PipeState) -> None:
    pipe = pipe_in(state, chunks=2)
    assert (pipe.chunks, pipe.held) == (0, 0)
    assert pipe.drained == (state is X)
    assert pipe.push("more", 10).verdict is (OK if state is X else OVER)
    assert (pipe.chunks, pipe.held) == (0, 0)


def test_P4_a_full_pipe_refuses_and_tells_when_half_of_it_is_free() -> None:
    pipe = Pipe()
    for number in range(4):
        assert pipe.push(number, MAX_BYTES // 4) == PipeStep()
    assert pipe.held == MAX_BYTES
    assert pipe.push("refused", 1) == PipeStep(PENDING)
    assert (pipe.chunks, pipe.held) == (4, MAX_BYTES)
    pipe.pull()
    assert pipe.held == MAX_BYTES  # it takes room until it has left
    assert pipe.left() == PipeStep()
    pipe.pull()
    assert pipe.left() == PipeStep(send=True)
    pipe.pull()
    assert pipe.left() == PipeStep()  # nobody waits
    pipe.pull()
    assert pipe.left() == PipeStep(send=True)  # all that was pushed is sent
    assert pipe.left() == PipeStep()


def test_P4_a_chunk_of_any_size_is_taken_while_there_is_room() -> None:
    pipe = Pipe()
    pipe.push("small", 1)
    assert pipe.push("huge", 100 * MAX_BYTES).verdict is OK
    assert pipe.push("none", 0).verdict is PENDING
    assert not pipe.ask_room()
    pipe.pull()
    pipe.pull()
    assert pipe.left() == PipeStep(send=True)
    assert pipe.ask_room()


def test_P4_so_many_chunks_however_small() -> None:
    pipe = Pipe()
    for number in range(MAX_CHUNKS):
        assert pipe.push(number, 0).verdict is OK
    assert pipe.push("one more", 0).verdict is PENDING
    told = []
    for number in range(MAX_CHUNKS):
        assert pipe.pull().chunk == number
        told.append(pipe.left().send)
    assert [number + 1 for number, send in enumerate(told) if send] == [MAX_CHUNKS // 2, MAX_CHUNKS]


def test_P4_a_pipe_that_takes_nothing_any_more_keeps_nobody_waiting() -> None:
    for state in (E, D, F, B, X):
        assert pipe_in(state).ask_room()


def test_P2_who_found_nothing_is_told_once() -> None:
    pipe = Pipe()
    assert not pipe.push("a", 1).receive
    pipe.pull()
    assert pipe.pull().verdict is PENDING
    assert pipe.push("b", 1).receive
    assert not pipe.push("c", 1).receive


@pytest.mark.parametrize("name", ["end", "fail", "break", "discard"])
def test_P2_P6_who_found_nothing_is_told_of_the_end(name: str) -> None:
    pipe = Pipe()
    pipe.pull()
    assert EVENTS[name][0](pipe).receive


def test_P3_the_null_push_is_sent_when_all_before_it_is() -> None:
    assert Pipe().end().send
    pipe = Pipe()
    pipe.push("a", 1)
    assert not pipe.end().send
    pipe.pull()
    assert pipe.left().send


def test_P4_a_null_push_into_a_full_pipe_counts_too() -> None:
    pipe = Pipe()
    pipe.push("huge", MAX_BYTES)
    pipe.push("refused", 1)
    assert not pipe.end().send
    pipe.pull()
    assert pipe.left().send


@pytest.mark.parametrize("full", [False, True])
def test_P6_who_waits_to_push_learns_that_the_call_is_over(full: bool) -> None:
    pipe = Pipe()
    pipe.push("a", MAX_BYTES if full else 1)
    assert pipe.push("b", 1).verdict is (PENDING if full else OK)
    assert pipe.break_().send
    assert not pipe.break_().send


def test_P6_who_waits_for_room_learns_that_the_call_has_failed() -> None:
    pipe = Pipe()
    pipe.push("a", MAX_BYTES)
    assert not pipe.ask_room()
    assert pipe.fail().send
    assert not pipe.fail().send
    assert pipe.pull().chunk == "a"


def test_P6_what_is_on_its_way_when_the_call_ends_still_takes_room() -> None:
    pipe = Pipe()
    pipe.push("a", 5)
    pipe.push("b", 7)
    pipe.pull()
    pipe.break_()
    assert pipe.held == 5
    assert pipe.left() == PipeStep()
    assert pipe.held == 0


def pipes(*, server: bool, strict: bool, pushing: bool = True, pulling: bool = True) -> Pipes:
    return Pipes(pushing=pushing, pulling=pulling, server=server, strict=strict)


def test_P5_chunks_may_cross() -> None:
    for server in (False, True):
        both = pipes(server=server, strict=False)
        assert (both.may_push(), both.may_pull()) == (OK, OK)


def test_P5_the_server_pulls_to_the_end_before_it_pushes() -> None:
    both = pipes(server=True, strict=True)
    assert both.pulling is not None
    assert both.may_push() is RpcStatus.WRONG_PIPE_ORDER
    assert both.may_pull() is OK
    both.pulling.end()
    assert both.may_push() is RpcStatus.WRONG_PIPE_ORDER
    both.pulling.pull()
    assert both.may_push() is OK


def test_P5_the_client_pushes_to_the_end_before_it_pulls() -> None:
    both = pipes(server=False, strict=True)
    assert both.pushing is not None
    assert both.may_pull() is RpcStatus.WRONG_PIPE_ORDER
    assert both.may_push() is OK
    both.pushing.end()
    assert both.may_pull() is OK


def test_P5_one_pipe_has_no_order() -> None:
    for server in (False, True):
        assert pipes(server=server, strict=True, pulling=False).may_push() is OK
        assert pipes(server=server, strict=True, pushing=False).may_pull() is OK


@pytest.mark.parametrize("strict", [False, True])
def test_P5_the_server_completes_once_it_has_pulled_to_the_end(strict: bool) -> None:
    both = pipes(server=True, strict=strict)
    assert both.pulling is not None
    assert both.pushing is not None
    assert both.may_complete() is RpcStatus.PIPE_DISCIPLINE_ERROR
    both.pulling.discard()
    assert both.may_complete() is (RpcStatus.PIPE_DISCIPLINE_ERROR if strict else OK)
    both.pushing.end()
    assert both.may_complete() is OK
    assert pipes(server=True, strict=False, pulling=False).may_complete() is OK
    assert pipes(server=True, strict=True, pushing=False, pulling=False).may_complete() is OK


@pytest.mark.parametrize("strict", [False, True])
def test_P5_the_client_collects_once_its_pipes_are_drained(strict: bool) -> None:
    discipline = RpcStatus.PIPE_DISCIPLINE_ERROR
    both = pipes(server=False, strict=strict)
    assert both.pulling is not None
    assert both.pushing is not None
    assert both.may_collect(None) is discipline
    assert both.may_collect(fault(RpcStatus.CALL_FAILED, "")) is OK
    both.pushing.end()
    assert both.may_collect(None) is PENDING
    both.pulling.push("a", 1)
    assert both.may_collect(None) is discipline
    both.pulling.end()
    assert both.may_collect(Reply(None)) is discipline
    both.pulling.pull()
    assert both.may_collect(Reply(None)) is (discipline if strict else OK)  # the null chunk is part of it
    both.pulling.pull()
    assert both.may_collect(Reply(None)) is OK


def test_P5_a_reply_is_collected_though_not_all_was_pushed() -> None:
    upload = pipes(server=False, strict=False, pulling=False)
    assert upload.may_collect(Reply("enough")) is OK
    assert pipes(server=False, strict=False, pushing=False).may_collect(None) is PENDING


def test_the_machine_knows_no_other_state() -> None:
    seen: set[Any] = {state for _, table in EVENTS.values() for state, _ in table}
    assert seen == set(PipeState)
