"""How long to wait before the next attempt to connect: exponential, with jitter."""

from __future__ import annotations

import random
from typing import Final

__all__ = ["Backoff"]

FIRST: Final = 0.05
"""Seconds."""
LAST: Final = 5.0
"""Seconds."""
GROWTH: Final = 1.6
"""As in gRPC's connection back-off protocol."""
JITTER: Final = 0.2
"""As in gRPC's connection back-off protocol: a fifth more or less, so that clients do not come back all at once."""


class Backoff:
    """Counts the attempts that failed."""

    __slots__ = ("_seconds",)

    def __init__(self) -> None:
        self._seconds = FIRST

    def next(self, left: float | None = None) -> float:
        """Return the seconds to wait now: about half of what is left at the most, and never beyond its end."""
        seconds = self._seconds
        self._seconds = min(seconds * GROWTH, LAST)
        if left is not None:
            seconds = min(seconds, max(left / 2, FIRST))
        pause = seconds * random.uniform(1 - JITTER, 1 + JITTER)
        return pause if left is None else min(pause, max(left, 0.0))

    def reset(self) -> None:
        """An attempt has succeeded."""
        self._seconds = FIRST
