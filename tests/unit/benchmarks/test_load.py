"""The load: what is kept in flight, counted and timed."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks import load
from benchmarks.load import NoAnswer, keep_collected, keep_in_flight, percentile, sample


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([1.0], 0.99) == 1.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 3.0
    assert percentile([float(number) for number in range(100)], 0.99) == 99.0


def test_a_sample_counts_calls_over_the_whole_time_and_speaks_in_milliseconds() -> None:
    found = sample([0.003, 0.001, 0.002], took=0.5)
    assert (found.calls_per_second, found.p50_ms, found.p99_ms) == (6.0, 2.0, 3.0)


async def test_so_many_calls_are_in_flight_and_no_more() -> None:
    running = most = 0

    async def call() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    found = await keep_in_flight(call, 7, 0.02)
    assert (running, most) == (0, 7)
    assert found.calls_per_second > 0


async def test_a_call_that_fails_ends_the_load() -> None:
    async def call() -> None:
        raise OSError("no server")

    with pytest.raises(NoAnswer, match="no server"):
        await keep_in_flight(call, 2, 0.01)


async def test_a_call_that_never_ends_ends_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "PATIENCE", 0.01)
    with pytest.raises(NoAnswer, match="did not end"):
        await keep_in_flight(asyncio.Event().wait, 2, 0.01)


async def test_one_collector_keeps_so_many_calls_in_flight_and_no_more() -> None:
    running: list[float] = []
    most = 0

    def begin(key: float) -> None:
        nonlocal most
        running.append(key)
        most = max(most, len(running))

    async def collect() -> list[float]:
        await asyncio.sleep(0.001)
        ended, running[:] = running[:3], running[3:]
        return ended

    found = await keep_collected(begin, collect, 7, 0.02)
    assert (running, most) == ([], 7)
    assert found.calls_per_second > 0


async def test_a_collector_that_collects_nothing_ends_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "PATIENCE", 0.01)

    async def collect() -> list[float]:
        await asyncio.sleep(0.001)
        return []

    with pytest.raises(NoAnswer, match="did not end"):
        await keep_collected(lambda key: None, collect, 2, 0.01)
