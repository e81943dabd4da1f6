"""`make soak` sees what goes wrong: a soak that could not fail would prove nothing."""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from rpc_async import ServerUnavailable
from tests.harness import pair
from tests.soak import scenarios
from tests.soak.__main__ import names
from tests.soak.counts import Budget, Counts, Scenario
from tests.soak.scenarios import SCENARIOS, perform
from tests.soak.work import Caller, Ledger, Mode, Work

ROOT = Path(__file__).parents[2]


async def test_what_was_executed_twice_or_settled_twice_is_found() -> None:
    work, counts = Work(), Counts()
    caller = Caller(counts)
    async with pair(work, "session") as both:
        for mode in (Mode.TASK, Mode.THREAD, Mode.WAIT):
            assert await caller.outcome(caller.begin(both.stub.Echo, caller.order(mode, 1, 10))) is None
    await caller.audit(work.executed)
    assert counts.bad == 0
    assert (counts.calls, counts.replies) == (3, 3)
    work.executed.note(1)
    caller._settled.note(2)
    await caller.audit(work.executed)
    assert (counts.executed_twice, counts.settled_twice, counts.bad) == (1, 1, 2)
    await caller.audit(Ledger())
    assert counts.wrong == 3, "a reply came of what was never executed"


async def test_a_call_that_fails_where_it_must_not_is_lost() -> None:
    work, counts = Work(), Counts()
    caller = Caller(counts)
    async with pair(work, "session", max_calls=1) as both:
        parked = caller.begin(both.stub.Echo, caller.order(Mode.PARK))
        await caller.outcome(caller.begin(both.stub.Echo, caller.order()), ServerUnavailable)  # it is too busy
        assert (counts.lost, counts.refused) == (1, 0)
        work.finish(0)
        await caller.outcome(parked)
        assert counts.wrong == 1, "that is not the reply of this call"
    work.executed.note(1)
    await caller.audit(work.executed)
    assert counts.wrong == 2, "it was executed, where it surely was not"


async def test_a_scenario_that_raises_or_hangs_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    async def raises(counts: Counts, budget: Budget) -> None:
        raise RuntimeError("oh")

    async def hangs(counts: Counts, budget: Budget) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(scenarios, "STUCK", 0.0)
    seen = [await perform(Scenario(run, "", "", 1, 1, 1.0), Budget()) for run in (raises, hangs)]
    assert [(counts.wrong, counts.hung) for counts in seen] == [(1, 0), (0, 1)]
    assert "RuntimeError: oh" in seen[0].examples[0]


def test_what_another_process_has_counted_is_added() -> None:
    counts, other = Counts(calls=1), Counts(calls=2, lost=1)
    other.more["told so"] += 3
    other.examples.append("lost: it")
    counts.add(other.as_dict())
    assert (counts.calls, counts.lost, counts.more["told so"], counts.examples) == (3, 1, 3, ["lost: it"])


def test_a_scenario_that_there_is_none_of_is_named() -> None:
    assert names("slow,cuts") == ["cuts", "slow"]
    with pytest.raises(argparse.ArgumentTypeError, match="'tea' is no scenario; there are cuts, "):
        names("cuts,tea")
    assert sum(scenario.share for scenario in SCENARIOS.values()) == pytest.approx(1)


def test_the_program_says_what_it_has_counted(tmp_path: Path) -> None:
    file = tmp_path / "soak.json"
    arguments = ["--only", "handlers", "--minutes", "0.001", "--seed", "7", "--json", str(file)]
    command = [sys.executable, "-m", "tests.soak", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    assert "all is well" in done.stdout
    assert "--seed 7" in done.stdout
    said = json.loads(file.read_text())
    assert said["bad"] == 0
    assert said["scenarios"]["handlers"]["calls"] >= SCENARIOS["handlers"].short
