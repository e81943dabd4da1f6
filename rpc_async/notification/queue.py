"""`CompletionQueue`: many calls, one queue."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rpc_async.errors import InvalidArgument, QueueClosed
from rpc_async.notification.completion import Completion, take
from rpc_async.notification.handoff import Handoff

__all__ = ["CompletionQueue"]


class CompletionQueue(Handoff[Completion]):
    """Where the notifications of many calls are collected. Source: RPC_ASYNC_STATE's completion port; C9, C10.

    Give it as `notify=` to any number of calls; each puts one `Completion` in when it has settled, with the call's
    handle and the `key` that was given with it. Any number of threads and tasks take from it, on any event loops, at
    once; each notification is taken by one. It holds as many as there are calls that named it and were not taken yet
    (with progress, twice that), and a call never waits for it.

    You close it. What it holds can still be taken; after that, whoever takes is told `QueueClosed`, and iteration ends.
    A call that settles later is not notified, which is logged; the call itself can be completed as ever (C10).
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<CompletionQueue of {len(self)}{', closed' if self.closed else ''}>"

    def get(self, timeout: float | None = None) -> Completion:
        """Block this thread until there is a notification, and take it; in a coroutine, `await queue.aget()` instead.

        Args:
            timeout: Seconds; None waits for ever, 0 does not wait.

        Raises:
            TimeoutError: None came in time.
            QueueClosed: The queue is closed, and everything that it held was taken.
            InvalidAsyncCall: This thread runs an event loop, which would stand still.
        """
        return take(self._take(1, timeout)[0])

    def get_many(self, limit: int | None = None, timeout: float | None = None) -> list[Completion]:
        """Block this thread until there is a notification, and take it with all others that are there.

        Args:
            limit: The most to take. None: all.
            timeout: Seconds; None waits for ever, 0 does not wait.

        Raises:
            InvalidArgument: The limit is less than 1.
            TimeoutError, QueueClosed, InvalidAsyncCall: As for `get`.
        """
        return [take(completion) for completion in self._take(_checked(limit), timeout)]

    async def aget(self) -> Completion:
        """Wait, on the running event loop, until there is a notification, and take it.

        A wait that is cancelled takes nothing.

        Raises:
            QueueClosed: The queue is closed, and everything that it held was taken.
        """
        return take((await self._take_async(1))[0])

    async def aget_many(self, limit: int | None = None) -> list[Completion]:
        """Wait, on the running event loop, until there is a notification, and take it with all others that are there.

        Args:
            limit: The most to take. None: all.

        Raises:
            InvalidArgument: The limit is less than 1.
            QueueClosed: The queue is closed, and everything that it held was taken.
        """
        return [take(completion) for completion in await self._take_async(_checked(limit))]

    def __iter__(self) -> Self:
        """Take one notification after the other, until the queue is closed and empty. Blocks this thread."""
        return self

    def __next__(self) -> Completion:
        try:
            return self.get()
        except QueueClosed:
            raise StopIteration from None

    def __aiter__(self) -> Self:
        """Take one notification after the other, until the queue is closed and empty."""
        return self

    async def __anext__(self) -> Completion:
        try:
            return await self.aget()
        except QueueClosed:
            raise StopAsyncIteration from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _checked(limit: int | None) -> int | None:
    if limit is not None and limit < 1:
        raise InvalidArgument(f"limit {limit}: 1 or more, or None for all; nothing was taken")
    return limit
