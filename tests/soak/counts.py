"""What a scenario counts, and how long it goes on."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["PATIENCE", "Budget", "Counts", "Scenario", "comes"]

PATIENCE: Final = 30.0
"""Seconds after which something that must come is given up, and counts as hung."""
_EXAMPLES: Final = 10
"""How many descriptions of what went wrong are kept."""


async def comes(condition: Callable[[], object], patience: float = PATIENCE) -> bool:
    """Wait until a condition holds. False if that does not come in time."""
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.005)
    return True


@dataclass
class Counts:
    """What happened in a scenario. Each of `BAD` must be 0."""

    calls: int = 0
    """Calls that began."""
    replies: int = 0
    """Calls that settled with their reply."""
    cancelled: int = 0
    """Calls that settled as cancelled, where the client aborted them or their time was over."""
    refused: int = 0
    """Calls that were refused with a word, and were surely not executed."""
    failed: int = 0
    """Calls that failed as they had to."""
    cuts: int = 0
    """Connections that were cut, processes that were killed or stopped."""
    resumed: int = 0
    """Sessions that went on after a cut."""
    lost: int = 0
    """Calls that failed though they must not have."""
    executed_twice: int = 0
    settled_twice: int = 0
    hung: int = 0
    """What did not come in time."""
    wrong: int = 0
    """Anything else that was not as it should be."""
    more: Counter[str] = field(default_factory=Counter)
    """What only this scenario counts."""
    examples: list[str] = field(default_factory=list)
    """Descriptions of the first things that went wrong."""

    BAD = ("lost", "executed_twice", "settled_twice", "hung", "wrong")

    @property
    def bad(self) -> int:
        """How much went wrong."""
        return sum(int(getattr(self, name)) for name in self.BAD)

    def blame(self, what: str, why: str) -> None:
        """Count something that went wrong."""
        setattr(self, what, getattr(self, what) + 1)
        if len(self.examples) < _EXAMPLES:
            self.examples.append(f"{what}: {why}")

    def check(self, holds: object, why: str) -> None:
        """Count something wrong unless it holds."""
        if not holds:
            self.blame("wrong", why)

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers that are not 0, and all that must be."""
        plain = {name: value for name, value in vars(self).items() if isinstance(value, int)}
        return {
            **{name: value for name, value in plain.items() if value or name in self.BAD},
            **self.more,
            **({"examples": self.examples} if self.examples else {}),
        }

    def add(self, other: dict[str, Any]) -> None:
        """Add what another process has counted."""
        for name, value in other.items():
            if name == "examples":
                self.examples.extend(value[: _EXAMPLES - len(self.examples)])
            elif name in vars(self):
                setattr(self, name, getattr(self, name) + value)
            else:
                self.more[name] += value


class Budget:
    """How long a scenario goes on: until it has done enough, and its time is over."""

    def __init__(self, *, seconds: float = 0.0, least: int = 1, seed: int = 0) -> None:
        self.least: Final = least
        """How much must be done, in units of the scenario's own."""
        self.seed: Final = seed
        self._end = time.monotonic() + seconds

    def more(self, done: int) -> bool:
        """Tell whether there is more to do."""
        return done < self.least or time.monotonic() < self._end


@dataclass(frozen=True)
class Scenario:
    """One kind of fault."""

    run: Callable[[Counts, Budget], Awaitable[None]]
    about: str
    unit: str
    """What `Budget.least` counts."""
    short: int
    """How much of it in the test suite."""
    long: int
    """How much of it at the least in ten minutes of all scenarios."""
    share: float
    """Which part of the time is this scenario's."""
