"""A hostile client of the session wire: it is told what it did wrong, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

import rpc_async
from rpc_async import RpcStatus, begin
from rpc_async.core.assembly import MAX_TRANSFERS
from rpc_async.core.frames import MAX_PAYLOAD, Frame
from rpc_async.core.session import HEAD_ROOM, MAX_METHODS
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
from rpc_async.serving import session as session_limits
from rpc_async.serving import session_handler, sessions
from rpc_async.serving.server import Server
from rpc_async.serving.session import session_key
from rpc_async.v1 import session_pb2
from rpc_async.wire.session import (
    MAX_BULK_BYTES,
    CallIds,
    call_head,
    encode_request,
    new_session_id,
    open_request,
    read_fault_head,
    read_response,
)
from tests.harness import PATIENCE, EchoCall, Parked, Servicer, request, response, serve, until
from tests.raw import ECHO, K, Raw, call, start

MIB = 1024 * 1024
BAD = grpc.StatusCode.INVALID_ARGUMENT


class Keeping(Parked):
    """Keeps the handles, too."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[EchoCall] = []

    @rpc_async.manager(inline=True)
    def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
        self.kept.append(call)
        self.arrived.put_nowait(call)


@dataclass
class Scene:
    """A server, a well-behaved client with a call that runs, and a way in for others."""

    server: Server
    target: str
    servicer: Keeping
    channel: grpc.aio.Channel
    raws: list[Raw] = field(default_factory=list)

    def raw(self, session_id: bytes | None = None) -> Raw:
        """Make a stream."""
        raw = Raw(self.channel, session_id)
        self.raws.append(raw)
        return raw

    async def named(self) -> Raw:
        """Make a stream of a new session, which has given `Echo` the number 0."""
        return await self.raw().name()


@asynccontextmanager
async def scene(
    caplog: pytest.LogCaptureFixture, quiet: Sequence[str] = ("asyncio",), **options: Any
) -> AsyncIterator[Scene]:
    """Run a server, and see that nobody but the hostile client notices anything, and that nothing is left of it."""
    caplog.set_level(logging.DEBUG)
    servicer = Keeping()
    async with serve(servicer, **options) as (server, target), grpc.aio.insecure_channel(target) as plain:
        async with rpc_async.connect(target, transport="session") as channel:
            parked = begin(demo_pb2_grpc.DemoStub(channel).Echo, request(b"beside"))
            beside = await servicer.next()
            ids = beside.call_id
            it = Scene(server, target, servicer, plain)
            yield it
            for raw in it.raws:
                raw.cut()
            assert not parked.done()
            assert beside.complete(response(b"undisturbed")) is RpcStatus.OK
            assert (await asyncio.wait_for(parked, PATIENCE)).payload == b"undisturbed"
            service = server._sessions
            await until(lambda: service._streams == 1, "the hostile streams have ended")
            for session in tuple(service._sessions.values()):
                if session.stream is None:
                    service.end(session)  # as its timer will
            assert len(service) == len(service._tags) == 1
            assert not service._cut
            assert service.held < MIB
        for one in servicer.kept:
            with contextlib.suppress(rpc_async.InvalidAsyncHandle):
                one.abort(5)
        assert server.running_calls == 0
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR and record.name not in quiet]
    assert not errors, errors
    for raw in it.raws:
        for secret in (repr(raw.id)[2:-1], raw.id.hex(), *(CallIds(raw.id).of(number) for number in range(1, 9))):
            assert secret not in caplog.text
    assert ids not in caplog.text


def head(pairs: Sequence[tuple[str, bytes]], body: bytes = b"") -> bytes:
    metadata = [session_pb2.Metadatum(key=key, value=value) for key, value in pairs]
    return session_pb2.CallHead(request=body, metadata=metadata).SerializeToString()


HEADED = int(K.CALL_WITH_HEAD)


