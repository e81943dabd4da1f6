"""What the peers' clients in Python have in common: they measure when the run asks them to.

The run writes lines "IN_FLIGHT SECONDS"; each is answered by a line of JSON, a `Sample`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict
from queue import SimpleQueue
from time import perf_counter

from benchmarks.children import lines_from_run
from benchmarks.load import Sample, keep_in_flight, sample

__all__ = ["answer_with", "answer_with_callbacks"]


async def answer_with(call: Callable[[], Awaitable[object]]) -> None:
    """Answer all questions by making calls on the running loop."""
    asked = _questions()
    while True:
        in_flight, seconds = await asyncio.to_thread(next, asked)
        _answer(await keep_in_flight(call, in_flight, seconds))


def answer_with_callbacks(
    begin: Callable[[Callable[[], object]], object], serve: Callable[[], object] | None = None
) -> None:
    """Answer all questions by making calls whose callbacks make the next.

    Args:
        begin: Makes a call, and sees to it that the function it is given is called when the reply is there.
        serve: Waits for replies and calls the callbacks. None: they are called in threads of the library's own.
    """
    for in_flight, seconds in _questions():
        _answer(_keep_by_callbacks(begin, serve, in_flight, seconds))


def _keep_by_callbacks(
    begin: Callable[[Callable[[], object]], object],
    serve: Callable[[], object] | None,
    in_flight: int,
    seconds: float,
) -> Sample:
    times: list[float] = []
    finished: SimpleQueue[None] = SimpleQueue()
    start = perf_counter()
    end = start + seconds

    def make() -> None:
        began = perf_counter()

        def ended() -> None:
            now = perf_counter()
            times.append(now - began)
            if now < end:
                make()
            else:
                finished.put(None)

        begin(ended)

    for _ in range(in_flight):
        make()
    if serve is not None:
        while finished.qsize() < in_flight:
            serve()
    for _ in range(in_flight):
        finished.get()
    return sample(times, perf_counter() - start)


def _questions() -> Iterator[tuple[int, float]]:
    lines: SimpleQueue[str] = SimpleQueue()
    lines_from_run(lines.put)
    while True:
        in_flight, seconds = lines.get().split()
        yield int(in_flight), float(seconds)


def _answer(result: Sample) -> None:
    print(json.dumps(asdict(result)), flush=True)
