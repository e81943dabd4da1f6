"""A child of `benchmarks.compare`: `python -m benchmarks.slices ROW...` measures a slice of a row when it is asked to.

It prints where the package is from that it measures, and which rows it cannot make, as JSON; then it answers each line,
`NUMBER SECONDS`, with the row's rate as JSON. It runs in a folder with the package of the tree that is measured, and
starts servers of the same tree.
"""

from __future__ import annotations

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import asyncio
import gc
import json
import sys
from pathlib import Path

import rpc_async
from benchmarks.cases import Client, open_clients
from benchmarks.children import lines_from_run
from benchmarks.rows import ROWS

PACKAGE = Path(rpc_async.__file__).resolve()


async def answer(names: list[str]) -> None:
    """Open the rows' clients, and measure what is asked for until the run ends."""
    loop = asyncio.get_running_loop()
    asked: asyncio.Queue[str] = asyncio.Queue()
    cases = [ROWS[name] for name in names]
    failed: dict[Client, str] = {}
    async with open_clients((case.client for case in cases), failed) as clients:
        lines_from_run(lambda line: loop.call_soon_threadsafe(asked.put_nowait, line))
        print(PACKAGE)
        cannot = {name: failed[case.client] for name, case in zip(names, cases, strict=True) if case.client in failed}
        print(json.dumps(cannot), flush=True)
        while True:
            number, seconds = (await asked.get()).split()
            case = cases[int(number)]
            gc.collect()  # what one row has left is not for the next to clean up
            sample = await clients[case.client](case.in_flight, float(seconds))
            print(json.dumps(sample.calls_per_second), flush=True)


if __name__ == "__main__":
    asyncio.run(answer(sys.argv[1:]))
