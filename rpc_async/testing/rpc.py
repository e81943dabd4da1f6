"""One gRPC call in memory: what lies between a client's call object and a server's context.

Used on one event loop. Messages are bytes, and travel in order; what one side has written and the other not read has a
bound. A call ends in order, by its server: then the client reads what is on its way first. Or it breaks: by a cancel,
a deadline, or a cut connection, and what was on its way is lost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

import grpc
import grpc.aio

__all__ = ["End", "Flow", "Metadata", "Rpc"]

ROOM: Final = 64 * 1024
"""Bytes that may wait to be read before the next write has to wait, as HTTP/2's first window has."""

Metadata = tuple[tuple[str, str | bytes], ...]


class End(NamedTuple):
    """How a call ended."""

    code: grpc.StatusCode
    details: str
    trailing: Metadata


class Flow:
    """The messages of one direction."""

    __slots__ = ("_closed", "_limit", "_loop", "_messages", "_refuse", "_size", "_waiters")

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int, refuse: Callable[[int], object]) -> None:
        """Make it: of a message with more than `limit` bytes, `refuse` is told the size."""
        self._loop = loop
        self._limit = limit
        self._refuse = refuse
        self._messages: deque[bytes] = deque()
        self._size = 0
        self._closed = False
        self._waiters: list[asyncio.Future[None]] = []

    async def put(self, message: bytes) -> bool:
        """Write a message once there is room. Returns False if it is not written: the flow is closed."""
        if len(message) > self._limit:
            self._refuse(len(message))
        while self._size >= ROOM and not self._closed:
            await self._change()
        if self._closed:
            return False
        self._messages.append(message)
        self._size += len(message)
        self._changed()
        return True

    async def get(self) -> bytes | None:
        """Read the next message; None at the end."""
        while not self._messages and not self._closed:
            await self._change()
        if not self._messages:
            return None
        message = self._messages.popleft()
        self._size -= len(message)
        self._changed()
        return message

    def close(self) -> None:
        """Take no more messages. Those that are there can still be read."""
        self._closed = True
        self._changed()

    def drop(self) -> None:
        """Close it, and lose what was not read."""
        self._messages.clear()
        self._size = 0
        self.close()

    async def _change(self) -> None:
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter

    def _changed(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class Rpc:
    """One call."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        method: str,
        metadata: Metadata,
        *,
        peer: str,
        timeout: float | None,
        wait_for_ready: bool,
        max_request: int,
        max_reply: int,
    ) -> None:
        self.loop: Final = loop
        self.method: Final = method
        self.metadata: Final = metadata
        self.peer: Final = peer
        self.wait_for_ready: Final = wait_for_ready
        self.requests: Final = Flow(loop, max_request, lambda size: self._too_large("SERVER", size, max_request))
        self.responses: Final = Flow(loop, max_reply, lambda size: self._too_large("CLIENT", size, max_reply))
        self.reached: Final[asyncio.Future[None]] = loop.create_future()
        """The call has got to the server, or has ended."""
        self.initial: Final[asyncio.Future[Metadata]] = loop.create_future()
        """The server's initial metadata; none, once the call has ended without."""
        self.end: End | None = None
        self.aborted_here: bool = False
        """The client itself cancelled the call."""
        self.deadline: Final = None if timeout is None else loop.time() + timeout
        self._ended: Final[asyncio.Future[None]] = loop.create_future()
        self._callbacks: list[Callable[[], object]] = []
        self._timer: asyncio.TimerHandle | None = None
        if timeout is not None:
            self._timer = loop.call_later(timeout, self.expire)

    # -- ending -----------------------------------------------------------------------------------------

    def finish(self, code: grpc.StatusCode, details: str = "", trailing: Metadata = ()) -> None:
        """The server has ended the call: what it wrote before can still be read."""
        if self.end is None:
            self.responses.close()
            self._finish(End(code, details, trailing))

    def fail(self, code: grpc.StatusCode, details: str) -> bool:
        """The call breaks. Returns False, and nothing changed, if it had ended before."""
        if self.end is not None:
            return False
        self.responses.drop()
        self._finish(End(code, details, ()))
        return True

    def cancel(self, details: str = "Locally cancelled by application!") -> bool:
        """The client cancels the call. Returns False, and nothing changed, if it had ended before."""
        self.aborted_here = self.aborted_here or self.end is None
        return self.fail(grpc.StatusCode.CANCELLED, details)

    def expire(self) -> None:
        """The deadline has passed."""
        self.fail(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    def _too_large(self, who: str, size: int, limit: int) -> None:
        text = f"{who}: Received message larger than max ({size} vs. {limit})"  # gRPC's own words, which are looked for
        self.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, text)

    def _finish(self, end: End) -> None:
        self.end = end
        self.requests.drop()
        if self._timer is not None:
            self._timer.cancel()
        if not self.reached.done():
            self.reached.set_result(None)
        if not self.initial.done():
            self.initial.set_result(())
        self._ended.set_result(None)
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    # -- being told -------------------------------------------------------------------------------------

    def call_at_end(self, callback: Callable[[], object]) -> None:
        """Have `callback` called when the call has ended; soon, if it has."""
        if self.end is None:
            self._callbacks.append(callback)
        else:
            self.loop.call_soon(callback)

    async def ended(self) -> End:
        """Wait until the call has ended."""
        if self.end is None:
            await asyncio.shield(self._ended)
        assert self.end is not None
        return self.end

    def time_remaining(self) -> float | None:
        """Return the seconds until the deadline, or None where there is none."""
        return None if self.deadline is None else max(self.deadline - self.loop.time(), 0.0)

    async def raise_for_end(self) -> None:
        """Wait until the call has ended, and raise what grpc.aio raises unless it ended well."""
        end = await self.ended()
        if self.aborted_here:
            raise asyncio.CancelledError
        if end.code is not grpc.StatusCode.OK:
            initial, trailing = grpc.aio.Metadata(*self.initial.result()), grpc.aio.Metadata(*end.trailing)
            raise grpc.aio.AioRpcError(end.code, initial, trailing, details=end.details)
