"""A way into an event loop from any thread, with coalesced wake-ups.

`loop.call_soon_threadsafe` writes to the loop's wake-up socket for every call. A mailbox writes once for all
that is posted before the loop comes round.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NoReturn

__all__ = ["Mailbox", "let_through"]

_LOGGER: Final = logging.getLogger("rpc_async")


class Mailbox:
    """Runs what any thread posts, in order, on one event loop.

    Make it on the loop's own thread.
    """

    __slots__ = ("_posted", "_thread_id", "_wakened", "lock", "loop", "time")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: Final = loop
        self.lock: Final = threading.Lock()
        """Guards what the loop's many small objects share with other threads, for a few instructions each time. A lock
        for each object would be as quick to take, and dear to make. Never call anything unknown under it."""
        # asyncio's own loops may be asked the time from any thread, which other kinds know of their last turn only.
        self.time: Final[Callable[[], float]] = loop.time if isinstance(loop, asyncio.BaseEventLoop) else time.monotonic
        """The loop's clock, in seconds, from any thread."""
        self._thread_id = threading.get_ident()
        self._posted: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._wakened = False

    def after_fork(self) -> list[tuple[Callable[..., object], tuple[Any, ...]]]:
        """This is a forked child: nobody holds the lock here. Return what was posted, which is the parent's to do."""
        self.lock._at_fork_reinit()  # type: ignore[attr-defined]  # as the standard library does with its own
        posted = list(self._posted)
        self._posted.clear()
        return posted

    def here(self) -> bool:
        """Tell whether this is the loop's own thread."""
        return threading.get_ident() == self._thread_id

    def post(self, function: Callable[..., object], *args: Any) -> bool:
        """Have `function(*args)` called on the loop soon; from any thread, even from a destructor.

        Returns:
            False if the loop is closed: then it will never be called.
        """
        # Append first, look at the flag second; `_drain` does it the other way round. So whatever is appended
        # while the flag is up is seen by the drain that takes it down. No lock is needed, and none may be: a
        # destructor can run in the middle of any other line of this class.
        self._posted.append((function, args))
        if not self._wakened:
            self._wakened = True
            with contextlib.suppress(RuntimeError):  # closed: the look below answers, now and for all that follow
                self.loop.call_soon_threadsafe(self._drain)
        if self.loop.is_closed():
            self._posted.clear()
            return False
        return True

    def run(self, function: Callable[..., object], *args: Any) -> bool:
        """Call `function(*args)` at once if this is the loop's thread, else post it."""
        if threading.get_ident() == self._thread_id:
            function(*args)
            return True
        return self.post(function, *args)

    def _drain(self) -> None:
        self._wakened = False
        for _ in range(len(self._posted)):  # what comes while this runs has its own wake-up
            function, args = self._posted.popleft()
            try:
                function(*args)
            except (KeyboardInterrupt, SystemExit) as error:
                let_through(error)
            except BaseException:
                _LOGGER.exception("a function posted to the event loop raised")


def let_through(error: BaseException) -> None:
    """Raise what a user's code raised to end the program, while nobody else may be kept from being told by it.

    Out of the event loop that runs in this thread, a turn after those who are being told now, as if the loop had called
    that code itself; where none runs, here and now.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise error from None
    loop.call_soon(loop.call_soon, _raise, error)


def _raise(error: BaseException) -> NoReturn:
    raise error
