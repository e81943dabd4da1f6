"""A client of the session wire that was written from `docs/protocol.md` and the protos alone.

It uses gRPC and the generated messages, and nothing of the library: what it needs to know must be on that page.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2

from rpc_async.demo.v1 import demo_pb2
from rpc_async.serving.server import Server
from rpc_async.v1 import calls_pb2, calls_pb2_grpc, session_pb2, types_pb2
from tests.harness import PATIENCE, Parked, response, serve, until

Kind = session_pb2.FrameKind
CALL, CALL_WITH_HEAD, METHOD = Kind.FRAME_KIND_CALL, Kind.FRAME_KIND_CALL_WITH_HEAD, Kind.FRAME_KIND_METHOD
CANCEL, ABORT, WATCH, CLOSE = (
    Kind.FRAME_KIND_CANCEL, Kind.FRAME_KIND_ABORT, Kind.FRAME_KIND_WATCH, Kind.FRAME_KIND_CLOSE,
)  # fmt: skip
REPLY, REPLY_WITH_HEAD, FAULT = Kind.FRAME_KIND_REPLY, Kind.FRAME_KIND_REPLY_WITH_HEAD, Kind.FRAME_KIND_FAULT
NOTE, PROGRESS = Kind.FRAME_KIND_CANCEL_NOTE, Kind.FRAME_KIND_PROGRESS
START, PIECE, DROP = Kind.FRAME_KIND_START, Kind.FRAME_KIND_PIECE, Kind.FRAME_KIND_DROP

LARGE = 65_536
ENDINGS = (REPLY, REPLY_WITH_HEAD, FAULT)
Frame = tuple[int, int, bytes]


class Client:
    """One session."""

    def __init__(self, target: str) -> None:
        self._target = target
        self.id = os.urandom(32)
        self._methods: dict[str, int] = {}
        self._calls = 0
        self._sent: list[Frame] = []  # all that the server has not acknowledged
        self._acknowledged = 0
        self.received = 0
        self._written = 0  # of `_sent`, on this stream
        self._partial: dict[int, tuple[int, int, list[bytes]]] = {}
        self.outcomes: dict[int, tuple[int, bytes]] = {}
        self.notes: dict[int, int] = {}
        self.progress: dict[int, float] = {}
        self.closed = False
        self._told = 0
        self._bytes = 0

    # -- streams ----------------------------------------------------------------------------------------

    async def open(self, resume: bool = False) -> bool:
        """Open a stream. Returns whether the session is there."""
        options = [(f"grpc.max_{way}_message_length", 512 * 1024) for way in ("send", "receive")]
        self._channel = grpc.aio.insecure_channel(self._target, [*options, ("grpc.use_local_subchannel_pool", 1)])
        self.stream: Any = calls_pb2_grpc.AsyncCallsStub(self._channel).Session()
        opening = session_pb2.Open(session_id=self.id, resume=resume)
        await self.stream.write(session_pb2.SessionRequest(open=opening, ack=self.received))
        answer: Any = await asyncio.wait_for(self.stream.read(), PATIENCE)
        self.opened = answer.opened
        assert not answer.kinds
        if answer.opened.found:
            self._acknowledge(answer.ack)
            self._written = 0
            await self._write()
        return bool(answer.opened.found)

    async def cut(self) -> None:
        """Lose the connection."""
        self.stream.cancel()
        await self._channel.close()

    async def close(self) -> grpc.StatusCode:
        """End the session. Returns how the server ends the stream."""
        await self._say((CLOSE, 0, b""))
        while await self.hear():
            """Read to the end."""
        code: grpc.StatusCode = await self.stream.code()
        await self._channel.close()
        return code

    def _acknowledge(self, count: int) -> None:
        assert self._acknowledged <= count <= self._acknowledged + len(self._sent)
        new = count - self._acknowledged
        del self._sent[:new]
        self._written -= new
        self._acknowledged = count

    async def _say(self, *frames: Frame) -> None:
        self._sent += frames
        await self._write()

    async def _write(self) -> None:
        """Write what has not been written on this stream, in messages under 256 KiB, no more than 4 MiB ahead."""
        while self._written < len(self._sent):
            batch: list[Frame] = []
            while self._written < len(self._sent) and sum(len(frame[2]) + 20 for frame in batch) < 128 * 1024:
                batch.append(self._sent[self._written])
                self._written += 1
            while sum(len(frame[2]) for frame in self._sent[: self._written]) > 4 * 1024 * 1024:
                assert await self.hear()
            message = session_pb2.SessionRequest(ack=self.received)
            for kind, number, payload in batch:
                message.kinds += bytes((kind,))
                message.numbers.append(number)
                message.payloads.append(payload)
            self._told = self.received
            await self.stream.write(message)

    # -- hearing ----------------------------------------------------------------------------------------

    async def hear(self) -> bool:
        """Read a message. False at the end of the stream."""
        message: Any = await asyncio.wait_for(self.stream.read(), PATIENCE)
        if message is grpc.aio.EOF:
            return False
        self._acknowledge(message.ack)
        assert len(message.kinds) == len(message.numbers) == len(message.payloads)
        for frame in zip(message.kinds, message.numbers, message.payloads, strict=True):
            self.received += 1
            self._hear(*frame)
        self._bytes += message.ByteSize()
        if self.received - self._told >= 1024 or self._bytes >= 256 * 1024:
            self._told, self._bytes = self.received, 0
            await self.stream.write(session_pb2.SessionRequest(ack=self.received))
        return True

    def _hear(self, kind: int, number: int, payload: bytes) -> None:
        if kind in ENDINGS:
            assert number not in self.outcomes
            self.outcomes[number] = kind, payload
        elif kind == NOTE:
            self.notes[number] = session_pb2.CancelNote.FromString(payload).status
        elif kind == PROGRESS:
            self.progress[number] = types_pb2.Progress.FromString(payload).fraction
        elif kind == START:
            assert len(payload) == 9
            self._partial[number] = payload[0], int.from_bytes(payload[1:], "big"), []
        elif kind == PIECE:
            whole, size, pieces = self._partial[number]
            pieces.append(payload)
            if sum(map(len, pieces)) == size:
                del self._partial[number]
                self._hear(whole, number, b"".join(pieces))
        elif kind == DROP:
            del self._partial[number]
        else:
            assert kind == CLOSE
            self.closed = True

    async def outcome(self, call: int) -> tuple[int, bytes]:
        """Read until a call has one."""
        while call not in self.outcomes:
            assert await self.hear()
        return self.outcomes[call]

    # -- calls ------------------------------------------------------------------------------------------

    async def call(self, method: str, request: bytes, head: session_pb2.CallHead | None = None) -> int:
        """Begin a call. Returns its number."""
        if method not in self._methods:
            self._methods[method] = len(self._methods)
            await self._say((METHOD, self._methods[method], method.encode()))
        self._calls += 1
        kind = CALL
        if head is not None:
            head.request = request
            kind, request = CALL_WITH_HEAD, head.SerializeToString()
        await self._say(*_frames(kind, self._calls * 4096 + self._methods[method], request, self._calls))
        return self._calls

    async def about(self, kind: int, call: int) -> None:
        """Say CANCEL, ABORT or WATCH."""
        await self._say((kind, call, b""))

    def call_id(self, call: int) -> str:
        """Return a call's id."""
        tag = hashlib.blake2b(self.id, digest_size=8, person=b"rpc_async tag").hexdigest()
        number = call.to_bytes(8, "big")
        seal = hashlib.blake2b(number, digest_size=16, key=self.id, person=b"rpc_async call").hexdigest()
        return f"{tag}-{call:x}-{seal}"


