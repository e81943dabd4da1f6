"""What many short slices say together. Needs nothing but Python.

The machine is shared and its speed drifts. What counts is the ratio to a baseline that was measured in the same
round, seconds apart, and the median of that ratio over the rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Spread", "ratio", "spread"]


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of one number over the rounds, and how far the rounds lie apart."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Sum up one number over the rounds."""
    return Spread(statistics.median(values), min(values), max(values))


def ratio(values: Sequence[float], baseline: Sequence[float]) -> Spread:
    """Compare round by round, and sum up the ratios."""
    return spread([value / other for value, other in zip(values, baseline, strict=True)])
