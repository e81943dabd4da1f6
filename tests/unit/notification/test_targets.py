"""`targets.py`, `sinks.py` and `completion.py`: what takes a notification for a target."""

from __future__ import annotations

import asyncio
import threading
from contextvars import copy_context
from typing import Any

import pytest

from rpc_async import Apc, AsyncEvent, Completion, CompletionQueue, InvalidArgument, Post, QueueClosed, alertable_wait
from rpc_async.core.notices import Gate
from rpc_async.mailbox import Mailbox
from rpc_async.notification.completion import latest, take
from rpc_async.notification.sinks import call_routine, deliver
from rpc_async.notification.targets import bind
from tests.harness import PATIENCE, logged, until

TOLD = Completion(AsyncEvent.CALL_COMPLETE, "the call", "key")


def closed_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.close()
    return loop


async def test_C9_every_kind_of_target_is_told() -> None:
    mailbox = Mailbox(asyncio.get_running_loop())
    event, thread_event, queue, got = asyncio.Event(), threading.Event(), CompletionQueue(), list[object]()
    targets: list[Any] = [event, thread_event, queue, got.append, Apc(got.append), Post(mailbox.loop, got.append)]
    for target in targets:
        deliver(bind(target, mailbox), TOLD)
    await asyncio.wait_for(event.wait(), PATIENCE)
    assert thread_event.is_set()
    assert queue.get(0) == TOLD
    await until(lambda: len(got) == 2)
    assert alertable_wait(0) == 1
    assert got == [TOLD] * 3


async def test_an_asyncio_event_is_set_on_its_own_loop() -> None:
    mailbox = Mailbox(asyncio.get_running_loop())
    waited_for = threading.Event()
    events: list[asyncio.Event] = []

    async def elsewhere() -> int:
        event = asyncio.Event()
        events.append(event)
        waiting = asyncio.ensure_future(event.wait())
        await asyncio.sleep(0)  # now it belongs to this loop
        waited_for.set()
        await asyncio.wait_for(waiting, PATIENCE)
        return threading.get_ident()

    there = asyncio.ensure_future(asyncio.to_thread(lambda: asyncio.run(elsewhere())))
    await asyncio.to_thread(waited_for.wait)
    sink = bind(events[0], mailbox)  # given here, and known to be of the other loop
    deliver(sink, TOLD)
    assert await asyncio.wait_for(there, PATIENCE) != threading.get_ident()

    mine = asyncio.Event()
    sink = bind(mine, mailbox)  # nobody waited for it yet: it is of the loop that runs here
    await asyncio.to_thread(deliver, sink, TOLD)
    await asyncio.wait_for(mine.wait(), PATIENCE)


async def test_an_asyncio_event_of_no_known_loop_is_refused_before_anything_begins() -> None:
    mailbox, event = Mailbox(asyncio.get_running_loop()), asyncio.Event()
    with pytest.raises(InvalidArgument, match=r"threading\.Event"):
        await asyncio.to_thread(bind, event, mailbox)


async def test_C10_a_target_that_is_closed_dead_or_raises_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def waited_on() -> asyncio.Event:
        event = asyncio.Event()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(event.wait(), 0.001)
        return event

    event = await asyncio.to_thread(lambda: asyncio.run(waited_on()))  # its loop is closed
    queue = CompletionQueue()
    mailbox = Mailbox(asyncio.get_running_loop())

    class BadEvent(threading.Event):
        def set(self) -> None:
            raise OSError("no")

    sinks = [bind(event, mailbox), bind(queue, mailbox), bind(BadEvent(), mailbox)]
    queue.close()
    for sink, why in zip(sinks, ("is closed", "is closed", "its target raised"), strict=True):
        caplog.clear()
        deliver(sink, TOLD)
        assert len(logged(caplog)) == 1
        assert "'the call': CALL_COMPLETE was not delivered" in caplog.text
        assert why in caplog.text


async def test_what_is_no_target() -> None:
    mailbox, queue = Mailbox(asyncio.get_running_loop()), CompletionQueue()
    bad: Any = "text"
    with pytest.raises(InvalidArgument, match="CompletionQueue"):
        bind(bad, mailbox)
    queue.close()
    with pytest.raises(QueueClosed, match="told nothing"):
        bind(queue, mailbox)


async def test_a_callable_is_called_soon_on_the_loop_of_the_mailbox() -> None:
    mailbox, got = Mailbox(asyncio.get_running_loop()), list[int]()
    sink = bind(lambda _: got.append(threading.get_ident()), mailbox)
    deliver(sink, TOLD)
    assert not got, "soon, not inside of whatever settles the call"
    await asyncio.to_thread(deliver, sink, TOLD)
    await until(lambda: len(got) == 2)
    assert set(got) == {threading.get_ident()}


def test_C8_a_callable_whose_loop_is_closed_is_called_all_the_same() -> None:
    got: list[object] = []
    deliver(bind(got.append, Mailbox(closed_loop())), TOLD)
    assert got == [TOLD]


def test_what_a_callable_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def routine(_: Completion) -> None:
        raise asyncio.CancelledError

    call_routine(copy_context(), routine, TOLD)
    assert [record.getMessage() for record in logged(caplog)] == [
        "'the call': the routine that was told of CALL_COMPLETE raised"
    ]


async def test_the_latest_wins_for_every_kind_of_target() -> None:
    mailbox = Mailbox(asyncio.get_running_loop())
    event, thread_event, queue, got = asyncio.Event(), threading.Event(), CompletionQueue(), list[object]()
    targets: list[Any] = [event, thread_event, queue, got.append, Apc(got.append), Post(mailbox.loop, got.append)]
    gates = [Gate() for _ in targets]
    for target, gate in zip(targets, gates, strict=True):
        assert gate.news()
        deliver(bind(target, mailbox), latest(AsyncEvent.PROGRESS, "the call", "key", gate))
    await until(lambda: len(got) == 2)
    assert [gate.on_its_way for gate in gates] == [False, False, True, False, True, False], "not taken yet: two"
    assert type(queue.get()) is Completion
    alertable_wait(0)
    assert not any(gate.on_its_way for gate in gates)


def test_a_completion_is_a_tuple() -> None:
    event, call, key = take(TOLD)
    assert (event, call, key) == (0, "the call", "key")
    assert take(TOLD) is TOLD
