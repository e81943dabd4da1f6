"""What is missing here is said, and is a failure: a test that was left out would look like one that passed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.peers.programs import missing

_SECONDS_EACH = 0.1
"""What a fresh channel may take."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a long form be asked for."""
    parser.addoption("--fresh-channels", type=int, default=100, help="to each plain server (default: %(default)s)")


def _wanted(config: pytest.Config) -> int:
    wanted: Any = config.getoption("--fresh-channels")
    return int(wanted)


@pytest.fixture
def fresh_channels(request: pytest.FixtureRequest) -> int:
    """Return how many are asked for."""
    return _wanted(request.config)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """End where a program is missing that a test here may start, and give a long form its time."""
    if lacking := missing():
        pytest.exit(f"tests/peers lacks: {', '.join(lacking)}", returncode=pytest.ExitCode.USAGE_ERROR)
    for item in items:
        if "fresh_channels" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(60 + _wanted(config) * _SECONDS_EACH))
