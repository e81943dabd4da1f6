"""Many put, many take, in threads and on event loops at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from typing import Generic, TypeVar

from rpc_async.checks import checked_timeout
from rpc_async.errors import InvalidAsyncCall, QueueClosed

__all__ = ["Handoff"]

T = TypeVar("T")


class _Thread:
    """A thread that waits."""

    __slots__ = ("_parked",)

    def __init__(self) -> None:
        self._parked = threading.Lock()
        self._parked.acquire()

    def wake(self) -> bool:
        self._parked.release()
        return True

    def wait(self, seconds: float | None) -> bool:
        return self._parked.acquire(timeout=-1 if seconds is None else min(seconds, threading.TIMEOUT_MAX))


class _Task:
    """A task that waits, on whichever loop."""

    __slots__ = ("_loop", "_thread_id", "future")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self.future: asyncio.Future[None] = self._loop.create_future()

    def wake(self) -> bool:
        if threading.get_ident() == self._thread_id:
            self._set()
            return True
        try:
            self._loop.call_soon_threadsafe(self._set)
        except RuntimeError:  # its loop is closed, and it will never come
            return False
        return True

    def _set(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


class Handoff(Generic[T]):
    """A queue between whoever puts and whoever takes.

    One that puts wakes one that waits, and only if one does: what is put until that one has come round costs no
    wake-up. Whoever was woken and leaves without taking passes the wake-up on.
    """

    __slots__ = ("_closed", "_items", "_lock", "_waiting")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: deque[T] = deque()
        self._waiting: deque[_Thread | _Task] = deque()
        self._closed = False

    def __len__(self) -> int:
        return len(self._items)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def put(self, item: T) -> None:
        """Put an item in, from any thread. Never blocks.

        Raises:
            QueueClosed: It is closed; the item was not put in.
        """
        with self._lock:
            if self._closed:
                raise QueueClosed(f"{self!r} is closed: nothing was put into it")
            self._items.append(item)
            waiting = self._waiting.popleft() if self._waiting else None
        if waiting is not None and not waiting.wake():
            self._pass_on()

    def close(self) -> None:
        """Take nothing more in. What it holds can still be taken; then, and to all who wait now, it says closed."""
        with self._lock:
            self._closed = True
            waiting = tuple(self._waiting)
            self._waiting.clear()
        for one in waiting:
            one.wake()

    def _take(self, limit: int | None, timeout: float | None) -> list[T]:
        """Block this thread until there is something, and take it, at most `limit` items.

        Raises:
            TimeoutError: There was nothing for `timeout` seconds.
            QueueClosed: It is closed and empty.
            InvalidArgument: `timeout` is no number of seconds.
            InvalidAsyncCall: This thread runs an event loop, which would stand still.
        """
        end = None if timeout is None else time.monotonic() + checked_timeout(timeout)
        while True:
            with self._lock:
                if self._items or self._closed:
                    return self._take_under_lock(limit)
            remaining = None if end is None else end - time.monotonic()
            if remaining is not None and remaining <= 0:
                raise TimeoutError(f"{self!r}: nothing came within {timeout} s")
            _check_may_block(self)
            waiter, woken = _Thread(), False
            try:
                woken = not self._enter(waiter) or waiter.wait(remaining)
            finally:
                if not woken:
                    self._leave(waiter)

    async def _take_async(self, limit: int | None) -> list[T]:
        """Wait on the running loop until there is something, and take it. A wait that is cancelled takes nothing."""
        while True:
            with self._lock:
                if self._items or self._closed:
                    return self._take_under_lock(limit)
            waiter = _Task()
            try:
                if self._enter(waiter):
                    await waiter.future
            except BaseException:
                self._leave(waiter)
                raise

    def _take_now(self, limit: int | None) -> list[T]:
        """Take what is there, at most `limit` items, even if that is nothing."""
        with self._lock:
            return self._take_under_lock(limit) if self._items else []

    def _take_under_lock(self, limit: int | None) -> list[T]:
        items = self._items
        if not items:
            raise QueueClosed(f"{self!r} is closed, and everything that it held was taken")
        if limit is None or limit >= len(items):
            taken = list(items)
            items.clear()
            return taken
        return [items.popleft() for _ in range(limit)]

    def _enter(self, waiter: _Thread | _Task) -> bool:
        """Wait; False if there is something to take already."""
        with self._lock:
            if self._items or self._closed:
                return False
            self._waiting.append(waiter)
            return True

    def _leave(self, waiter: _Thread | _Task) -> None:
        """Wait no more, and take nothing."""
        with self._lock:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
                return
        self._pass_on()  # it was woken, for something that another may be waiting for

    def _pass_on(self) -> None:
        while True:
            with self._lock:
                if not self._items or not self._waiting:
                    return
                waiting = self._waiting.popleft()
            if waiting.wake():
                return


def _check_may_block(what: object) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise InvalidAsyncCall(
        f"{what!r}: this thread runs an event loop, which would stand still: await the form for coroutines, or do not "
        "wait (timeout=0)"
    )
