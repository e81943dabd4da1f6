"""What many short slices say together. Needs nothing but Python.

The machine is shared and its speed drifts. What counts is the ratio to a baseline that was measured in the same
round, seconds apart, and the median of that ratio over the rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

__all__ = ["Interval", "Spread", "median_interval", "ratio", "spread"]


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of one number over the rounds, and how far the rounds lie apart."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Sum up one number over the rounds."""
    return Spread(statistics.median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Interval:
    """A median, and between what it lies."""

    median: float
    low: float
    high: float
    confidence: float
    """How sure that is: a share of all such intervals."""


def median_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return the median and the narrowest interval of two of the values that holds it with this confidence.

    It asks nothing of how the values are spread: how many of them lie below the true median is as in tossing a coin.

    Raises:
        ValueError: There are too few values to be so sure.
    """
    ordered, count = sorted(values), len(values)
    outside, rank = 0.0, 0
    while rank < count // 2 and (more := outside + 2 * comb(count, rank) / 2**count) <= 1 - confidence:
        outside, rank = more, rank + 1
    if rank == 0:
        raise ValueError(f"{count} values are too few for an interval of {confidence:.0%}")
    return Interval(statistics.median(ordered), ordered[rank - 1], ordered[count - rank], 1 - outside)


def ratio(values: Sequence[float], baseline: Sequence[float]) -> Spread:
    """Compare round by round, and sum up the ratios."""
    return spread([value / other for value, other in zip(values, baseline, strict=True)])
