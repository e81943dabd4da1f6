"""`make soak`: every fault for minutes on end, and what came of it. Ends with 1 if anything went wrong."""

from __future__ import annotations

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import argparse
import asyncio
import json
import logging
import random
import sys
import time
from pathlib import Path
from typing import Any

from tests.soak.counts import Budget, Counts
from tests.soak.scenarios import SCENARIOS, TEN_MINUTES, perform
from tests.soak.servers import raise_file_limit

SHOWN = ("calls", "cuts", "resumed", *Counts.BAD)


def names(text: str) -> list[str]:
    """Read the scenarios' names off the command line."""
    wanted = text.split(",")
    for name in wanted:
        if name not in SCENARIOS:
            raise argparse.ArgumentTypeError(f"{name!r} is no scenario; there are {', '.join(SCENARIOS)}")
    return [name for name in SCENARIOS if name in wanted]


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="for all that is run together; 10 if not given")
    parser.add_argument(
        "--only", metavar="NAME,...", type=names, default=list(SCENARIOS), help=f"of {', '.join(SCENARIOS)}"
    )
    parser.add_argument("--least", type=int, help="how much of each, in its own unit, however long that takes")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the counts into FILE")
    parser.add_argument("--seed", type=int, help="what chance is made of; it is printed")
    arguments = parser.parse_args()
    if not arguments.minutes > 0:
        parser.error("--minutes: more than 0")
    return arguments


def row(name: str, counts: Counts, seconds: float) -> str:
    """Return a line of the report."""
    cells = "".join(f"{getattr(counts, what):>{max(len(what), 9) + 2},}" for what in SHOWN)
    return f"{name:<16}{seconds:>7.0f}{cells}"


def heading() -> str:
    """Return the report's first line."""
    cells = "".join(f"{what.replace('_', ' '):>{max(len(what), 9) + 2}}" for what in SHOWN)
    return f"{'scenario':<16}{'seconds':>7}{cells}"


def main() -> int:
    """Run, print, write."""
    arguments = read_arguments()
    seed = random.randrange(1 << 32) if arguments.seed is None else arguments.seed
    logging.getLogger("rpc_async").setLevel(logging.CRITICAL)  # what goes wrong here is meant to
    raise_file_limit()
    print(f"{arguments.minutes:g} minutes, --seed {seed}\n\n{heading()}", flush=True)
    shares = sum(SCENARIOS[name].share for name in arguments.only)
    total, results, bad = Counts(), dict[str, Any](), 0
    for name in arguments.only:
        scenario = SCENARIOS[name]
        seconds = 60 * arguments.minutes * scenario.share / shares
        least = max(scenario.short, round(scenario.long * min(seconds / (TEN_MINUTES * scenario.share), 1)))
        least = least if arguments.least is None else arguments.least
        began = time.monotonic()
        counts = asyncio.run(perform(scenario, Budget(seconds=seconds, least=least, seed=seed)))
        print(row(name, counts, time.monotonic() - began), flush=True)
        results[name] = {"seconds": round(time.monotonic() - began, 1), **counts.as_dict()}
        total.add({what: getattr(counts, what) for what in SHOWN})
        bad += counts.bad
        for example in counts.examples:
            print(f"    {example}", flush=True)
    print(row("all", total, sum(result["seconds"] for result in results.values())))
    print("\nalso:")
    for name, result in results.items():
        rest = ", ".join(
            f"{value:,} {what}" for what, value in result.items() if what not in (*SHOWN, "seconds", "examples")
        )
        print(f"    {name}: {rest}")
    if arguments.json is not None:
        document = {"minutes": arguments.minutes, "seed": seed, "bad": bad, "scenarios": results}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    print(f"\n{'all is well' if not bad else f'{bad} THINGS WENT WRONG'}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
