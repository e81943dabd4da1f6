"""The sender's rule: no state can be reached in which something may be sent, and nobody is going to look.

Every order of events that a budget allows is tried, to the last state; what that comes to is asserted, so that a
checker that visits less is noticed.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.unit.core.sender_model import BOUNDS, FRAMES, Budget, Explored, World, explore, shrink


def visited(monkeypatch: pytest.MonkeyPatch, bounds: Mapping[str, int], causal: bool, budget: Budget) -> Explored:
    shrink(monkeypatch, bounds)
    return explore(World.first(causal, budget))


@pytest.mark.parametrize(
    ("causal", "budget", "states", "depth"),
    [
        (True, Budget(client=2, drops=1), 11097, 28),
        (True, Budget(client=2, withdrawals=1), 4030, 27),
        (False, Budget(client=1, small=1), 3833, 26),
        (True, Budget(small=1, server=1), 3968, 26),
        (True, Budget(client=1, cuts=1, ticks=1), 3487, 20),
        (True, Budget(client=1, ticks=3), 3736, 20),
        pytest.param(False, Budget(client=1, cuts=1, drops=1), 6802, 25, marks=pytest.mark.slow),
        pytest.param(False, Budget(client=2), 17375, 32, marks=pytest.mark.slow),
        pytest.param(False, Budget(client=1, small=1, ticks=1), 21283, 27, marks=pytest.mark.slow),
        pytest.param(True, Budget(client=1, server=1), 37834, 36, marks=pytest.mark.slow),
    ],
)
def test_in_every_state_that_can_be_reached_whoever_may_send_is_awake(
    monkeypatch: pytest.MonkeyPatch, causal: bool, budget: Budget, states: int, depth: int
) -> None:
    found = visited(monkeypatch, BOUNDS, causal, budget)
    assert (found.states, found.depth) == (states, depth)
    assert found.quiet > 1, "what everything comes to rest in is among them"


def test_nobody_waits_for_ever_for_the_frames_that_may_be_on_their_way(monkeypatch: pytest.MonkeyPatch) -> None:
    found = visited(monkeypatch, FRAMES, True, Budget(small=6, cuts=1))
    assert (found.states, found.depth) == (6260, 21)


@pytest.mark.parametrize(
    ("what", "value", "told"),
    [
        ("Link._rouse", lambda link: None, "client may send, and nobody looks, after: client writes, client pushes 2"),
        ("ACK_BYTES", 40, "nothing is going to"),
    ],
)
def test_a_sender_that_is_forgotten_is_found(
    monkeypatch: pytest.MonkeyPatch, what: str, value: object, told: str
) -> None:
    with pytest.raises(AssertionError, match=told):
        visited(monkeypatch, {**BOUNDS, f"link.{what}": value}, True, Budget(client=2))  # type: ignore[dict-item]


def test_a_window_that_nobody_acknowledges_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="waits for what nothing is going to say"):
        visited(monkeypatch, {**FRAMES, "link.ACK_FRAMES": 4}, True, Budget(small=8))
