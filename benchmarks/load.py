"""The load: a number of calls kept in flight for a while, counted and timed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

__all__ = ["Sample", "keep_in_flight"]


@dataclass(frozen=True, slots=True)
class Sample:
    """What one stretch of load showed."""

    calls_per_second: float
    p50_ms: float
    p99_ms: float


async def keep_in_flight(call: Callable[[], Awaitable[object]], in_flight: int, seconds: float) -> Sample:
    """Keep `in_flight` calls going for `seconds`; each ends one and begins the next."""
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def worker() -> None:
        began = time.perf_counter()
        while began < end:
            await call()
            now = time.perf_counter()
            times.append(now - began)
            began = now

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    took = time.perf_counter() - began
    times.sort()
    return Sample(
        calls_per_second=len(times) / took,
        p50_ms=1000 * times[len(times) // 2],
        p99_ms=1000 * times[min(len(times) - 1, int(len(times) * 0.99))],
    )
