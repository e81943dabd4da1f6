"""`make bench`: every case against raw grpc.aio, in turn, in one run.

These machines are shared and noisy: what counts is the ratio to raw grpc.aio measured in the same round, and
the median over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from rich.console import Console
from rich.table import Table

import rpc_async
from benchmarks.load import Sample, keep_in_flight
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc

PAYLOAD = b"x" * 100


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table."""

    name: str
    server: str
    raw_client: bool
    in_flight: int


@dataclass(slots=True)
class Result:
    """A case and its samples, a round each."""

    case: Case
    samples: list[Sample] = field(default_factory=list)


CLIENTS = (
    ("raw grpc.aio", "raw", True),
    ("native, completed in an async def manager", "manager", False),
    ("native, completed in an inline manager", "inline", False),
    ("native, completed from another thread", "thread", False),
    ("plain gRPC client, async def manager", "manager", True),
)
CASES = tuple(Case(*client, in_flight) for in_flight in (1, 100) for client in CLIENTS)


@contextmanager
def servers() -> Iterator[dict[str, str]]:
    """Start every kind of server, and yield their targets."""
    processes: dict[str, subprocess.Popen[str]] = {}
    try:
        for kind in {case.server for case in CASES}:
            processes[kind] = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.servers", kind], stdout=subprocess.PIPE, text=True
            )
        yield {kind: f"127.0.0.1:{int(_line(process))}" for kind, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


async def measure(case: Case, target: str, seconds: float) -> Sample:
    """Measure one case once, on a connection of its own that is warm."""
    channel = grpc.aio.insecure_channel(target) if case.raw_client else rpc_async.connect(target)
    async with channel:
        echo = demo_pb2_grpc.DemoStub(channel).Echo

        async def call() -> object:
            return await echo(demo_pb2.EchoRequest(payload=PAYLOAD))

        await keep_in_flight(call, case.in_flight, 0.1)
        return await keep_in_flight(call, case.in_flight, seconds)


async def run(rounds: int, seconds: float, console: Console) -> list[Result]:
    """Measure all cases in turn, `rounds` times."""
    results = [Result(case) for case in CASES]
    with servers() as targets, console.status("measuring ...") as status:
        for number in range(rounds):
            for result in results:
                case = result.case
                status.update(f"round {number + 1} of {rounds}: {case.name}, {case.in_flight} in flight")
                result.samples.append(await measure(case, targets[case.server], seconds))
    return results


def summary(results: list[Result]) -> list[dict[str, Any]]:
    """Return a row for each case: medians, spread, and the ratio to raw grpc.aio in the same rounds."""
    raw = {result.case.in_flight: result for result in results if result.case.server == "raw"}
    rows = []
    for result in results:
        rates = [sample.calls_per_second for sample in result.samples]
        base = [sample.calls_per_second for sample in raw[result.case.in_flight].samples]
        rows.append(
            {
                **asdict(result.case),
                "calls_per_second": statistics.median(rates),
                "calls_per_second_min": min(rates),
                "calls_per_second_max": max(rates),
                "ratio_to_raw": statistics.median(rate / other for rate, other in zip(rates, base, strict=True)),
                "p50_ms": statistics.median(sample.p50_ms for sample in result.samples),
                "p99_ms": statistics.median(sample.p99_ms for sample in result.samples),
                "samples": [asdict(sample) for sample in result.samples],
            }
        )
    return rows


def table(rows: list[dict[str, Any]], title: str) -> Table:
    """Return the rows as a table for a person."""
    view = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in ("", "in flight", "calls/s", "min-max", "x raw", "p50 ms", "p99 ms"):
        view.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    for row in rows:
        view.add_row(
            row["name"],
            str(row["in_flight"]),
            f"{row['calls_per_second']:,.0f}",
            f"{row['calls_per_second_min']:,.0f}-{row['calls_per_second_max']:,.0f}",
            f"{row['ratio_to_raw']:.2f}",
            f"{row['p50_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
        )
    return view


def main() -> None:
    """Run the benchmarks and print the table."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, under 40 seconds")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write everything that was measured")
    arguments = parser.parse_args()
    rounds, seconds = (3, 0.8) if arguments.quick else (7, 2.0)

    console = Console(width=None if sys.stdout.isatty() else 120)
    rows = summary(asyncio.run(run(rounds, seconds, console)))
    versions = f"Python {platform.python_version()}, grpcio {grpc.__version__}, rpc_async {rpc_async.__version__}"
    title = f"unary echo of {len(PAYLOAD)} bytes, {versions}, medians of {rounds} rounds of {seconds:g} s"
    console.print(table(rows, title))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"versions": versions, "rows": rows}, indent=1) + "\n")
        console.print(f"written to {arguments.json}")


if __name__ == "__main__":
    main()
