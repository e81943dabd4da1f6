"""The processes of a run. None outlives it, however it ends.

Each child leads a process group, so that Ctrl-C reaches the run alone, and what a child has started ends with it.
The run kills the groups at its end; a child whose run was killed sees the end of its standard input.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys
import threading
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["PEERS_PYTHON", "ROOT", "Child", "ChildFailed", "Children", "lines_from_run"]

ROOT = Path(__file__).resolve().parent.parent
"""Where `python -m benchmarks...` finds its modules."""

PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
"""The Python that has the peers' libraries, and what draws the chart: `make bench-peers` makes it."""

PATIENCE = 120.0
"""Seconds until a child that says nothing is given up."""
POLITENESS = 2.0
"""Seconds that a child which was asked to end may take."""


class ChildFailed(Exception):
    """A child ended, or said nothing, where an answer was due."""


class Child:
    """A process of the run, which is asked and answers by lines."""

    def __init__(self, name: str, process: Process) -> None:
        self._name = name
        self._process = process

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    async def line(self) -> str:
        """Return the next line that the child prints."""
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
        except TimeoutError:
            raise ChildFailed(f"{self._name} said nothing for {PATIENCE:g} s") from None
        if not line:
            raise ChildFailed(f"{self._name} ended, with code {await self._process.wait()}")
        return line.decode().strip()

    async def ask(self, question: str = "") -> Any:
        """Write a line, if there is one, and return the JSON that comes back."""
        if question:
            assert self._process.stdin is not None
            self._process.stdin.write(question.encode() + b"\n")
        return json.loads(await self.line())

    async def kill(self) -> None:
        """End the child, and all that it has started."""
        with suppress(ProcessLookupError):
            self._process.terminate()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), POLITENESS)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()


class Children:
    """The processes that were started inside `async with`, which ends them."""

    def __init__(self, folder: Path = ROOT) -> None:
        """Make it: they run in `folder`, and find the modules that are there."""
        self._folder = folder
        self._children: list[Child] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in reversed(self._children):  # a client before its server, so that it has nothing to complain of
            await child.kill()

    async def start(self, *command: str) -> Child:
        """Start a program."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=PIPE,
            stdout=PIPE,
            cwd=self._folder,
            env={**os.environ, "PYTHONPATH": str(self._folder)},
            start_new_session=True,
        )
        child = Child(" ".join(command), process)
        self._children.append(child)
        return child

    async def python(self, module: str, *arguments: str) -> Child:
        """Start a module of this package, with this Python."""
        return await self.start(sys.executable, "-m", module, *arguments)


def lines_from_run(handle: Callable[[str], object] | None = None) -> None:
    """In a child: hand over each line that the run writes, in a thread; end with the run.

    Does nothing for a module that a person started, whose standard input is no pipe.
    """
    if not stat.S_ISFIFO(os.fstat(0).st_mode) and not stat.S_ISSOCK(os.fstat(0).st_mode):
        return

    def read() -> None:
        for line in sys.stdin:
            if handle is not None:
                handle(line.strip())
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
