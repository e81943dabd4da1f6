"""`async with call.interruptible()`: a cancel of the call interrupts code that awaits.

Built like `asyncio.timeout`: the task is cancelled, and the cancellation that this caused, and only that one,
is turned into `CallCancelled` on the way out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rpc_async.errors import InvalidAsyncCall
from rpc_async.serving.record import CallRecord

__all__ = ["Interruptible"]


class Interruptible:
    """The async context manager that `ServerCall.interruptible` returns. It can be entered once."""

    __slots__ = ("_cancelling", "_interrupted", "_loop", "_record", "_task", "_unsubscribe")

    def __init__(self, record: CallRecord) -> None:
        self._record = record
        self._task: asyncio.Task[object] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unsubscribe: Callable[[], None] | None = None
        self._cancelling = 0
        self._interrupted = False

    async def __aenter__(self) -> Self:
        """Enter.

        Raises:
            CallCancelled: The call is cancelled already.
            InvalidAsyncCall: Entered before, or not in a task.
        """
        task = asyncio.current_task()
        if self._unsubscribe is not None or task is None:
            raise InvalidAsyncCall("call.interruptible(): enter each one once, and in a task")
        self._task = task
        self._loop = asyncio.get_running_loop()
        self._cancelling = task.cancelling()
        self._unsubscribe = self._record.subscribe(self._changed)
        if self._record.cancel_reason is not None:
            self._unsubscribe()
            raise self._record.cancelled_error()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        assert self._unsubscribe is not None
        self._unsubscribe()
        task, self._task = (
            self._task,
            None,
        )  # an interrupt that is still on its way finds nothing to interrupt
        if self._interrupted and task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise self._record.cancelled_error() from error

    def _changed(self) -> None:
        loop = self._loop
        if self._record.cancel_reason is not None and loop is not None:
            try:
                loop.call_soon_threadsafe(self._interrupt)
            except RuntimeError:  # the loop is closed, and the block with it
                return

    def _interrupt(self) -> None:
        if self._task is not None and not self._interrupted:
            self._interrupted = True
            self._task.cancel()
