"""Request and reply over NATS: `python -m benchmarks.peers.nats_echo server`, `... client TARGET`.

The server is two processes: the broker, nats-server, and the responder, which starts it and prints its port.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import asyncio
import re
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

import nats

from benchmarks.children import lines_from_run
from benchmarks.load import PAYLOAD
from benchmarks.peers.client import answer_with

SUBJECT = "benchmarks.echo"
LISTENING = re.compile(rb"Listening for client connections on 127\.0\.0\.1:(\d+)")


async def serve() -> None:
    """Start a broker on a free port, and respond until asked to end."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    broker = await asyncio.create_subprocess_exec("nats-server", "-a", "127.0.0.1", "-p", "-1", stderr=PIPE)
    assert broker.stderr is not None
    try:
        port = 0
        async for line in broker.stderr:
            if found := LISTENING.search(line):
                port = int(found[1])
            if b"Server is ready" in line:
                break
        async with await nats.connect(f"nats://127.0.0.1:{port}") as connection:

            async def respond(message: Any) -> None:
                await message.respond(message.data)

            await connection.subscribe(SUBJECT, cb=respond)
            await connection.flush()
            print(port, flush=True)
            await broker.stderr.read()  # or the broker would wait for room in the pipe
    finally:
        broker.kill()
        await broker.wait()


async def call(target: str) -> None:
    """Measure when asked."""
    connection = await nats.connect(f"nats://{target}")

    def echo() -> Awaitable[object]:
        reply: Awaitable[object] = connection.request(SUBJECT, PAYLOAD, timeout=30)
        return reply

    await answer_with(echo)


if __name__ == "__main__":
    if sys.argv[1] == "server":
        lines_from_run()
        with suppress(asyncio.CancelledError):
            asyncio.run(serve())
    else:
        asyncio.run(call(sys.argv[2]))
