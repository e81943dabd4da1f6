"""A client of the session wire that says what a test makes it say, whether it may or not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio

from rpc_async.core.frames import Frame, FrameKind
from rpc_async.wire.session import (
    SESSION_METHOD,
    Opened,
    encode_request,
    new_session_id,
    open_request,
    read_response,
)
from tests.harness import PATIENCE

ECHO = b"/rpc_async.demo.v1.Demo/Echo"

K = FrameKind


def call(number: int, payload: bytes = b"", method: int = 0, kind: int = FrameKind.CALL) -> Frame:
    """Make the frame that begins a call."""
    return kind, number << 12 | method, payload


def start(number: int, size: int, kind: int = FrameKind.CALL) -> Frame:
    """Make the frame that begins a large request."""
    return FrameKind.START, number << 12, bytes((kind,)) + size.to_bytes(8)


class Raw:
    """One stream, and the id of the session that it is for."""

    used: set[bytes]
    """Every session id that was used; see `tests/integration/test_hostile.py`."""

    def __init__(self, channel: grpc.aio.Channel, session_id: bytes | None = None) -> None:
        self.id = new_session_id() if session_id is None else session_id
        self.heard: list[Frame] = []
        self.ack = 0
        """What is acknowledged with the next message."""
        self.opened: Opened | None = None
        method: Any = channel.stream_stream(SESSION_METHOD)
        self.stream: Any = method()

    async def open(self, *, resume: bool = False, ack: int = 0) -> Opened:
        """Open the stream."""
        await self.write(open_request(self.id, resume=resume, ack=ack))
        self.opened, *_ = read_response(await self._read())
        assert self.opened is not None
        return self.opened

    async def name(self) -> Raw:
        """Open it for a new session, and give `Echo` its number."""
        await self.open()
        await self.say((K.METHOD, 0, ECHO))
        return self

    async def say(self, *frames: Frame, ack: int | None = None) -> None:
        """Send a batch."""
        await self.write(encode_request(frames, self.ack if ack is None else ack))

    async def write(self, message: bytes) -> None:
        """Send a message as it is. If the stream has ended, `end` tells why."""
        with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
            await asyncio.wait_for(self.stream.write(message), PATIENCE)

    async def hear(self, count: int = 1) -> Sequence[Frame]:
        """Read until `count` more frames have come, and acknowledge them with what is said next."""
        end = len(self.heard) + count
        while len(self.heard) < end:
            frames = read_response(await self._read())[2]
            self.heard += frames
            self.ack += len(frames)
        return self.heard[end - count : end]

    async def end(self) -> tuple[grpc.StatusCode, str]:
        """Wait until the server has ended the stream. Returns how."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            while isinstance(await asyncio.wait_for(self.stream.read(), PATIENCE), bytes):
                """gRPC gives the status behind all messages."""
        code = await asyncio.wait_for(self.stream.code(), PATIENCE)
        return code, await self.stream.details() or ""

    def cut(self) -> None:
        """End the stream without a word."""
        self.stream.cancel()

    async def _read(self) -> bytes:
        data = await asyncio.wait_for(self.stream.read(), PATIENCE)
        assert isinstance(data, bytes), await self.end()
        return data
