"""The fuzz targets for the drivers; `tests/fuzz` tells what each must hold."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings

from tests.fuzz.drivers import HostileClients, HostileServers
from tests.fuzz.frames import client_messages, server_messages


def test_hostile_clients() -> None:
    with asyncio.Runner() as runner, HostileClients(runner) as stage:

        @settings(max_examples=settings.default.max_examples // 2)  # type: ignore[union-attr]
        @given(client_messages())
        def run(messages: list[bytes]) -> None:
            stage.run(messages)

        run()


def test_hostile_servers() -> None:
    with asyncio.Runner() as runner, HostileServers(runner) as stage:

        @settings(max_examples=settings.default.max_examples // 2)  # type: ignore[union-attr]
        @given(server_messages())
        def run(messages: list[bytes]) -> None:
            stage.run(messages)

        run()
