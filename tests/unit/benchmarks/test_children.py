"""The processes of a run end with it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from benchmarks.children import ChildFailed, Children
from tests.harness import until

PARENT = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid)"
WATCHER = "from benchmarks.children import lines_from_run; import time; lines_from_run(print); time.sleep(60)"


def is_over(pid: int) -> bool:
    """Tell whether a process is gone, or nothing but its entry is left."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


async def test_what_a_child_has_started_ends_too() -> None:
    async with Children() as children:
        child = await children.start(sys.executable, "-uc", f"{PARENT}; import time; time.sleep(60)")
        grandchild = int(await child.line())
        os.kill(grandchild, 0)
    await until(lambda: is_over(grandchild))


async def test_a_child_that_ends_too_soon_is_a_failure() -> None:
    async with Children() as children:
        child = await children.start(sys.executable, "-c", "raise SystemExit(3)")
        with pytest.raises(ChildFailed, match="code 3"):
            await child.line()


async def test_a_child_is_asked_by_lines() -> None:
    async with Children() as children:
        child = await children.start(sys.executable, "-uc", WATCHER)
        assert await child.ask("[1, 2]") == [1, 2]


async def test_a_child_ends_with_a_run_that_was_killed() -> None:
    run = (
        "import asyncio, sys\nfrom benchmarks.children import Children\nasync def main():\n"
        f"  async with Children() as children:\n    child = await children.start(sys.executable, '-uc', {WATCHER!r})\n"
        "    await child.ask('1')\n    print(child.pid, flush=True)\n    await asyncio.sleep(60)\n"
        "asyncio.run(main())"
    )
    async with Children() as children:
        outer = await children.start(sys.executable, "-c", run)
        inner = int(await outer.line())
        os.kill(outer.pid, 9)
        await until(lambda: is_over(inner))
