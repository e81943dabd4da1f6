"""The floor: frames over TCP by asyncio's own transports, with no calls, no names and no errors.

`python -m benchmarks.peers.tcp_echo server` prints its port; `... client TARGET`. A frame is its length in four bytes
and its content; replies come in the order of the requests. Frames that are written in one turn of the loop go out
together, on both sides.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque

from benchmarks.children import lines_from_run
from benchmarks.load import PAYLOAD
from benchmarks.peers.client import answer_with


class Frames(asyncio.Protocol):
    """Reads and writes frames."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._unread = b""
        self._unwritten: list[bytes] = []
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._unread:
            data = self._unread + data
        start, size = 0, len(data)
        while size - start >= 4:
            end = start + 4 + int.from_bytes(data[start : start + 4], "big")
            if end > size:
                break
            self.frame_received(data[start + 4 : end])
            start = end
        self._unread = data[start:]

    def frame_received(self, content: bytes) -> None:
        """A whole frame has come."""

    def write_frame(self, content: bytes) -> None:
        """Write a frame with the others of this turn."""
        if not self._unwritten:
            self._loop.call_soon(self._flush)
        self._unwritten.append(len(content).to_bytes(4, "big"))
        self._unwritten.append(content)

    def _flush(self) -> None:
        assert self._transport is not None
        self._transport.write(b"".join(self._unwritten))
        self._unwritten.clear()


class EchoServer(Frames):
    """Writes back what it reads."""

    def frame_received(self, content: bytes) -> None:
        self.write_frame(content)


class EchoClient(Frames):
    """Keeps a future for each frame that was not answered yet."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: deque[asyncio.Future[bytes]] = deque()

    def call(self) -> asyncio.Future[bytes]:
        """Write the payload, and return the future of what comes back."""
        reply: asyncio.Future[bytes] = self._loop.create_future()
        self._waiting.append(reply)
        self.write_frame(PAYLOAD)
        return reply

    def frame_received(self, content: bytes) -> None:
        reply = self._waiting.popleft()
        if not reply.done():
            reply.set_result(content)


async def serve() -> None:
    """Serve until the process is ended."""
    server = await asyncio.get_running_loop().create_server(EchoServer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def call(target: str) -> None:
    """Measure when asked."""
    host, port = target.split(":")
    _, client = await asyncio.get_running_loop().create_connection(EchoClient, host, int(port))
    await answer_with(client.call)


if __name__ == "__main__":
    if sys.argv[1] == "server":
        lines_from_run()
        asyncio.run(serve())
    else:
        asyncio.run(call(sys.argv[2]))
