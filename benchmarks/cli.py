"""What `make bench` and `make bench-peers` have in common on the command line."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from benchmarks.children import ChildFailed
from benchmarks.load import NoAnswer

__all__ = ["finish", "parser"]


def parser(program: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the options that both have."""
    made = argparse.ArgumentParser(prog=program, description=description)
    made.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    made.add_argument(
        "--json",
        metavar="FILE",
        type=Path,
        help="write everything that was measured into FILE, in place of what it was",
    )
    made.add_argument(
        "--svg", metavar="FILE", type=Path, help="draw a chart of it all, with what make bench-peers has installed"
    )
    return made


def finish(run: Coroutine[Any, Any, bool]) -> int:
    """Run to the end, and return the exit code."""
    try:
        return 0 if asyncio.run(run) else 1
    except (ChildFailed, NoAnswer) as failure:
        print(failure, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
