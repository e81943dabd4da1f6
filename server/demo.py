"""The demo service: `AsyncFunc`, the call from the documentation of asynchronous RPC, and what else shows something."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
from typing import Final

import rpc_async
from rpc_async import ServerCall, ServerPullCall, ServerPushCall, ServerPushPullCall, manager
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc

__all__ = ["Demo"]

LOGGER: Final = logging.getLogger("server")

STEPS: Final = 100
DEFAULT_DELAY_MS: Final = 20
SHORTEST_DELAY_MS: Final = 100
MAX_CHUNK: Final = 4 * 1024 * 1024
"""Bytes."""
CANCEL_CHECK_MS: Final = 100
"""Above this delay the work is done in steps, with a look for a cancel at every fifth."""


def used_delay_ms(delay_ms: int) -> int:
    """Return the delay that `AsyncFunc` uses for the one it was given."""
    if delay_ms < 0:
        return DEFAULT_DELAY_MS
    return max(delay_ms, SHORTEST_DELAY_MS)


class Demo(demo_pb2_grpc.DemoServicer):
    """Serves `rpc_async.demo.v1.Demo`."""

    @manager
    async def AsyncFunc(self, request: demo_pb2.AsyncFuncRequest, call: ServerCall[demo_pb2.AsyncFuncResponse]) -> None:
        """Work for a while, and complete, cancelled or not, as the documentation's sample does."""
        delay_ms = used_delay_ms(request.delay_ms)
        LOGGER.info("%r: works for %d ms", call, delay_ms)
        done = 0
        stopped_early = False
        if delay_ms > CANCEL_CHECK_MS:
            for step in range(STEPS):
                await asyncio.sleep(delay_ms / STEPS / 1000)
                done = step + 1
                if step % 5 == 0:
                    call.progress((step + 5) / 100, f"step {done} of {STEPS}")
                    if call.test_cancel():
                        stopped_early = True
                        break
        else:
            await asyncio.sleep(delay_ms / 1000)
        if stopped_early:
            LOGGER.info("%r: cancelled (%s) after %d steps", call, call.cancel_reason, done)
        status = call.complete(
            demo_pb2.AsyncFuncResponse(reply=1, delay_ms=delay_ms, steps_done=done, stopped_early=stopped_early)
        )
        LOGGER.info("%r: complete returned %s", call, status)

    @manager(inline=True)
    def Echo(self, request: demo_pb2.EchoRequest, call: ServerCall[demo_pb2.EchoResponse]) -> None:
        """Complete at once, on the dispatch thread."""
        call.complete(demo_pb2.EchoResponse(payload=request.payload))

    @manager
    def EchoFromThread(
        self, request: demo_pb2.EchoFromThreadRequest, call: ServerCall[demo_pb2.EchoFromThreadResponse]
    ) -> None:
        """Hand the call to another thread, and return."""

        def work() -> None:
            call.complete(
                demo_pb2.EchoFromThreadResponse(payload=request.payload, completed_by=threading.current_thread().name)
            )

        threading.Thread(target=work, name="worker").start()

    @manager
    async def Fail(self, request: demo_pb2.FailRequest, call: ServerCall[demo_pb2.FailResponse]) -> None:
        """Abort with the code that the request asks for."""
        try:
            call.abort(request.code, request.message)
        except rpc_async.InvalidArgument as error:
            call.abort(rpc_async.RpcStatus.INVALID_ARG, str(error))

    @manager
    async def Upload(self, call: ServerPullCall[demo_pb2.UploadRequest, demo_pb2.UploadResponse]) -> None:
        """Pull to the end, or until the client asks to stop."""
        chunks, size, digest = 0, 0, hashlib.sha256()
        async for chunk in call:
            chunks, size = chunks + 1, size + len(chunk.payload)
            digest.update(chunk.payload)
            if call.test_cancel():
                call.discard()
        call.complete(demo_pb2.UploadResponse(chunks=chunks, size=size, sha256=digest.digest()))

    @manager
    def Download(self, request: demo_pb2.DownloadRequest, call: ServerPushCall[demo_pb2.DownloadResponse]) -> None:
        """Push from a thread of the pool, which waits where the client is behind."""
        if request.chunks < 0 or not 0 <= request.chunk_size <= MAX_CHUNK:
            call.abort(rpc_async.RpcStatus.INVALID_ARG, f"chunks from 0, of 0 to {MAX_CHUNK} bytes")
            return
        for number in range(request.chunks):
            if call.test_cancel():
                break
            call.put(demo_pb2.DownloadResponse(payload=bytes((number % 256,)) * request.chunk_size))
        call.complete()

    @manager
    async def Chat(self, call: ServerPushPullCall[demo_pb2.ChatResponse, demo_pb2.ChatRequest]) -> None:
        """Push each chunk back as it comes."""
        async for chunk in call:
            await call.write(demo_pb2.ChatResponse(text=chunk.text))
        call.complete()
