"""Large requests and replies: how many MiB of them go each second, beside raw grpc.aio in the same round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

from benchmarks.cases import MIB, Case, Client
from benchmarks.report import Row, Section, Target, spread_text
from benchmarks.stats import ratio, spread
from benchmarks.unary import Samples

__all__ = ["LARGE", "large_section"]

_WIRES = (
    Client("raw grpc.aio", "raw", "raw"),
    Client("native", "native", "manager"),
    Client("session", "session", "manager"),
)
IN_FLIGHT = 2
"""So that one message follows the other without a gap."""
TARGET = Target(">=", 0.8, "x raw")


def _cases(size: int) -> list[Case]:
    text = f"{size // MIB} MiB"
    up = [replace(client, name=f"{client.name}, {text} up", up=size) for client in _WIRES]
    down = [replace(client, name=f"{client.name}, {text} down", down=size) for client in _WIRES]
    return [Case(client, IN_FLIGHT) for client in (*up, *down)]


LARGE = (*_cases(MIB), *_cases(16 * MIB))
HEADINGS = ("", "in flight", "MiB/s", "min-max", "x raw", "min-max", "p50 ms", "p99 ms")


def large_section(samples: Samples, rounds: int, seconds: float) -> Section:
    """Sum up the cases."""
    title = f"large: requests up and replies down, {IN_FLIGHT} in flight, medians of {rounds} rounds of {seconds:g} s"
    return Section("large", title, HEADINGS, [_row(case, samples) for case in LARGE])


def _row(case: Case, samples: Samples) -> Row:
    client = case.client
    raw = next(one for one in LARGE if one.client.wire == "raw" and _sizes(one.client) == _sizes(client))
    rates = _rates(case, samples)
    times = ratio(rates, _rates(raw, samples))
    p50 = spread([sample.p50_ms for sample in samples[case]])
    p99 = spread([sample.p99_ms for sample in samples[case]])
    data = {
        "name": client.name,
        "wire": client.wire,
        "up": client.up,
        "down": client.down,
        "in_flight": case.in_flight,
        "mib_per_second": asdict(spread(rates)),
        "ratio_to_raw": asdict(times),
        "p50_ms": asdict(p50),
        "p99_ms": asdict(p99),
        "samples": [asdict(sample) for sample in samples[case]],
    }
    cells = (
        client.name,
        f"{case.in_flight}",
        *spread_text(spread(rates)),
        *spread_text(times, ".2f"),
        f"{p50.median:.2f}",
        f"{p99.median:.2f}",
    )
    return Row(cells, data, (TARGET.judge(times.median),) if client.wire == "session" else ())


def _sizes(client: Client) -> tuple[int, int]:
    return client.up, client.down


def _rates(case: Case, samples: Samples) -> Sequence[float]:
    size = max(_sizes(case.client)) / MIB
    return [sample.calls_per_second * size for sample in samples[case]]
