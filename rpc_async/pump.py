"""Writes to a stream, one batch at a time, with no task of its own.

A writer in a task needs a turn of the event loop to be woken, one to be told that its write is done, and a future for
each sleep. Where thousands of small batches are written in a second that is much of what they cost. A pump advances
the write's coroutine itself, from where there is something to write and from the write's own callbacks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["Pump"]


class Pump:
    """Used on one event loop."""

    __slots__ = ("_failed", "_loop", "_next_batch", "_scheduled", "_stopped", "_write", "_writing")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        write: Callable[[bytes], Coroutine[Any, Any, object]],
        next_batch: Callable[[], bytes | None],
        failed: Callable[[Exception], object],
    ) -> None:
        """Make a pump.

        Args:
            loop: The event loop.
            write: Writes a batch to the stream. If it raises, the stream has ended, which its reader is told too: the
                pump stops.
            next_batch: Gives the next batch; None where there is none now.
            failed: Is told what `next_batch` raised, which it should not. The pump has stopped: the stream must end, or
                nobody would write to it any more, and nobody know.
        """
        self._loop = loop
        self._write = write
        self._next_batch = next_batch
        self._failed = failed
        self._writing = False
        self._scheduled = False
        self._stopped = False

    @property
    def idle(self) -> bool:
        """Whether nothing is being written, and nothing is going to look for something to write."""
        return not (self._writing or self._scheduled or self._stopped)

    def flush(self) -> None:
        """Write what there is to write now."""
        if not self._writing and not self._stopped:
            self._run()

    def flush_soon(self) -> None:
        """Write it after what the loop is about to do: all that comes until then goes out together."""
        if not self._writing and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush_scheduled)

    def stop(self) -> None:
        """Write nothing more, and let go of who gives the batches: a stream is closed when nobody holds it any more."""
        self._stopped = True
        self._next_batch, self._failed = _no_batch, _not_told

    def _flush_scheduled(self) -> None:
        self._scheduled = False
        self.flush()

    def _run(self) -> None:
        self._writing = True
        while not self._stopped:
            try:
                batch = self._next_batch()
            except Exception as error:
                self._stopped = True
                self._failed(error)
                return
            if batch is None:
                break
            if not self._advance(self._write(batch)):
                return
        self._writing = False

    def _advance(self, writing: Coroutine[Any, Any, object]) -> bool:
        """Advance a write. Returns whether it is done; if not, it goes on by itself once it can."""
        try:
            waited_for: Any = writing.send(None)
        except StopIteration:
            return True
        except (Exception, asyncio.CancelledError):  # the stream has ended; its reader is told why
            self._stopped = True
            return False
        if waited_for is None:
            self._loop.call_soon(self._resume, writing)
        else:
            waited_for._asyncio_future_blocking = False  # as a task says that it has taken the future up
            waited_for.add_done_callback(lambda _: self._resume(writing))
        return False

    def _resume(self, writing: Coroutine[Any, Any, object]) -> None:
        if self._advance(writing):
            self._run()


def _no_batch() -> None:
    return None


def _not_told(_: Exception) -> None:
    return None
