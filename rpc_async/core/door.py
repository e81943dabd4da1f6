"""The door from sessions to native calls: which wire a channel's calls take, and what an attempt that failed means.

A channel begins UNDECIDED: its calls wait for the answer to the opening of a session's first stream. Nothing of them
leaves before that answer, so whatever the attempt ends with, none of them was executed (C14), and all of them may go
another way:

- the server says Opened: they go by the SESSION;
- it refuses, answers nothing in time, or answers something else: they go natively, and so do those that come later,
  until the native connection ends. The next server that is connected to is asked anew;
- the connection is lost before the answer, or somebody answers for the moment only: they go natively, and a session is
  tried again soon;
- no connection is made: they wait, or fail, as gRPC's own calls do.

A session that was open and is cut is resumed; an answer that says that it is gone ends the wait for that.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

__all__ = ["AWAY", "Door", "Refusal", "Verdict", "Wire"]

AWAY: Final = 2.0
"""Seconds for which a proxy may answer in the server's place, and a session still be had back: as long as it takes to
notice that a server is there again. A server that answers nothing is given the session's whole linger."""


class Wire(Enum):
    """How a channel's calls travel at present."""

    UNDECIDED = auto()
    """They wait for the answer to the opening of a session."""
    SESSION = auto()
    """By a session."""
    NATIVE = auto()
    """Each is a gRPC call of its own."""


class Refusal(Enum):
    """How an attempt to open a stream has failed."""

    NOT_CONNECTED = auto()
    """No connection was made."""
    LOST = auto()
    """The connection was lost before the answer."""
    SILENT = auto()
    """There is a connection, and no answer in time."""
    BUSY = auto()
    """An answer that holds for the moment only: a server that takes no more, or a proxy that has no server."""
    REFUSED = auto()
    """Any other failure as the answer."""
    NOT_OURS = auto()
    """An answer that is none to the opening of a session."""


class Verdict(Enum):
    """What to do then."""

    WAIT = auto()
    """Try again later. Calls that are not willing to wait fail; they surely were not executed."""
    GO_NATIVELY = auto()
    """The calls that wait go natively."""
    LOSE = auto()
    """The session is gone: what may have been executed fails, the rest is begun anew in the next one."""
    FAIL = auto()
    """There will be no session, and the channel was opened for nothing else: all calls fail."""


_NATIVELY_TOO: Final = {Refusal.REFUSED, Refusal.SILENT, Refusal.NOT_OURS}


class Door:
    """Decides, for one channel. Time is passed in, in seconds of any clock that only goes forward."""

    __slots__ = ("_away_since", "_only", "brief", "reason", "wire")

    def __init__(self, *, only: bool) -> None:
        """Make it. `only`: the channel's calls go by sessions or not at all."""
        self._only = only
        self._away_since: float | None = None
        self.wire: Wire = Wire.UNDECIDED
        """How calls travel now."""
        self.brief: bool = False
        """They go natively for a moment only: not until the native connection ends."""
        self.reason: str = "the server has not said yet whether it offers sessions"
        """Why, in words."""

    def opened(self) -> None:
        """A stream has been opened."""
        self.wire = Wire.SESSION
        self.reason = "the server offers sessions"
        self._away_since = None

    def failed(self, why: Refusal, text: str, *, resuming: bool, now: float) -> Verdict:
        """An attempt has failed.

        Args:
            why: How.
            text: The failure in words.
            resuming: It was to resume a session that had been open, not to open a new one.
            now: The time.
        """
        if resuming:
            return self._not_resumed(why, now)
        if why is Refusal.NOT_CONNECTED:
            return Verdict.WAIT
        if self._only:
            return Verdict.FAIL if why in (Refusal.REFUSED, Refusal.NOT_OURS) else Verdict.WAIT
        self.wire = Wire.NATIVE
        self.brief = why not in _NATIVELY_TOO
        self.reason = f"no session could be opened: {text}"
        return Verdict.GO_NATIVELY

    def _not_resumed(self, why: Refusal, now: float) -> Verdict:
        if why in (Refusal.REFUSED, Refusal.NOT_OURS):
            return self.lost()
        if why is not Refusal.BUSY:
            self._away_since = None
            return Verdict.WAIT
        if self._away_since is None:
            self._away_since = now
        return Verdict.WAIT if now - self._away_since < AWAY else self.lost()

    def lost(self) -> Verdict:
        """The session is gone. The next one may find another server there."""
        self._away_since = None
        self.wire = Wire.UNDECIDED
        self.reason = "the server has not said yet whether it offers sessions"
        return Verdict.LOSE

    def try_again(self) -> None:
        """The connection that calls went by natively has ended, or the moment has passed: try a session again."""
        if self.wire is Wire.NATIVE:
            self.wire = Wire.UNDECIDED
            self.brief = False
