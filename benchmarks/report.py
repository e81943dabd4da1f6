"""What a run tells: tables with their targets for a person, JSON for a program."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc
from rich.console import Console
from rich.table import Table

import rpc_async
from benchmarks.children import PEERS_PYTHON, ROOT
from benchmarks.stats import Spread

__all__ = [
    "Progress",
    "Row",
    "Section",
    "Target",
    "Verdict",
    "deliver",
    "facts",
    "merged",
    "new_console",
    "show",
    "spread_text",
]


_WIDTH = 140
"""Columns that the widest table takes."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target, and whether it was met."""

    target: str
    value: float | None
    met: bool | None
    """None: it was not measured. False without a value: what was to be measured failed."""

    def __str__(self) -> str:
        if self.met is None:
            return f"{self.target}: not measured"
        if self.value is None:
            return f"{self.target}: FAILED"
        return f"{self.target}: met" if self.met else f"{self.target}: MISSED, {self.value:.3g}"


@dataclass(frozen=True, slots=True)
class Target:
    """A bound that a number is to keep."""

    comparison: str
    """">=" or "<="."""
    bound: float
    unit: str

    def judge(self, value: float | None) -> Verdict:
        """Tell whether a number keeps the bound; None: it was not measured."""
        text = f"{self.comparison} {self.bound:g} {self.unit}"
        if value is None:
            return Verdict(text, None, None)
        return Verdict(text, value, value >= self.bound if self.comparison == ">=" else value <= self.bound)

    def failed(self) -> Verdict:
        """Tell that there is no number because what was to be measured failed."""
        return Verdict(f"{self.comparison} {self.bound:g} {self.unit}", None, False)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table, and all that was measured for it."""

    cells: tuple[str, ...]
    data: Mapping[str, Any]
    verdicts: tuple[Verdict, ...] = ()


@dataclass(slots=True)
class Section:
    """One part of a run."""

    name: str
    title: str
    headings: tuple[str, ...]
    """The first is the rows' name."""
    rows: list[Row] = field(default_factory=list)
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return everything that was measured."""
        rows = [{**row.data, "verdicts": [asdict(verdict) for verdict in row.verdicts]} for row in self.rows]
        return {"title": self.title, "note": self.note, "rows": rows}


def spread_text(number: Spread, form: str = ",.0f") -> tuple[str, str]:
    """Return a median and its spread as two cells."""
    return f"{number.median:{form}}", f"{number.low:{form}}-{number.high:{form}}"


def show(console: Console, section: Section) -> None:
    """Print a section as a table."""
    judged = any(row.verdicts for row in section.rows)
    view = Table(title=section.title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for number, heading in enumerate(section.headings):
        view.add_column(heading, justify="right" if number else "left", no_wrap=True)
    if judged:
        view.add_column("target", no_wrap=True)
    for row in section.rows:
        verdict = "\n".join(map(str, row.verdicts))
        style = "red" if any(verdict.met is False for verdict in row.verdicts) else None
        cells = [*row.cells, *[""] * (len(section.headings) - len(row.cells))]
        view.add_row(*cells, *([verdict] if judged else []), style=style)
    console.print(view)
    if section.note:
        console.print(section.note, style="dim")
    console.print()


def new_console() -> Console:
    """Return where tables are printed: as wide as the terminal, but always wide enough for them."""
    return Console(width=max(_WIDTH, shutil.get_terminal_size().columns), highlight=False, markup=False)


def facts(*, quick: bool) -> dict[str, Any]:
    """Return what was measured with what, and when."""
    versions = {
        "Python": platform.python_version(),
        "grpcio": grpc.__version__,
        "rpc_async": rpc_async.__version__,
        "cores": str(os.cpu_count()),
    }
    return {"when": time.strftime("%Y-%m-%d %H:%M %Z"), "quick": quick, "versions": versions}


def merged(old: Mapping[str, Any], sections: Iterable[Section], run: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report in which the measured sections replace their older selves, and the others stay.

    Each section keeps the facts of the run that it is from.
    """
    kept = dict(old.get("sections", {}))
    return {"sections": {**kept, **{section.name: {**run, **section.as_json()} for section in sections}}}


def deliver(
    console: Console, sections: Sequence[Section], run: Mapping[str, Any], report: Path | None, chart: Path | None
) -> bool:
    """Write the sections into the report, which may be there already, and draw the chart of what it then holds.

    Returns:
        Whether all that was asked for was written.
    """
    old = json.loads(report.read_text()) if report is not None and report.exists() else {}
    text = json.dumps(merged(old, sections, run), indent=1) + "\n"
    if report is not None:
        report.write_text(text)
        console.print(f"written to {report}")
    if chart is None:
        return True
    if not PEERS_PYTHON.exists():
        console.print("no chart was drawn: what draws it is not here; make bench-peers makes it")
        return False
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(text)
        file.flush()
        command = [str(PEERS_PYTHON), "-m", "benchmarks.chart", file.name, str(chart.resolve())]
        drawn = subprocess.run(command, cwd=ROOT, check=False).returncode == 0
    console.print(f"drawn in {chart}" if drawn else "no chart was drawn")
    return drawn


class Progress:
    """Says on a terminal's standard error what is being measured. No thread, which would be measured too."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        """Replace the line; the empty text removes it."""
        if self._shown:
            print(f"\r{text[:78]:<78}\r", end="", file=sys.stderr, flush=True)
