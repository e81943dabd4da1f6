"""What the demo client shows: a progress bar for each call on a terminal, plain lines where it is piped."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from rpc_async import AsyncCall, CallError, Progress, RpcStatus
from rpc_async.demo.v1 import demo_pb2

__all__ = ["View", "make_view"]

Call = AsyncCall[demo_pb2.AsyncFuncResponse]

MOST_BARS = 20
"""More calls than this are shown as lines, on a terminal too."""


class View(Protocol):
    """Where a call's news go."""

    def say(self, text: str) -> None:
        """Show a line."""

    def status(self, number: int, call: Call) -> None:
        """Show where a call stands."""

    def progress(self, number: int, progress: Progress) -> None:
        """Show a progress report."""

    def reply(self, number: int, call: Call, reply: demo_pb2.AsyncFuncResponse) -> None:
        """Show a reply."""

    def failure(self, number: int, call: Call, error: CallError) -> None:
        """Show a failure."""


class Lines:
    """Plain lines."""

    def say(self, text: str) -> None:
        print(text, flush=True)

    def status(self, number: int, call: Call) -> None:
        self.say(f"call {number}: {name_of(call.status())}")

    def progress(self, number: int, progress: Progress) -> None:
        self.say(f"call {number}: {progress.fraction:.0%}")

    def reply(self, number: int, call: Call, reply: demo_pb2.AsyncFuncResponse) -> None:
        self.say(f"call {number}: {name_of(call.status())}, {describe(reply)}")

    def failure(self, number: int, call: Call, error: CallError) -> None:
        print(f"call {number}: {error}", file=sys.stderr, flush=True)


class Terminal(Lines):
    """A bar for each call."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._tasks: dict[int, TaskID] = {}

    def say(self, text: str) -> None:
        self._bars.console.print(text, highlight=False, markup=False)

    def status(self, number: int, call: Call) -> None:
        self._tasks[number] = self._bars.add_task(f"call {number}", total=1.0, status=name_of(call.status()))

    def progress(self, number: int, progress: Progress) -> None:
        self._bars.update(self._tasks[number], completed=progress.fraction)

    def reply(self, number: int, call: Call, reply: demo_pb2.AsyncFuncResponse) -> None:
        if not reply.stopped_early:
            self._bars.update(self._tasks[number], completed=1.0)
        self._end(number, call)
        super().reply(number, call, reply)

    def failure(self, number: int, call: Call, error: CallError) -> None:
        self._end(number, call)
        self._bars.stop()
        super().failure(number, call, error)

    def _end(self, number: int, call: Call) -> None:
        self._bars.update(self._tasks[number], status=name_of(call.status()))
        self._bars.stop_task(self._tasks[number])


def name_of(status: int) -> str:
    """Return a status for a person."""
    return f"{status} ({int(status)})" if isinstance(status, RpcStatus) else f"application code {status}"


def describe(reply: demo_pb2.AsyncFuncResponse) -> str:
    """Return a reply for a person."""
    how = "stopped early" if reply.stopped_early else "ran to its end"
    return f"reply {reply.reply}: {how}, {reply.steps_done} steps done, delay {reply.delay_ms} ms"


@contextmanager
def make_view(count: int) -> Iterator[View]:
    """Make the view that fits what standard output is."""
    console = Console()
    if not console.is_terminal or count > MOST_BARS:
        yield Lines()
        return
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[status]}"), TimeElapsedColumn()
    with Bars(*columns, console=console) as bars:
        yield Terminal(bars)
