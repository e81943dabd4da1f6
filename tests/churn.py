"""Opens sessions and drops them, without end: `python -m tests.churn --sessions 100000`.

Tells what a server in a process of its own holds at the worst, and what is left when the last one has lingered.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
import time
from typing import Any

import grpc.aio

import rpc_async
from rpc_async.demo.v1 import demo_pb2
from tests.harness import EchoCall, Servicer, serve
from tests.raw import ECHO, K, Raw, call


class Waiting(Servicer):
    """Ends a call when nobody waits for it."""

    @rpc_async.manager
    async def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
        await call.wait_cancelled()
        call.raise_if_cancelled()


PAGE = os.sysconf("SC_PAGE_SIZE")


def rss(pid: int | str = "self") -> float:
    """Return the memory of a process, in MiB."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * PAGE / 1024 / 1024


async def run_server(linger: float) -> None:
    """Serve until standard input ends; answer each line on it with what the server holds."""
    async with serve(Waiting(), linger=linger) as (server, target):
        print(target, flush=True)
        loop, service = asyncio.get_running_loop(), server._sessions
        while await loop.run_in_executor(None, sys.stdin.readline):
            gc.collect()
            print(
                f"{len(service)} sessions, {len(service._tags)} tags, {len(service._cut)} timers, "
                f"{service._streams} streams, {service.held} bytes held",
                flush=True,
            )


async def drop(channel: grpc.aio.Channel, count: int, each_has_a_call: bool) -> None:
    """Open sessions and drop them."""
    for _ in range(count):
        raw = Raw(channel)
        await raw.open()
        if each_has_a_call:
            await raw.say((K.METHOD, 0, ECHO), call(1, bytes(1000)))
        raw.cut()


async def run(sessions: int, linger: float, calls: bool) -> bool:
    """Run a server and drop sessions on it. Returns whether nothing is left."""
    command = [sys.executable, "-m", "tests.churn", "--serve", "--linger", str(linger)]
    server = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    stdin, stdout = server.stdin, server.stdout
    assert stdin is not None
    assert stdout is not None
    target = (await stdout.readline()).decode().strip()

    async def ask() -> str:
        stdin.write(b"\n")
        return (await stdout.readline()).decode().strip()

    warm: Any = None
    async with grpc.aio.insecure_channel(target) as channel:
        await drop(channel, 100, calls)
        warm = rss(server.pid)
        began = time.monotonic()
        most, done = 0.0, False

        async def watch() -> None:
            nonlocal most
            while not done:
                most = max(most, rss(server.pid))
                await asyncio.sleep(0.05)

        watching = asyncio.create_task(watch())
        await asyncio.gather(*(drop(channel, sessions // 20, calls) for _ in range(20)))
        took = time.monotonic() - began
        print(f"{sessions} sessions in {took:.1f} s; then the server has {await ask()}")
        await asyncio.sleep(linger)
        left = await ask()
        for _ in range(200):
            if left.startswith("0 sessions"):
                break
            await asyncio.sleep(0.1)
            left = await ask()
        done = True
        await watching
    print(f"when all have lingered: {left}")
    print(f"RSS: {warm:.0f} MiB before, {most:.0f} at the most, {rss(server.pid):.0f} after")
    stdin.close()
    await server.wait()
    return left == "0 sessions, 0 tags, 0 timers, 0 streams, 0 bytes held"


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.churn", description=__doc__)
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--linger", type=float, default=5.0, help="seconds")
    parser.add_argument("--calls", action="store_true", help="each session has a call that waits for its client")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(run_server(arguments.linger))
    elif not asyncio.run(run(arguments.sessions, arguments.linger, arguments.calls)):
        sys.exit("something was left behind")


if __name__ == "__main__":
    main()
