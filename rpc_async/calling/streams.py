"""The streams of a channel's sessions: opened when one is needed, and again when it is cut.

This is about connections only: what is said on them is for the owner, which holds the calls. What an attempt means that
failed is for `core/door.py`.
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
from rpc_async.calling.call import AsyncCall
from rpc_async.calling.connectivity import Connectivity
from rpc_async.calling.conversation import Conversation
from rpc_async.calling.opening import NotOpened, Stream, answer_to
from rpc_async.core.client_session import ClientSession
from rpc_async.core.door import Door, Refusal, Verdict
from rpc_async.core.frames import Frame, ProtocolError
from rpc_async.core.outcome import Fault, fault
from rpc_async.mailbox import Mailbox
from rpc_async.pump import Pump
from rpc_async.status import RpcStatus
from rpc_async.wire.session import (
    SESSION_METHOD,
    CallIds,
    Opened,
    new_session_id,
    open_request,
)

__all__ = ["Session", "Streams"]

_LOGGER: Final = logging.getLogger("rpc_async.calling")

FLUSH_TIMEOUT: Final = 0.5
"""Seconds that closing a channel takes at the most to tell the server so."""


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

    def opened(self) -> None:
        """A stream has been opened."""

    def renew(self) -> None:
        """The stream has ended with nothing to resume: the next one is for a new session, unless calls came since."""

    def lose(self, text: str) -> None:
        """The session is gone: what may have been executed fails, and the rest is for the next one."""

    def go_natively(self) -> grpc.aio.Channel:
        """Have calls go natively, those that wait and those that come, until `go_by_sessions`. Returns by what."""
        ...

    def go_by_sessions(self) -> None:
        """The calls that come go by a session again."""

    def refuse_unsent(self, failure: Fault, *, all_of_them: bool) -> None:
        """There is no session: fail the calls that are not willing to wait for one, or all; none was executed."""

    def ended(self) -> None:
        """There will be no stream any more: settle what is outstanding."""


class Streams:
    """Opens streams, one at a time. Used on the channel's loop, but for `wake`."""

    def __init__(
        self,
        owner: Owner,
        mailbox: Mailbox,
        open_channel: Callable[[], grpc.aio.Channel],
        door: Door,
        *,
        linger: float,
        patience: float,
        max_stream_bytes: int | None,
        max_batch: int,
    ) -> None:
        """Make it, and start its task.

        Args:
            owner: Who has the session.
            mailbox: The way into the loop, with the lock that guards the session's machine.
            open_channel: Makes the gRPC channel for a stream; each stream has a connection of its own.
            door: Decides which wire calls take.
            linger: Seconds to go on trying to resume a session that was cut.
            patience: Seconds that a server may take to answer the opening of a stream.
            max_stream_bytes: Bytes that one stream may carry to the server; None: any number.
            max_batch: Bytes: the largest message of a stream that this side sends and takes.
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
        self._door = door
        self._linger = linger
        self._patience = patience
        self._max_stream_bytes = max_stream_bytes
        self._max_batch = max_batch
        self._pump: Pump | None = None
        self._roused = False  # here on the loop, and nobody was hurried since
        self._waker: asyncio.Future[None] | None = None
        self._wanted = False
        self._away: Fault | None = None  # why there is no connection, while the next attempt is waited for
        self._native: grpc.aio.Channel | None = None  # what calls go by natively, while they do
        self._task = self._loop.create_task(self._run())

    # -- being told that there is something to send -----------------------------------------------------

    def rouse(self) -> None:
        """Have the writer look soon: there is something to send. From any thread; the link calls it, under the lock."""
        if not self._mailbox.here():
            self._mailbox.post(self._wake)
        elif self._pump is not None:
            self._roused = True  # whoever said something hurries, as do those who have heard something
            if len(self._owner.session.machine.outstanding) != 1:
                self._pump.flush_soon()
        else:
            self._wake()

    def hurry(self) -> bool:
        """Something was said, from any thread, and the lock is free again. False if the loop is closed."""
        if self._roused and self._mailbox.here():
            self._roused = False
            self._wake()
        elif self._away is not None:
            self._mailbox.run(self._refuse)
        return not self._loop.is_closed()

    def _wake(self) -> None:
        if self._pump is not None:
            if len(self._owner.session.machine.outstanding) == 1:
                self._pump.flush()  # a lone call need not wait for company
            else:
                self._pump.flush_soon()
        elif self._waker is not None and not self._waker.done():
            self._waker.set_result(None)

    def _refuse(self) -> None:
        """Fail what was begun between two attempts to connect, as gRPC's own calls fail then."""
        if self._away is not None:
            self._owner.refuse_unsent(self._away, all_of_them=False)

    def connect(self) -> None:
        """Have a connection though there is nothing to send. From any thread."""
        self._wanted = True
        self._mailbox.run(self._connect)

    def _connect(self) -> None:
        if self._native is not None:
            self._native.get_state(try_to_connect=True)
        else:
            self._wake()

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
        try:
            while not self.stopped:
                self._lose_if_over()
                if self._native is not None:
                    await self._until_native_ends(self._native, backoff)
                elif self._needed():
                    self.connectivity.change(grpc.ChannelConnectivity.CONNECTING)
                    await self._attempt(backoff)
                else:
                    if self.connectivity.state is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                        self.connectivity.change(grpc.ChannelConnectivity.IDLE)
                    await self._sleep_until_needed()
        finally:  # also if the loop ends, and all its tasks with it
            self.stopped = True
            self._owner.ended()
            if not self._loop.is_closed():
                self.connectivity.change(grpc.ChannelConnectivity.SHUTDOWN)

    def _lose_if_over(self) -> None:
        left = self._time_left()
        if left is not None and left <= 0:
            self._lose("the connection was lost, and could not be had back in time")

    def _lose(self, text: str) -> None:
        self._door.lost()
        self._owner.lose(text)

    def _time_left(self) -> float | None:
        """Return the seconds until a session that was cut is over; None for one that was not."""
        session = self._owner.session
        return session.machine.time_left(self._loop.time(), session.linger)

    async def _attempt(self, backoff: Backoff) -> None:
        """Have a stream, from its opening to its end; or do what is to be done where there is none."""
        resuming = self._owner.session.opened
        try:
            await self._one_stream(backoff)
        except NotOpened as error:
            now = self._loop.time()
            verdict = self._door.failed(error.why, error.failure.message, resuming=resuming, now=now)
            if verdict is Verdict.GO_NATIVELY:
                self._native = self._owner.go_natively()
            elif verdict is Verdict.LOSE:
                self._owner.lose(f"the server does not go on with the session: {error.failure.message}")
            else:
                await self._stay_away(error.failure, backoff, all_of_them=verdict is Verdict.FAIL)
        except ProtocolError as error:
            await self._broken(f"the server broke the session's protocol: {error}", backoff)
        except Exception:
            text = "the session's stream failed in an unforeseen way"  # frames may be lost: it cannot go on
            _LOGGER.exception("%s; the session is ended", text)
            await self._broken(text, backoff)

    async def _broken(self, text: str, backoff: Backoff) -> None:
        _LOGGER.error("%s; the session is ended", text)
        self._lose(text)
        await self._stay_away(fault(RpcStatus.INTERNAL_ERROR, text, executed=False), backoff, all_of_them=True)

    async def _stay_away(self, failure: Fault, backoff: Backoff, *, all_of_them: bool) -> None:
        """There is no connection: wait before the next attempt, if anybody waits for one."""
        self._lose_if_over()
        if self.stopped:
            return
        self.connectivity.change(grpc.ChannelConnectivity.TRANSIENT_FAILURE)
        self._owner.refuse_unsent(failure, all_of_them=all_of_them)
        if self._needed():
            if not self._owner.session.opened:  # a session that may be had back is waited for
                self._away = failure
            try:
                await asyncio.sleep(backoff.next(self._time_left()))
            finally:
                self._away = None

    async def _until_native_ends(self, channel: grpc.aio.Channel, backoff: Backoff) -> None:
        """Calls go natively: show that connection's state, and have a session tried again at the next one."""
        end = self._loop.time() + backoff.next() if self._door.brief else None
        state = channel.get_state(try_to_connect=self._wanted)
        connected = False
        while True:
            self.connectivity.change(state)
            ready = state is grpc.ChannelConnectivity.READY
            if ready:
                connected = True
                self._wanted = False
            over = state is grpc.ChannelConnectivity.TRANSIENT_FAILURE or (connected and not ready)
            left = None if end is None else end - self._loop.time()
            if over if left is None else left <= 0:
                break
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(channel.wait_for_state_change(state), left)
            state = channel.get_state()
        self._native = None
        self._door.try_again()
        self._owner.go_by_sessions()

    async def _one_stream(self, backoff: Backoff) -> None:
        """Have a stream, from its opening to its end. Raises NotOpened."""
        owner = self._owner
        session = owner.session
        machine = session.machine
        before = machine.link.carried
        async with self._open_channel() as channel:
            method: Any = channel.stream_stream(SESSION_METHOD)
            stream: Stream = method()
            try:
                opened, ack = await self._opened(channel, stream, session)
                if not opened.found:
                    text = "the server does not know the session any more: it was started anew, or was away too long"
                    self._lose(text)
                    return
                self._go_on(session, opened, ack)
                self.stream = stream
                await self._serve(stream, machine)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:  # the latter: it has ended meanwhile
                _LOGGER.debug("a stream of a session has ended: %r", error)
            finally:
                self.stream = None
                stream.cancel()
                if session.opened:
                    machine.cut(self._loop.time())
        if machine.closed:
            self._lose("the server ended the session")
        elif not machine.outstanding and machine.link.idle:
            owner.renew()
        if machine.link.carried != before:
            backoff.reset()
        elif self._needed():  # a server that ends each stream at once must not keep this side busy
            await asyncio.sleep(backoff.next(self._time_left()))

    async def _opened(self, channel: grpc.aio.Channel, stream: Stream, session: Session) -> tuple[Opened, int]:
        """Open a stream. Raises NotOpened."""
        left = self._time_left()
        received = session.machine.link.received
        message = open_request(session.id, resume=session.opened, ack=received, max_batch=self._max_batch)
        patience = self._patience if left is None else min(self._patience, left)
        try:
            async with asyncio.timeout(left):  # a server that cannot be reached must not outlast the session
                opened, ack = await answer_to(channel, stream, message, patience)
        except TimeoutError:
            text = "the server could not be reached in time"
            raise NotOpened(Refusal.SILENT, fault(RpcStatus.SERVER_UNAVAILABLE, text, executed=False)) from None
        if not (opened.found or session.opened):
            text = "the server broke the session's protocol: a new session was not found; nothing was executed"
            raise NotOpened(Refusal.NOT_OURS, fault(RpcStatus.INTERNAL_ERROR, text, executed=False))
        return opened, ack

    def _go_on(self, session: Session, opened: Opened, ack: int) -> None:
        with self._mailbox.lock:
            session.machine.resumed(ack)
            if self._max_stream_bytes is None:  # else the stream's end is better met with batches that are all small
                session.machine.link.allow(min(opened.max_batch, self._max_batch))
        session.opened = True
        session.linger = min(opened.linger, self._linger)
        self._wanted = False
        self._door.opened()
        self._owner.opened()
        self.connectivity.change(grpc.ChannelConnectivity.READY)

    # -- a stream ---------------------------------------------------------------------------------------

    async def _serve(self, stream: Stream, machine: ClientSession[AsyncCall[Any]]) -> None:
        """Talk on a stream to its end. Raises what it ended with, and ProtocolError."""
        talk = Conversation(self._mailbox, stream, machine, self._owner.hear, self.hurry, self._max_stream_bytes)
        self._pump = talk.pump
        try:
            await talk.run()
        finally:
            self._pump = None

    async def close(self) -> None:
        """End the session that has a stream, as the last word on it, and open none any more."""
        self.stopped = True
        stream = self.stream
        try:
            if stream is not None:
                with self._mailbox.lock:
                    self._owner.session.machine.close()
                self._wake()
                with contextlib.suppress(TimeoutError, grpc.aio.AioRpcError):
                    # The server ends the stream when it has read it all.
                    await asyncio.wait_for(asyncio.shield(stream.code()), FLUSH_TIMEOUT)
        finally:
            self._task.cancel()
            await asyncio.wait((self._task,))
