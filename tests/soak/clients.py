"""A client in a process of its own, that can be killed and stopped: `python -m tests.soak.clients VERB TARGET`.

Prints lines of JSON.
"""

from __future__ import annotations

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import argparse
import asyncio
import json
import logging
import random
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rpc_async
from benchmarks.children import Children, lines_from_run
from benchmarks.servers import resident_bytes
from rpc_async.demo.v1 import demo_pb2_grpc
from tests.soak.counts import PATIENCE, Counts, comes
from tests.soak.servers import ChildProcess, peak_bytes, raise_file_limit
from tests.soak.work import Caller, Ledger, Mode

__all__ = ["load", "start_client"]

WORKERS = 20


async def start_client(children: Children, *arguments: str) -> ChildProcess:
    """Start one."""
    return ChildProcess(await children.python("tests.soak.clients", *arguments))


async def load(caller: Caller, method: Any, rng: random.Random, over: asyncio.Event) -> None:
    """Make calls, small and large, until it is over; none of them may fail."""

    async def work() -> None:
        while not over.is_set():
            order = caller.order(rng.choice((Mode.TASK, Mode.THREAD)), size=rng.choice((0, 0, 100, 100_000)))
            padding = rng.choice((0, 0, 100, 100_000))
            await caller.outcome(caller.begin(method, order, padding, wait_for_ready=True))

    await asyncio.gather(*(work() for _ in range(WORKERS)))


class _Lines:
    """What the parent writes."""

    def __init__(self) -> None:
        self._lines: asyncio.Queue[str] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        lines_from_run(lambda line: loop.call_soon_threadsafe(self._lines.put_nowait, line))

    async def next(self) -> str:
        return await self._lines.get()


def _say(what: Any) -> None:
    print(json.dumps(what), flush=True)


async def _park(arguments: argparse.Namespace) -> None:
    """Have calls parked; say what became of them, if that is ever known."""
    caller = Caller(Counts())
    async with rpc_async.connect(arguments.target, transport=arguments.wire) as channel:
        echo = demo_pb2_grpc.DemoStub(channel).Echo
        calls = [caller.begin(echo, caller.order(Mode.PARK)) for _ in range(arguments.calls)]
        while not await comes(lambda: all(call.done() for call in calls)):
            pass
        _say(Counter(int(call.status()) for call in calls))
        await asyncio.Event().wait()


async def _load(arguments: argparse.Namespace, lines: _Lines) -> None:
    """Make calls until a line comes; compare them with the server's ledger, which the next line names."""
    counts = Counts()
    caller, over = Caller(counts), asyncio.Event()
    async with rpc_async.connect(arguments.target, transport="session", keepalive=None) as channel:
        echo = demo_pb2_grpc.DemoStub(channel).Echo
        loading = asyncio.create_task(load(caller, echo, random.Random(arguments.seed), over))
        await lines.next()
        over.set()
        await loading
    _say(counts.calls)
    await caller.audit(Ledger(Path(await lines.next()).read_bytes()))  # noqa: ASYNC240 (nothing else goes on here)
    _say(counts.as_dict())


async def _flood(arguments: argparse.Namespace, lines: _Lines) -> None:
    """When a line comes, begin many calls at once; say how much memory they take, and then what became of them."""
    counts = Counts()
    caller = Caller(counts)
    async with rpc_async.connect(arguments.target, transport="session", keepalive=None) as channel:
        echo = demo_pb2_grpc.DemoStub(channel).Echo
        await caller.outcome(caller.begin(echo, caller.order()))
        _say(resident_bytes())
        await lines.next()
        calls = [caller.begin(echo, caller.order(), arguments.padding) for _ in range(arguments.calls)]
        await asyncio.sleep(0.5)  # as much as can leave has left
        _say(peak_bytes())
        await asyncio.gather(*(caller.outcome(call) for call in calls))
        _say(counts.as_dict())


async def _many(arguments: argparse.Namespace, lines: _Lines) -> None:
    """When a line comes, connect many channels at once, and make a call on each; go when another line comes."""
    counts = Counts()
    channels: list[Any] = []

    async def one() -> None:
        channel = rpc_async.connect(arguments.target, transport="session")
        channels.append(channel)
        await channel.__aenter__()
        call = rpc_async.begin(demo_pb2_grpc.DemoStub(channel).Echo, Caller(counts).order().request())
        counts.calls += 1
        try:
            await asyncio.wait_for(call, 4 * PATIENCE)
            counts.replies += 1
        except TimeoutError:
            counts.blame("hung", f"{call!r}")
        except rpc_async.CallError as error:
            if error.executed is False:
                counts.refused += 1
            else:
                counts.blame("lost", f"{error!r}")

    await lines.next()
    await asyncio.gather(*(one() for _ in range(arguments.calls)))
    _say(counts.as_dict())
    await lines.next()
    await asyncio.gather(*(channel.close() for channel in channels))
    _say("gone")


async def _main(arguments: argparse.Namespace) -> None:
    lines = _Lines()
    if arguments.verb == "park":
        await _park(arguments)
    else:
        await {"load": _load, "flood": _flood, "many": _many}[arguments.verb](arguments, lines)


def main(arguments: Sequence[str]) -> None:
    """Do as the verb says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=("park", "load", "flood", "many"))
    parser.add_argument("target")
    parser.add_argument("--wire", default="session")
    parser.add_argument("--calls", type=int, default=1)
    parser.add_argument("--padding", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    logging.getLogger("rpc_async").setLevel(logging.CRITICAL)
    raise_file_limit()
    asyncio.run(_main(parser.parse_args(arguments)))


if __name__ == "__main__":
    main(sys.argv[1:])
