"""How much of the large frames may be on its way, so that small ones do not wait behind it.

What was sent is overtaken by nothing: a small frame waits for all that was sent before it and has not arrived. So no
more pieces are sent than keep the way busy. How many that is shows in how long their acknowledgements take: as soon as
it is longer than the way itself takes, pieces lie about somewhere (in a socket, or with a peer that is busy), and fewer
do just as well. Where pieces are alone, nobody waits behind them: then more of them may lie about, and they are larger,
which makes them cheaper, until a small frame comes beside them. The model is congestion control by delay (TCP Vegas;
LEDBAT, RFC 6817).
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final, NamedTuple

from rpc_async.core.frames import MAX_PAYLOAD

__all__ = ["Pacer"]

MOST: Final = 4 * 1024 * 1024
"""Bytes of pieces that may be on their way at the most."""
LEAST: Final = 256 * 1024
"""Bytes of pieces that may always be on their way. The other side acknowledges each (`link.ACK_BYTES`)."""
AT_FIRST: Final = 512 * 1024
"""Bytes of pieces that may be on their way before anything is known of it."""
STEP: Final = 64 * 1024
"""Bytes more after each round trip, once it was too much."""
ROUND_TRIPS: Final = 2.0
"""Times the shortest round trip seen that an acknowledgement may take: half of it is the way, half is lying about."""
RENEW: Final = 30.0
"""Seconds after which the shortest round trip is measured anew, for the way may have become longer."""
SLACK: Final = 0.0005
"""Seconds that it may take beside that: what an event loop's turn takes."""
SLACK_ALONE: Final = 0.004
"""The same where no small frames go beside the pieces: so long the first of them may have to wait."""
ALONE_AFTER: Final = 0.02
"""Seconds after the last small frame that went beside pieces until they are taken to be alone."""
SHARE: Final = 4
"""A piece that is larger than others has at the most this part of what may be on its way, which so stays in motion."""


class _Sent(NamedTuple):
    frames: int
    """Frames that are sent in all, with the batch's."""
    size: int
    """Bytes of pieces in the batch."""
    at: float
    before: int
    """Bytes of pieces that had arrived by then."""


class Pacer:
    """Says when the next piece may be taken. Times are in seconds, of any clock that only goes forward."""

    __slots__ = (
        "_arrived",
        "_batch",
        "_flight",
        "_in_flight",
        "_measured_at",
        "_rate",
        "_reduced_at",
        "_searching",
        "_shortest",
        "_small_at",
        "_window",
    )

    def __init__(self) -> None:
        self.cut()

    def cut(self) -> None:
        """The stream has ended: nothing is on its way, and the next one may be another way."""
        self._flight: deque[_Sent] = deque()
        self._in_flight = 0
        self._batch = 0
        self._window: float = AT_FIRST
        self._searching = True
        self._shortest = math.inf
        self._measured_at = math.inf  # when the shortest was last forgotten
        self._reduced_at = -math.inf
        self._small_at = -math.inf
        self._arrived = 0
        self._rate = 0.0  # bytes a second: the most that was seen over a round trip

    @property
    def room(self) -> bool:
        """Whether another piece may be taken."""
        return self._in_flight < self._window

    def alone(self, now: float) -> bool:
        """Tell whether no small frame has gone beside pieces lately."""
        return now - self._small_at > ALONE_AFTER

    def piece(self, most: int) -> int:
        """Return how many bytes a piece may have that is alone, `most` at the most."""
        return max(min(int(self._window) // SHARE, most), MAX_PAYLOAD)

    def beside_small(self, now: float) -> None:
        """A small frame goes beside pieces: the next one is not to wait for long."""
        if self.alone(now) and self._window > AT_FIRST:
            bound = ROUND_TRIPS * self._shortest + SLACK  # without what may lie about while nobody waits
            self._window = max(self._window * bound / (bound + SLACK_ALONE), AT_FIRST)
        self._small_at = now

    def taken(self, size: int) -> None:
        """A piece of `size` bytes goes into the next batch."""
        self._in_flight += size
        self._batch += size

    def sent(self, count: int, now: float) -> None:
        """The batch with what was taken is on its way, and `count` frames are sent in all."""
        if self._batch:
            self._measured_at = min(self._measured_at, now)
            self._flight.append(_Sent(count, self._batch, now, self._arrived))
            self._batch = 0

    def acknowledged(self, count: int, now: float) -> None:
        """`count` frames have arrived in all."""
        flight = self._flight
        if not flight or flight[0].frames > count:
            return
        in_use = self._in_flight + MAX_PAYLOAD > self._window
        arrived, sample = 0, None
        while flight and flight[0].frames <= count:
            batch = flight.popleft()
            arrived += batch.size
            if batch.size >= MAX_PAYLOAD:  # the acknowledgement of less may have waited for more to come
                sample = batch
        self._in_flight -= arrived
        self._arrived += arrived
        if sample is not None:
            self._adapt(sample, now, arrived if in_use else 0)

    def _adapt(self, sample: _Sent, now: float, arrived: int) -> None:
        sent_at = sample.at
        taken = now - sent_at
        if now - self._measured_at > RENEW:
            self._window = LEAST  # with more on the way, what lies about would be measured too
            self._searching = True
            self._shortest = math.inf
            self._rate = 0.0
            self._measured_at = now
        self._shortest = min(self._shortest, taken)
        bound, least = ROUND_TRIPS * self._shortest + SLACK, LEAST
        if self.alone(now) and taken > 0:
            self._rate = max(self._rate, (self._arrived - sample.before) / taken)
            bound += SLACK_ALONE
            least = max(min(int(self._rate * SLACK_ALONE), MOST), LEAST)
        if taken <= bound:
            more = arrived if self._searching else STEP * arrived / self._window
            self._window = max(min(self._window + more, MOST), least if arrived else 0)
        elif sent_at >= self._reduced_at:  # once a round trip: what was sent before tells nothing new
            self._window = max(self._window * max(bound / taken, 0.5), least)
            self._reduced_at = now
            self._searching = False
