"""`mailbox.py`: in order, from any thread, nothing lost."""

from __future__ import annotations

import asyncio
import threading

import pytest

from rpc_async.mailbox import Mailbox
from tests.harness import until


async def test_everything_that_threads_post_runs_in_order() -> None:
    mailbox = Mailbox(asyncio.get_running_loop())
    got: list[tuple[int, int]] = []

    def post(thread: int) -> None:
        for number in range(1000):
            assert mailbox.post(got.append, (thread, number))

    threads = [threading.Thread(target=post, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    await until(lambda: len(got) == 8000)
    for thread in threads:
        thread.join()
    for number in range(8):
        assert [item for which, item in got if which == number] == list(range(1000))


async def test_run_is_at_once_on_the_loops_own_thread() -> None:
    mailbox = Mailbox(asyncio.get_running_loop())
    got: list[int] = []
    assert mailbox.here()
    mailbox.run(got.append, 1)
    assert got == [1]
    assert not await asyncio.to_thread(mailbox.here)


async def test_what_raises_stops_nothing_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    mailbox = Mailbox(asyncio.get_running_loop())
    got: list[int] = []
    mailbox.post(lambda: 1 / 0)
    mailbox.post(got.append, 1)
    await until(lambda: got)
    assert "posted" in caplog.text


def test_a_closed_loop_says_no() -> None:
    async def make() -> Mailbox:
        return Mailbox(asyncio.get_running_loop())

    mailbox = asyncio.run(make())
    for _ in range(3):
        assert mailbox.post(print) is False


def test_a_loop_that_was_closed_before_it_came_round_says_no() -> None:
    loop = asyncio.new_event_loop()
    mailbox = Mailbox(loop)
    assert mailbox.post(print)  # its wake-up is on its way, and will never arrive
    loop.close()
    assert mailbox.post(print) is False
