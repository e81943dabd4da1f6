"""Calls per second, and how long a call takes: all clients, at several numbers of calls in flight."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.cases import (
    GO,
    NATIVE,
    NATIVE_INLINE,
    NATIVE_THREAD,
    RAW,
    RAW_THREAD,
    RAW_TOKEN,
    SESSION,
    SESSION_INLINE,
    SESSION_QUEUE,
    SESSION_THREAD,
    SESSION_TOKEN,
    STREAM,
    Case,
    Client,
    Measure,
    open_clients,
)
from benchmarks.load import PAYLOAD, Sample
from benchmarks.report import Row, Section, Target, Verdict, spread_text
from benchmarks.stats import ratio, spread

__all__ = ["HEADINGS", "SCALING", "UNARY", "Samples", "measure_rounds", "measure_throughput", "row", "section"]

Samples = Mapping[Case, Sequence[Sample]]
"""What was measured: for each case a sample of each round."""

_BASELINES = (RAW, RAW_THREAD)
_NATIVE = (NATIVE, NATIVE_INLINE, NATIVE_THREAD)
_SESSION = (SESSION, SESSION_INLINE, SESSION_THREAD)

UNARY = (
    *(Case(client, 1) for client in (*_BASELINES, STREAM, *_NATIVE, *_SESSION)),
    *(Case(client, 100) for client in (*_BASELINES, *_NATIVE, *_SESSION, RAW_TOKEN, SESSION_TOKEN, GO)),
    *(Case(client, 1000) for client in (RAW, *_SESSION, SESSION_QUEUE, GO)),
)
SCALING = tuple(
    Case(client, in_flight)
    for client, most in ((RAW, 1000), (SESSION, 10_000), (SESSION_INLINE, 10_000))
    for in_flight in (1, 10, 100, 1000, 10_000)
    if in_flight <= most
)

HEADINGS = ("", "in flight", "calls/s", "min-max", "x raw", "min-max", "p50 ms", "p99 ms")

_X_RAW = "x raw"
_X_STREAM = "x a bare stream"
TARGETS: Mapping[Case, tuple[tuple[Target, Client], ...]] = {
    Case(SESSION, 1): ((Target(">=", 0.9, _X_STREAM), STREAM),),
    Case(SESSION_INLINE, 1): ((Target(">=", 0.9, _X_STREAM), STREAM),),
    Case(NATIVE, 100): ((Target(">=", 0.9, _X_RAW), RAW),),
    Case(NATIVE_INLINE, 100): ((Target(">=", 0.9, _X_RAW), RAW),),
    Case(NATIVE_THREAD, 100): ((Target(">=", 0.9, "x raw, thread"), RAW_THREAD),),
    Case(SESSION, 100): ((Target(">=", 12, _X_RAW), RAW),),
    Case(SESSION, 1000): ((Target(">=", 12, _X_RAW), RAW),),
    Case(SESSION_INLINE, 100): ((Target(">=", 16, _X_RAW), RAW), (Target(">=", 2, "x grpc-go"), GO)),
    Case(SESSION_INLINE, 1000): ((Target(">=", 16, _X_RAW), RAW), (Target(">=", 2, "x grpc-go"), GO)),
    Case(SESSION_THREAD, 100): ((Target(">=", 8, _X_RAW), RAW),),
    Case(SESSION_QUEUE, 1000): ((Target(">=", 0.8, "x await"), SESSION),),
}
"""What each case is to reach, and against whom."""


async def measure_throughput(
    cases: Iterable[Case], rounds: int, seconds: float, progress: Callable[[str], object]
) -> dict[Case, list[Sample]]:
    """Measure the cases in turn, on connections that stay open."""
    wanted = list(dict.fromkeys(cases))
    progress("starting servers ...")
    async with open_clients(case.client for case in wanted) as clients:
        return await measure_rounds(wanted, clients, rounds, seconds, progress)


async def measure_rounds(
    cases: Iterable[Case],
    clients: Mapping[Client, Measure],
    rounds: int,
    seconds: float,
    progress: Callable[[str], object],
) -> dict[Case, list[Sample]]:
    """Measure each case once a round; those with the same number in flight beside each other.

    Every other round goes backwards, so that none is always measured after the same neighbour.
    """
    order = sorted((case for case in cases if case.client in clients), key=lambda case: case.in_flight)
    samples: dict[Case, list[Sample]] = {case: [] for case in order}
    for number in range(rounds):
        for case in order if number % 2 == 0 else reversed(order):
            progress(f"round {number + 1} of {rounds}: {case}")
            gc.collect()  # what one case has left is not for the next to clean up
            samples[case].append(await clients[case.client](case.in_flight, seconds))
    return samples


def section(name: str, cases: Sequence[Case], samples: Samples, rounds: int, seconds: float) -> Section:
    """Sum up the cases of one section."""
    what = {"unary": f"unary echo of {len(PAYLOAD)} bytes", "scaling": "the same over the number of calls in flight"}
    rows = [row(case, samples, judged=name == "unary") for case in cases if case in samples]
    note = "" if GO in {case.client for case in samples} or name != "unary" else "grpc-go: not here (make bench-peers)"
    title = f"{name}: {what[name]}, medians of {rounds} rounds of {seconds:g} s"
    return Section(name, title, HEADINGS, rows, note)


def row(case: Case, samples: Samples, *, judged: bool) -> Row:
    """Sum up one case, against raw grpc.aio with as many calls in flight, and against its targets if `judged`."""
    rates = _rates(samples, case)
    assert rates is not None
    number = spread(rates)
    raw = _rates(samples, Case(RAW, case.in_flight))
    ratios = None if raw is None else ratio(rates, raw)
    p50 = spread([sample.p50_ms for sample in samples[case]])
    p99 = spread([sample.p99_ms for sample in samples[case]])
    data: dict[str, Any] = {
        "name": case.client.name,
        "wire": case.client.wire,
        "server": case.client.server,
        "in_flight": case.in_flight,
        "calls_per_second": asdict(number),
        "ratio_to_raw": None if ratios is None else asdict(ratios),
        "p50_ms": asdict(p50),
        "p99_ms": asdict(p99),
        "samples": [asdict(sample) for sample in samples[case]],
    }
    cells = (
        case.client.name,
        f"{case.in_flight:,}",
        *spread_text(number),
        *(("", "") if ratios is None else spread_text(ratios, ".2f")),
        f"{p50.median:.2f}",
        f"{p99.median:.2f}",
    )
    targets = TARGETS.get(case, ()) if judged else ()
    verdicts = tuple(_judge(target, case, against, samples) for target, against in targets)
    return Row(cells, data, verdicts)


def _judge(target: Target, case: Case, against: Client, samples: Samples) -> Verdict:
    rates, others = _rates(samples, case), _rates(samples, Case(against, case.in_flight))
    return target.judge(None if rates is None or others is None else ratio(rates, others).median)


def _rates(samples: Samples, case: Case) -> list[float] | None:
    return [sample.calls_per_second for sample in samples[case]] if case in samples else None
