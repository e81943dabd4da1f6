"""Medians over the rounds, and ratios round by round."""

from __future__ import annotations

import pytest

from benchmarks.stats import Spread, ratio, spread


def test_the_spread_is_from_the_lowest_to_the_highest() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)


def test_a_ratio_is_taken_in_each_round_so_that_a_slow_round_does_not_count() -> None:
    assert ratio([20.0, 2.0, 24.0], [10.0, 1.0, 10.0]) == Spread(2.0, 2.0, 2.4)


def test_a_ratio_wants_as_many_rounds_on_both_sides() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratio([1.0], [1.0, 2.0])
