"""`make bench`: the library against raw grpc.aio, in turn, in one run.

The machines are shared and noisy: slices are short and many, and what counts is the ratio to raw grpc.aio in the
same round, and its median over the rounds.
"""

from __future__ import annotations

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import argparse
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from time import perf_counter

from benchmarks.cancel import measure_cancel
from benchmarks.cli import finish, parser
from benchmarks.large import LARGE, large_section
from benchmarks.mixed import measure_mixed
from benchmarks.parked import measure_parked
from benchmarks.peers import golang
from benchmarks.report import Progress, Section, deliver, facts, new_console, show
from benchmarks.unary import SCALING, UNARY, measure_throughput, section

SECTIONS = ("unary", "scaling", "large", "parked", "cancel", "mixed")


@dataclass(frozen=True, slots=True)
class Effort:
    """How long and how often is measured."""

    rounds: int
    seconds: float
    parked: tuple[int, ...]
    cancel_rounds: int
    mixed_rounds: int
    large_rounds: int


FULL = Effort(
    rounds=30, seconds=0.25, parked=(1_000, 10_000, 100_000), cancel_rounds=20, mixed_rounds=10, large_rounds=10
)
QUICK = Effort(rounds=3, seconds=0.15, parked=(1_000, 10_000), cancel_rounds=5, mixed_rounds=3, large_rounds=2)
CANCELS = 20
"""In a round."""
MIXED_SECONDS = 0.4
"""A slice: the p99 wants more calls than the median."""

LARGE_SECONDS = 0.4
"""A slice: some tens of messages of 16 MiB a second."""


async def measure(effort: Effort, wanted: list[str], progress: Progress) -> AsyncIterator[Section]:
    """Measure the sections one after the other; unary and scaling share their rounds."""
    throughput = {"unary": UNARY, "scaling": SCALING}
    cases = [case for name in wanted for case in throughput.get(name, ())]
    if cases:
        samples = await measure_throughput(cases, effort.rounds, effort.seconds, progress)
        for name in wanted:
            if name in throughput:
                yield section(name, throughput[name], samples, effort.rounds, effort.seconds)
    if "large" in wanted:
        samples = await measure_throughput(LARGE, effort.large_rounds, LARGE_SECONDS, progress)
        yield large_section(samples, effort.large_rounds, LARGE_SECONDS)
    if "parked" in wanted:
        yield await measure_parked(effort.parked, progress)
    if "cancel" in wanted:
        yield await measure_cancel(effort.cancel_rounds, CANCELS, progress)
    if "mixed" in wanted:
        yield await measure_mixed(effort.mixed_rounds, MIXED_SECONDS, progress)


def sections(text: str) -> list[str]:
    """Read the sections' names off the command line."""
    wanted = text.split(",")
    for name in wanted:
        if name not in SECTIONS:
            raise argparse.ArgumentTypeError(f"{name!r} is no section; there are {', '.join(SECTIONS)}")
    return [name for name in SECTIONS if name in wanted]


async def run(arguments: argparse.Namespace) -> bool:
    """Measure, print, write."""
    effort = QUICK if arguments.quick else FULL
    console, progress = new_console(), Progress()
    began = perf_counter()
    about = facts(quick=arguments.quick)
    console.print(", ".join(f"{name} {version}" for name, version in about["versions"].items()), "\n")
    done: list[Section] = []
    async for part in measure(effort, arguments.only, progress):
        progress("")
        show(console, part)
        done.append(part)
    judged = [verdict for part in done for row in part.rows for verdict in row.verdicts if verdict.met is not None]
    met = sum(verdict.met is True for verdict in judged)
    console.print(f"{met} of {len(judged)} targets met, in {perf_counter() - began:.0f} s")
    return deliver(console, done, about, arguments.json, arguments.svg)


def main() -> int:
    """Read the command line, and run."""
    options = parser("python -m benchmarks", __doc__)
    options.add_argument(
        "--only", metavar="SECTION,...", type=sections, default=list(SECTIONS), help=f"of {', '.join(SECTIONS)}"
    )
    arguments = options.parse_args()
    if "unary" in arguments.only:
        golang.build(only_again=arguments.quick)
    return finish(run(arguments))


if __name__ == "__main__":
    sys.exit(main())
