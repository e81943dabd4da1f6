"""The session wire, server's side: many calls on one stream, which outlive it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any, Final, NamedTuple, Protocol

import grpc
import grpc.aio

from rpc_async.core.frames import FrameKind, ProtocolError
from rpc_async.core.outcome import Fault, fault
from rpc_async.core.server_session import ServerSession
from rpc_async.errors import BadStubData, PayloadTooLarge
from rpc_async.pump import Pump
from rpc_async.serving.codec import Codec
from rpc_async.serving.dispatcher import Dispatcher, Routine
from rpc_async.serving.manager import RoutineKind
from rpc_async.serving.record import CallRecord
from rpc_async.serving.session_call import SessionCall
from rpc_async.status import CancelReason, RpcStatus
from rpc_async.wire.session import (
    SESSION_ID_SIZE,
    BothMetadata,
    CallIds,
    Opened,
    cancel_note,
    encode_response,
    fault_head,
    opened_response,
    progress_payload,
    read_abort_head,
    read_call_head,
    read_request,
)

__all__ = ["ManagerMethod", "ServedCall", "ServedSession", "SessionService"]

_LOGGER: Final = logging.getLogger("rpc_async.serving")

MAX_SESSIONS: Final = 65_536
"""Sessions that have a stream."""
MAX_CUT: Final = 4096
"""Sessions that wait for their client to come back. The oldest goes first."""
CHUNK: Final = 64
"""Frames that are heard before the writer gets its turn: so the client has work while the rest is heard."""
FULL: Final = 256 * 1024 * 1024
"""Bytes of outcomes that wait to be sent: while there are more, that client's new calls are refused. Reading
must go on: what the client reads, it acknowledges in what it sends."""
OVERFULL: Final = FULL + 64 * 1024 * 1024
"""Bytes: a client that goes on sending, and does not read, loses its session."""

_CALL, _CALL_WITH_HEAD = int(FrameKind.CALL), int(FrameKind.CALL_WITH_HEAD)
_CANCEL, _ABORT, _START = int(FrameKind.CANCEL), int(FrameKind.ABORT), int(FrameKind.START)
_FAULT, _NOTE, _PROGRESS = int(FrameKind.FAULT), int(FrameKind.CANCEL_NOTE), int(FrameKind.PROGRESS)

Context = grpc.aio.ServicerContext[Any, Any]


class ManagerMethod(NamedTuple):
    """A method that a manager routine serves."""

    codec: Codec
    kind: RoutineKind
    routine: Routine


class ServedCall(Protocol):
    """A call of a session, whoever serves it."""

    def ask(self) -> RpcStatus:
        """The client asked it to stop. Returns what to tell the client."""
        ...

    def orphan(self, reason: CancelReason) -> None:
        """Nobody waits for it any more."""

    def watch(self) -> None:
        """The client wants progress reports."""


class Identity(NamedTuple):
    """Who a stream comes from."""

    peer: str
    identities: tuple[bytes, ...] | None
    identity_key: str | None
    auth_context: dict[str, Iterable[bytes]]


class SessionService:
    """All sessions of one server."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        *,
        linger: float,
        max_payload: int,
        manager_method: Callable[[str], ManagerMethod | None],
        serve_otherwise: Callable[[ServedSession, int, str, bytes, bool], ServedCall],
    ) -> None:
        """Make it.

        Args:
            dispatcher: What all wires of the server share.
            linger: Seconds that a session is kept after a cut.
            max_payload: Bytes: the largest request.
            manager_method: Finds the manager routine of a method, if one serves it and nothing stands before it.
            serve_otherwise: Starts a call of any other method: of a session, with a number, a method, a payload
                that is a request or, if the last argument says so, a `CallHead`.
        """
        self.dispatcher: Final = dispatcher
        self.linger: Final = linger
        self.max_payload: Final = max_payload
        self.manager_method: Final = manager_method
        self.serve_otherwise: Final = serve_otherwise
        self._sessions: dict[bytes, ServedSession] = {}
        self._tags: dict[str, ServedSession] = {}
        self._cut: OrderedDict[bytes, asyncio.TimerHandle] = OrderedDict()
        dispatcher.table.sources.append(self)

    def __len__(self) -> int:
        return len(self._sessions)

    # -- streams ----------------------------------------------------------------------------------------

    async def serve(self, _: Any, context: Context) -> None:
        """Serve one stream: the behaviour of the method `Session`."""
        try:
            session, stream = await self._open(context)
        except ProtocolError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        if session is None or stream is None:
            return
        try:
            await session.read(stream)
        except ProtocolError as error:
            _LOGGER.warning("a session with %s is ended: %s", session.identity.peer, error)
            self.end(session)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except asyncio.CancelledError:
            if stream.replaced:
                await context.abort(grpc.StatusCode.ABORTED, "the session was resumed on another stream")
            raise
        finally:
            self._ended(session, stream)

    async def _open(self, context: Context) -> tuple[ServedSession | None, _Stream | None]:
        data = await context.read()
        if not isinstance(data, bytes):
            return None, None
        opening, ack, frames = read_request(data)
        if opening is None or len(opening[0]) != SESSION_ID_SIZE:
            raise ProtocolError(f"a stream begins with an Open that has a session id of {SESSION_ID_SIZE} bytes")
        session_id, resume = opening
        identity = _identity(context)
        key = _key(session_id)
        session = self._sessions.get(key)
        if resume:
            if frames:
                raise ProtocolError("frames before the session was resumed")
            if session is None or session.identity.identities != identity.identities:
                # Somebody else's session is answered as one that is not there.
                await context.write(opened_response(self.opened(found=False), 0))
                return None, None
            session.machine.resumed(ack)
        else:
            if ack:
                raise ProtocolError("an acknowledgement of frames, where none was sent")
            if session is not None:
                if session.machine.link.received or session.identity.identities != identity.identities:
                    raise ProtocolError("a new session with the id of another")
                session.machine.resumed(0)  # the answer to its first Open was lost
            elif self.dispatcher.draining or len(self._sessions) - len(self._cut) >= MAX_SESSIONS:
                await context.abort(
                    grpc.StatusCode.UNAVAILABLE, "the server takes no more sessions: nothing was executed"
                )
            else:
                session = self._sessions[key] = ServedSession(self, session_id, identity)
                self._tags[session.ids.tag] = session
        timer = self._cut.pop(key, None)
        if timer is not None:
            timer.cancel()
        session.identity = identity
        stream = session.attach(context)
        if not resume:
            session.hear_batch(len(data), frames)
        return session, stream

    def opened(self, *, found: bool) -> Opened:
        return Opened(found, self.linger, self.max_payload)

    def _ended(self, session: ServedSession, stream: _Stream) -> None:
        stream.pump.stop()
        if session.stream is not stream:
            return
        session.stream = None
        key = session.key
        if session.machine.closed or key not in self._sessions:
            self.end(session)
            return
        loop = self.dispatcher.loop
        session.machine.cut(loop.time())
        self._cut[key] = loop.call_later(self.linger, self.end, session)
        if len(self._cut) > MAX_CUT:
            self.end(self._sessions[next(iter(self._cut))])

    def end(self, session: ServedSession) -> None:
        """Forget a session. Calls that it still has are cancelled: their client is gone."""
        if self._sessions.pop(session.key, None) is not None:
            del self._tags[session.ids.tag]
            timer = self._cut.pop(session.key, None)
            if timer is not None:
                timer.cancel()
            reason = CancelReason.CLIENT_ABORTED if session.machine.closed else CancelReason.CLIENT_DISCONNECTED
            session.abandon(reason)

    # -- what others ask --------------------------------------------------------------------------------

    def find(self, call_id: str) -> CallRecord | None:
        """Return the running call with this id, if it is a session's."""
        session = self._tags.get(CallIds.tag_of(call_id) or "")
        number = None if session is None else session.ids.number(call_id)
        call = None if session is None or number is None else session.machine.calls.get(number)
        return call if isinstance(call, SessionCall) else None

    def running(self) -> list[CallRecord]:
        """Return the running calls of all sessions."""
        sessions = tuple(self._sessions.values())
        calls = (call for session in sessions for call in tuple(session.machine.calls.values()))
        return [call for call in calls if isinstance(call, SessionCall)]

    async def close(self, timeout: float) -> None:
        """Send what there is to send, at most `timeout` seconds, and end all sessions."""
        sessions = [session for session in self._sessions.values() if session.stream is not None]
        for session in sessions:
            session.machine.close()
            session.wake()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                for session in sessions:
                    await session.sent()
        for session in tuple(self._sessions.values()):
            self.end(session)
        for session in sessions:
            if session.stream is not None:
                session.stream.task.cancel()


