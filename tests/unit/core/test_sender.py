"""The sender's rule: no state can be reached in which something may be sent, and nobody is going to look.

Every order of events that a budget allows is tried, to the last state; what that comes to is asserted, so that a
checker that visits less is noticed.
"""

from __future__ import annotations

import pytest

from tests.unit.core.sender_model import Budget, World, explore, shrink


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)


@pytest.mark.parametrize(
    ("causal", "budget", "states", "depth"),
    [
        (True, Budget(client=2, drops=1), 3823, 25),
        (False, Budget(client=2, drops=1), 6334, 28),
        (True, Budget(client=1, server=1), 6321, 28),
        (True, Budget(client=2, cuts=1), 7676, 25),
        (False, Budget(client=1, cuts=2, drops=1), 2390, 20),
        (True, Budget(client=2, withdrawals=1), 1802, 25),
        (True, Budget(client=1, ticks=3), 1886, 18),
    ],
)
def test_in_every_state_that_can_be_reached_whoever_may_send_is_awake(
    causal: bool, budget: Budget, states: int, depth: int
) -> None:
    found = explore(World.first(causal, budget))
    assert (found.states, found.depth) == (states, depth)
    assert found.quiet > 1, "what everything comes to rest in is among them"
