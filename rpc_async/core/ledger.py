"""How much memory all sessions of a server hold together, and which of them must give way when it is too much.

One session has bounds of its own; but there may be many sessions, and nobody knows who is behind them. So the one that
holds the most goes first: a session that holds little is safe from a few that hold much.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

__all__ = ["Ledger"]

RELIEF: Final = 4
"""Where it is too much, a part in so many is freed at once, so that the sessions need not be compared each time."""

HolderT = TypeVar("HolderT")


class Ledger(Generic[HolderT]):
    """The bytes that each session holds."""

    __slots__ = ("_held", "_limit", "total")

    def __init__(self, limit: int) -> None:
        """Make a ledger for at most `limit` bytes in all."""
        self._limit = limit
        self._held: dict[HolderT, int] = {}
        self.total: int = 0
        """Bytes that they hold together."""

    def weigh(self, holder: HolderT, held: int) -> bool:
        """A session holds so many bytes now. Returns whether they are too many in all; then see `largest`."""
        self.total += held - self._held.get(holder, 0)
        if held:
            self._held[holder] = held
        else:
            self._held.pop(holder, None)
        return self.total > self._limit

    @property
    def enough(self) -> bool:
        """Whether so much is free that nobody need give way."""
        return self.total <= self._limit - self._limit // RELIEF

    def largest(self) -> list[HolderT]:
        """Return the sessions that must give way, the largest first: those that hold what is too much."""
        excess = self.total - (self._limit - self._limit // RELIEF)
        giving_way = []
        for holder, held in sorted(self._held.items(), key=lambda item: item[1], reverse=True):
            if excess <= 0:
                break
            giving_way.append(holder)
            excess -= held
        return giving_way
