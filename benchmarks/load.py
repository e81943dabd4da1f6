"""The load: a number of calls kept in flight for a while, counted and timed. Needs nothing but Python."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

__all__ = ["PAYLOAD", "NoAnswer", "Sample", "keep_collected", "keep_in_flight", "percentile", "sample"]

PATIENCE = 20.0
"""Seconds that the last calls of a slice may take."""
PAYLOAD = b"x" * 100
"""What is echoed, by everyone."""


class NoAnswer(Exception):
    """Calls did not end, or failed."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one slice of load showed."""

    calls_per_second: float
    p50_ms: float
    p99_ms: float


async def keep_in_flight(call: Callable[[], Awaitable[object]], in_flight: int, seconds: float) -> Sample:
    """Keep `in_flight` calls going for `seconds`; each ends one and begins the next.

    The time until the last call has ended counts too: a slice may be no longer than a few turns.

    Raises:
        NoAnswer: A call failed, or the last ones did not end.
    """
    times: list[float] = []
    end = 0.0

    async def worker() -> None:
        began = perf_counter()
        while began < end:
            await call()
            now = perf_counter()
            times.append(now - began)
            began = now

    try:
        async with asyncio.timeout(seconds + PATIENCE), asyncio.TaskGroup() as workers:
            for _ in range(in_flight):
                workers.create_task(worker())
            began = perf_counter()  # none of the workers has run yet
            end = began + seconds
    except TimeoutError:
        raise _some_did_not_end(in_flight) from None
    except ExceptionGroup as failures:
        raise NoAnswer(f"a call failed: {failures.exceptions[0]!r}") from failures
    return sample(times, perf_counter() - began)


async def keep_collected(
    begin: Callable[[float], object], collect: Callable[[], Awaitable[Sequence[float]]], in_flight: int, seconds: float
) -> Sample:
    """Keep `in_flight` calls going for `seconds`, with one collector for all of them.

    Args:
        begin: Begins a call, with a key.
        collect: Waits until calls have ended, and returns their keys.
        in_flight: How many.
        seconds: How long.

    Raises:
        NoAnswer: The last calls did not end.
    """
    times: list[float] = []
    began = perf_counter()
    end = began + seconds
    for _ in range(in_flight):
        begin(perf_counter())
    outstanding = in_flight
    try:
        async with asyncio.timeout(seconds + PATIENCE):
            while outstanding:
                for key in await collect():
                    now = perf_counter()
                    times.append(now - key)
                    if now < end:
                        begin(now)
                    else:
                        outstanding -= 1
    except TimeoutError:
        raise _some_did_not_end(in_flight) from None
    return sample(times, perf_counter() - began)


def _some_did_not_end(in_flight: int) -> NoAnswer:
    return NoAnswer(f"of {in_flight} calls in flight, some did not end in {PATIENCE:g} s")


def sample(times: list[float], took: float) -> Sample:
    """Sum up a slice that took `took` seconds, in which calls took `times` seconds. Sorts `times`."""
    times.sort()
    return Sample(len(times) / took, 1000 * percentile(times, 0.5), 1000 * percentile(times, 0.99))


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest of the ordered values that at least `share` of them do not exceed."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
