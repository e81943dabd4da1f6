"""`queue.py` and `handoff.py`: many put, many take, and nothing is lost, taken twice, or waited for in vain."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from rpc_async import (
    AsyncEvent,
    Completion,
    CompletionQueue,
    InvalidArgument,
    InvalidAsyncCall,
    QueueClosed,
    RpcStatus,
)
from tests.harness import PATIENCE, until

EACH = 12_500
PUTTING = 8


def completion(key: object) -> Completion:
    return Completion(AsyncEvent.CALL_COMPLETE, "the call", key)


@contextmanager
def threads(*functions: Callable[[], object]) -> Iterator[None]:
    """Run functions in threads; wait for them at the end."""
    started = [threading.Thread(target=function) for function in functions]
    for thread in started:
        thread.start()
    yield
    for thread in started:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def waiting(queue: CompletionQueue) -> int:
    return len(queue._waiting)


def test_what_is_put_in_comes_out_in_order_and_verbatim() -> None:
    queue, keys = CompletionQueue(), [object() for _ in range(5)]
    for key in keys:
        queue.put(completion(key))
    assert len(queue) == 5
    first = queue.get()
    assert (first.event, first.call) == (AsyncEvent.CALL_COMPLETE, "the call")
    assert first.key is keys[0]
    assert [one.key for one in queue.get_many(2)] == keys[1:3]
    assert [one.key for one in queue.get_many()] == keys[3:]
    assert len(queue) == 0
    assert repr(queue) == "<CompletionQueue of 0>"


def test_a_get_that_finds_nothing_in_time_says_so() -> None:
    queue = CompletionQueue()
    for timeout in (0, -1, 0.01):
        with pytest.raises(TimeoutError, match="nothing came"):
            queue.get(timeout)
    assert waiting(queue) == 0
    for limit in (0, -1):
        with pytest.raises(InvalidArgument, match="limit"):
            queue.get_many(limit)


def test_a_thread_that_waits_is_woken() -> None:
    queue, got = CompletionQueue(), list[Completion]()
    with threads(lambda: got.append(queue.get())):
        while not waiting(queue):
            threading.Event().wait(0.001)
        queue.put(completion(1))
    assert [one.key for one in got] == [1]


def test_a_queue_that_is_closed_gives_what_it_holds_and_then_says_so() -> None:
    with CompletionQueue() as queue:
        for key in range(3):
            queue.put(completion(key))
    assert queue.closed
    queue.close()  # again: nothing
    assert "closed" in repr(queue)
    with pytest.raises(QueueClosed, match="nothing was put"):
        queue.put(completion(4))
    assert [one.key for one in queue] == [0, 1, 2]
    with pytest.raises(QueueClosed, match="was taken") as caught:
        queue.get()
    assert caught.value.status is RpcStatus.INVALID_BINDING
    with pytest.raises(QueueClosed):
        queue.get_many(timeout=1)


async def test_the_same_on_an_event_loop() -> None:
    queue = CompletionQueue()
    taking = asyncio.ensure_future(queue.aget())
    await until(lambda: waiting(queue) == 1)
    queue.put(completion(1))
    assert (await taking).key == 1
    for key in range(5):
        queue.put(completion(key))
    assert [one.key for one in await queue.aget_many(2)] == [0, 1]
    queue.close()
    assert [one.key async for one in queue] == [2, 3, 4]
    with pytest.raises(QueueClosed):
        await queue.aget_many()
    with pytest.raises(InvalidArgument):
        await queue.aget_many(0)


async def test_closing_wakes_all_who_wait() -> None:
    queue = CompletionQueue()
    in_threads = [asyncio.ensure_future(asyncio.to_thread(list, queue)) for _ in range(2)]

    async def collect() -> list[Completion]:
        return [one async for one in queue]

    here = [asyncio.ensure_future(collect()) for _ in range(2)]
    await until(lambda: waiting(queue) == 4)
    queue.close()
    assert await asyncio.wait_for(asyncio.gather(*in_threads, *here), PATIENCE) == [[]] * 4


async def test_a_thread_with_an_event_loop_is_not_blocked_by_mistake() -> None:
    queue = CompletionQueue()
    for timeout in (None, 1.0):
        with pytest.raises(InvalidAsyncCall, match="event loop"):
            queue.get(timeout)
    with pytest.raises(TimeoutError):
        queue.get(0)
    queue.put(completion(1))
    assert queue.get().key == 1  # there: no wait


async def test_a_wait_that_is_cancelled_takes_nothing_and_leaves_its_wake_up_to_another() -> None:
    queue = CompletionQueue()
    first, second = asyncio.ensure_future(queue.aget()), asyncio.ensure_future(queue.aget())
    await until(lambda: waiting(queue) == 2)
    queue.put(completion(1))  # wakes the first,
    first.cancel()  # which is cancelled before it has come round
    assert (await asyncio.wait_for(second, PATIENCE)).key == 1
    with pytest.raises(asyncio.CancelledError):
        await first
    third = asyncio.ensure_future(queue.aget())
    await until(lambda: waiting(queue) == 1)
    third.cancel()
    with pytest.raises(asyncio.CancelledError):
        await third
    assert waiting(queue) == 0


async def test_a_loop_that_was_closed_while_it_waited_is_passed_over() -> None:
    queue = CompletionQueue()
    dead = asyncio.new_event_loop()

    def begin_to_wait() -> asyncio.Task[Completion]:
        task = dead.create_task(queue.aget())
        dead.call_soon(dead.stop)
        dead.run_forever()
        dead.close()
        return task

    task = await asyncio.to_thread(begin_to_wait)
    assert waiting(queue) == 1
    taking = asyncio.ensure_future(queue.aget())
    await until(lambda: waiting(queue) == 2)
    queue.put(completion(1))
    assert (await asyncio.wait_for(taking, PATIENCE)).key == 1
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is known to be pending for ever
    coroutine = task.get_coro()
    assert coroutine is not None
    coroutine.close()


@pytest.mark.parametrize("limit", [None, 1, 7])
async def test_C9_threads_and_loops_take_100_000_each_once_and_nothing_is_left(limit: int | None) -> None:
    asyncio.get_running_loop().set_debug(False)  # which is about the queue's speed too
    queue = CompletionQueue()
    taken: list[list[object]] = []

    def in_a_thread() -> None:
        own: list[object] = []
        taken.append(own)
        try:
            while True:
                own += [one.key for one in queue.get_many(limit)]
        except QueueClosed:
            return

    async def on_a_loop() -> None:
        own: list[object] = []
        taken.append(own)
        try:
            while True:
                own += [one.key for one in await queue.aget_many(limit)]
        except QueueClosed:
            return

    def put(number: int) -> None:
        for index in range(EACH):
            queue.put(completion((number, index)))

    takers = [asyncio.to_thread(in_a_thread), asyncio.to_thread(in_a_thread), on_a_loop(), on_a_loop()]
    takers.append(asyncio.to_thread(lambda: asyncio.run(on_a_loop())))
    taking = [asyncio.ensure_future(taker) for taker in takers]
    await asyncio.gather(*(asyncio.to_thread(put, number) for number in range(PUTTING)))
    await until(lambda: len(queue) == 0, "the queue is empty")
    queue.close()
    await asyncio.wait_for(asyncio.gather(*taking), PATIENCE)
    counts = Counter(key for own in taken for key in own)
    assert len(counts) == EACH * PUTTING
    assert set(counts.values()) == {1}
    for own in taken:
        for number in range(PUTTING):  # each taker sees what one thread put in its order
            mine = [key[1] for key in own if isinstance(key, tuple) and key[0] == number]
            assert mine == sorted(mine)
