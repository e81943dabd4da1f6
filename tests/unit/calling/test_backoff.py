"""How long a client waits before it connects again."""

from __future__ import annotations

from itertools import pairwise

from rpc_async.calling.backoff import FIRST, JITTER, LAST, Backoff


def test_the_pauses_grow_to_a_limit_and_begin_anew() -> None:
    backoff = Backoff()
    pauses = [backoff.next() for _ in range(50)]
    assert pauses[0] <= FIRST * (1 + JITTER)
    assert LAST * (1 - JITTER) <= pauses[-1] <= LAST * (1 + JITTER)
    backoff.reset()
    assert backoff.next() <= FIRST * (1 + JITTER)


def test_C14_a_session_is_not_lost_between_two_attempts_while_there_is_time() -> None:
    backoff = Backoff()
    for _ in range(20):
        backoff.next()  # the network has been bad for long
    left, tried_at = 5.0, []
    while left > 0:
        tried_at.append(left)
        left -= backoff.next(left)
    assert len(tried_at) > 5, "nearer and nearer to the end"
    assert tried_at[-1] < 4 * FIRST, "up to the end"
    assert all(earlier - later >= FIRST * (1 - JITTER) for earlier, later in pairwise(tried_at)), "but not in a rush"


def test_a_pause_ends_with_what_is_left_at_the_latest() -> None:
    for left in (0.0, FIRST / 10, FIRST, 1.0, -1.0):
        assert 0 <= Backoff().next(left) <= max(left, 0.0)
