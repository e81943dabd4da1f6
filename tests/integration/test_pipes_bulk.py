"""P4: much goes through a pipe, and little of it is ever held."""

from __future__ import annotations

import sys

import pytest

from tests.bulk import measure

SIZE = 256
"""MiB. `python -m tests.bulk` sends 1024."""
MOST = 32
"""MiB that either side may grow by."""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("direction", ["up", "down"])
def test_P4_much_goes_through_and_little_is_held(direction: str) -> None:
    (result,) = measure(SIZE, (direction,))
    assert result.mib == SIZE
    assert result.client_growth < MOST
    assert result.server_growth < MOST
