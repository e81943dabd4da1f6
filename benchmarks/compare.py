"""Two trees against each other: `python -m benchmarks.compare OLD_TREE [ROW...]`.

Measures rows of `make bench` in alternating pairs, the old tree's package beside this one's, with the same clients,
servers and load, which are this tree's. In each pair a row is measured in the old tree, twice in the new one, and in
the old one again, so that a drift of the machine's speed falls on both. What counts is the median of new / old over the
pairs, and the interval that holds it with 95 % confidence. Both trees get fresh processes every few pairs, so that no
process's luck with its memory is taken for its tree's. Ends with 1 if an interval does not lie above the bound.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from benchmarks.children import ROOT, Child, ChildFailed, Children
from benchmarks.cli import finish
from benchmarks.report import Progress, Row, Section, Verdict, new_console, show
from benchmarks.rows import ROWS
from benchmarks.stats import Interval, median_interval, spread
from benchmarks.unary import UNARY

__all__ = ["LEAST_PAIRS", "compare", "names_like", "section", "stage"]

LEAST_PAIRS = 6
"""Fewer say nothing with 95 % confidence."""
HEADINGS = ("", "old /s", "new /s", "new / old", "95 % interval")


class Pair(NamedTuple):
    """What one pair of slices showed, in calls per second."""

    old: float
    new: float


def names_like(texts: Sequence[str]) -> list[str]:
    """Return the names of the rows that have one of the texts in them; where there is none, those of small calls.

    Raises:
        ValueError: No row has a text in it.
    """
    for text in texts:
        if not any(text in name for name in ROWS):
            raise ValueError(f"{text!r} is in no row's name; there are: {'; '.join(ROWS)}")
    return [name for name, case in ROWS.items() if (any(text in name for text in texts) if texts else case in UNARY)]


def stage(tree: Path, folder: Path) -> Path:
    """Put a tree's package, and this tree's benchmarks, into a folder: so both trees carry the same load.

    Raises:
        FileNotFoundError: The tree has no package.
    """
    ignore = shutil.ignore_patterns("__pycache__", "build")
    shutil.copytree(tree / "rpc_async", folder / "rpc_async", ignore=ignore)
    shutil.copytree(ROOT / "benchmarks", folder / "benchmarks", ignore=ignore)
    return folder.resolve()


@asynccontextmanager
async def _measured(folder: Path, names: Sequence[str]) -> AsyncIterator[tuple[Child, dict[str, str]]]:
    """Start what measures a tree. Yields it, and the rows that the tree cannot make, with the reasons."""
    async with Children(folder) as children:
        child = await children.python("benchmarks.slices", *names)
        package = Path(await child.line())
        if not package.is_relative_to(folder):
            raise ChildFailed(f"measures {package}, where the tree to measure is in {folder}")
        yield child, json.loads(await child.line())


async def compare(
    old: Path,
    new: Path,
    names: Sequence[str],
    pairs: int,
    seconds: float,
    fresh: int,
    progress: Callable[[str], object],
) -> dict[str, list[Pair]]:
    """Measure the rows in alternating pairs. Those that the old tree cannot make have none.

    Args:
        old: A folder with the old tree's package and the benchmarks; see `stage`.
        new: The same with the new tree's.
        names: The rows.
        pairs: How many pairs.
        seconds: How long a slice is; there are four in a pair.
        fresh: After how many pairs there are new processes.
        progress: Is told what is measured.

    Raises:
        ChildFailed: The new tree cannot make a row.
    """
    found: dict[str, list[Pair]] = {name: [] for name in names}
    for done in range(0, pairs, fresh):
        async with _measured(old, names) as (old_child, missing), _measured(new, names) as (new_child, wrong):
            if wrong:
                raise ChildFailed(f"the new tree: {wrong}")
            for number in range(done, min(done + fresh, pairs)):
                order = (old_child, new_child, new_child, old_child)
                if number % 2:
                    order = (new_child, old_child, old_child, new_child)
                for row, name in enumerate(names):
                    if name in missing:
                        continue
                    progress(f"pair {number + 1} of {pairs}: {name}")
                    rates: dict[Child, float] = {old_child: 0.0, new_child: 0.0}
                    for child in order:
                        rates[child] += await child.ask(f"{row} {seconds}") / 2
                    found[name].append(Pair(rates[old_child], rates[new_child]))
    return found


def section(found: dict[str, list[Pair]], bound: float, seconds: float) -> Section:
    """Sum up the rows."""
    rows = []
    measured = {name: pairs for name, pairs in found.items() if pairs}
    for name, pairs in measured.items():
        interval = median_interval([pair.new / pair.old for pair in pairs])
        old, new = spread([pair.old for pair in pairs]), spread([pair.new for pair in pairs])
        cells = (name, f"{old.median:,.0f}", f"{new.median:,.0f}", f"{interval.median:.3f}", _text(interval))
        data = {"name": name, "interval": asdict(interval), "pairs": [pair._asdict() for pair in pairs]}
        rows.append(Row(cells, data, (Verdict(f"> {bound:g}", interval.low, interval.low > bound),)))
    count = max(map(len, found.values()))
    title = f"compare: new against old, medians of {count} alternating pairs of {seconds:g} s, twice each"
    missing = [name for name in found if name not in measured]
    return Section(
        "compare", title, HEADINGS, rows, f"the old tree cannot make: {'; '.join(missing)}" if missing else ""
    )


def _text(interval: Interval) -> str:
    return f"{interval.low:.3f}-{interval.high:.3f}"


async def run(arguments: argparse.Namespace, names: list[str]) -> bool:
    """Measure, print, write. Returns whether every interval lies above the bound."""
    with tempfile.TemporaryDirectory() as made:
        old, new = stage(arguments.old, Path(made) / "old"), stage(ROOT, Path(made) / "new")
        progress = Progress()
        found = await compare(old, new, names, arguments.pairs, arguments.seconds, arguments.fresh, progress)
        progress("")
    done = section(found, arguments.bound, arguments.seconds)
    show(new_console(), done)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(done.as_json(), indent=1) + "\n")
    return all(verdict.met for row in done.rows for verdict in row.verdicts)


def main() -> int:
    """Read the command line, and run."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    options.add_argument("old", metavar="OLD_TREE", type=Path, help="a work tree of what was before")
    options.add_argument(
        "rows", metavar="ROW", nargs="*", help="a part of the names of the rows; all, if none is given"
    )
    options.add_argument("--pairs", type=int, default=20, help=f"how many: {LEAST_PAIRS} or more, else 20")
    options.add_argument("--seconds", type=float, default=0.25, help="of a slice, of which a pair has four")
    options.add_argument("--fresh", type=int, default=4, help="after how many pairs there are new processes")
    options.add_argument("--bound", type=float, default=0.97, help="what each interval must lie above")
    options.add_argument("--json", metavar="FILE", type=Path, help="write everything that was measured into FILE")
    arguments = options.parse_args()
    if arguments.pairs < LEAST_PAIRS or arguments.fresh < 1 or not arguments.seconds > 0:
        options.error(f"--pairs: {LEAST_PAIRS} at the least; --fresh: 1 at the least; --seconds: more than 0")
    if not (arguments.old / "rpc_async").is_dir():
        options.error(f"{arguments.old} has no package rpc_async")
    try:
        names = names_like(arguments.rows)
    except ValueError as error:
        options.error(str(error))
    return finish(run(arguments, names))


if __name__ == "__main__":
    sys.exit(main())
