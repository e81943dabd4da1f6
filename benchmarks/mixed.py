"""What big replies do to small calls on the same channel: the small calls' p99, alone and beside a stream of them."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from time import perf_counter
from typing import Any

import grpc.aio

from benchmarks.cases import WARM_UP, Client, Measure, local_client, open_channel, start_servers
from benchmarks.children import Children
from benchmarks.load import NoAnswer, Sample
from benchmarks.report import Row, Section, Target, spread_text
from benchmarks.servers import BIG_BYTES, BIG_METHOD
from benchmarks.stats import ratio, spread

__all__ = ["measure_mixed"]

CLIENTS = (
    Client("raw grpc.aio", "raw", "raw"),
    Client("native", "native", "manager"),
    Client("session, causal=False", "session", "manager", causal=False),
)
SMALL_IN_FLIGHT = 10
BIG_IN_FLIGHT = 2
"""So that one reply follows the other without a gap."""
PATIENCE = 10.0
"""Seconds that a big reply may take."""

TARGET = Target("<=", 5, "x p99 alone")


class _Stream:
    """Fetches big replies, one after the other, and counts them."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._get: Any = channel.unary_unary(BIG_METHOD)
        self._running = False
        self.replies = 0

    async def _fetch(self) -> None:
        while self._running:
            assert len(await self._get(b"", timeout=PATIENCE)) == BIG_BYTES
            self.replies += 1

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Keep the replies coming inside, and wait for the last ones at the end.

        Raises:
            NoAnswer: A reply did not come, or failed; or what is inside did.
        """
        self._running = True
        try:
            async with asyncio.TaskGroup() as fetching:
                for _ in range(BIG_IN_FLIGHT):
                    fetching.create_task(self._fetch())
                yield
                self._running = False
        except ExceptionGroup as failures:
            raise NoAnswer(f"with big replies: {failures.exceptions[0]!r}") from failures


async def _beside(measure: Measure, stream: _Stream, seconds: float) -> tuple[Sample, float]:
    """Measure the small calls while big replies stream; return how many MiB of them came each second, too."""
    async with stream.flowing():
        before, began = stream.replies, perf_counter()
        sample = await measure(SMALL_IN_FLIGHT, seconds)
        rate = (stream.replies - before) / (perf_counter() - began)
    return sample, rate * BIG_BYTES / (1 << 20)


async def measure_mixed(rounds: int, seconds: float, progress: Callable[[str], object]) -> Section:
    """Measure each client alone and beside big replies, in turn."""
    alone: dict[Client, list[Sample]] = {client: [] for client in CLIENTS}
    beside: dict[Client, list[tuple[Sample, float]]] = {client: [] for client in CLIENTS}
    async with Children() as children, AsyncExitStack() as channels:
        targets = await start_servers(children, CLIENTS)
        opened: dict[Client, tuple[Measure, _Stream]] = {}
        for client in CLIENTS:
            channel = await channels.enter_async_context(open_channel(client, targets[client.server]))
            opened[client] = local_client(channel), _Stream(channel)
            await opened[client][0](SMALL_IN_FLIGHT, WARM_UP)
        failed: dict[Client, str] = {}
        for number in range(rounds):
            for client, (measure, stream) in opened.items():
                if client in failed:
                    continue
                progress(f"mixed: round {number + 1} of {rounds}: {client.name}")
                gc.collect()
                try:
                    alone[client].append(await measure(SMALL_IN_FLIGHT, seconds))
                    beside[client].append(await _beside(measure, stream, seconds))
                except NoAnswer as failure:
                    failed[client] = f"{client.name} FAILED: {failure}"
    title = (
        f"mixed: {SMALL_IN_FLIGHT} small calls in flight, alone and while {BIG_BYTES >> 20} MiB replies stream on the "
        f"same channel, ms, medians of {rounds} rounds of {seconds:g} s"
    )
    headings = ("", "p99 alone", "p99 beside", "min-max", "ratio", "min-max", "calls/s", "beside", "MiB/s")
    rows = [_failed(client) if client in failed else _row(client, alone[client], beside[client]) for client in CLIENTS]
    return Section("mixed", title, headings, rows, "\n".join(failed.values()))


def _failed(client: Client) -> Row:
    verdicts = (TARGET.failed(),) if client.wire == "session" else ()
    return Row((client.name, "FAILED"), {"name": client.name, "wire": client.wire, "failed": True}, verdicts)


def _row(client: Client, alone: list[Sample], beside: list[tuple[Sample, float]]) -> Row:
    p99_alone = [sample.p99_ms for sample in alone]
    p99_beside = [sample.p99_ms for sample, _ in beside]
    times = ratio(p99_beside, p99_alone)
    big = spread([rate for _, rate in beside])
    data = {
        "name": client.name,
        "wire": client.wire,
        "p99_alone_ms": asdict(spread(p99_alone)),
        "p99_beside_ms": asdict(spread(p99_beside)),
        "ratio": asdict(times),
        "big_mib_per_second": asdict(big),
        "alone": [asdict(sample) for sample in alone],
        "beside": [asdict(sample) for sample, _ in beside],
    }
    cells = (
        client.name,
        f"{spread(p99_alone).median:.2f}",
        *spread_text(spread(p99_beside), ".1f"),
        *spread_text(times, ".1f"),
        f"{spread([sample.calls_per_second for sample in alone]).median:,.0f}",
        f"{spread([sample.calls_per_second for sample, _ in beside]).median:,.0f}",
        f"{big.median:,.0f}",
    )
    return Row(cells, data, (TARGET.judge(times.median),) if client.wire == "session" else ())
