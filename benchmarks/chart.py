"""Draws what `--json` wrote: `python -m benchmarks.chart REPORT.json CHART.svg`, with the Python of `.venv-peers`.

For a README: no background of its own, and colours that can be read on white and on black.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Bar", "Line", "bars", "bound", "draw", "lines"]

INK = "#76808a"
"""As far from white as from GitHub's dark grey: a contrast of 4 to both."""
COLOURS = {"raw": "#8b949e", "native": "#3b8eea", "session": "#1fa774", "go": "#d9822b", "peer": "#d9822b"}
TITLES = {
    "unary": "calls/s, 100 in flight",
    "peers": "by other means, calls/s, 100 in flight",
    "scaling": "calls/s over the number of calls in flight",
}
"""The sections that are drawn."""

_IN_FLIGHT = 100


@dataclass(frozen=True, slots=True)
class Bar:
    """A median of calls/s and its spread."""

    name: str
    wire: str
    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Line:
    """Calls/s over the number of calls in flight."""

    name: str
    wire: str
    in_flight: tuple[int, ...]
    medians: tuple[float, ...]


def bars(section: Mapping[str, Any]) -> list[Bar]:
    """Return a section's cases with 100 calls in flight."""
    rows = [row for row in section["rows"] if row["in_flight"] == _IN_FLIGHT]
    return [Bar(row["name"], row["wire"], **row["calls_per_second"]) for row in rows]


def lines(section: Mapping[str, Any]) -> list[Line]:
    """Return a line for each client of a section."""
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for row in section["rows"]:
        points = found.setdefault((row["name"], row["wire"]), [])
        points.append((row["in_flight"], row["calls_per_second"]["median"]))
    made = []
    for (name, wire), points in found.items():
        points.sort()
        made.append(Line(name, wire, tuple(x for x, _ in points), tuple(y for _, y in points)))
    return made


def draw(report: Mapping[str, Any], path: Path) -> bool:
    """Draw the sections that there are; False if there is none to draw."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    sections = report["sections"]
    panels = [name for name in TITLES if name in sections]
    if not panels:
        return False
    # A seed and no date: the same report gives the same file. Text stays text, in the reader's own font.
    style = {
        "svg.hashsalt": "rpc_async",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 10,
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    }
    layout = [panels] if len(panels) < 3 else [panels[:2], panels[2:] * 2]
    with pyplot.rc_context(style):
        figure, axes = pyplot.subplot_mosaic(layout, figsize=(11, 3.7 * len(layout)), layout="constrained")
        for name in panels:
            (_draw_lines if name == "scaling" else _draw_bars)(axes[name], sections[name])
            axes[name].set_title(TITLES[name], loc="left", fontsize=11, fontweight="bold")
            axes[name].spines[["top", "right"]].set_visible(False)
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return True


def _draw_bars(axes: Any, section: Mapping[str, Any]) -> None:
    shown = bars(section)
    widest = bound(shown)
    for place, bar in enumerate(shown):
        length = min(bar.median, widest)
        axes.barh(place, length, height=0.62, color=COLOURS[bar.wire])
        if bar.high <= widest:
            axes.plot([bar.low, bar.high], [place, place], color=INK, linewidth=1.2)
        label = f"{bar.median:,.0f}" if bar.median <= widest else f"{bar.median:,.0f} \N{RIGHTWARDS ARROW}"
        axes.text(max(length, min(bar.high, widest)) + widest / 60, place, label, va="center", fontsize=9)
    axes.set_yticks(range(len(shown)), [bar.name for bar in shown])
    axes.invert_yaxis()
    axes.set_xlim(0, widest * 1.2)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def bound(shown: Sequence[Bar]) -> float:
    """Return how far the axis goes: a bar more than three times as long as the next is cut off."""
    ends = sorted(bar.high for bar in shown)
    return ends[-2] if len(ends) > 1 and ends[-1] > 3 * ends[-2] else ends[-1]


def _draw_lines(axes: Any, section: Mapping[str, Any]) -> None:
    shown = lines(section)
    for number, line in enumerate(shown):
        first = all(other.wire != line.wire for other in shown[:number])
        style = "-" if first else "--"
        axes.plot(
            line.in_flight, line.medians, style, marker="o", markersize=4, color=COLOURS[line.wire], label=line.name
        )
    places = sorted({place for line in shown for place in line.in_flight})
    axes.set_xscale("log")
    axes.set_xticks(places, [f"{place:,}" for place in places])
    axes.minorticks_off()
    axes.set_xlim(places[0] / 1.3, places[-1] * 1.3)
    axes.set_ylim(0, 1.35 * max(median for line in shown for median in line.medians))  # room for the legend
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(axis="y", color=INK, alpha=0.25, linewidth=0.8)
    axes.set_xlabel("calls in flight")
    axes.legend(frameon=False, loc="upper left")


if __name__ == "__main__":
    drawn = draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
    sys.exit(None if drawn else "the report has no section to draw: unary, scaling or peers")
