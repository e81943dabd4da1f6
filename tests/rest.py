"""At rest: what every test ends with, whether it knows or not. Nothing can be sent while nobody is going to look.

A fixture has `at_rest` called whenever a channel or a server begins to close: then each session must be able to come to
rest. At rest a writer sleeps because it has nothing to send, or waits for a write that the other side holds back. A
writer that neither writes, nor sleeps, nor is about to look was forgotten; and so was one that sleeps and could send.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Final

import pytest

from rpc_async.calling.session import SessionDriver
from rpc_async.calling.streams import Streams
from rpc_async.core.link import Link
from rpc_async.pump import Pump
from rpc_async.serving.session import ServedSession
from rpc_async.serving.sessions import SessionService

__all__ = ["watch"]

PATIENCE: Final = 10.0
"""Seconds until what does not come to rest is said not to."""
TURN: Final = 0.001
"""Seconds between two looks, after the first."""


def _trouble(link: Link, pump: Pump | None) -> str | None:
    """Return what keeps a side of a session from being at rest."""
    if link.asleep and link.wants_to_send:
        return "may send, and its writer sleeps"
    if pump is not None and pump.idle and not link.asleep:
        return "has a writer that neither sleeps nor writes"
    return None


def client_trouble(streams: Streams) -> str | None:
    """Return what keeps a channel's session from being at rest."""
    link = streams._owner.session.machine.link
    if streams.stream is None:
        return None  # whoever opens the next one looks
    with streams._mailbox.lock:
        return _trouble(link, streams._pump)


def served_trouble(session: ServedSession) -> str | None:
    """Return what keeps a server's session from being at rest."""
    stream = session.stream
    if stream is None:
        return None
    link = session.machine.link
    if session._progress and link.ready and stream.pump.idle:
        return "has progress to tell, and nobody looks"
    return _trouble(link, stream.pump)


async def at_rest(who: str, trouble: Callable[[], str | None]) -> str | None:
    """Wait until nothing keeps a session from being at rest. Returns what does, if that does not end."""
    end = time.monotonic() + PATIENCE
    while (found := trouble()) is not None:
        if time.monotonic() > end:
            return f"{who} {found}"
        await asyncio.sleep(TURN)
    return None


def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have every session looked at before its channel or its server closes; fail where one could not come to rest."""
    troubles: list[str] = []

    def looked_at(close: Callable[..., Awaitable[None]], look: Callable[[Any], Awaitable[str | None]]) -> Any:
        async def wrapper(self: Any, *args: Any, **options: Any) -> None:
            try:
                found = await look(self)
                if found is not None:
                    troubles.append(found)
            finally:
                await close(self, *args, **options)

        return wrapper

    async def look_at_client(driver: SessionDriver) -> str | None:
        return await at_rest("a channel", lambda: client_trouble(driver._streams))

    async def look_at_server(service: SessionService) -> str | None:
        for session in tuple(service._sessions.values()):
            found = await at_rest("a served session", partial(served_trouble, session))
            if found is not None:
                return found
        return None

    monkeypatch.setattr(SessionDriver, "close", looked_at(SessionDriver.close, look_at_client))
    monkeypatch.setattr(SessionService, "close", looked_at(SessionService.close, look_at_server))
    yield
    assert not troubles
