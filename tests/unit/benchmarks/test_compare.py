"""Two trees side by side, and how sure it is which one is faster."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.compare import Pair, names_like, section
from benchmarks.rows import ROWS
from benchmarks.stats import median_interval

ROOT = Path(__file__).parents[3]


def test_the_interval_of_a_median_is_that_of_tossing_a_coin() -> None:
    values = [float(number) for number in range(1, 21)]
    random.Random(1).shuffle(values)
    found = median_interval(values)
    assert (found.median, found.low, found.high) == (10.5, 6.0, 15.0)  # as any table of it has for 20 values
    assert found.confidence == pytest.approx(0.9586, abs=1e-4)


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    chance = random.Random(2)
    intervals = [median_interval([chance.lognormvariate(0, 1) for _ in range(20)]) for _ in range(2000)]
    held = sum(found.low <= 1 <= found.high for found in intervals)
    assert held / 2000 == pytest.approx(intervals[0].confidence, abs=0.015)


def test_too_few_values_say_nothing() -> None:
    with pytest.raises(ValueError, match="5 values are too few"):
        median_interval([1.0] * 5)
    assert median_interval([1.0] * 6).confidence > 0.95


def test_a_row_is_judged_by_the_low_end_of_its_interval() -> None:
    pairs = [Pair(100.0, 100.0 + number) for number in range(-5, 15)]
    found = section({"row": pairs}, 1.0, 0.1).rows[0]
    (verdict,) = found.verdicts
    assert verdict.value == median_interval([pair.new / pair.old for pair in pairs]).low == 1.0
    assert verdict.met is False
    assert section({"row": pairs}, 0.999, 0.1).rows[0].verdicts[0].met is True
    assert found.cells[3] == f"{statistics.median(pair.new / pair.old for pair in pairs):.3f}"


def test_a_row_that_the_old_tree_cannot_make_is_named_and_not_judged() -> None:
    found = section({"row": [Pair(1.0, 1.0)] * 6, "new one": []}, 0.97, 0.1)
    assert [row.cells[0] for row in found.rows] == ["row"]
    assert found.note == "the old tree cannot make: new one"


def test_rows_are_named_by_a_part_of_their_names() -> None:
    assert names_like(["native, thread"]) == ["native, thread, 1 in flight", "native, thread, 100 in flight"]
    assert not any("MiB" in name for name in names_like([])), "the large ones only where they are asked for"
    assert all(ROWS[name].client.wire in ("session", "native") for name in names_like([]))
    with pytest.raises(ValueError, match="'tea' is in no row's name"):
        names_like(["tea"])


def test_a_tree_compared_with_itself(tmp_path: Path) -> None:
    file = tmp_path / "compared.json"
    arguments = [str(ROOT), "session, inline manager, 1 in", "--pairs", "6", "--fresh", "3", "--seconds", "0.02"]
    command = [sys.executable, "-m", "benchmarks.compare", *arguments, "--bound", "0.01", "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    (row,) = json.loads(file.read_text())["rows"]
    assert len(row["pairs"]) == 6
    assert row["interval"]["low"] <= row["interval"]["median"] <= row["interval"]["high"]


def test_a_folder_without_the_package_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.compare", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, "has no package rpc_async" in done.stderr) == (2, True)
