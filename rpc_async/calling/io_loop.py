"""The event loop that a channel does its I/O on: the caller's own, or one in a thread of the channel's."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine
from typing import Any, Final, Self, TypeVar

from rpc_async.errors import InvalidAsyncCall
from rpc_async.mailbox import Mailbox

__all__ = ["IoLoop"]

_LOGGER: Final = logging.getLogger("rpc_async.calling")

T = TypeVar("T")


class IoLoop:
    """One event loop, usable from any thread."""

    def __init__(self, mailbox: Mailbox, thread: threading.Thread | None) -> None:
        self.mailbox: Final = mailbox
        self.loop: Final = mailbox.loop
        self._thread = thread

    @classmethod
    def running(cls) -> Self:
        """Use the loop that runs in this thread. Raises RuntimeError where none does."""
        return cls(Mailbox(asyncio.get_running_loop()), None)

    @classmethod
    def in_thread(cls, name: str) -> Self:
        """Start a thread with a loop of its own."""
        ready = threading.Event()
        made: list[Mailbox] = []

        async def serve() -> None:
            made.append(Mailbox(asyncio.get_running_loop()))
            ready.set()

        def stopped(loop: asyncio.AbstractEventLoop) -> bool:
            try:
                loop.run_forever()
            except (KeyboardInterrupt, SystemExit):
                # A user's callback raised it, which ends a program's own loop. Nobody would hear of it in this thread,
                # and all calls of the channel would end with it.
                _LOGGER.exception("a callback raised, which does not end the channel's own thread")
                return False
            return True

        def run() -> None:
            with asyncio.Runner() as runner:  # cancels, at its end, whatever was left
                runner.run(serve())
                while not stopped(runner.get_loop()):
                    pass

        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        ready.wait()
        return cls(made[0], thread)

    @property
    def own_thread(self) -> bool:
        """Whether the loop runs in a thread of the channel's."""
        return self._thread is not None

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on this loop and wait for it on whichever loop runs here."""
        if asyncio.get_running_loop() is self.loop:
            return await coroutine
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self.loop))

    def run_blocking(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on this loop and block this thread until it is done."""
        if self.mailbox.here():
            coroutine.close()
            raise InvalidAsyncCall("this thread runs the channel's event loop, and would wait for itself")
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def stop_soon(self) -> None:
        """End the thread, if there is one, and do not wait for it. On the loop."""
        if self._thread is not None:
            self.loop.call_soon(self.loop.stop)

    def stop(self) -> None:
        """End the thread, if there is one."""
        if self._thread is not None:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
