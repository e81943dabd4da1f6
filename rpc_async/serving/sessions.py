"""The sessions of one server: which there are, which streams they have, and which of them must go.

Nothing here is asked for by anybody who is known: whoever can connect can open a session. So all of it has a bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import grpc
import grpc.aio

from rpc_async.core.frames import Frame, ProtocolError
from rpc_async.core.ledger import Ledger
from rpc_async.serving import session as limits
from rpc_async.serving.dispatcher import Dispatcher
from rpc_async.serving.record import CallRecord
from rpc_async.serving.session import (
    Context,
    Identity,
    ManagerMethod,
    ServedSession,
    ServeOtherwise,
    Stream,
    read_message,
    session_key,
)
from rpc_async.serving.session_call import SessionCall
from rpc_async.status import CancelReason
from rpc_async.wire.session import SESSION_ID_SIZE, CallIds, Opened, opened_response, read_request

__all__ = ["SessionService"]

_LOGGER: Final = logging.getLogger("rpc_async.serving")

MAX_SESSIONS: Final = 65_536
"""Sessions that have a stream."""
MAX_STREAMS: Final = MAX_SESSIONS + 4096
"""Streams, with those that have no session yet, and those that are ended and whose client has not noticed yet."""
MAX_CUT: Final = 16_384
"""Sessions that wait for their client to come back. The oldest goes first."""
MAX_HELD: Final = 1024 * 1024 * 1024
"""Bytes that all sessions together may hold: outcomes that wait to be sent or to be acknowledged, and large requests
that have not arrived whole. Where it is more, the sessions that hold the most give way."""
OPEN_TIMEOUT: Final = 20.0
"""Seconds that a stream has to say which session it is for."""

_UNFORESEEN: Final = "the session failed in an unforeseen way"
_NO_MORE: Final = "the server takes no more sessions: nothing was executed"


class _Opening(NamedTuple):
    """A stream that has said which session it is for."""

    session: ServedSession
    stream: Stream
    size: int
    frames: list[Frame]
    ack: int


class SessionService:
    """All sessions of one server."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        *,
        linger: float,
        max_payload: int,
        max_batch: int,
        manager_method: Callable[[str], ManagerMethod | None],
        serve_otherwise: ServeOtherwise,
    ) -> None:
        """Make it.

        Args:
            dispatcher: What all wires of the server share.
            linger: Seconds that a session is kept after a cut.
            max_payload: Bytes: the largest request.
            max_batch: Bytes: the largest message of a stream that this side sends and takes.
            manager_method: Finds the manager routine of a method, if one serves it and nothing stands before it.
            serve_otherwise: Starts a call of any other method.
        """
        self.dispatcher: Final = dispatcher
        self.linger: Final = linger
        self.max_payload: Final = max_payload
        self.max_batch: Final = max_batch
        self.manager_method: Final = manager_method
        self.serve_otherwise: Final = serve_otherwise
        self._sessions: dict[bytes, ServedSession] = {}
        self._tags: dict[str, ServedSession] = {}
        self._cut: OrderedDict[bytes, asyncio.TimerHandle] = OrderedDict()
        self._streams = 0
        self._ledger: Ledger[ServedSession] = Ledger(MAX_HELD)
        dispatcher.table.sources.append(self)

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def held(self) -> int:
        """Bytes that all sessions together held when they were last weighed."""
        return self._ledger.total

    # -- streams ----------------------------------------------------------------------------------------

    async def serve(self, _: Any, context: Context) -> None:
        """Serve one stream: the behaviour of the method `Session`."""
        if self._streams >= MAX_STREAMS:
            await context.abort(grpc.StatusCode.UNAVAILABLE, _NO_MORE)
        self._streams += 1
        try:
            await self._serve(context)
        except ProtocolError as error:
            await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        finally:
            self._streams -= 1

    async def _serve(self, context: Context) -> None:
        opening = await self._open(context)
        if opening is None:
            return
        session, stream = opening.session, opening.stream
        try:
            await session.read(stream, opening.size, opening.frames, opening.ack)
        except ProtocolError as error:
            _LOGGER.warning("a session with %s is ended: %s", session.identity.peer, error)
            self.end(session)
            raise
        except Exception as error:
            self._fail(session, error)
            await _abort(context, grpc.StatusCode.INTERNAL, _UNFORESEEN)
        except asyncio.CancelledError:
            if stream.verdict is not None:
                await _abort(context, *stream.verdict)
            raise
        finally:
            self._ended(session, stream)

    def failed(self, session: ServedSession, stream: Stream, error: Exception) -> None:
        """What writes to a stream has failed, as it never should: nobody would write to it any more."""
        self._fail(session, error)
        stream.end(grpc.StatusCode.INTERNAL, _UNFORESEEN)

    def _fail(self, session: ServedSession, error: Exception) -> None:
        """End a session that cannot go on, since frames may be lost."""
        peer = session.identity.peer
        _LOGGER.error("a session with %s failed in an unforeseen way, and is ended", peer, exc_info=error)
        self.end(session)

    async def _open(self, context: Context) -> _Opening | None:
        data = await self._first_message(context)
        if not isinstance(data, bytes):
            return None
        opening, ack, frames = read_request(data)
        if opening is None or len(opening.session_id) != SESSION_ID_SIZE:
            raise ProtocolError(f"a stream begins with an Open that has a session id of {SESSION_ID_SIZE} bytes")
        session_id, resume, max_batch = opening
        identity = _identity(context)
        session = self._sessions.get(session_key(session_id))
        if resume:
            if frames:
                raise ProtocolError("frames before the session was resumed")
            if session is None or not session.identity.is_that_of(identity):
                # Somebody else's session is answered as one that is not there.
                await context.write(opened_response(self.opened(found=False), 0))
                return None
            try:
                session.machine.resumed(ack)
            except ProtocolError as error:
                self._end_both(session, grpc.StatusCode.INVALID_ARGUMENT, str(error))
                raise
        else:
            if ack:
                raise ProtocolError("an acknowledgement of frames, where none was sent")
            if session is None:
                session = await self._new(context, session_id, identity)
            elif session.machine.link.received or not session.identity.is_that_of(identity):
                raise ProtocolError("a new session with the id of another")
            else:
                session.machine.resumed(0)  # the answer to its first Open was lost
        timer = self._cut.pop(session.key, None)
        if timer is not None:
            timer.cancel()
        session.identity = identity
        session.machine.link.allow(min(max_batch, self.max_batch))
        return _Opening(session, session.attach(context), len(data), frames, ack)

    async def _new(self, context: Context, session_id: bytes, identity: Identity) -> ServedSession:
        if CallIds(session_id).tag in self._tags:
            raise ProtocolError("a new session with the id of another")
        if self.dispatcher.draining or len(self._sessions) - len(self._cut) >= MAX_SESSIONS:
            await context.abort(grpc.StatusCode.UNAVAILABLE, _NO_MORE)
        session = ServedSession(self, session_id, identity)
        self._sessions[session.key] = session
        self._tags[session.ids.tag] = session
        return session

    async def _first_message(self, context: Context) -> Any:
        try:
            async with asyncio.timeout(OPEN_TIMEOUT):
                return await read_message(context)
        except TimeoutError:
            raise ProtocolError(f"a stream that was not opened within {OPEN_TIMEOUT:g} seconds") from None

    def opened(self, *, found: bool) -> Opened:
        """Return what a stream is answered that was opened."""
        return Opened(found, self.linger, self.max_payload, self.max_batch)

    def _ended(self, session: ServedSession, stream: Stream) -> None:
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
            self._ledger.weigh(session, 0)
            reason = CancelReason.CLIENT_ABORTED if session.machine.closed else CancelReason.CLIENT_DISCONNECTED
            session.abandon(reason)

    def _end_both(self, session: ServedSession, code: grpc.StatusCode, text: str) -> None:
        """End a session, and the stream that it has."""
        _LOGGER.warning("a session with %s is ended: %s", session.identity.peer, text)
        stream = session.stream
        self.end(session)
        if stream is not None:
            stream.end(code, text)

    # -- memory -----------------------------------------------------------------------------------------

    def weigh(self, session: ServedSession) -> None:
        """See how much a session holds, and have those that hold too much give way.

        First the large requests of the largest sessions are thrown away, which were not executed: their clients are
        told so. If that is not enough, the largest sessions are ended.
        """
        machine = session.machine
        if session.key not in self._sessions:
            return
        if machine.link.backlog > limits.OVERFULL:
            self._end_both(session, grpc.StatusCode.RESOURCE_EXHAUSTED, "the client does not read what it is sent")
        elif self._ledger.weigh(session, machine.held):
            self._make_room()

    def _make_room(self) -> None:
        giving_way = self._ledger.largest()
        for one in giving_way:
            one.relieve()
            self._ledger.weigh(one, one.machine.held)
            if self._ledger.enough:
                return
        for one in giving_way:
            if one.key in self._sessions:  # a cancelled call's manager may have done anything
                text = f"the server's sessions hold too much, and this one most of it: {one.machine.held} bytes"
                self._end_both(one, grpc.StatusCode.RESOURCE_EXHAUSTED, text)
            if self._ledger.enough:
                return

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
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await asyncio.gather(*(session.close() for session in sessions))
        for session in tuple(self._sessions.values()):
            self.end(session)
        for session in sessions:
            if session.stream is not None:
                session.stream.task.cancel()


async def _abort(context: Context, code: grpc.StatusCode, text: str) -> None:
    try:
        await context.abort(code, text)
    except grpc.aio.AbortError:
        raise
    except Exception as error:  # the client has gone before it was told, and gRPC has no name for that
        raise asyncio.CancelledError from error


def _identity(context: Context) -> Identity:
    identities = context.peer_identities()
    return Identity(
        context.peer(),
        None if identities is None else tuple(identities),
        context.peer_identity_key(),
        dict(context.auth_context()),
        _user_agent(context),
    )


def _user_agent(context: Context) -> str | None:
    for key, value in context.invocation_metadata() or ():
        if key == "user-agent" and isinstance(value, str):
            return value
    return None
