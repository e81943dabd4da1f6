"""Something that happens once, and can be waited for from any thread and on any event loop."""

from __future__ import annotations

import asyncio
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from rpc_async.errors import InvalidAsyncCall
from rpc_async.mailbox import Mailbox

__all__ = ["Latch"]

_LOGGER: Final = logging.getLogger("rpc_async.calling")


class Latch(ABC):
    """The base of what can be waited for. A subclass says what happens, and calls `_release` once it has.

    Waiting is not owning: a wait that times out or is cancelled changes nothing (C11). What only some calls
    need (an event, a list of waiters) is made when it is asked for.
    """

    __slots__ = ("_lock", "_mailbox", "_waiters")

    def __init__(self, mailbox: Mailbox) -> None:
        self._lock: Final = mailbox.lock
        self._mailbox: Final = mailbox
        self._waiters: list[Callable[[], None]] | None = None

    @abstractmethod
    def _happened(self) -> bool:
        """Tell whether it has happened."""

    def _release(self) -> None:
        """Wake everyone. Call it once, after what `_happened` looks at was set under the lock."""
        with self._lock:
            waiters, self._waiters = self._waiters, None
        if waiters is not None:
            for wake in waiters:
                wake()

    def _subscribe(self, wake: Callable[[], None]) -> bool:
        """Have `wake` called when it happens, in whatever thread; False if it has happened already."""
        with self._lock:
            if self._happened():
                return False
            if self._waiters is None:
                self._waiters = [wake]
            else:
                self._waiters.append(wake)
            return True

    def _unsubscribe(self, wake: Callable[[], None]) -> None:
        with self._lock:
            if self._waiters is not None and wake in self._waiters:
                self._waiters.remove(wake)

    def wait(self, timeout: float | None = None) -> bool:
        """Block this thread until it has happened; in a coroutine, `await` instead.

        Args:
            timeout: Seconds; None waits for ever.

        Returns:
            Whether it has happened. A wait that times out leaves the call outstanding (C11).

        Raises:
            InvalidAsyncCall: This thread runs the event loop that must make it happen: it would wait for ever.
        """
        if self._happened():
            return True
        if self._mailbox.here() and self._mailbox.loop.is_running():
            raise InvalidAsyncCall(
                f"{self!r}: this thread runs the channel's event loop and would wait for itself; await it instead"
            )
        event = threading.Event()
        if not self._subscribe(event.set):
            return True
        try:
            return event.wait(timeout)
        finally:
            self._unsubscribe(event.set)

    async def _wait_here(self) -> None:
        """Wait on the running event loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        if loop is self._mailbox.loop:
            mailbox = self._mailbox

            def wake() -> None:
                mailbox.run(_set, future)
        else:

            def wake() -> None:
                try:
                    loop.call_soon_threadsafe(_set, future)
                except RuntimeError:
                    _LOGGER.warning("%r: the event loop that waited for it is closed", self)

        if self._subscribe(wake):
            try:
                await future
            finally:
                if not future.done() or future.cancelled():
                    self._unsubscribe(wake)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
