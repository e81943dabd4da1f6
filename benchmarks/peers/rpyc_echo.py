"""RPyC's asynchronous calls: `python -m benchmarks.peers.rpyc_echo server`, `... client TARGET`."""

# pyright: reportMissingImports=false

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import rpyc
from rpyc.utils.server import ThreadedServer

from benchmarks.children import lines_from_run
from benchmarks.load import PAYLOAD
from benchmarks.peers.client import answer_with_callbacks


class Echo(rpyc.Service):
    """Sends back what it gets."""

    def exposed_echo(self, payload: bytes) -> bytes:
        """Serve one call."""
        return payload


def serve() -> None:
    """Serve until the process is ended."""
    server = ThreadedServer(Echo(), hostname="127.0.0.1", port=0)
    print(server.port, flush=True)
    server.start()


def call(target: str) -> None:
    """Measure when asked."""
    host, port = target.split(":")
    connection = rpyc.connect(host, int(port))
    echo = rpyc.async_(connection.root.echo)

    def begin(ended: Callable[[], object]) -> None:
        def collect(result: Any) -> None:
            assert result.value == PAYLOAD
            ended()

        echo(PAYLOAD).add_callback(collect)

    answer_with_callbacks(begin, serve=connection.serve)


if __name__ == "__main__":
    if sys.argv[1] == "server":
        lines_from_run()
        serve()
    else:
        call(sys.argv[2])
