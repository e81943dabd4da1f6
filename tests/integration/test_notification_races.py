"""C8, C10 and S12 under fire: completion, cancel and the closing of a queue meet, and each call is told once."""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

import rpc_async
from rpc_async import AsyncCall, AsyncEvent, CompletionQueue, Notifications, RpcStatus, begin
from rpc_async.core.outcome import Reply
from tests.harness import EchoCall, Nowhere, Parked, Wire, outcome, pair, request, response, until

ROUNDS = 100_000
BATCH = 2_000
CALLS = 1_500

T = TypeVar("T")
Call = AsyncCall[Any]


class Lost(logging.Handler):
    """Counts the notifications that are logged as lost, by call."""

    def __init__(self) -> None:
        super().__init__()
        self.of: Counter[int] = Counter()

    def handle(self, record: logging.LogRecord) -> bool:
        assert "was not delivered" in record.msg
        assert isinstance(record.args, tuple)
        self.of[id(record.args[0])] += 1
        return True


@contextmanager
def lost_ones() -> Iterator[Lost]:
    """Count what is logged as lost, and write none of it."""
    logger, lost = logging.getLogger("rpc_async"), Lost()
    logger.addHandler(lost)
    logger.propagate = False
    try:
        yield lost
    finally:
        logger.propagate = True
        logger.removeHandler(lost)


@contextmanager
def hasty() -> Iterator[None]:
    """Have threads interrupt each other as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def at_once(*functions: Callable[[], object]) -> None:
    """Run functions in a thread each, at once."""
    barrier = threading.Barrier(len(functions))
    failures: list[BaseException] = []

    def run(function: Callable[[], object]) -> None:
        barrier.wait()
        try:
            function()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


@pytest.mark.timeout(180)
async def test_C8_C10_in_100_000_races_of_completion_cancel_and_close_each_call_is_told_once() -> None:
    asyncio.get_running_loop().set_debug(False)
    driver, won = Nowhere(), Counter[str]()
    with lost_ones() as lost, hasty():
        for batch in range(ROUNDS // BATCH):
            calls: list[Call] = [AsyncCall(driver, "/a.B/C", None) for _ in range(BATCH)]
            queues = [CompletionQueue() for _ in calls]
            for call, queue in zip(calls, queues, strict=True):
                call.listen(queue, call, ())
            lost.of.clear()
            settled, aborted = list[bool](), list[bool]()

            def answer(calls: list[Call] = calls, settled: list[bool] = settled) -> None:
                settled += [call.settle(Reply(None)) for call in calls]

            def abort(calls: list[Call] = calls, aborted: list[bool] = aborted) -> None:
                aborted += [call.cancel() for call in calls]

            def close(queues: list[CompletionQueue] = queues) -> None:
                for queue in queues:
                    queue.close()

            sides = (answer, abort, close)
            first = batch % 3  # the thread that starts last need not be woken: so each side is first in its turn
            await asyncio.to_thread(at_once, *sides[first:], *sides[:first])
            for call, queue, by_answer, by_abort in zip(calls, queues, settled, aborted, strict=True):
                assert by_answer != by_abort, "one outcome"
                assert (call.status() is RpcStatus.OK) == by_answer
                told = queue.get_many(timeout=0) if len(queue) else []
                assert len(told) + lost.of[id(call)] == 1, "told once, or logged once"
                if told:
                    assert told == [(AsyncEvent.CALL_COMPLETE, call, call)]
                won["told" if told else "lost"] += 1
                won["answer" if by_answer else "abort"] += 1
    assert won["told"] + won["lost"] == ROUNDS
    assert min(won[who] for who in ("told", "lost", "answer", "abort")) > 0, f"no race was run: {won}"


@pytest.mark.timeout(180)
async def test_C8_whoever_asks_to_be_told_while_a_call_settles_is_told_once() -> None:
    asyncio.get_running_loop().set_debug(False)
    driver, rounds = Nowhere(), 20_000
    calls: list[Call] = [AsyncCall(driver, "/a.B/C", None) for _ in range(rounds)]
    queue = CompletionQueue()

    def ask(key: str) -> None:
        for call in calls:
            call.notify(queue, key)

    with hasty():
        await asyncio.to_thread(
            at_once,
            lambda: ask("first"),
            lambda: [call.settle(Reply(None)) for call in calls],
            lambda: ask("second"),
            lambda: [call.cancel() for call in calls],
        )
    counts = Counter((completion.call, completion.key) for completion in queue.get_many())
    assert len(queue) == 0
    assert counts == {(call, key): 1 for call in calls for key in ("first", "second")}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", range(2))
async def test_C8_C10_S12_on_a_wire_too(wire: Wire, seed: int) -> None:
    asyncio.get_running_loop().set_debug(False)
    servicer = Parked()
    with lost_ones() as lost:
        async with pair(servicer, wire) as both:
            queues = [CompletionQueue() for _ in range(CALLS)]
            calls = [begin(both.stub.Echo, request(), notify=queue, key=queue) for queue in queues]
            cancels = CompletionQueue()
            server_calls = [await servicer.next() for _ in calls]
            queued: Counter[EchoCall] = Counter()

            def own_order(items: list[T], number: int) -> list[T]:
                return random.Random(seed * 10 + number).sample(items, len(items))

            def complete() -> None:
                for server_call in own_order(server_calls, 1):
                    server_call.complete(response(b"reply"))

            def subscribe() -> None:
                for server_call in own_order(server_calls, 2):
                    try:
                        server_call.subscribe(3, cancels)
                    except rpc_async.InvalidAsyncHandle:
                        continue

            def unsubscribe() -> None:
                for number, server_call in enumerate(own_order(server_calls, 3)):
                    if number % 2:
                        server_call.unsubscribe(Notifications.CALL_CANCEL)

            def cancel() -> None:
                for number, call in enumerate(own_order(calls, 4)):
                    call.request_cancel()
                    if number % 2:
                        call.cancel()

            def close() -> None:
                for number, queue in enumerate(own_order(queues, 5)):
                    if number % 3 == 0:
                        queue.close()

            with hasty():
                await asyncio.to_thread(at_once, complete, subscribe, unsubscribe, cancel, close)
            for call in calls:
                result = await outcome(call)
                assert isinstance(result, rpc_async.CallCancelled) or result.payload == b"reply"
            await until(lambda: sum(map(len, queues)) + lost.of.total() == CALLS, "all are told or lost")
            await until(lambda: both.server.running_calls == 0)
            for call, queue in zip(calls, queues, strict=True):
                told = queue.get_many(timeout=0) if len(queue) else []
                assert len(told) + lost.of[id(call)] == 1
                assert not told or told == [(AsyncEvent.CALL_COMPLETE, call, queue)]
            for server_call in server_calls:
                queued[server_call] = server_call.unsubscribe(Notifications.CALL_CANCEL)
                assert server_call.unsubscribe(Notifications.CLIENT_DISCONNECT) == 0
            cancels.close()
            received = Counter(completion.call for completion in cancels)
            assert received == +queued, "each that was queued was received, once"
            assert set(received.values()) <= {1}