class _Stream:
    """A stream that a session has at present."""

    __slots__ = ("context", "pump", "replaced", "task")

    def __init__(self, context: Context, task: asyncio.Task[Any]) -> None:
        self.context: Final = context
        self.task: Final = task
        self.pump: Pump
        self.replaced: bool = False


class ServedSession:
    """One session: holds its machine, reads and writes its streams, and starts its calls."""

    __slots__ = (
        "_hearing",
        "_progress",
        "_sent",
        "_service",
        "identity",
        "ids",
        "key",
        "loop",
        "machine",
        "stream",
    )  # fmt: skip

    def __init__(self, service: SessionService, session_id: bytes, identity: Identity) -> None:
        self.ids: Final = CallIds(session_id)
        self.key: Final = _key(session_id)
        self.machine: Final[ServerSession[ServedCall]] = ServerSession(max_payload=service.max_payload)
        self.identity: Identity = identity
        self.stream: _Stream | None = None
        self.loop: Final = service.dispatcher.loop
        self._service = service
        self._hearing = False
        self._progress: dict[int, SessionCall] = {}
        self._sent: asyncio.Event | None = None

    # -- streams ----------------------------------------------------------------------------------------

    def attach(self, context: Context) -> _Stream:
        """Go on with a new stream."""
        if self.stream is not None:
            self.stream.replaced = True
            self.stream.pump.stop()
            self.stream.task.cancel()
        task = asyncio.current_task()
        assert task is not None
        stream = _Stream(context, task)
        self.stream = stream
        stream.pump = Pump(self.loop, context.write, self._next_batch)
        return stream

    async def read(self, stream: _Stream) -> None:
        """Read the stream to its end."""
        context, link, pump = stream.context, self.machine.link, stream.pump
        await context.write(opened_response(self._service.opened(found=True), link.ack()))
        pump.flush()
        while not self.machine.closed:
            data = await context.read()
            if not isinstance(data, bytes):
                return
            opening, ack, frames = read_request(data)
            if opening is not None:
                raise ProtocolError("an Open in the middle of a stream")
            link.arrived(len(frames), len(data), ack)
            for begin in range(0, len(frames), CHUNK):
                if begin:
                    await asyncio.sleep(0)
                self._hear_all(frames[begin : begin + CHUNK])
                pump.flush()
            if link.backlog > OVERFULL:
                raise ProtocolError("the client does not read what it is sent")

    def hear_batch(self, size: int, frames: list[tuple[int, int, bytes]]) -> None:
        """Hear what came with the Open of a new session."""
        self.machine.link.arrived(len(frames), size, 0)
        self._hear_all(frames)

    def _next_batch(self) -> bytes | None:
        link = self.machine.link
        if self._progress:
            self._push_progress()
        if not link.wants_to_send:
            if self._sent is not None and link.queued_bytes == 0:
                self._sent.set()
            return None
        frames = link.take()
        return encode_response(frames, link.ack())

    def wake(self) -> None:
        """There is something to send."""
        if self.stream is None or self._hearing:
            return
        if self.machine.calls:
            self.stream.pump.flush_soon()
        else:
            self.stream.pump.flush()  # the outcome of a lone call need not wait for company

    async def sent(self) -> None:
        """Wait until everything was sent."""
        self._sent = asyncio.Event()
        self.wake()
        await self._sent.wait()
        self._sent = None

    # -- what the client says ---------------------------------------------------------------------------

    def _hear_all(self, frames: list[tuple[int, int, bytes]]) -> None:
        self._hearing = True  # what is said meanwhile goes out together
        try:
            for kind, number, payload, method in self.machine.receive(frames):
                if kind == _CALL:
                    self._call(number, method, payload)
                elif kind == _CALL_WITH_HEAD:
                    self._call(number, method, payload, with_head=True)
                else:
                    self._about(kind, number, payload)
        finally:
            self._hearing = False

    def _call(self, number: int, method: str, payload: bytes, *, with_head: bool = False) -> None:
        service = self._service
        dispatcher = service.dispatcher
        target = service.manager_method(method)
        if target is None:
            self.machine.calls[number] = service.serve_otherwise(self, number, method, payload, with_head)
            return
        refusal = dispatcher.refusal() or self._refusal()
        if refusal is not None:
            self.refuse(number, refusal)
            return
        timeout: float | None = None
        metadata: tuple[tuple[str, str | bytes], ...] = ()
        if with_head:
            payload, timeout, metadata = read_call_head(payload)
        codec = target.codec
        try:
            if len(payload) > service.max_payload:
                raise PayloadTooLarge(self._too_large())
            request = codec.decode(payload)
        except PayloadTooLarge as error:
            self.refuse(number, fault(RpcStatus.OUT_OF_MEMORY, str(error), executed=False))
            return
        except BadStubData as error:
            self.refuse(number, fault(RpcStatus.BAD_STUB_DATA, str(error), executed=False))
            return
        call = SessionCall(self, number, codec, dispatcher, metadata)
        self.machine.calls[number] = call
        dispatcher.running += 1
        if timeout is not None:
            call.expire_in(timeout, self.loop)
        if dispatcher.table.expects:
            dispatcher.table.meet(call, self.loop)
        dispatcher.start(call, target.kind, target.routine, request)

    def _about(self, kind: int, number: int, payload: bytes) -> None:
        if kind == _ABORT:
            call = self.machine.release(number)
            if call is not None:
                call.orphan(read_abort_head(payload))
            return
        if kind == _START:
            text = (
                f"the request is larger than the {self._service.max_payload} bytes that the server takes: not executed"
            )
            self.refuse(number, fault(RpcStatus.OUT_OF_MEMORY, text, executed=False))
            return
        call = self.machine.calls.get(number)
        if kind == _CANCEL:
            status = RpcStatus.NO_CALL_ACTIVE if call is None else call.ask()
            self.machine.link.push(_NOTE, number, cancel_note(status))
            self.wake()
        elif call is not None:
            call.watch()

    def _refusal(self) -> Fault | None:
        if self.machine.link.backlog <= FULL:
            return None
        text = (
            "the outcomes that this client has not read yet take all the room they may: not executed; read them first"
        )
        return fault(RpcStatus.SERVER_TOO_BUSY, text)

    def _too_large(self) -> str:
        return f"the request is over the {self._service.max_payload} bytes that the server takes: not executed"

    # -- what the server says ---------------------------------------------------------------------------

    def end(self, number: int, kind: int, payload: bytes) -> None:
        """Send a call's outcome, unless nobody waits for it any more."""
        if self.machine.end(number, kind, payload) and not self._hearing:
            self.wake()

    def refuse(self, number: int, failure: Fault) -> None:
        """Send the outcome of a call that was not taken."""
        self.machine.refuse(number, _FAULT, fault_head(failure, BothMetadata()))
        self.wake()

    def progressed(self, call: SessionCall) -> None:
        """A call that is watched has a new report. The latest wins."""
        self._progress[call.number] = call
        self.wake()

    def _push_progress(self) -> None:
        for number, call in self._progress.items():
            report = call.last_progress
            if number in self.machine.calls and report is not None:
                self.machine.link.push(_PROGRESS, number, progress_payload(report))
        self._progress.clear()

    def adopt(self, call: SessionCall) -> None:
        """Have a call found by its id though its number is forgotten."""
        self._service.dispatcher.table.list(call)

    def abandon(self, reason: CancelReason) -> None:
        """The session is over: cancel what it still runs."""
        calls = tuple(self.machine.calls.values())
        self.machine.calls.clear()
        for call in calls:
            call.orphan(reason)


def _key(session_id: bytes) -> bytes:
    """Return what a session is found by: not the secret itself, which a look-up might give away by its time."""
    return blake2b(session_id, digest_size=32, person=b"rpc_async table").digest()


def _identity(context: Context) -> Identity:
    identities = context.peer_identities()
    return Identity(
        context.peer(),
        None if identities is None else tuple(identities),
        context.peer_identity_key(),
        dict(context.auth_context()),
    )
