"""Every handle is used from several threads and loops at once, and each call has one outcome."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import rpc_async
from rpc_async import RpcStatus, begin
from rpc_async.demo.v1 import demo_pb2
from tests.harness import PATIENCE, EchoCall, Parked, Wire, outcome, pair, request, response, until

THREADS = 8
CALLS = 400


def hammer(actions: list[Callable[[], None]], seed: int) -> None:
    """Run every action in each of 8 threads at once, each thread in an order of its own."""
    barrier = threading.Barrier(THREADS)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        own = list(actions)
        random.Random(seed + number).shuffle(own)
        barrier.wait()
        try:
            for action in own:
                action()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def note(counts: Counter[int], number: int, _: object) -> None:
    """Count a notification."""
    counts[number] += 1


@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", range(3))
async def test_eight_threads_complete_cancel_and_poll_the_same_calls(wire: Wire, seed: int) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        calls = [begin(both.stub.Echo, request(str(number).encode())) for number in range(CALLS)]
        server_calls = [await servicer.next() for _ in range(CALLS)]
        accepted: Counter[int] = Counter()
        refused: Counter[int] = Counter()
        aborted: Counter[int] = Counter()
        notified: Counter[int] = Counter()
        lock = threading.Lock()
        for number, call in enumerate(calls):
            call.add_done_callback(partial(note, notified, number))

        def complete(number: int, server_call: EchoCall) -> None:
            try:
                status = server_call.complete(response(b"reply"))
            except rpc_async.InvalidAsyncHandle:
                with lock:
                    refused[number] += 1
            else:
                assert status in (RpcStatus.OK, RpcStatus.CALL_CANCELLED)
                with lock:
                    accepted[number] += 1

        def cancel(number: int, call: rpc_async.AsyncCall[demo_pb2.EchoResponse]) -> None:
            call.request_cancel()
            if number % 2 and call.cancel():
                with lock:
                    aborted[number] += 1

        def poll(call: rpc_async.AsyncCall[Any], server_call: EchoCall) -> None:
            first, second = call.status(), call.status()
            assert first is RpcStatus.ASYNC_CALL_PENDING or first == second, "a settled call changed its status"
            server_call.test_cancel()
            server_call.progress(0.5)
            if call.done():
                call.wait(0)

        actions: list[Callable[[], None]] = []
        for number, (call, server_call) in enumerate(zip(calls, server_calls, strict=True)):
            actions += [
                partial(complete, number, server_call),
                partial(cancel, number, call),
                partial(poll, call, server_call),
            ]
        await asyncio.to_thread(hammer, actions, seed)

        for number, call in enumerate(calls):
            result = await outcome(call)
            assert accepted[number] == 1, "one complete is taken"
            assert refused[number] == THREADS - 1, "and all others are refused"
            if isinstance(result, rpc_async.CallCancelled):
                assert aborted[number] == 1, "one abort was taken"
                assert call.status() is RpcStatus.CALL_CANCELLED
            else:
                assert result.payload == b"reply"
                assert aborted[number] == 0
                assert call.status() is RpcStatus.OK
        await until(lambda: len(notified) == CALLS)
        assert set(notified.values()) == {1}
        await until(lambda: both.server.running_calls == 0)


@pytest.mark.timeout(180)
async def test_many_loops_await_the_same_calls(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        calls = [begin(both.stub.Echo, request()) for _ in range(CALLS)]

        async def collect() -> list[bytes]:
            return [(await call).payload for call in calls]

        def loop_of_its_own() -> list[bytes]:
            return asyncio.run(collect())

        collecting = [asyncio.ensure_future(asyncio.to_thread(loop_of_its_own)) for _ in range(THREADS)]
        for _ in range(CALLS):
            (await servicer.next()).complete(response(b"same"))
        for task in collecting:
            assert await asyncio.wait_for(task, PATIENCE) == [b"same"] * CALLS


@pytest.mark.timeout(180)
async def test_begun_from_many_threads(wire: Wire) -> None:
    class Own(Parked):
        @rpc_async.manager
        def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
            call.complete(response(request.payload))

    async with pair(Own(), wire) as both:

        def begin_some(number: int) -> bool:
            calls = [begin(both.stub.Echo, request(f"{number}-{index}".encode())) for index in range(100)]
            return [call.result(PATIENCE).payload for call in calls] == [
                f"{number}-{index}".encode() for index in range(100)
            ]

        assert all(await asyncio.gather(*(asyncio.to_thread(begin_some, number) for number in range(THREADS))))
