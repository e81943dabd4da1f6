"""Sends much through a pipe, and measures what it takes: `python -m tests.bulk [MiB]` (1024 by default).

A server and a client, each a process; in each direction, how fast it goes, and how far the resident memory of each side
grows beyond what it was before, at its highest.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

import rpc_async
from rpc_async import ServerPullCall, ServerPushCall, begin, manager
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
from tests.harness import Servicer

CHUNK: Final = 64 * 1024
MIB: Final = 1024 * 1024
WARM_UP: Final = 32
"""MiB that go through first, so that what is measured is growth, and not what gRPC needs at all."""
ROOT: Final = Path(__file__).parents[1]


class Result(NamedTuple):
    """What was seen of one direction."""

    direction: str
    mib: int
    seconds: float
    client_growth: float
    """MiB."""
    server_growth: float
    """MiB."""


class Bulk(Servicer):
    """Takes in and gives out as much as it is asked to."""

    @manager
    async def Upload(self, call: ServerPullCall[demo_pb2.UploadRequest, demo_pb2.UploadResponse]) -> None:
        size = 0
        async for chunk in call:
            size += len(chunk.payload)
        call.complete(demo_pb2.UploadResponse(size=size))

    @manager
    async def Download(
        self, request: demo_pb2.DownloadRequest, call: ServerPushCall[demo_pb2.DownloadResponse]
    ) -> None:
        for _ in range(request.chunks):
            await call.write(demo_pb2.DownloadResponse(payload=bytes(CHUNK)))
        call.complete()


def answer(command: str) -> str:
    """Answer what the measuring process asks of either side: `mark` and `peak`, both in bytes."""
    if command == "mark":
        Path("/proc/self/clear_refs").write_text("5")  # the highest is from now on
    found = "VmRSS" if command == "mark" else "VmHWM"
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(found))
    return str(int(line.split()[1]) * 1024)


async def server() -> None:
    """Serve, and answer questions from stdin."""
    served = rpc_async.server()
    demo_pb2_grpc.add_DemoServicer_to_server(Bulk(), served)
    port = served.add_insecure_port("127.0.0.1:0")
    await served.start()
    print(port, flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(answer(line.strip()), flush=True)
    await served.stop(None)


async def client(target: str) -> None:
    """Do what stdin says."""
    async with rpc_async.connect(target) as channel:
        stub = demo_pb2_grpc.DemoStub(channel)
        while line := await asyncio.to_thread(sys.stdin.readline):
            command, _, argument = line.strip().partition(" ")
            if command in ("mark", "peak"):
                print(answer(command), flush=True)
                continue
            chunks = int(argument) * MIB // CHUNK
            began = time.monotonic()
            if command == "up":
                async with begin(stub.Upload) as call:
                    for _ in range(chunks):
                        await call.write(demo_pb2.UploadRequest(payload=bytes(CHUNK)))
                size = call.complete().size
            else:
                size = 0
                async for chunk in begin(stub.Download, demo_pb2.DownloadRequest(chunks=chunks)):
                    size += len(chunk.payload)
            assert size == chunks * CHUNK
            print(time.monotonic() - began, flush=True)


class Child:
    """A side, in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "tests.bulk", *arguments]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def read(self) -> str:
        """Return the next line that it prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the child has ended"
        return line.strip()

    def ask(self, command: str) -> float:
        """Have it do something."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return float(self.read())

    def end(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


def measure(mib: int, directions: tuple[str, ...] = ("up", "down")) -> list[Result]:
    """Send `mib` MiB in each direction."""
    results = []
    children = [Child("server")]
    try:
        children.append(Child("client", f"127.0.0.1:{children[0].read()}"))
        serving, calling = children
        for direction in directions:
            calling.ask(f"{direction} {WARM_UP}")
            before = [calling.ask("mark"), serving.ask("mark")]
            seconds = calling.ask(f"{direction} {mib}")
            after = [calling.ask("peak"), serving.ask("peak")]
            growth = [(high - low) / MIB for low, high in zip(before, after, strict=True)]
            results.append(Result(direction, mib, seconds, *growth))
    finally:
        for child in children:
            child.end()
    return results


def main(arguments: list[str]) -> None:
    """Be a side, or measure."""
    if arguments[:1] == ["server"]:
        asyncio.run(server())
    elif arguments[:1] == ["client"]:
        asyncio.run(client(arguments[1]))
    else:
        for result in measure(int(arguments[0]) if arguments else 1024):
            print(
                f"{result.direction:4} {result.mib} MiB in {result.seconds:.1f} s; grown by "
                f"{result.client_growth:.1f} MiB in the client and {result.server_growth:.1f} MiB in the server"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
