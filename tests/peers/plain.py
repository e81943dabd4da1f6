"""Plain gRPC servers, in processes of their own: grpc.aio's, grpc-go's and grpc-js'. None knows anything of sessions.

`python -m tests.peers.plain` is the one in grpc.aio.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc.aio

from tests.peers import interop_pb2_grpc
from tests.peers.programs import GRPC_GO_SERVER, NODE, running
from tests.peers.servicer import Ordinary

__all__ = ["KINDS", "serving"]

_COMMANDS: Mapping[str, Sequence[str | Path]] = {
    "grpc.aio": (sys.executable, "-m", "tests.peers.plain"),
    "grpc-go": (GRPC_GO_SERVER, "--port=0"),
    "grpc-js": (NODE, Path(__file__).parent / "js" / "server.js"),
}
KINDS = tuple(_COMMANDS)
_LISTENING = re.compile(r"listening on .*:(\d+)$")


@contextmanager
def serving(kind: str) -> Iterator[str]:
    """Run a server of that kind on a free port, which its standard error tells; return its target."""
    with running(_COMMANDS[kind], env={"GRPC_GO_LOG_SEVERITY_LEVEL": "info"}) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if told := _LISTENING.search(line.rstrip()):
                break
        else:
            raise AssertionError(f"{kind}'s server has ended: {''.join(said)}")
        yield f"127.0.0.1:{told[1]}"


async def _serve() -> None:
    server = grpc.aio.server()
    interop_pb2_grpc.add_TestServiceServicer_to_server(Ordinary(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"listening on 127.0.0.1:{port}", file=sys.stderr, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve())
