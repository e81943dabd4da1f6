"""Fixtures that every test may use."""

from __future__ import annotations

import os
from typing import cast

os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import pytest
from hypothesis import settings

from tests.harness import SocketWire, Wire

settings.register_profile("ci", max_examples=200, deadline=None, print_blob=True)
settings.register_profile("dev", max_examples=50, deadline=None, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(params=["native", "session", "memory"])
def wire(request: pytest.FixtureRequest) -> Wire:
    """Every wire, and a session in one process: one meaning, tested from one body."""
    return cast("Wire", request.param)


@pytest.fixture(params=["native", "session"])
def socket_wire(request: pytest.FixtureRequest) -> SocketWire:
    """Every wire, for a test that needs a target to connect to."""
    return cast("SocketWire", request.param)
