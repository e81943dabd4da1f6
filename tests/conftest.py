"""Fixtures that every test may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import cast

os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import pytest
from hypothesis import settings

from tests import rest
from tests.harness import SocketWire, Wire

settings.register_profile("ci", max_examples=200, deadline=None, print_blob=True)
settings.register_profile("dev", max_examples=50, deadline=None, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(autouse=True)
def _at_rest(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whoever has a session ends with this: nothing can be sent while nobody is going to look."""
    yield from rest.watch(monkeypatch)


@pytest.fixture(params=["native", "session", "memory"])
def wire(request: pytest.FixtureRequest) -> Wire:
    """Every wire, and a session in one process: one meaning, tested from one body."""
    return cast("Wire", request.param)


@pytest.fixture(params=["native", "session"])
def socket_wire(request: pytest.FixtureRequest) -> SocketWire:
    """Every wire, for a test that needs a target to connect to."""
    return cast("SocketWire", request.param)