def _frames(kind: int, number: int, payload: bytes, call: int) -> Iterator[Frame]:
    if len(payload) <= LARGE:
        yield kind, number, payload
        return
    yield START, number, bytes((kind,)) + len(payload).to_bytes(8, "big")
    for begin in range(0, len(payload), LARGE):
        yield PIECE, call, payload[begin : begin + LARGE]


ECHO = "/rpc_async.demo.v1.Demo/Echo"


def echo(payload: bytes = b"") -> bytes:
    return demo_pb2.EchoRequest(payload=payload).SerializeToString()


@asynccontextmanager
async def session() -> AsyncIterator[tuple[Client, Parked, Server]]:
    servicer = Parked()
    async with serve(servicer) as (server, target):
        client = Client(target)
        assert await client.open()
        yield client, servicer, server
        assert await client.close() is grpc.StatusCode.OK
        assert len(server._sessions) == 0


async def test_a_call() -> None:
    async with session() as (client, servicer, _):
        assert client.opened.linger == 30.0
        assert client.opened.max_payload == 64 * 1024 * 1024
        head = session_pb2.CallHead(timeout_us=60_000_000)
        head.metadata.add(key="x-key", value=b"value")
        call = await client.call(ECHO, echo(b"hello"), head)
        server_call = await servicer.next()
        assert ("x-key", "value") in server_call.invocation_metadata()
        assert 50 < (server_call.time_remaining() or 0) <= 60
        assert server_call.call_id == client.call_id(call)
        server_call.set_trailing_metadata([("x-bin", b"\xff")])
        server_call.complete(response(b"hello"))
        kind, payload = await client.outcome(call)
        assert kind == REPLY_WITH_HEAD
        reply = session_pb2.ReplyHead.FromString(payload)
        assert demo_pb2.EchoResponse.FromString(reply.reply).payload == b"hello"
        assert [(one.key, one.value) for one in reply.trailing] == [("x-bin", b"\xff")]


async def test_a_fault_and_a_refusal() -> None:
    async with session() as (client, servicer, _):
        call = await client.call(ECHO, echo())
        (await servicer.next()).abort(4711, "no")
        assert _fault(await client.outcome(call)) == ("no", "4711", "true")
        unknown = await client.call("/no.Such/Method", b"")
        assert session_pb2.FaultHead.FromString((await client.outcome(unknown))[1]).code == 12


