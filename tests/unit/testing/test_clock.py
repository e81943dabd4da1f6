"""`testing/clock.py`: virtual time."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import rpc_async
from rpc_async.testing import FakeClock


def test_time_stands_still_until_it_is_advanced() -> None:
    clock = FakeClock()

    async def main() -> str:
        loop = asyncio.get_running_loop()
        assert loop.time() == clock.time() == 0
        sleeping = asyncio.create_task(asyncio.sleep(3600, "slept"))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not sleeping.done()
        await clock.advance(3599.5)
        assert not sleeping.done()
        assert repr(clock) == "<FakeClock at 3599.5 s>"
        await clock.advance(0.5)
        assert sleeping.done()
        assert loop.time() == clock.time() == 3600
        return await sleeping

    began = time.monotonic()
    assert clock.run(main(), debug=True) == "slept"
    assert time.monotonic() - began < 10


def test_all_that_is_due_is_done_in_order_each_at_its_own_time_with_what_follows_from_it() -> None:
    clock = FakeClock()
    done: list[tuple[str, float]] = []

    def note(name: str) -> None:
        done.append((name, clock.time()))

    async def later(name: str, *pauses: float) -> None:
        for pause in pauses:
            await asyncio.sleep(pause)
            note(name)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        steps = asyncio.create_task(later("steps", 1, 2, 0.5, 100))
        loop.call_later(2, note, "timer")
        cancelled = loop.call_later(2.5, note, "never")
        loop.call_later(1, cancelled.cancel)
        loop.call_later(0.1, loop.call_later, 0.1, note, "timer of a timer")
        await clock.advance(3.5)
        steps.cancel()

    clock.run(main())
    assert done == [("timer of a timer", 0.2), ("steps", 1), ("timer", 2), ("steps", 3), ("steps", 3.5)]


@pytest.mark.parametrize("step", [0.1, 1 / 3, 7e-7, 86_400.1])
def test_a_timer_that_is_due_exactly_when_the_advance_ends_is_run(step: float) -> None:
    clock = FakeClock()

    async def main() -> None:
        for _ in range(300):
            timer = asyncio.create_task(asyncio.sleep(step))
            await asyncio.sleep(0)
            await clock.advance(step)
            assert timer.done()

    clock.run(main())
    assert clock.time() == pytest.approx(300 * step)


def test_advances_of_two_tasks_overlap_and_one_that_is_cancelled_moves_nothing() -> None:
    clock = FakeClock()

    async def main() -> None:
        far, near = asyncio.create_task(clock.advance(20)), asyncio.create_task(clock.advance(10))
        await near
        assert clock.time() == 10
        assert not far.done()
        await far
        assert clock.time() == 20
        cancelled = asyncio.create_task(clock.advance(50))
        await asyncio.sleep(0)
        cancelled.cancel()
        await clock.advance(0)
        assert clock.time() == 20
        sooner, later = asyncio.create_task(clock.advance(5)), asyncio.create_task(clock.advance(6))
        await asyncio.sleep(0)
        sooner.cancel()
        await later
        assert clock.time() == 26

    clock.run(main())


def test_jumping_by_itself() -> None:
    clock = FakeClock(autojump=0)

    async def main() -> None:
        async with asyncio.timeout(10_000):
            await asyncio.sleep(9_000)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10_000):
                await asyncio.Event().wait()
        assert clock.time() == 19_000

    clock.run(main())
    clock.run(asyncio.sleep(1_000))  # the clock goes on where it was
    assert clock.time() == 20_000


def test_an_answer_from_a_thread_or_a_socket_comes_before_a_jump_that_waits_for_it() -> None:
    patient = FakeClock(autojump=5.0)
    go_on = threading.Event()

    def answer() -> str:
        go_on.set()
        return "from a thread"

    async def main() -> None:
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair()
        near.setblocking(False)
        with near, far:
            read = asyncio.create_task(loop.sock_recv(near, 10))
            loop.call_later(3600, pytest.fail, "the clock has jumped")
            assert await asyncio.to_thread(answer) == "from a thread"
            far.send(b"hello")
            assert await read == b"hello"

    patient.run(main())
    assert go_on.is_set()
    assert patient.time() == 0


def test_without_jumps_a_thread_is_waited_for_as_on_any_loop() -> None:
    clock = FakeClock()

    async def main() -> int:
        timer = asyncio.create_task(asyncio.sleep(1))
        result = await asyncio.to_thread(lambda: 42)
        timer.cancel()
        return result

    assert clock.run(main()) == 42
    assert clock.time() == 0


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_seconds_that_are_none(seconds: float) -> None:
    clock = FakeClock()
    with pytest.raises(rpc_async.InvalidArgument):
        clock.run(clock.advance(seconds))
    with pytest.raises(rpc_async.InvalidArgument):
        FakeClock(autojump=seconds)


def test_one_clock_has_one_loop() -> None:
    clock = FakeClock()

    async def another() -> None:
        with pytest.raises(rpc_async.InvalidAsyncCall, match="another clock"):
            clock.new_event_loop()

    clock.run(another())
    with pytest.raises(rpc_async.InvalidAsyncCall, match="another event loop"):
        asyncio.run(clock.advance(1))
    loop = clock.new_event_loop()
    loop.run_until_complete(clock.advance(1))
    loop.close()


def test_what_a_coroutine_raises_comes_out() -> None:
    async def main() -> None:
        raise LookupError("out")

    with pytest.raises(LookupError):
        FakeClock(autojump=0).run(main())


def test_files_can_be_watched_changed_and_forgotten() -> None:
    clock = FakeClock()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair()
        with near, far:
            seen: list[str] = []
            wait: Callable[[Any], Any] = seen.append
            loop.add_reader(near, wait, "readable")
            loop.add_writer(near, wait, "writable")
            await clock_turns(3)
            assert "writable" in seen
            assert "readable" not in seen
            loop.remove_writer(near)
            far.send(b"x")
            await clock_turns(3)
            assert "readable" in seen
            loop.remove_reader(near)
            far.close()
            loop.add_reader(near, loop.remove_reader, near)
            await clock.advance(1)  # looks at files too, before it moves
            assert not loop.remove_reader(near)

    async def clock_turns(number: int) -> None:
        for _ in range(number):
            await asyncio.sleep(0)

    clock.run(main())
