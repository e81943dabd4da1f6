"""What an idle session costs: `python -m tests.idle --seconds 10 --keepalive 1`.

A server and a client, each in a process of its own, with one session between them and one call that runs. How often
does either wake up? Counted are the turns of each event loop, and what the kernel counts for all of a process's
threads: voluntary context switches.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import IO, Any, NamedTuple

import rpc_async
from rpc_async import begin
from rpc_async.demo.v1 import demo_pb2_grpc
from tests.harness import Parked, request, serve

SETTLING = 0.5
"""Seconds that both sides get to become idle."""


class Cost(NamedTuple):
    """What a process did meanwhile."""

    turns: int
    """Of its event loop."""
    switches: int
    """Voluntary context switches of all its threads."""


class Idle(NamedTuple):
    """Both processes."""

    client: Cost
    server: Cost


class CountingSelector(selectors.DefaultSelector):
    """Counts the turns of the event loop that uses it."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = 0

    def select(self, timeout: float | None = None) -> Any:
        """Count, and select."""
        self.turns += 1
        return super().select(timeout)


class Child:
    """A process, and what it says on standard output."""

    def __init__(self, *args: str) -> None:
        command = [sys.executable, "-m", "tests.idle", *args]
        self._process = subprocess.Popen(
            command, cwd=Path(__file__).parent.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in: IO[str] = self._process.stdin
        self._out: IO[str] = self._process.stdout

    def line(self) -> str:
        """Read a line."""
        return self._out.readline().strip()

    def cost(self) -> Cost:
        """Return what it did so far. Asking costs it one turn, and a context switch or two."""
        switches = _switches(self._process.pid)
        self._in.write("\n")
        self._in.flush()
        return Cost(int(self.line()), switches)

    def end(self) -> None:
        """End it."""
        self._in.close()
        self._process.wait()
        self._out.close()


def _switches(pid: int) -> int:
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        total += int(status.read_text().split("voluntary_ctxt_switches:")[1].split()[0])
    return total


async def _answer(selector: CountingSelector) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        print(selector.turns, flush=True)


async def run_server(selector: CountingSelector) -> None:
    """Serve, and answer."""
    async with serve(Parked()) as (_, target):
        print(target, flush=True)
        await _answer(selector)


async def run_client(selector: CountingSelector, target: str, keepalive: float | None) -> None:
    """Begin a call, and answer."""
    async with rpc_async.connect(target, transport="session", keepalive=keepalive) as channel:
        call = begin(demo_pb2_grpc.DemoStub(channel).Echo, request())
        await channel.channel_ready()
        print("ready", flush=True)
        await _answer(selector)
        assert not call.done()
        call.cancel()


def measure(seconds: float, keepalive: float | None) -> Idle:
    """Run both for so many seconds. Returns what each did in them."""
    server = Child("--serve")
    client = Child("--connect", server.line(), "--keepalive", str(keepalive or 0))
    try:
        assert client.line() == "ready"
        time.sleep(SETTLING)
        before = client.cost(), server.cost()
        time.sleep(seconds)
        after = client.cost(), server.cost()
    finally:
        client.end()
        server.end()
    costs = (
        Cost(late.turns - early.turns, late.switches - early.switches)
        for early, late in zip(before, after, strict=True)
    )
    return Idle(*costs)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.idle", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--keepalive", type=float, default=0.0, help="seconds; 0 for none")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--connect", metavar="TARGET", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    keepalive = arguments.keepalive or None
    if not (arguments.serve or arguments.connect):
        idle = measure(arguments.seconds, keepalive)
        for name, cost in zip(("client", "server"), idle, strict=True):
            print(f"{name}: {cost.turns} turns, {cost.switches} context switches in {arguments.seconds:g} s")
        return
    selector = CountingSelector()
    role: Coroutine[Any, Any, None] = run_server(selector)
    if arguments.connect:
        role.close()
        role = run_client(selector, arguments.connect, keepalive)
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(role)


if __name__ == "__main__":
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    main()
