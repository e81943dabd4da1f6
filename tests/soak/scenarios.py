"""All scenarios, and how one is run."""

from __future__ import annotations

import asyncio
import time
import traceback
from typing import Final

from tests.soak.counts import Budget, Counts, Scenario
from tests.soak.crowd import crowd
from tests.soak.cuts import cuts
from tests.soak.handlers import handlers
from tests.soak.kills import killed_clients, killed_servers
from tests.soak.large import large
from tests.soak.races import races
from tests.soak.silence import silence
from tests.soak.slow import slow

__all__ = ["SCENARIOS", "TEN_MINUTES", "perform"]

TEN_MINUTES: Final = 600.0
"""Seconds."""
STUCK: Final = 90.0
"""Seconds without any change in the counts after which a scenario hangs."""

SCENARIOS: Final = {
    "cuts": Scenario(cuts, "connections cut at random under load", "cuts", 60, 4000, 0.3),
    "large": Scenario(large, "large messages among small ones, cut at random", "calls", 300, 10_000, 0.1),
    "killed-servers": Scenario(killed_servers, "servers killed at every moment of a call", "rounds", 2, 20, 0.1),
    "killed-clients": Scenario(killed_clients, "clients killed with calls outstanding", "rounds", 1, 20, 0.05),
    "silence": Scenario(silence, "servers, clients and networks stopped", "rounds", 1, 20, 0.1),
    "slow": Scenario(slow, "sides that do not read", "rounds", 1, 10, 0.05),
    "crowd": Scenario(crowd, "clients that connect at once", "clients", 200, 10_000, 0.1),
    "races": Scenario(races, "completions, cancels and deadlines that race", "calls", 8000, 1_000_000, 0.15),
    "handlers": Scenario(handlers, "manager routines that misbehave", "calls", 400, 20_000, 0.05),
}


async def perform(scenario: Scenario, budget: Budget) -> Counts:
    """Run a scenario to its end; one that does not come on has hung."""
    asyncio.get_running_loop().set_debug(False)  # thousands of tracebacks a second
    counts = Counts()
    task = asyncio.ensure_future(scenario.run(counts, budget))
    seen, since = str(counts), time.monotonic()
    while not task.done():
        await asyncio.wait((task,), timeout=1.0)
        if str(counts) != seen:
            seen, since = str(counts), time.monotonic()
        elif not task.done() and time.monotonic() - since > STUCK:
            counts.blame("hung", f"the scenario itself: {''.join(map(str, task.get_stack()))}")
            task.cancel()
            await asyncio.wait((task,), timeout=STUCK)
            break
    if task.done() and not task.cancelled() and (error := task.exception()) is not None:
        counts.blame("wrong", "".join(traceback.format_exception(error)))
    return counts
