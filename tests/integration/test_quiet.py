"""What ends in order ends without a word: a process of its own, everything that it says, and asyncio's debug mode."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.harness import PATIENCE, SocketWire

PROGRAM = """
import asyncio, logging, sys, time
import grpc
import rpc_async
from rpc_async import begin, manager

HOW, WIRE = sys.argv[1:]
logging.basicConfig(level="INFO", format="%(levelname)s %(name)s %(message)s")
ENDS = "stop", "grace"  # the server ends its calls; else their client does

class Kinds:
    def __init__(self):
        self.handles, self.begun = [], 0

    @manager(inline=True)
    def parked(self, request, call):
        self.begun += 1
        self.handles.append(call)

    @manager
    async def endless(self, request, call):
        self.begun += 1
        await asyncio.Event().wait()

    @manager
    async def interruptible(self, request, call):
        self.begun += 1
        async with call.interruptible():
            await asyncio.Event().wait()

    @manager
    async def looking(self, request, call):
        self.begun += 1
        await call.wait_cancelled()
        call.complete(b"too late")

    @manager
    async def raising(self, request, call):
        self.begun += 1
        await call.wait_cancelled()
        if HOW in ENDS:  # what it needs is gone by now
            raise ValueError("the pool is closed")
        call.raise_if_cancelled()

    @manager
    async def forgetting(self, request, call):
        self.begun += 1
        await call.wait_cancelled()
        if HOW not in ENDS:
            call.complete(b"too late")

    @manager
    def thread(self, request, call):
        self.begun += 1
        while not call.test_cancel():
            time.sleep(0.005)
        call.complete(b"too late")

    async def ordinary(self, request, context):
        self.begun += 1
        await asyncio.Event().wait()

KINDS = ("parked", "endless", "interruptible", "looking", "raising", "forgetting", "thread", "ordinary")
EACH = 3

async def main():
    kinds = Kinds()
    server = rpc_async.server(max_workers=2, grace=0.05)  # so that one call waits for a thread
    methods = {name: grpc.unary_unary_rpc_method_handler(getattr(kinds, name)) for name in KINDS}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = rpc_async.connect(f"127.0.0.1:{port}", transport=WIRE)
    async with channel:
        calls = [begin(channel.unary_unary(f"/t.T/{name}"), b"") for name in KINDS for _ in range(EACH)]
        while kinds.begun < len(calls) - 1:
            await asyncio.sleep(0.001)
        if HOW in ENDS:
            await server.stop(None if HOW == "stop" else 0.05)
        elif HOW == "cancel":
            for call in calls:
                call.cancel()
        if HOW != "close":
            for call in calls:
                await asyncio.wait_for(asyncio.to_thread(call.wait, 20), 20)
    if HOW not in ENDS:
        await server.stop()
    print(*sorted({call.status().name for call in calls}))

asyncio.run(main())
"""

ALLOWED = re.compile(
    r"WARNING asyncio Executing .*|"  # how long a step took, on a machine that is busy
    r"INFO rpc_async.calling the calls to \S+ go .*|WARNING rpc_async.serving the server's grace period is over: .*"
)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("stop", "CALL_FAILED SERVER_UNAVAILABLE"),
        ("grace", "CALL_FAILED SERVER_UNAVAILABLE"),
        ("close", "CALL_CANCELLED"),
        ("cancel", "CALL_CANCELLED"),
    ],
)
def test_S15_calls_that_were_settled_by_an_end_say_nothing(socket_wire: SocketWire, how: str, told: str) -> None:
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM, how, socket_wire]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, told), done.stderr
    said = [line for line in done.stderr.splitlines() if not ALLOWED.fullmatch(line)]
    assert not said, done.stderr
