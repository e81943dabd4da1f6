"""Ice, with asynchronous invocation and dispatch: `python -m benchmarks.peers.ice_echo server`, `... client TARGET`."""

# pyright: reportMissingImports=false

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import Ice

from benchmarks.children import lines_from_run
from benchmarks.load import PAYLOAD
from benchmarks.peers.client import answer_with_callbacks

Ice.loadSlice(str(Path(__file__).with_name("echo.ice")))
import Peers  # noqa: E402  # loadSlice has just made it


class Echo(Peers.Answer):
    """Sends back what it gets; a coroutine is what asynchronous dispatch is in Python."""

    async def echo(self, payload: bytes, current: Any) -> bytes:
        return payload


def serve() -> None:
    """Serve until the process is ended."""
    with Ice.initialize() as communicator:
        adapter = communicator.createObjectAdapterWithEndpoints("Echo", "tcp -h 127.0.0.1 -p 0")
        adapter.add(Echo(), Ice.stringToIdentity("echo"))
        adapter.activate()
        print(adapter.getPublishedEndpoints()[0].getInfo().port, flush=True)
        communicator.waitForShutdown()


def call(target: str) -> None:
    """Measure when asked.

    By callbacks, in Ice's own threads: more than twice as fast as `Ice.wrap_future` and asyncio.
    """
    host, port = target.split(":")
    with Ice.initialize() as communicator:
        proxy = Peers.AnswerPrx.checkedCast(communicator.stringToProxy(f"echo:tcp -h {host} -p {port}"))

        def begin(ended: Callable[[], object]) -> None:
            def collect(reply: Any) -> None:
                assert reply.result() == PAYLOAD
                ended()

            proxy.echoAsync(PAYLOAD).add_done_callback(collect)

        answer_with_callbacks(begin)


if __name__ == "__main__":
    if sys.argv[1] == "server":
        lines_from_run()
        serve()
    else:
        call(sys.argv[2])
