"""How many pieces are on their way: enough to keep it busy, too few for small frames to wait behind."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import pytest

from rpc_async.core import link, pacing
from rpc_async.core.frames import MAX_PAYLOAD
from rpc_async.core.link import Link
from rpc_async.core.pacing import Pacer

MIB = 1024 * 1024


class Way:
    """A way with a rate and a delay: what is sent faster than it goes lies about. Each batch is acknowledged."""

    def __init__(
        self, pacer: Pacer, rate: float, delay: float, jitter: Callable[[], float] = lambda: 0.0, *, alone: bool = False
    ) -> None:
        """Make it: with a small frame beside each piece, unless they are `alone`."""
        self.pacer = pacer
        self.rate = rate
        self.delay = delay
        self.jitter = jitter
        self.alone = alone
        self.now = 0.0
        self.free_at = 0.0
        self.frames = 0
        self.arrived_bytes = 0
        self.waits: list[float] = []
        self.acks: list[tuple[float, int, int]] = []

    def run(self, seconds: float) -> tuple[float, float]:
        """Send as much as may be sent. Returns bytes a second, and the seconds that a small frame would have waited."""
        until, before, self.waits = self.now + seconds, self.arrived_bytes, []
        while self.now < until:
            while self.pacer.room:
                self.send()
            self.now, count, size = heapq.heappop(self.acks)
            self.arrived_bytes += size
            self.pacer.acknowledged(count, self.now)
            self.waits.append(max(self.free_at - self.now, 0.0))
        return (self.arrived_bytes - before) / seconds, sorted(self.waits)[len(self.waits) // 2]

    def send(self) -> None:
        if not self.alone:
            self.pacer.beside_small(self.now)
        self.pacer.taken(MAX_PAYLOAD)
        self.frames += 1
        self.pacer.sent(self.frames, self.now)
        self.free_at = max(self.free_at, self.now) + MAX_PAYLOAD / self.rate
        heapq.heappush(self.acks, (self.free_at + self.delay + self.jitter(), self.frames, MAX_PAYLOAD))


@pytest.mark.parametrize(
    ("rate", "delay"),
    [(300 * MIB, 0.0003), (1000 * MIB, 0.0001), (100 * MIB, 0.02), (12 * MIB, 0.05), (40 * MIB, 0.1)],
)
def test_the_way_is_kept_busy_and_small_frames_wait_no_longer_than_it_takes(rate: float, delay: float) -> None:
    way = Way(Pacer(), rate, delay)
    way.run(200 * delay + 0.1)
    achieved, wait = way.run(200 * delay + 0.1)
    assert achieved > 0.85 * rate
    assert wait <= 2 * (delay + MAX_PAYLOAD / rate) + pacing.SLACK


@pytest.mark.parametrize(("rate", "delay"), [(300 * MIB, 0.0003), (12 * MIB, 0.05), (MIB, 0.02)])
def test_where_pieces_are_alone_a_small_frame_that_comes_waits_some_milliseconds_more(
    rate: float, delay: float
) -> None:
    way = Way(Pacer(), rate, delay, alone=True)
    way.run(200 * delay + 0.1)
    achieved, wait = way.run(200 * delay + 0.1)
    assert achieved > 0.95 * rate
    most = 2 * (delay + MAX_PAYLOAD / rate) + pacing.SLACK + pacing.SLACK_ALONE
    assert wait <= max(most, pacing.LEAST / rate)
    assert way.pacer.piece(MIB) <= max((most * rate + MAX_PAYLOAD) / pacing.SHARE, MAX_PAYLOAD)
    assert way.pacer.alone(way.now)
    way.pacer.beside_small(way.now)
    assert not way.pacer.alone(way.now + 0.99 * pacing.ALONE_AFTER)
    taken = 0
    while way.pacer.room:
        way.pacer.taken(MAX_PAYLOAD)
        taken += MAX_PAYLOAD
    assert taken <= pacing.AT_FIRST


def test_where_pieces_are_alone_as_many_are_on_their_way_as_arrive_in_that_time() -> None:
    """A machine that is busy has acknowledgements come late, and takes nothing from what the way can carry."""
    chance = random.Random(1)
    way = Way(Pacer(), 500 * MIB, 0.0003, lambda: chance.choice((0.0, 0.0, 0.03)), alone=True)
    way.run(5)
    assert way.pacer._window >= 0.9 * 500 * MIB * pacing.SLACK_ALONE
    other = Way(Pacer(), 500 * MIB, 0.0003, lambda: chance.choice((0.0, 0.0, 0.03)))
    other.run(5)
    assert other.pacer._window < way.pacer._window


def test_pieces_grow_with_what_may_be_on_its_way_and_others_say_how_much() -> None:
    pacer = Pacer()
    assert pacer.piece(MIB) == pacing.AT_FIRST // pacing.SHARE
    assert pacer.piece(100_000) == 100_000
    assert pacer.piece(MAX_PAYLOAD) == MAX_PAYLOAD
    pacer._window = pacing.LEAST
    assert pacer.piece(MIB) == MAX_PAYLOAD


def test_on_a_slow_way_little_is_on_its_way() -> None:
    way = Way(Pacer(), MIB, 0.02)
    way.run(10)
    achieved, wait = way.run(10)
    assert achieved > 0.95 * MIB
    assert wait <= pacing.LEAST / MIB + 0.1


def test_on_a_long_way_no_more_than_the_most_is_on_its_way() -> None:
    way = Way(Pacer(), 1000 * MIB, 0.1)
    way.run(10)
    achieved, _ = way.run(10)
    assert 0.9 * pacing.MOST / 0.1 < achieved < 1.1 * pacing.MOST / 0.1


def test_a_way_that_has_become_longer_is_measured_anew() -> None:
    way = Way(Pacer(), 40 * MIB, 0.001)
    way.run(5)
    way.delay = 0.05
    way.run(2 * pacing.RENEW)
    achieved, wait = way.run(2 * pacing.RENEW)
    assert achieved > 0.85 * way.rate
    assert wait < 0.1


def test_after_a_cut_the_way_is_another() -> None:
    way = Way(Pacer(), 40 * MIB, 0.001)
    way.run(5)
    way.pacer.cut()
    way.acks.clear()
    way.delay = 0.05
    way.run(2)
    assert way.run(2)[0] > 0.85 * way.rate


def test_what_may_always_be_on_the_way_is_acknowledged_before_it_is_used_up() -> None:
    """Pieces that do not make an acknowledgement due, and one more batch of them, leave room for another piece."""
    assert link.PIECES * MAX_PAYLOAD + link.ACK_BYTES <= pacing.LEAST


def test_a_way_that_varies_keeps_what_is_always_allowed() -> None:
    chance = random.Random(1)
    way = Way(Pacer(), 100 * MIB, 0.02, lambda: chance.choice((0.0, 0.08)))
    achieved, _ = way.run(20)
    assert achieved > 0.8 * pacing.LEAST / 0.1


def test_more_is_tried_only_where_it_was_wanted() -> None:
    pacer = Pacer()
    for count in range(1, 1000):
        pacer.taken(MAX_PAYLOAD)
        pacer.sent(count, count / 100)
        pacer.acknowledged(count, count / 100 + 0.001)
    taken = 0
    while pacer.room:
        pacer.taken(MAX_PAYLOAD)
        taken += MAX_PAYLOAD
    assert taken == pacing.AT_FIRST


def test_the_end_of_a_large_frame_tells_nothing_of_the_way() -> None:
    """It is less than a piece, and may be acknowledged with what comes next only."""
    pacer = Pacer()
    pacer.taken(100)
    pacer.sent(1, 0.0)
    pacer.acknowledged(1, 60.0)
    pacer.taken(pacing.AT_FIRST - MAX_PAYLOAD)
    assert pacer.room


def test_after_a_cut_nothing_is_on_its_way() -> None:
    pacer = Pacer()
    pacer.taken(pacing.AT_FIRST)
    pacer.sent(1, 0.0)
    assert not pacer.room
    pacer.cut()
    assert pacer.room
    pacer.acknowledged(1, 1.0)
    pacer.taken(pacing.AT_FIRST - 1)
    assert pacer.room


@pytest.mark.parametrize("causal", [True, False])
def test_small_frames_wait_for_pieces_that_wait_in_a_causal_link_only(causal: bool) -> None:
    it = Link(causal=causal)
    it.push(1, 1, bytes(20 * MAX_PAYLOAD))
    sent = 0
    while it.wants_to_send:
        sent += len(it.take(0))
    assert not it.idle
    it.push(1, 2, b"small")
    assert [it.wants_to_send] == [not causal]
    assert it.take(0) == ([] if causal else [(1, 2, b"small")])
    it.acknowledge(sent, 1)
    assert len(it.take(1)) > 1
