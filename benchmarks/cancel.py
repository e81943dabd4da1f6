"""How long a cancel takes: from `request_cancel()` in the client until the manager routine knows of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import Any

import rpc_async
from benchmarks.cases import RAW, Client, open_channel, start_servers
from benchmarks.children import Children
from benchmarks.load import PAYLOAD
from benchmarks.report import Row, Section, Target, spread_text
from benchmarks.stats import ratio, spread
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc

__all__ = ["measure_cancel"]

NATIVE = Client("native, request_cancel() -> manager", "native", "cancelled")
SESSION = Client("session, request_cancel() -> manager", "session", "cancelled")
ROUND_TRIP = "raw grpc.aio, one unary round trip"

_PAUSE = 0.002
"""Seconds until the manager surely waits. Before a round trip too: both begin on a machine that is at rest."""

TARGET = Target("<=", 1, "round trip")


async def _round_trip_ms(stub: Any) -> float:
    await asyncio.sleep(_PAUSE)
    began = time.monotonic_ns()
    await stub.Echo(demo_pb2.EchoRequest(payload=PAYLOAD))
    return (time.monotonic_ns() - began) / 1e6


async def _cancel_ms(stub: Any) -> float:
    call: rpc_async.AsyncCall[Any] = rpc_async.begin(stub.Echo, demo_pb2.EchoRequest(payload=PAYLOAD))
    await asyncio.sleep(_PAUSE)
    began = time.monotonic_ns()  # the clock of the whole machine: the server reads the same
    call.request_cancel()
    seen = int((await call).payload)
    return (seen - began) / 1e6


async def measure_cancel(rounds: int, each: int, progress: Callable[[str], object]) -> Section:
    """Measure `each` cancels and as many round trips in a round, in turn."""
    async with Children() as children, AsyncExitStack() as channels:
        targets = await start_servers(children, (RAW, NATIVE, SESSION))
        measures = []
        for name, client, measure in (
            (ROUND_TRIP, RAW, _round_trip_ms),
            (NATIVE.name, NATIVE, _cancel_ms),
            (SESSION.name, SESSION, _cancel_ms),
        ):
            channel = await channels.enter_async_context(open_channel(client, targets[client.server]))
            measures.append((name, measure, demo_pb2_grpc.DemoStub(channel)))
        times: dict[str, list[list[float]]] = {name: [] for name, _, _ in measures}
        for number in range(-1, rounds):  # the first round warms up
            progress(f"cancel: round {number + 1} of {rounds}")
            turn: dict[str, list[float]] = {name: [] for name in times}
            for _ in range(each):
                for name, measure, stub in measures:
                    turn[name].append(await measure(stub))
            if number >= 0:
                for name, values in turn.items():
                    times[name].append(values)
    return _section(times, rounds, each)


def _section(times: dict[str, list[list[float]]], rounds: int, each: int) -> Section:
    medians = {name: [spread(values).median for values in turns] for name, turns in times.items()}
    title = f"cancel: medians of {rounds} rounds of {each}, each after {1000 * _PAUSE:g} ms of rest"
    section = Section("cancel", title, ("", "ms", "min-max", "round trips", "min-max"))
    for name, values in medians.items():
        number, trips = spread(values), ratio(values, medians[ROUND_TRIP])
        data = {"name": name, "ms": asdict(number), "round_trips": asdict(trips), "samples": times[name]}
        cells = (name, *spread_text(number, ".3f"), *spread_text(trips, ".2f"))
        verdicts = () if name == ROUND_TRIP else (TARGET.judge(trips.median),)
        section.rows.append(Row(cells, data, verdicts))
    return section
