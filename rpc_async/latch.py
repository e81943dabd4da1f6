"""Something that happens once, and can be waited for from any thread and on any event loop."""

from __future__ import annotations

import asyncio
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from rpc_async.checks import checked_timeout
from rpc_async.errors import InvalidAsyncCall
from rpc_async.fork import refuse_in_child
from rpc_async.mailbox import Mailbox

__all__ = ["Change", "Latch"]

Waiter = asyncio.Future[None] | Callable[[], None]

T = TypeVar("T")

_LOGGER: Final = logging.getLogger("rpc_async")


class Latch(ABC):
    """The base of what can be waited for. A subclass says what happens, and wakes everyone once it has.

    Waiting is not owning: a wait that times out or is cancelled changes nothing (C11). What only some calls
    need (an event, a list of waiters) is made when it is asked for.
    """

    __slots__ = ("_mailbox", "_waiters")

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._waiters: Waiter | list[Waiter] | None = None

    @abstractmethod
    def _happened(self) -> bool:
        """Tell whether it has happened."""

    def _release(self) -> None:
        """Wake everyone. Call it once, after what `_happened` looks at was set under the mailbox's lock."""
        with self._mailbox.lock:
            waiters, self._waiters = self._waiters, None
        if waiters is not None:
            self._wake(waiters)

    def _wake(self, waiters: Waiter | list[Waiter]) -> None:
        if isinstance(waiters, asyncio.Future):
            if not self._mailbox.here():
                self._mailbox.post(_set, waiters)
            elif not waiters.done():
                waiters.set_result(None)
        elif isinstance(waiters, list):
            for waiter in waiters:
                self._wake(waiter)
        else:
            waiters()

    def _subscribe(self, waiter: Waiter) -> bool:
        """Have a waiter woken when it happens; False if it has happened already.

        Args:
            waiter: A future of the mailbox's loop, or what to call in whatever thread. One future is the common case,
                and one waiter is kept without a list around it.
        """
        with self._mailbox.lock:
            if self._happened():
                return False
            waiters = self._waiters
            if waiters is None:
                self._waiters = waiter
            elif isinstance(waiters, list):
                waiters.append(waiter)
            else:
                self._waiters = [waiters, waiter]
            return True

    def _unsubscribe(self, waiter: Waiter) -> None:
        with self._mailbox.lock:
            waiters = self._waiters
            if not isinstance(waiters, list):
                self._waiters = None if waiters == waiter else waiters
            elif waiter in waiters:
                waiters.remove(waiter)

    def wait(self, timeout: float | None = None) -> bool:
        """Block this thread until it has happened; in a coroutine, `await` instead.

        Args:
            timeout: Seconds; None waits for ever, 0 or less not at all.

        Returns:
            Whether it has happened. A wait that times out leaves the call outstanding (C11).

        Raises:
            InvalidAsyncCall: This thread runs the event loop that must make it happen: it would wait for ever.
            InvalidArgument: `timeout` is no number of seconds.
            ForkedProcess: This process was forked from the one that the call is of.
        """
        if timeout is not None:
            timeout = checked_timeout(timeout)
        if self._happened():
            return True
        if self._mailbox.here() and self._mailbox.loop.is_running():
            raise InvalidAsyncCall(
                f"{self!r}: this thread runs the event loop that it depends on, and would wait for itself; await it "
                "instead"
            )
        refuse_in_child(self)  # where nobody would make it happen
        event = threading.Event()
        if not self._subscribe(event.set):
            return True
        try:
            return event.wait(timeout)
        finally:
            self._unsubscribe(event.set)

    def _wait_here(self, then: Callable[[], T]) -> Generator[Any, None, T]:
        """Wait on the running event loop, and return what `then` does: what an `__await__` returns."""
        if not self._happened():
            loop = asyncio.get_running_loop()
            future: asyncio.Future[None] = loop.create_future()
            waiter: Waiter = future
            if loop is not self._mailbox.loop:
                refuse_in_child(self)
                waiter = _Elsewhere(self, future)
            if self._subscribe(waiter):
                try:
                    yield from future
                except BaseException:  # the wait was cancelled, and that is all that was (C11)
                    self._unsubscribe(waiter)
                    raise
        return then()


@dataclass(frozen=True, slots=True)
class _Elsewhere:
    """Wakes whoever waits on another event loop than the mailbox's."""

    latch: Latch
    future: asyncio.Future[None]

    def __call__(self) -> None:
        try:
            self.future.get_loop().call_soon_threadsafe(_set, self.future)
        except RuntimeError:
            _LOGGER.warning("%r: the event loop that waited for it is closed", self.latch)


class Change(Latch):
    """One turn of something that changes again and again: the next news of it."""

    __slots__ = ("_did",)

    def __init__(self, mailbox: Mailbox) -> None:
        super().__init__(mailbox)
        self._did = False

    def _happened(self) -> bool:
        return self._did

    def happen(self) -> None:
        """There is news."""
        with self._mailbox.lock:
            self._did = True
        self._release()

    def __await__(self) -> Generator[Any, None, None]:
        return self._wait_here(_nothing)


def _nothing() -> None:
    """What there is to return of something that only happens."""


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
