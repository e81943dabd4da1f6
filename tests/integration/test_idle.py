"""An idle session costs nothing: neither side's event loop wakes up, with keepalive or without."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests import idle

ASKING = 3
"""Turns that it takes to be asked how many there were."""


def test_an_idle_session_wakes_neither_side() -> None:
    keepalives = [
        None,
        0.6,
    ]  # gRPC answers pings in threads of its own; after four too many it would cut the connection
    with ThreadPoolExecutor() as pool:
        costs = list(pool.map(idle.measure, [4.0] * len(keepalives), keepalives))
    for keepalive, cost in zip(keepalives, costs, strict=True):
        assert cost.client.turns <= ASKING, (keepalive, cost)
        assert cost.server.turns <= ASKING, (keepalive, cost)
