"""The streams of a channel's sessions: opened when one is needed, and again when it is cut.

This is about connections only: what is said on them is for the owner, which holds the calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, Final, Protocol

import grpc
import grpc.aio

from rpc_async.calling.backoff import Backoff
from rpc_async.calling.bare import bare_reader, bare_writer
from rpc_async.calling.call import AsyncCall
from rpc_async.calling.connectivity import Connectivity
from rpc_async.core.client_session import ClientSession
from rpc_async.core.frames import Frame, ProtocolError
from rpc_async.core.outcome import Fault, fault
from rpc_async.mailbox import Mailbox
from rpc_async.pump import Pump
from rpc_async.status import RpcStatus
from rpc_async.wire.faults import fault_from_failure
from rpc_async.wire.session import (
    SESSION_METHOD,
    CallIds,
    Opened,
    encode_request,
    new_session_id,
    open_request,
    read_response,
)

__all__ = ["Session", "Streams", "why_not_opened"]

_LOGGER: Final = logging.getLogger("rpc_async.calling")

MIN_CHUNK: Final = 4
MAX_CHUNK: Final = 128
"""Frames that are heard, at the least and at the most, before the writer gets its turn: see `_chunk`."""
FLUSH_TIMEOUT: Final = 0.5
"""Seconds that closing a channel takes at the most to tell the server so."""

_CORE: Final = "Internal error from Core"
"""What grpc.aio says, with the code INTERNAL, of a stream that was cut in the middle of a write."""

Stream = grpc.aio.StreamStreamCall[bytes, bytes]


class Session:
    """One session: its id, its machine, and what is known of it."""

    __slots__ = ("id", "ids", "linger", "machine", "opened")

    def __init__(self, *, causal: bool, max_payload: int, wake: Callable[[], object]) -> None:
        self.id: Final = new_session_id()
        self.ids: Final = CallIds(self.id)
        self.machine: Final[ClientSession[AsyncCall[Any]]] = ClientSession(
            causal=causal, max_payload=max_payload, wake=wake
        )
        self.opened: bool = False
        """The server knows it."""
        self.linger: float = 0.0
        """Seconds that both sides keep it after a cut."""


class Owner(Protocol):
    """Who has the session, and its calls."""

    @property
    def session(self) -> Session:
        """The session that calls are begun in."""
        ...

    def hear(self, machine: ClientSession[AsyncCall[Any]], frames: list[Frame]) -> None:
        """The server has said this. Raises ProtocolError if it may not."""

    def renew(self) -> None:
        """The stream has ended with nothing to resume: the next one is for a new session, unless calls came since."""

    def lose(self, text: str) -> None:
        """The session is gone, with all that is outstanding in it."""

    def not_opened(self, failure: Fault) -> Fault:
        """No stream could be opened. Returns what to tell the calls that do not wait for one."""
        ...

    def refuse_unsent(self, failure: Fault) -> None:
        """There is no connection: fail what is not willing to wait for one."""


class Streams:
    """Opens streams, one at a time. Used on the channel's loop, but for `wake`."""

    def __init__(
        self, owner: Owner, mailbox: Mailbox, open_channel: Callable[[], grpc.aio.Channel], *, linger: float
    ) -> None:
        """Make it, and start its task.

        Args:
            owner: Who has the session.
            mailbox: The way into the loop, with the lock that guards the session's machine.
            open_channel: Makes the gRPC channel for a stream; each stream has a connection of its own.
            linger: Seconds to go on trying to resume a session that was cut.
        """
        self.connectivity: Final[Connectivity] = Connectivity(mailbox.loop)
        self.stopped: bool = False
        """No stream is opened any more."""
        self.stream: Stream | None = None
        """The stream that the session has at present."""
        self._owner = owner
        self._mailbox = mailbox
        self._loop = mailbox.loop
        self._open_channel = open_channel
        self._linger = linger
        self._pump: Pump | None = None
        self._roused = False  # here on the loop, and nobody was hurried since
        self._waker: asyncio.Future[None] | None = None
        self._wanted = False
        self._task = self._loop.create_task(self._run())

    # -- being told that there is something to send -----------------------------------------------------

    def rouse(self) -> None:
        """Have the writer look soon: there is something to send. From any thread; the link calls it, under the lock."""
        if not self._mailbox.here():
            self._mailbox.post(self._wake)
        elif self._pump is not None:
            self._pump.flush_soon()
            self._roused = True
        else:
            self._wake()

    def hurry(self) -> bool:
        """Something was said, from any thread, and the lock is free again. False if the loop is closed."""
        if self._roused and self._mailbox.here():
            self._roused = False
            self._wake()
        return not self._loop.is_closed()

    def _wake(self) -> None:
        if self._pump is not None:
            if len(self._owner.session.machine.outstanding) == 1:
                self._pump.flush()  # a lone call need not wait for company
            else:
                self._pump.flush_soon()
        elif self._waker is not None and not self._waker.done():
            self._waker.set_result(None)

    def connect(self) -> None:
        """Open a stream though there is nothing to send. From any thread."""
        self._wanted = True
        self._mailbox.run(self._wake)

    def _needed(self) -> bool:
        machine = self._owner.session.machine
        return bool(machine.outstanding) or machine.link.wants_to_send or self._wanted

    async def _sleep_until_needed(self) -> None:
        with self._mailbox.lock:  # whoever comes later wakes
            asleep = self._owner.session.machine.link.sleep() and not self._needed()
        if asleep:
            self._waker = self._loop.create_future()
            await self._waker
            self._waker = None

    # -- connecting -------------------------------------------------------------------------------------

    async def _run(self) -> None:
        backoff = Backoff()
        while not self.stopped:
            self._lose_if_over()
            if not self._needed():
                self.connectivity.change(grpc.ChannelConnectivity.IDLE)
                await self._sleep_until_needed()
                continue
            self.connectivity.change(grpc.ChannelConnectivity.CONNECTING)
            failure = await self._attempt(backoff)
            self._lose_if_over()
            if failure is not None and not self.stopped:
                self._wanted = False
                self.connectivity.change(grpc.ChannelConnectivity.TRANSIENT_FAILURE)
                self._owner.refuse_unsent(failure)
                if self._needed():
                    await asyncio.sleep(backoff.next(self._time_left()))
        self.connectivity.change(grpc.ChannelConnectivity.SHUTDOWN)

    def _lose_if_over(self) -> None:
        left = self._time_left()
        if left is not None and left <= 0:
            self._owner.lose("the connection was lost, and could not be had back in time")

    def _time_left(self) -> float | None:
        """Return the seconds until a session that was cut is over; None for one that was not."""
        session = self._owner.session
        return session.machine.time_left(self._loop.time(), session.linger)

    async def _attempt(self, backoff: Backoff) -> Fault | None:
        """Have a stream, from its opening to its end. Returns why it could not be opened, or None if it was."""
        try:
            return await self._one_stream(backoff)
        except ProtocolError as error:
            text = f"the server broke the session's protocol: {error}"
            _LOGGER.error("%s; the session is ended", text)
            self._owner.lose(text)
            return fault(RpcStatus.INTERNAL_ERROR, text, executed=False)
        except Exception:
            text = "the session's stream failed in an unforeseen way"  # frames may be lost: it cannot go on
            _LOGGER.exception("%s; the session is ended", text)
            self._owner.lose(text)
            return fault(RpcStatus.INTERNAL_ERROR, text)

    async def _one_stream(self, backoff: Backoff) -> Fault | None:
        owner = self._owner
        session = owner.session
        machine = session.machine
        before = machine.link.carried
        async with self._open_channel() as channel:
            method: Any = channel.stream_stream(SESSION_METHOD)
            stream: Stream = method()
            try:
                async with asyncio.timeout(self._time_left()):  # a silent server must not outlast the session
                    await stream.write(open_request(session.id, resume=session.opened, ack=machine.link.received))
                    data = await stream.read()
                if not isinstance(data, bytes):
                    return owner.not_opened(await _end_of(stream))
                opened, ack, frames = read_response(data)
                if opened is None or frames:
                    raise ProtocolError("the answer to an Open is something else")
                if not opened.found:
                    if not session.opened:
                        raise ProtocolError("a new session was not found")
                    owner.lose(
                        "the server does not know the session any more: it was started anew, or was away too long"
                    )
                    return None
                self._go_on(session, opened, ack)
                self.stream = stream
                await self._serve(stream, machine)
            except TimeoutError:
                return fault(RpcStatus.SERVER_UNAVAILABLE, "the server did not answer in time", executed=False)
            except grpc.aio.AioRpcError as error:
                if self.stream is None:
                    return owner.not_opened(why_not_opened(error.code(), error.details() or ""))
            except asyncio.InvalidStateError:  # grpc.aio's word for writing to a stream that has ended
                if self.stream is None:
                    return owner.not_opened(await _end_of(stream))
            finally:
                self.stream = None
                stream.cancel()
                if session.opened:
                    machine.cut(self._loop.time())
        if machine.closed:
            owner.lose("the server ended the session")
        elif not machine.outstanding and machine.link.idle:
            owner.renew()
        if machine.link.carried != before:
            backoff.reset()
        elif self._needed():  # a server that ends each stream at once must not keep this side busy
            await asyncio.sleep(backoff.next(self._time_left()))
        return None

    def _go_on(self, session: Session, opened: Opened, ack: int) -> None:
        with self._mailbox.lock:
            session.machine.resumed(ack)
        session.opened = True
        session.linger = min(opened.linger, self._linger)
        self._wanted = False
        self.connectivity.change(grpc.ChannelConnectivity.READY)

    # -- a stream ---------------------------------------------------------------------------------------

    async def _serve(self, stream: Stream, machine: ClientSession[AsyncCall[Any]]) -> None:
        link, lock, hear, read = machine.link, self._mailbox.lock, self._owner.hear, bare_reader(stream)

        def next_batch() -> bytes | None:
            with lock:
                frames = link.next(self._loop.time())
            return None if frames is None else encode_request(frames, link.ack())

        pump = self._pump = Pump(self._loop, bare_writer(stream), next_batch)
        try:
            pump.flush()
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
                chunk = _chunk(len(machine.outstanding))
                for begin in range(0, len(frames), chunk):
                    if begin:
                        await asyncio.sleep(0)
                    hear(machine, frames[begin : begin + chunk])
        finally:
            pump.stop()
            self._pump = None

    async def close(self) -> None:
        """End the session that has a stream, as the last word on it, and open none any more."""
        self.stopped = True
        stream = self.stream
        if stream is not None:
            with self._mailbox.lock:
                self._owner.session.machine.close()
            self._wake()
            with contextlib.suppress(TimeoutError, asyncio.CancelledError, grpc.aio.AioRpcError):
                # The server ends the stream when it has read it all.
                await asyncio.wait_for(stream.code(), FLUSH_TIMEOUT)
        self._task.cancel()
        await asyncio.wait((self._task,))
        self.connectivity.change(grpc.ChannelConnectivity.SHUTDOWN)


def _chunk(outstanding: int) -> int:
    """Return how many frames to hear before the writer gets its turn, where so many calls are outstanding.

    Half of them: so the calls that follow on the first half are on their way while the second half is heard, and client
    and server work at the same time, each on its half.
    """
    return min(max((outstanding + 1) // 2, MIN_CHUNK), MAX_CHUNK)


async def _end_of(stream: Stream) -> Fault:
    return why_not_opened(await stream.code(), await stream.details() or "")


def why_not_opened(code: grpc.StatusCode, text: str) -> Fault:
    """Return what the end of a stream that was not opened means for a call: it had not left by then (C14)."""
    failure = fault_from_failure(code.value[0], text, ())
    if text == _CORE or (code is grpc.StatusCode.UNAVAILABLE and failure.status == RpcStatus.CALL_FAILED):
        text = f"the connection was lost before the session was open on it, and nothing was executed: {text}"
        return fault(RpcStatus.SERVER_UNAVAILABLE, text, executed=False)
    return failure
