"""What is said on one stream of a session, once it is open, until it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from rpc_async.calling.bare import bare_reader, bare_writer
from rpc_async.calling.call import AsyncCall
from rpc_async.calling.opening import Stream
from rpc_async.core.client_session import ClientSession
from rpc_async.core.frames import Frame, ProtocolError
from rpc_async.mailbox import Mailbox
from rpc_async.pump import Pump
from rpc_async.wire.session import MAX_BATCH_BYTES, encode_request, read_response

__all__ = ["Conversation"]

_LOGGER: Final = logging.getLogger("rpc_async.calling")

MIN_CHUNK: Final = 4
MAX_CHUNK: Final = 128
"""Frames that are heard, at the least and at the most, before the writer gets its turn: see `_chunk`."""
LARGEST_BATCH: Final = MAX_BATCH_BYTES // 2
"""Bytes: batches are made smaller than this, with what gRPC puts around them."""

Machine = ClientSession[AsyncCall[Any]]


class Conversation:
    """Writes the batches of a session's machine to a stream, and has what is read heard. On the channel's loop."""

    def __init__(
        self,
        mailbox: Mailbox,
        stream: Stream,
        machine: Machine,
        hear: Callable[[Machine, list[Frame]], None],
        hurry: Callable[[], object],
        max_bytes: int | None,
    ) -> None:
        """Make it.

        Args:
            mailbox: The way into the loop, with the lock that guards the machine.
            stream: The stream, which is open.
            machine: The session's machine.
            hear: Has frames heard.
            hurry: Has the writer look now, if what arrived or was heard has woken it.
            max_bytes: Bytes that the stream may carry to the server: this side ends it before that. None: any number.
        """
        self.pump: Final[Pump] = Pump(mailbox.loop, bare_writer(stream), self._next_batch, self._failed)
        self._mailbox = mailbox
        self._loop = mailbox.loop
        self._stream = stream
        self._machine = machine
        self._hear = hear
        self._hurry = hurry
        self._left = float("inf") if max_bytes is None else max_bytes
        self._turning: asyncio.Task[None] | None = None
        self._failure: Exception | None = None

    def _next_batch(self) -> bytes | None:
        if self._left < LARGEST_BATCH:
            self._turn()
            return None
        link = self._machine.link
        with self._mailbox.lock:
            frames = link.next(self._loop.time())
        if frames is None:
            return None
        data = encode_request(frames, link.ack())
        self._left -= len(data)
        return data

    def _turn(self) -> None:
        """End the stream while it can carry nothing more: the session goes on with another one."""
        if self._turning is None:
            self._turning = self._loop.create_task(self._end())

    async def _end(self) -> None:
        try:
            await self._stream.done_writing()
        except Exception as error:  # gRPC has several for a stream that has ended, which its reader is told of
            _LOGGER.debug("a stream of a session ended before this side ended it: %r", error)

    def _failed(self, error: Exception) -> None:
        self._failure = error
        self._stream.cancel()

    async def run(self) -> None:
        """Talk to the stream's end.

        Raises:
            ProtocolError: The server said what it may not say.
            grpc.aio.AioRpcError: What the stream ended with.
            Exception: What should not have happened: frames may be lost.
        """
        try:
            await self._read()
        finally:
            self.pump.stop()
            if self._turning is not None:
                self._turning.cancel()
            if self._failure is not None:
                raise self._failure

    async def _read(self) -> None:
        stream, machine, hear, hurry = self._stream, self._machine, self._hear, self._hurry
        link, lock, read = machine.link, self._mailbox.lock, bare_reader(stream)
        self.pump.flush()
        while not machine.closed:
            data = await read()
            if not isinstance(data, bytes):
                await stream.read()  # raises what the stream ended with
                return
            opened, ack, frames = read_response(data)
            if opened is not None:
                raise ProtocolError("an Opened in the middle of a stream")
            with lock:
                link.arrived(len(frames), len(data), ack, self._loop.time())
            hurry()
            chunk = _chunk(len(machine.outstanding))
            for begin in range(0, len(frames), chunk):
                if begin:
                    await asyncio.sleep(0)
                hear(machine, frames[begin : begin + chunk])
                hurry()


def _chunk(outstanding: int) -> int:
    """Return how many frames to hear before the writer gets its turn, where so many calls are outstanding.

    Half of them: so the calls that follow on the first half are on their way while the second half is heard, and client
    and server work at the same time, each on its half.
    """
    return min(max((outstanding + 1) // 2, MIN_CHUNK), MAX_CHUNK)