@pytest.mark.parametrize(
    ("frames", "told"),
    [
        ([(0, 1, b"")], "a frame of kind 0"),
        ([(200, 1, b"")], "a frame of kind 200"),
        ([(K.REPLY, 1, b"")], "a frame of kind 7, which no client sends"),
        ([(K.CANCEL, 7, b"")], "about call 7, where 0 calls"),
        ([(K.ABORT, 1, b"")], "about call 1, where 0 calls"),
        ([(K.WATCH, 2**64 - 1, b"")], "about call 18446744073709551615"),
        ([call(3), call(3)], "call 3 after call 3: the numbers of calls must rise"),
        ([call(3), call(2)], "must rise"),
        ([call(0)], "must rise"),
        ([call(1, method=1)], "a call of method 1, where 1 have a name"),
        ([call(1, b"\xff", kind=HEADED)], "a call's head of 1 bytes that does not parse"),
        ([call(1, head([("UPPER", b"")]), kind=HEADED)], "metadata that gRPC does not allow"),
        ([call(1, head([("", b"")]), kind=HEADED)], "metadata that gRPC does not allow"),
        ([call(1, head([("x", b"two\nlines")]), kind=HEADED)], "metadata that gRPC does not allow"),
        ([call(1, head([("x", b"\xff")]), kind=HEADED)], "metadata that gRPC does not allow"),
        ([call(1), (K.ABORT, 1, b"\xff")], "an abort's head"),
        ([(K.PIECE, 1, b"x")], "a piece of no large frame"),
        ([(K.DROP, 1, b"")], "the end of no large frame"),
        ([start(1, MAX_PAYLOAD)], "a large frame of 65536 bytes"),
        ([start(1, MIB, K.METHOD)], "no large frame begins like this"),
        ([(K.START, 1 << 12, b"")], "no large frame begins like this"),
        ([start(1, MIB), (K.PIECE, 1, b"")], "a piece of 0 bytes"),
        ([start(1, MAX_PAYLOAD + 1), (K.PIECE, 1, bytes(MAX_PAYLOAD + 2))], "past the frame's end"),
        ([start(1, MIB), start(1, MIB)], "must rise"),
        ([(K.METHOD, 0, ECHO)], "a name for method 0"),
        ([(K.METHOD, 2, ECHO)], "a name for method 2"),
        ([(K.METHOD, 1, bytes(1025))], "a name of 1025 bytes"),
        ([(K.METHOD, 1, b"\xff")], "no UTF-8"),
        ([(K.METHOD, 1, b"/a/b\nERROR forged")], "cannot be printed"),
        ([(K.METHOD, number, b"/m") for number in range(1, MAX_METHODS + 1)], "a name for method 4096"),
    ],
)
async def test_frames_that_no_client_may_send(frames: list[Frame], told: str, caplog: pytest.LogCaptureFixture) -> None:
    async with scene(caplog) as it:
        raw = await it.named()
        await raw.say(*frames)
        code, text = await raw.end()
        assert code is BAD
        assert told in text
        while not it.servicer.arrived.empty():  # what was said before the mistake was done, and is cancelled
            assert it.servicer.arrived.get_nowait().test_cancel()


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (b"", "a stream begins with an Open"),
        (b"\xff\xff", "does not parse"),
        (bytes(MAX_BULK_BYTES + 1), "a batch of 1310721 bytes, where 1310720 are the most"),
        (open_request(b"short", resume=False, ack=0), "a session id of 32 bytes"),
        (open_request(bytes(33), resume=True, ack=0), "a session id of 32 bytes"),
        (open_request(b"a" * 32, resume=False, ack=1), "an acknowledgement of frames, where none was sent"),
        (
            open_request(b"b" * 32, resume=True, ack=0) + encode_request([call(1)], 0),
            "frames before the session was resumed",
        ),
        (open_request(b"c" * 32, resume=False, ack=0) + encode_request([call(1)], 0), "a call of method 0"),
        (
            open_request(b"d" * 32, resume=False, ack=0) + encode_request([(K.METHOD, 0, ECHO), call(1), call(1)], 0),
            "must rise",
        ),
    ],
)
async def test_a_first_message_that_no_client_may_send(
    message: bytes, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with scene(caplog) as it:
        raw = it.raw()
        await raw.write(message)
        code, text = await raw.end()
        assert code is BAD
        assert told in text


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (b"\xff\xff", "a message of 2 bytes that does not parse"),
        (bytes(MAX_BULK_BYTES + 1), "a batch of 1310721 bytes"),
        (open_request(new_session_id(), resume=False, ack=0), "an Open in the middle of a stream"),
        (session_pb2.SessionRequest(kinds=b"\x01").SerializeToString(), "columns are not equally long"),
        (
            session_pb2.SessionRequest(kinds=b"\x01", numbers=[1, 2], payloads=[b""]).SerializeToString(),
            "columns are not equally long",
        ),
        (encode_request((), 5), "an acknowledgement of 5 frames, where 0 to 0 are possible"),
        (encode_request((), 2**64 - 1), "an acknowledgement of 18446744073709551615 frames"),
    ],
)
async def test_a_message_that_no_client_may_send(message: bytes, told: str, caplog: pytest.LogCaptureFixture) -> None:
    async with scene(caplog) as it:
        raw = await it.named()
        await raw.write(message)
        code, text = await raw.end()
        assert code is BAD
        assert told in text


