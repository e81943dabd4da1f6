"""`apc.py`: in the thread that gave it, only while it waits alertably; a thread that ends leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from rpc_async import Apc, AsyncEvent, Completion, InvalidArgument, InvalidAsyncCall, alertable_wait
from rpc_async.notification.sinks import deliver
from tests.harness import PATIENCE, logged


def completion(key: object) -> Completion:
    return Completion(AsyncEvent.CALL_COMPLETE, "the call", key)


def in_a_thread(function: Callable[[], object]) -> None:
    """Run a function in a thread of its own, to its end."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, name="of its own")
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    if failures:
        raise failures[0]


def test_C9_an_apc_runs_in_the_thread_that_gave_it_and_only_while_that_waits_alertably() -> None:
    ran: list[tuple[object, str]] = []

    def work() -> None:
        sink = Apc(lambda told: ran.append((told.key, threading.current_thread().name))).bind()
        in_a_thread(lambda: [sink(completion(key)) for key in range(3)])
        assert not ran, "it does not wait yet"
        assert alertable_wait(0) == 3
        assert alertable_wait(0) == 0
        timer = threading.Timer(0.01, sink, (completion("later"),))
        timer.start()
        assert alertable_wait(PATIENCE) == 1
        timer.join()
        assert alertable_wait(0.01) == 0

    in_a_thread(work)
    assert ran == [(key, "of its own") for key in (0, 1, 2, "later")]


def test_the_apcs_of_one_thread_are_not_anothers() -> None:
    ran: list[object] = []
    sink = Apc(ran.append).bind()
    sink(completion(1))
    in_a_thread(lambda: alertable_wait(0))
    assert not ran
    assert alertable_wait(0) == 1


def test_what_a_routine_raises_comes_out_and_those_after_it_stay() -> None:
    ran: list[object] = []

    def routine(told: Completion) -> None:
        if told.key == "bad":
            raise KeyError(told.key)
        ran.append(told.key)

    sink = Apc(routine).bind()
    for key in (1, "bad", 2):
        sink(completion(key))
    with pytest.raises(KeyError):
        alertable_wait(0)
    assert ran == [1]
    assert alertable_wait(0) == 1
    assert ran == [1, 2]


def test_what_comes_while_routines_run_is_for_the_next_wait() -> None:
    ran: list[object] = []

    def routine(told: Completion) -> None:
        ran.append(told.key)
        if len(ran) <= 2:
            sink(completion(len(ran)))

    sink = Apc(routine).bind()
    for _ in range(2):
        sink(completion(0))
    assert alertable_wait(0) == 2
    assert alertable_wait(0) == 2
    assert ran == [0, 0, 1, 2]
    assert alertable_wait(0) == 0


def test_a_routine_may_wait_alertably_itself() -> None:
    inside: list[int] = []
    sink = Apc(lambda _: inside.append(alertable_wait(0))).bind()
    for _ in range(2):
        sink(completion(None))
    assert alertable_wait(0) == 1, "the other ran inside it"
    assert inside == [0, 1]


def test_a_thread_that_ended_is_told_nothing_which_is_logged_and_holds_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Key:
        pass

    kept: list[Callable[[Completion], None]] = []
    keys = [Key()]
    alive = weakref.ref(keys[0])

    def work() -> None:
        sink = Apc(print).bind()
        kept.append(sink)
        deliver(sink, completion(keys[0]))

    in_a_thread(work)
    assert [record.getMessage() for record in logged(caplog)] == [
        "'the call': CALL_COMPLETE is lost: the thread of its own, which was to be told, has ended; the call is not"
    ]
    keys.clear()
    gc.collect()
    assert alive() is None
    caplog.clear()
    deliver(kept[0], completion(1))
    (record,) = logged(caplog)
    assert record.getMessage().startswith("'the call': CALL_COMPLETE was not delivered: the thread of its own, which")


async def test_a_thread_with_an_event_loop_is_not_blocked_by_mistake() -> None:
    with pytest.raises(InvalidAsyncCall, match="event loop"):
        alertable_wait()
    assert alertable_wait(0) == 0
    ran: list[object] = []
    Apc(ran.append).bind()(completion(1))
    await asyncio.sleep(0)
    assert not ran
    assert alertable_wait() == 1


def test_a_routine_must_be_callable() -> None:
    bad: Any = 1
    with pytest.raises(InvalidArgument, match="routine"):
        Apc(bad)