def _fault(outcome: tuple[int, bytes]) -> tuple[str, str, str]:
    kind, payload = outcome
    assert kind == FAULT
    head = session_pb2.FaultHead.FromString(payload)
    info = error_details_pb2.ErrorInfo.FromString(head.details[0].value)
    assert info.domain == "rpc_async"
    return head.message, info.metadata["status"], info.metadata["executed"]


@pytest.mark.parametrize("size", [LARGE - 100, LARGE + 1, 12_000_000])
async def test_large_requests_and_replies(size: int) -> None:
    async with session() as (client, servicer, _):
        body = os.urandom(size)
        call = await client.call(ECHO, echo(body))
        server_call = await servicer.next()
        server_call.complete(response(body))
        kind, payload = await client.outcome(call)
        assert kind == REPLY
        assert demo_pb2.EchoResponse.FromString(payload).payload == body


async def test_a_request_over_the_limit_and_one_that_is_dropped() -> None:
    async with session() as (client, servicer, _):
        await client._say((METHOD, 0, ECHO.encode()))
        client._methods[ECHO], client._calls = 0, 2
        size = client.opened.max_payload + 512 * 1024 + 1
        await client._say((START, 4096, bytes((CALL,)) + size.to_bytes(8, "big")))
        assert _fault(await client.outcome(1))[1:] == ("14", "false")
        await client._say((DROP, 1, b""))
        start = (START, 2 * 4096, bytes((CALL,)) + (2 * LARGE).to_bytes(8, "big"))
        await client._say(start, (PIECE, 2, bytes(LARGE)), (ABORT, 2, b""), (PIECE, 2, bytes(LARGE)))
        call = await client.call(ECHO, echo())
        (await servicer.next()).complete(response(b"the only one"))
        await client.outcome(call)
        assert list(client.outcomes) == [1, call]


async def test_cancel_abort_and_watch() -> None:
    async with session() as (client, servicer, _):
        call = await client.call(ECHO, echo())
        server_call = await servicer.next()
        await client.about(WATCH, call)
        await client.about(CANCEL, call)
        while call not in client.notes:
            await client.hear()
        assert client.notes[call] == 0
        assert server_call.cancel_reason == "client_requested"
        server_call.progress(0.25)
        while call not in client.progress:
            await client.hear()
        assert client.progress[call] == 0.25
        server_call.complete(response(b"all the same"))
        assert (await client.outcome(call))[0] == REPLY
        await client.about(CANCEL, call)
        client.notes.clear()
        while call not in client.notes:
            await client.hear()
        assert client.notes[call] == 1725

        aborted = await client.call(ECHO, echo())
        server_call = await servicer.next()
        await client.about(ABORT, aborted)
        await until(server_call.test_cancel, "the abort")
        assert server_call.cancel_reason == "client_aborted"
        server_call.abort(5)

        plain = calls_pb2_grpc.AsyncCallsStub(client._channel)
        last = await client.call(ECHO, echo())
        server_call = await servicer.next()
        await plain.CancelCall(calls_pb2.CancelCallRequest(call_id=client.call_id(last)))
        assert server_call.test_cancel()
        server_call.complete(response())
        await client.outcome(last)


async def test_a_session_is_cut_and_resumed() -> None:
    async with session() as (client, servicer, _):
        first = await client.call(ECHO, echo(b"before"))
        server_call = await servicer.next()
        for number in range(20):
            await client.cut()
            server_call.complete(response(b"while it was cut"))
            assert await client.open(resume=True)
            kind, payload = await client.outcome(first)
            assert kind == REPLY
            assert demo_pb2.EchoResponse.FromString(payload).payload == b"while it was cut"
            first = await client.call(ECHO, echo(bytes(200_000 if number % 2 else 0)))
            if number % 3 == 0:  # whether it arrived or not
                await client.cut()
                assert await client.open(resume=True)
            server_call = await servicer.next()
        server_call.complete(response())
        await client.outcome(first)
        assert servicer.arrived.empty()
        assert len(client.outcomes) == 21


async def test_a_session_that_is_gone_and_streams_that_are_refused() -> None:
    async with session() as (client, _, _):
        stranger = Client(client._target)
        assert not await stranger.open(resume=True)
        assert await stranger.stream.read() is grpc.aio.EOF
        assert await stranger.stream.code() is grpc.StatusCode.OK
        await stranger.cut()
        wrong = Client(client._target)
        await wrong.open()
        await wrong._say((CANCEL, 1, b""))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wrong.hear()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "call 1" in (caught.value.details() or "")
        await wrong.cut()
        assert not await wrong.open(resume=True)
        await wrong.cut()


async def test_the_server_closes() -> None:
    servicer = Parked()
    async with serve(servicer, grace=5.0) as (server, target):
        client = Client(target)
        await client.open()
        call = await client.call(ECHO, echo())
        server_call = await servicer.next()
        stopping = asyncio.create_task(server.stop(5.0))
        await asyncio.sleep(0)
        refused = await client.call(ECHO, echo())
        assert _fault(await client.outcome(refused))[1:] == ("1722", "false")
        server_call.complete(response(b"in time"))
        await client.outcome(call)
        while not client.closed:
            assert await client.hear()
        await stopping
        await client.cut()
