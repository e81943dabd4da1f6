"""What carries a channel's calls, from its opening to its end.

They outlive the channel where it is dropped: a call that is outstanding needs no channel to settle, as with gRPC's own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any, Final

from rpc_async import fork
from rpc_async.calling.call import AsyncCall
from rpc_async.calling.io_loop import IoLoop
from rpc_async.calling.native import NativeDriver
from rpc_async.calling.session import SessionDriver

__all__ = ["Carriers"]

_LEFT: Final[set[asyncio.Task[None]]] = set()
"""What closes the carriers of channels that were dropped: a loop itself holds tasks only weakly."""


class Carriers:
    """The drivers of one channel. Made and closed on its loop."""

    def __init__(self, io: IoLoop, native: NativeDriver, session: SessionDriver | None) -> None:
        self.io: Final = io
        self.native: Final = native
        self.session: Final = session
        self._closing: asyncio.Task[None] | None = None
        self._hurry: Final = asyncio.Event()
        fork.use(self, self)

    def after_fork(self) -> None:
        """This is a forked child: the calls are its parent's."""
        on_their_way = [one for _, given in self.io.mailbox.after_fork() for one in given]
        for call in (*self._outstanding(), *on_their_way):
            if isinstance(call, AsyncCall):
                call.after_fork()

    async def close(self, grace: float | None) -> None:
        """Let the outstanding calls end for `grace` seconds, abort the rest, and close. A cancel does not stop it.

        A later call with a smaller number, or None, makes it sooner.
        """
        if self._closing is None:
            self._closing = self.io.loop.create_task(self._close(grace))
        elif not grace:
            self._hurry.set()
        else:
            self.io.loop.call_later(grace, self._hurry.set)
        await asyncio.shield(self._closing)

    def release(self) -> None:
        """The channel was dropped: close once all its calls have settled."""
        if self._closing is None:
            task = self._closing = self.io.loop.create_task(self._close(None, wait=True))
            _LEFT.add(task)
            task.add_done_callback(_LEFT.discard)

    def abort_all(self) -> None:
        """Take no more calls, and abort those that are outstanding."""
        if self.session is not None:
            self.session.abort_all()
        self.native.abort_all()

    async def _close(self, grace: float | None, *, wait: bool = False) -> None:
        end = self.io.mailbox.time() + (grace or 0.0)
        try:
            if grace or wait:
                await self._settled(grace)
        finally:  # also where the loop ends, which cancels this: so what must be done comes before the next wait
            self.abort_all()
            try:
                if self.session is not None:
                    await self.session.close()
            finally:
                left = end - self.io.mailbox.time()
                # After the other, which may have handed calls over to it.
                await self.native.close(left if left > 0 and not self._hurry.is_set() else None)
                if wait:
                    self.io.stop_soon()

    async def _settled(self, seconds: float | None) -> None:
        """Wait until all calls that are outstanding now have settled, at most so many seconds."""
        waiting = set(self._outstanding())

        def settled(call: AsyncCall[Any]) -> None:
            waiting.discard(call)
            if not waiting:
                self._hurry.set()

        for call in tuple(waiting):
            call.add_done_callback(settled)
        if waiting:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), seconds)

    def _outstanding(self) -> Iterable[AsyncCall[Any]]:
        session = () if self.session is None else self.session.outstanding
        return *session, *self.native.outstanding