async def test_an_acknowledgement_that_is_taken_back(caplog: pytest.LogCaptureFixture) -> None:
    async with scene(caplog) as it:
        raw = await it.named()
        await raw.say(call(1))
        (await it.servicer.next()).complete(response(b"reply"))
        assert (await raw.hear())[0][0] == K.REPLY
        await raw.say(ack=1)
        await raw.say(ack=0)
        assert await raw.end() == (BAD, "an acknowledgement of 0 frames, where 1 to 1 are possible")


async def test_empty_batches_without_end(caplog: pytest.LogCaptureFixture) -> None:
    async with scene(caplog) as it:
        raw = await it.named()
        for _ in range(101):  # one more might meet a stream that has ended, of which gRPC says INTERNAL
            await raw.say()
        assert await raw.end() == (BAD, "more than 100 empty batches in a row")


async def test_a_stream_that_is_never_opened(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "OPEN_TIMEOUT", 0.05)
    async with scene(caplog) as it:
        raw = it.raw()
        await raw.stream.wait_for_connection()
        code, text = await raw.end()
        assert code is BAD
        assert "not opened within 0.05 seconds" in text


async def test_more_streams_than_there_may_be(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(caplog) as it:
        monkeypatch.setattr(sessions, "MAX_STREAMS", 2)
        await it.named()
        third = it.raw()
        await third.write(open_request(third.id, resume=False, ack=0))
        assert (await third.end())[0] is grpc.StatusCode.UNAVAILABLE
        monkeypatch.setattr(sessions, "MAX_STREAMS", 100)
        monkeypatch.setattr(sessions, "MAX_SESSIONS", 2)
        fourth = it.raw()
        await fourth.write(open_request(fourth.id, resume=False, ack=0))
        code, text = await fourth.end()
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "no more sessions" in text


# -- other people's sessions ----------------------------------------------------------------------------


async def test_a_session_that_was_invented(caplog: pytest.LogCaptureFixture) -> None:
    async with scene(caplog) as it:
        raw = it.raw()
        assert not (await raw.open(resume=True, ack=7)).found
        assert (await raw.end())[0] is grpc.StatusCode.OK
        assert len(it.server._sessions) == 1


async def test_a_new_session_with_the_id_of_another(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(caplog) as it:
        first = await it.named()
        second = it.raw(first.id)
        await second.write(open_request(second.id, resume=False, ack=0))
        assert await second.end() == (BAD, "a new session with the id of another")
        # The same for two ids with one tag, which cost an attacker 2**32 attempts.
        monkeypatch.setattr(CallIds, "__init__", _with_tag(CallIds(first.id).tag))
        third = it.raw()
        await third.write(open_request(third.id, resume=False, ack=0))
        assert await third.end() == (BAD, "a new session with the id of another")
        monkeypatch.undo()
        await first.say(call(1))
        (await it.servicer.next()).complete(response())
        await first.hear()


def _with_tag(tag: str) -> Callable[[Any, bytes], None]:
    def init(self: Any, session_id: bytes) -> None:
        self._key, self.tag = session_id, tag

    return init


@pytest.mark.parametrize("cut", [True, False])
async def test_a_session_is_resumed_with_an_acknowledgement_that_cannot_be(
    cut: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with scene(caplog) as it:
        first = await it.named()
        await first.say(call(1))
        server_call = await it.servicer.next()
        if cut:
            first.cut()
            await until(lambda: it.server._sessions._cut, "the cut is seen")
        second = it.raw(first.id)
        await second.write(open_request(second.id, resume=True, ack=1))
        assert await second.end() == (BAD, "an acknowledgement of 1 frames, where 0 to 0 are possible")
        if not cut:
            assert (await first.end())[0] is BAD
        assert server_call.cancel_reason is rpc_async.CancelReason.CLIENT_DISCONNECTED
        assert len(it.server._sessions) == 1


async def test_a_resumed_session_leaves_its_old_stream_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    async with scene(caplog) as it:
        first = await it.named()
        await first.say(call(1))
        server_call = await it.servicer.next()
        second = it.raw(first.id)
        assert (await second.open(resume=True)).found
        code, text = await first.end()
        assert code is grpc.StatusCode.ABORTED
        assert "resumed on another stream" in text
        server_call.complete(response(b"there"))
        assert [frame[:2] for frame in await second.hear()] == [(K.REPLY, 1)]


def _make_certificates(folder: Path) -> None:
    def openssl(*args: str) -> None:
        subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *curve, "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
    for name in ("localhost", "alice", "mallory"):
        openssl("req", *curve, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (folder / "names").write_text(f"subjectAltName=DNS:{name}")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-extfile", "names", "-out", f"{name}.pem")  # fmt: skip


async def test_somebody_elses_session_cannot_be_resumed_though_its_id_is_known(tmp_path: Path) -> None:
    await asyncio.to_thread(_make_certificates, tmp_path)

    def read(name: str) -> bytes:
        return (tmp_path / name).read_bytes()

    servicer = Parked()
    server = rpc_async.server()
    demo_pb2_grpc.add_DemoServicer_to_server(servicer, server)
    pair = (read("localhost.key"), read("localhost.pem"))
    port = server.add_secure_port(
        "127.0.0.1:0", grpc.ssl_server_credentials([pair], read("ca.pem"), require_client_auth=True)
    )
    insecure = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    options = [("grpc.ssl_target_name_override", "localhost")]

    def connect(name: str) -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(read("ca.pem"), read(f"{name}.key"), read(f"{name}.pem"))
        return grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options)

    try:
        async with (
            connect("alice") as alice,
            connect("mallory") as mallory,
            grpc.aio.insecure_channel(f"127.0.0.1:{insecure}") as nobody,
        ):
            own = await Raw(alice).name()
            await own.say(call(1))
            server_call = await servicer.next()
            assert [bytes(one) for one in server_call.peer_identities() or ()] == [b"alice"]
            for stranger in (mallory, nobody):
                thief = Raw(stranger, own.id)
                assert not (await thief.open(resume=True)).found
                assert (await thief.end())[0] is grpc.StatusCode.OK
            assert not own.stream.done()
            own.cut()
            await until(lambda: server._sessions._cut, "the cut is seen")
            assert not (await Raw(mallory, own.id).open(resume=True)).found
            server_call.complete(response(b"for alice"))
            again = Raw(alice, own.id)
            assert (await again.open(resume=True)).found
            assert demo_pb2.EchoResponse.FromString((await again.hear())[0][2]).payload == b"for alice"
            again.cut()
    finally:
        await server.stop(None)


# -- large requests -------------------------------------------------------------------------------------


async def test_a_request_of_a_huge_size_takes_no_memory(caplog: pytest.LogCaptureFixture) -> None:
    async with scene(caplog) as it:
        raw = await it.named()
        await raw.say(start(1, 2**64 - 1))
        ((kind, number, payload),) = await raw.hear()
        assert (kind, number) == (K.FAULT, 1)
        assert read_fault_head(payload)[0].status == RpcStatus.OUT_OF_MEMORY
        for _ in range(30):
            await raw.say(*[(int(K.PIECE), 1, bytes(MAX_PAYLOAD))] * 4)
        await raw.say(call(2))
        (await it.servicer.next()).complete(response(b"all the same"))
        assert (await raw.hear())[0][:2] == (K.REPLY, 2)
        assert it.server._sessions.held < MIB


async def test_more_large_requests_than_there_may_be(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_TRANSFERS == 16_384
    async with scene(caplog) as it:
        raw = await it.named()
        for first in range(1, MAX_TRANSFERS + 2, 4096):
            last = min(first + 4096, MAX_TRANSFERS + 2)
            await raw.say(*(start(number, MIB) for number in range(first, last)))
        assert await raw.end() == (BAD, "more than 16384 large frames at once")


@pytest.mark.parametrize("size", [2, MAX_PAYLOAD])
async def test_pieces_that_never_end_have_so_much_room_and_no_more(size: int, caplog: pytest.LogCaptureFixture) -> None:
    limit = MIB
    room = 4 * (limit + HEAD_ROOM)
    async with scene(caplog, options=[("grpc.max_receive_message_length", limit)]) as it:
        raw = await it.named()
        await raw.say(*(start(number, limit) for number in range(1, 100)))
        count = min(250 * 1024 // (size + 8), 20_000)
        while not raw.stream.done():
            for number in range(1, 100):
                await raw.say(*[(int(K.PIECE), number, bytes(size))] * min(count, limit // size // 2))
                assert it.server._sessions.held <= room + 2 * MIB
        assert (await raw.end())[0] is not grpc.StatusCode.OK  # grpc.aio's client has its own word if it was writing
        assert f"unfinished large frames take more than {room} bytes" in caplog.text


async def test_metadata_that_is_too_large_fails_its_call_only(caplog: pytest.LogCaptureFixture) -> None:
    async with scene(caplog) as it:
        raw = await it.named()
        pairs = [(f"x-{number}", "v" * 3000) for number in range(100)]
        await raw.say(call(1, call_head(b"", None, pairs), kind=HEADED))
        ((kind, _, payload),) = await raw.hear()
        assert kind == K.FAULT
        failure = read_fault_head(payload)[0]
        assert failure.status == RpcStatus.OUT_OF_MEMORY
        assert failure.executed is False
        await raw.say(call(2, call_head(b"", None, pairs[:50]), kind=HEADED))
        given = (await it.servicer.next()).invocation_metadata()
        assert len([pair for pair in given if pair[0].startswith("x-")]) == 50


async def test_a_batch_that_is_compressed_small_and_is_large(caplog: pytest.LogCaptureFixture) -> None:
    quiet = "asyncio", "grpc._cython.cygrpc"  # gRPC ends the stream itself, and then fails to tell the client so
    async with scene(caplog, quiet) as it:
        async with grpc.aio.insecure_channel(it.target, compression=grpc.Compression.Gzip) as gzip:
            raw = Raw(gzip)
            it.raws.append(raw)
            await raw.name()
            await raw.write(bytes(60 * MIB))  # less than gRPC's own limit, and 60 kB on the wire
            code, text = await raw.end()
            assert code is BAD
            assert "a batch of 62914560 bytes" in text
            bomb = Raw(gzip)
            it.raws.append(bomb)
            await bomb.name()
            await bomb.write(bytes(65 * MIB))
            assert (await bomb.end())[0] is not grpc.StatusCode.OK


# -- calls ----------------------------------------------------------------------------------------------


async def test_a_call_is_watched_as_often_as_one_likes_at_no_cost(caplog: pytest.LogCaptureFixture) -> None:
    async with scene(caplog) as it:
        raw = await it.named()
        await raw.say(call(1))
        server_call = await it.servicer.next()
        for _ in range(3):
            await raw.say(*[(int(K.WATCH), 1, b"")] * 1000)
        await raw.say((K.CANCEL, 1, b""))
        assert [frame[0] for frame in await raw.hear()] == [K.CANCEL_NOTE]
        assert server_call._record.watchers == 1
        server_call.progress(0.5)
        assert [frame[0] for frame in await raw.hear()] == [K.PROGRESS]


async def test_progress_that_is_not_acknowledged_does_not_heap_up(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(caplog) as it:
        raw = await it.named()
        await raw.say(call(1), (K.WATCH, 1, b""))
        server_call = await it.servicer.next()
        for number in range(1000):
            server_call.progress(number / 1000, "x" * 50_000)
            await asyncio.sleep(0)
            if number % 10 == 0:
                raw.heard.clear()
        assert it.server._sessions.held < 6 * MIB
        server_call.progress(1.0)


async def test_S16_calls_that_no_manager_serves_have_a_bound_too(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_handler, "MAX_CALLS", 3)
    go_on = asyncio.Event()

    class Ordinary(Servicer):
        async def Echo(self, request: demo_pb2.EchoRequest, context: Any) -> demo_pb2.EchoResponse:
            await go_on.wait()
            return response()

    async with serve(Ordinary()) as (_, target), grpc.aio.insecure_channel(target) as plain:
        raw = await Raw(plain).name()
        await raw.say(*(call(number) for number in range(1, 5)))
        ((kind, number, payload),) = await raw.hear()
        assert (kind, number) == (K.FAULT, 4)
        assert read_fault_head(payload)[0].status == RpcStatus.SERVER_TOO_BUSY
        go_on.set()
        assert {frame[0] for frame in await raw.hear(3)} == {K.REPLY}
        raw.cut()


async def test_an_abort_that_does_not_parse_leaves_no_call_behind(caplog: pytest.LogCaptureFixture) -> None:
    async with scene(caplog) as it:
        raw = await it.named()
        await raw.say(call(1))
        server_call = await it.servicer.next()
        await raw.say((K.ABORT, 1, b"\xff"))
        assert (await raw.end())[0] is BAD
        assert server_call.test_cancel()


# -- memory ---------------------------------------------------------------------------------------------


async def test_a_client_that_never_sends_again_has_a_bound_for_what_it_does_not_read(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_limits, "OVERFULL", 8 * MIB)
    async with scene(caplog) as it:
        raw = await it.named()
        await raw.say(*(call(number) for number in range(1, 101)))
        calls = [await it.servicer.next() for _ in range(100)]
        verdicts = [one.complete(response(bytes(MIB))) for one in calls]
        assert verdicts.count(RpcStatus.OK) in range(8, 20)
        assert verdicts.count(RpcStatus.CALL_CANCELLED) == 100 - verdicts.count(RpcStatus.OK)
        assert (await raw.end())[0] is not grpc.StatusCode.OK


@pytest.mark.parametrize("streaming", [True, False])
async def test_all_sessions_together_have_a_bound_and_the_largest_give_way(
    streaming: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MAX_HELD", 32 * MIB)
    async with scene(caplog, linger=100.0) as it:
        held = []
        for megabytes in (1, 2, *[5] * 20):
            raw = await it.named()
            await raw.say(call(1))
            server_call = await it.servicer.next()
            if not streaming:
                raw.cut()
                await until(lambda: it.server._sessions._cut, "the cut is seen")
            server_call.complete(response(bytes(megabytes * MIB)))
            held.append(it.server._sessions.held)
        assert 20 * MIB < max(held) <= 37 * MIB
        keys = it.server._sessions._sessions
        assert all(session_key(raw.id) in keys for raw in it.raws[:2])  # those that hold little
        assert 4 <= len(keys) <= 10


async def test_unfinished_requests_give_way_first_and_their_clients_are_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MAX_HELD", 16 * MIB)
    async with scene(caplog) as it:
        raws = []
        for _ in range(3):
            raw = await it.named()
            raws.append(raw)
            await raw.say(start(1, 8 * MIB))
            for _ in range(27):
                await raw.say(*[(int(K.PIECE), 1, bytes(MAX_PAYLOAD))] * 4)
        busy = [raw for raw in raws if len(it.server._sessions) == 4 and await _is_refused(raw)]
        assert busy
        assert it.server._sessions.held <= 16 * MIB
        for raw in busy:
            await raw.say(*[(int(K.PIECE), 1, bytes(MAX_PAYLOAD))] * 4)  # they were on their way
            await raw.say(call(2))
            (await it.servicer.next()).complete(response())
            assert (await raw.hear())[0][:2] == (K.REPLY, 2)


async def _is_refused(raw: Raw) -> bool:
    try:
        ((kind, number, payload),) = await asyncio.wait_for(raw.hear(), 0.5)
    except TimeoutError:
        return False
    assert (kind, number) == (K.FAULT, 1)
    assert read_fault_head(payload)[0].status == RpcStatus.SERVER_TOO_BUSY
    return True


async def test_sessions_that_are_cut_have_a_bound_and_the_oldest_goes_first(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MAX_CUT", 3)
    async with scene(caplog) as it:
        for _ in range(5):
            raw = it.raw()
            await raw.open()
            raw.cut()
            await until(lambda: it.server._sessions._streams == 1, "the cut is seen")
        there = [session_key(raw.id) in it.server._sessions._sessions for raw in it.raws]
        assert there == [False, False, True, True, True]


def test_sessions_that_are_opened_and_dropped_leave_nothing_behind() -> None:
    command = [sys.executable, "-m", "tests.churn", "--sessions", "3000", "--linger", "0.5"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert "0 sessions, 0 tags, 0 timers, 0 streams, 0 bytes held" in result.stdout


# -- cuts at bad moments --------------------------------------------------------------------------------


async def test_C14_what_was_not_heard_when_a_stream_was_cut_comes_again(caplog: pytest.LogCaptureFixture) -> None:
    async with scene(caplog) as it:
        first = await it.named()
        service = it.server._sessions
        machine = service._sessions[session_key(first.id)].machine
        count = 2000
        frames = [call(number) for number in range(1, count + 1)]
        await first.say(*frames)
        await until(lambda: machine.link.received > 1, "some of it is heard")
        second = it.raw(first.id)
        await second.write(open_request(second.id, resume=True, ack=0))
        received = second.ack = await _received(second)
        assert received == machine.link.received == 1 + machine.begun
        second.ack = 0
        await second.say(*frames[received - 1 :])
        arrived = [await it.servicer.next() for _ in range(count)]
        assert len({one.call_id for one in arrived}) == count
        assert machine.begun == count


async def _received(raw: Raw) -> int:
    opened, ack, frames = read_response(await raw._read())
    assert opened is not None
    assert opened.found
    assert not frames
    return ack


@pytest.mark.parametrize("resume", [True, False])
async def test_nothing_is_said_before_the_answer_to_an_open(resume: bool) -> None:
    class Quick(Servicer):
        @rpc_async.manager
        async def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
            call.complete(response(request.payload))

    async with serve(Quick()) as (_, target), grpc.aio.insecure_channel(target) as plain:
        for _ in range(20):
            raw = Raw(plain)
            frames = [(int(K.METHOD), 0, ECHO), *(call(number) for number in range(1, 51))]
            if resume:
                await raw.open()
                await raw.say(*frames)
                raw = Raw(plain, raw.id)
                await raw.open(resume=True)
            else:
                opening = open_request(raw.id, resume=False, ack=0)
                await raw.write(opening + encode_request(frames, 0))
                assert await _received(raw) == 51
            got = await raw.hear(50)
            assert {number for kind, number, _ in got if kind == K.REPLY} == set(range(1, 51))
            raw.cut()
