"""Targets, tables, and the report that more than one run writes into."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import report
from benchmarks.report import Row, Section, Target, deliver, merged, show


@pytest.mark.parametrize(
    ("comparison", "value", "said"),
    [
        (">=", 12.0, ">= 12 x raw: met"),
        (">=", 11.5, ">= 12 x raw: MISSED, 11.5"),
        ("<=", 12.0, "<= 12 x raw: met"),
        ("<=", 12.5, "<= 12 x raw: MISSED, 12.5"),
        (">=", None, ">= 12 x raw: not measured"),
    ],
)
def test_a_target_judges(comparison: str, value: float | None, said: str) -> None:
    assert str(Target(comparison, 12, "x raw").judge(value)) == said


def test_what_failed_has_missed_its_target() -> None:
    verdict = Target("<=", 5, "x").failed()
    assert (str(verdict), verdict.met) == ("<= 5 x: FAILED", False)


def section(name: str, value: int) -> Section:
    row = Row((name, f"{value:,}"), {"name": name, "value": value}, (Target(">=", 2, "x raw").judge(value),))
    return Section(name, f"the {name}", ("", "value"), [row], note="a note")


def test_a_table_is_readable_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    show(Console(file=out, width=100), section("unary", 1000))
    assert [line.rstrip() for line in out.getvalue().splitlines()] == [
        "the unary",
        "       value  target",
        "unary  1,000  >= 2 x raw: met",
        "a note",
        "",
    ]


def test_a_row_may_have_fewer_cells_than_the_table() -> None:
    out = io.StringIO()
    one = section("mixed", 1)
    one.rows.append(Row(("failed",), {}, (Target("<=", 5, "x").failed(),)))
    show(Console(file=out, width=100), one)
    assert "failed         <= 5 x: FAILED" in out.getvalue()


def test_a_section_replaces_its_older_self_and_leaves_the_others() -> None:
    old = merged({}, [section("unary", 1), section("peers", 2)], {"when": "before"})
    new = merged(old, [section("unary", 3)], {"when": "now"})["sections"]
    assert (new["unary"]["when"], new["unary"]["rows"][0]["value"]) == ("now", 3)
    assert (new["peers"]["when"], new["peers"]["rows"][0]["value"]) == ("before", 2)
    assert new["unary"]["rows"][0]["verdicts"] == [{"target": ">= 2 x raw", "value": 3, "met": True}]


def test_the_report_is_written_where_no_chart_can_be_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "PEERS_PYTHON", tmp_path / "none")
    file, out = tmp_path / "report.json", io.StringIO()
    assert not deliver(Console(file=out), [section("unary", 1)], {}, file, tmp_path / "chart.svg")
    assert "make bench-peers" in out.getvalue()
    assert set(json.loads(file.read_text())["sections"]) == {"unary"}
