"""A TCP proxy that cuts, stalls and refuses connections when a test says so."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, Literal, Self

__all__ = ["CuttingProxy"]

_CHUNK: Final = 64 * 1024
"""Bytes that are read at a time."""
_TURNS_TO_ACCEPT: Final = 5
"""Turns of the loop in which asyncio tells of a connection that it has accepted, and lets go of it; one to spare."""


class _Direction:
    """One of the two ways that bytes go."""

    def __init__(self) -> None:
        self.carrying = asyncio.Event()
        self.carrying.set()
        self.seen = 0

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                self.seen += len(data)
                await self.carrying.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


class CuttingProxy:
    """Stands between a client and a server: `async with CuttingProxy(target) as proxy`, then connect to `proxy.target`.

    Used on one event loop.
    """

    def __init__(self, target: str) -> None:
        """Make a proxy to `target`, a host and a port such as `127.0.0.1:50051`."""
        self._listener: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._to_server = _Direction()
        self._to_client = _Direction()
        self.lead_to(target)
        self.cuts: int = 0
        """How often `cut` was called."""
        self.connections: int = 0
        """How many connections were taken, in all."""
        self.refusing: bool = False
        """Whether new connections are closed at once."""

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._listener is not None
        self.refusing = True
        self.resume()
        for listening in self._listener.sockets:  # asyncio loses what it has accepted, if it is closed at that moment
            asyncio.get_running_loop().remove_reader(listening.fileno())
        for _turn in range(_TURNS_TO_ACCEPT):
            await asyncio.sleep(0)
        self._listener.close()
        self._abort_all()
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._listener.wait_closed()

    @property
    def target(self) -> str:
        """Where to connect to."""
        assert self._listener is not None, "use it inside `async with`"
        port: int = self._listener.sockets[0].getsockname()[1]
        return f"127.0.0.1:{port}"

    @property
    def bytes_to_server(self) -> int:
        """How many bytes have come from clients, in all: those that a stall holds back too."""
        return self._to_server.seen

    @property
    def bytes_to_client(self) -> int:
        """How many bytes have come from servers, in all: those that a stall holds back too."""
        return self._to_client.seen

    def lead_to(self, target: str) -> None:
        """Lead connections that are made from now on to another server, as where one was started anew."""
        host, _, port = target.rpartition(":")
        self._host = host
        self._port = int(port)

    def cut(self) -> None:
        """Cut every connection, without a word to either side. What was on its way is lost."""
        self.cuts += 1
        self._abort_all()

    def stall(self, which: Literal["both", "to_server", "to_client"] = "both") -> None:
        """Carry nothing, both ways or one, and keep every connection: the other side seems to have gone silent."""
        if which != "to_client":
            self._to_server.carrying.clear()
        if which != "to_server":
            self._to_client.carrying.clear()

    def resume(self) -> None:
        """Carry on after a `stall`."""
        self._to_server.carrying.set()
        self._to_client.carrying.set()

    def _abort_all(self) -> None:
        for writer in tuple(self._writers):
            writer.transport.abort()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        self.connections += 1
        self._writers.add(writer)
        task = asyncio.get_running_loop().create_task(self._lead(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        both = {writer}
        try:
            with contextlib.suppress(OSError):
                far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
                both.add(far_writer)
                if writer in self._writers and not writer.transport.is_closing():
                    self._writers.add(far_writer)
                    await asyncio.gather(
                        self._to_server.carry(reader, far_writer), self._to_client.carry(far_reader, writer)
                    )
        finally:
            self._writers -= both
            for one in both:
                one.transport.abort()
