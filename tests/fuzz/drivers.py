"""What must hold in the drivers: a real server and a hostile client, a real client and a hostile server."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any, Self

import grpc
import grpc.aio

import rpc_async
from rpc_async import RpcStatus, begin
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
from rpc_async.serving.sessions import SessionService
from rpc_async.wire.session import Opened, opened_response
from tests.harness import PATIENCE, EchoCall, Servicer, outcome, request, response, serve, until
from tests.raw import Raw

__all__ = ["HostileClients", "HostileServers"]

GONE = opened_response(Opened(False, 0.0, 1 << 20), 0)


class _Log(logging.Handler):
    """Keeps what is logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(self.format(record))


class _Stage(ABC):
    """A loop that many examples run on."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._stack = AsyncExitStack()
        self._log = _Log()

    def __enter__(self) -> Self:
        for name in ("rpc_async", "grpc"):
            logging.getLogger(name).addHandler(self._log)
        self._runner.run(self._start(self._stack))
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._stack.aclose())
        for name in ("rpc_async", "grpc"):
            logging.getLogger(name).removeHandler(self._log)

    @abstractmethod
    async def _start(self, stack: AsyncExitStack) -> None:
        """Start the side that is attacked."""

    def _run(self, example: Coroutine[Any, Any, None], *, forgiven: str | None = None) -> None:
        self._log.records.clear()
        self._runner.run(example)
        assert not [one for one in self._log.records if forgiven is None or forgiven not in one]


class _Half(Servicer):
    """Completes a call in the routine or soon, or fails it, or never does: by the request's first byte."""

    def __init__(self) -> None:
        self.kept: list[EchoCall] = []

    @rpc_async.manager(inline=True)
    def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
        kind = (request.payload or b"\0")[0] % 4
        if kind == 0:
            call.complete(response(bytes(100_000)))
        elif kind == 1:
            call.abort(4711, "no")
        else:
            self.kept.append(call)
            call.progress(0.5)
            if kind == 2:
                asyncio.get_running_loop().call_soon(call.complete, response(b"later"))


class HostileClients(_Stage):
    """A server, and a well-behaved client with a call that runs all the while."""

    async def _start(self, stack: AsyncExitStack) -> None:
        self.half = _Half()
        self.server, target = await stack.enter_async_context(serve(self.half, linger=60.0))
        self.plain = await stack.enter_async_context(grpc.aio.insecure_channel(target))
        channel = await stack.enter_async_context(rpc_async.connect(target, transport="session"))
        self.stub = demo_pb2_grpc.DemoStub(channel)

    def run(self, messages: list[bytes]) -> None:
        """Send these after an `Open`; the stream ends with a word, or goes on; nobody else notices."""
        self._run(self._example(messages))

    async def _example(self, messages: list[bytes]) -> None:
        service: SessionService = self.server._sessions
        beside = begin(self.stub.Echo, request(b"\3"))
        await until(lambda: self.half.kept, "the call beside")
        parked = self.half.kept.pop()
        raw = Raw(self.plain)
        await raw.open()
        for message in messages:
            await raw.write(message)
        await raw.stream.done_writing()
        code, text = await raw.end()
        assert code in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL), text
        await until(lambda: service._streams == 1, "the stream has ended")
        for session in tuple(service._sessions.values()):
            if session.stream is None:
                service.end(session)
        assert not beside.done()
        assert parked.complete(response(b"undisturbed")) is RpcStatus.OK
        assert (await asyncio.wait_for(beside, PATIENCE)).payload == b"undisturbed"
        for call in self.half.kept:
            assert call.test_cancel()
        self.half.kept.clear()
        assert len(service) == len(service._tags) == 1
        assert not service._cut
        assert service.held < 1 << 20


class HostileServers(_Stage):
    """A server that says on its first stream what it is told to, and knows no session after that."""

    async def _start(self, stack: AsyncExitStack) -> None:
        self.script: list[bytes] = []
        self.streams = 0
        server = grpc.aio.server()
        handler: Any = grpc.stream_stream_rpc_method_handler(self._serve)
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("rpc_async.v1.AsyncCalls", {"Session": handler})]
        )
        self.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        stack.push_async_callback(server.stop, None)

    async def _serve(self, _: Any, context: Any) -> None:
        self.streams += 1
        opening = await context.read()
        if opening is grpc.aio.EOF:
            return
        if self.streams > 1:
            await context.write(GONE)
            return
        for message in self.script:
            await context.write(message)

    def run(self, messages: list[bytes]) -> None:
        """Send these to a client with four calls; each settles, once, and the client closes as ever."""
        self.script, self.streams = messages, 0
        self._run(self._example(), forgiven="broke the session's protocol")

    async def _example(self) -> None:
        async with rpc_async.connect(self.target, transport="session", linger=0.5) as channel:
            stub = demo_pb2_grpc.DemoStub(channel)
            calls = [begin(stub.Echo, request(bytes(size))) for size in (0, 10, 100_000, 300_000)]
            settled = [0] * len(calls)

            def count(call: Any) -> None:
                settled[calls.index(call)] += 1

            for call in calls:
                call.add_done_callback(count)
            results = [await outcome(call) for call in calls]
            for result in results:
                assert isinstance(result, demo_pb2.EchoResponse | rpc_async.CallError), result
                assert str(result) is not None
        await until(lambda: sum(settled) == len(calls), "the callbacks")
        assert settled == [1] * len(calls)
