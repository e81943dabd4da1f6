"""The session wire, client's side: many calls on one stream, which is opened again when it is cut.

The machine says what is sent and which call a frame is about; this driver carries. `begin` and the cancels may come
from any thread: they push under the mailbox's lock, and the writer takes under it. All else happens on the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Final, TypeVar

import grpc
import grpc.aio

from rpc_async.calling.backoff import Backoff
from rpc_async.calling.call import AsyncCall
from rpc_async.calling.cancel_request import CancelRequest
from rpc_async.calling.connectivity import Connectivity
from rpc_async.calling.io_loop import IoLoop
from rpc_async.calling.native import PLAIN, CallOptions, NativeDriver, read_reply
from rpc_async.core.client_session import ClientSession
from rpc_async.core.frames import Frame, FrameKind, ProtocolError
from rpc_async.core.outcome import Fault, Outcome, fault
from rpc_async.errors import InvalidBinding
from rpc_async.pump import Pump
from rpc_async.status import RpcStatus
from rpc_async.wire.faults import fault_from_failure
from rpc_async.wire.session import (
    SESSION_METHOD,
    BothMetadata,
    CallIds,
    Opened,
    abort_head,
    call_head,
    encode_request,
    new_session_id,
    open_request,
    read_call_head,
    read_cancel_note,
    read_fault_head,
    read_progress,
    read_reply_head,
    read_response,
)

__all__ = ["SessionDriver"]

_LOGGER: Final = logging.getLogger("rpc_async.calling")

CHUNK: Final = 64
"""Frames that are heard before the writer gets its turn: so what they lead to is on its way while the rest is heard."""
FLUSH_TIMEOUT: Final = 0.5
"""Seconds that closing a channel takes at the most to tell the server so."""

_REPLY, _REPLY_WITH_HEAD, _FAULT = int(FrameKind.REPLY), int(FrameKind.REPLY_WITH_HEAD), int(FrameKind.FAULT)
_NOTE, _PROGRESS = int(FrameKind.CANCEL_NOTE), int(FrameKind.PROGRESS)

T = TypeVar("T")
Stream = grpc.aio.StreamStreamCall[bytes, bytes]


class _Session:
    """One session: its id, its machine, and what is known of it."""

    __slots__ = ("id", "ids", "linger", "machine", "opened")

    def __init__(self, *, causal: bool, max_payload: int) -> None:
        self.id: Final = new_session_id()
        self.ids: Final = CallIds(self.id)
        self.machine: Final[ClientSession[AsyncCall[Any]]] = ClientSession(causal=causal, max_payload=max_payload)
        self.opened: bool = False
        """The server knows it."""
        self.linger: float = 0.0
        """Seconds that both sides keep it after a cut."""


class SessionDriver:
    """Carries calls over sessions, one at a time. Made on the channel's loop."""

    def __init__(
        self,
        io: IoLoop,
        open_channel: Callable[[], grpc.aio.Channel],
        native: NativeDriver,
        *,
        causal: bool,
        linger: float,
        max_payload: int,
        only: bool,
    ) -> None:
        """Make it.

        Args:
            io: The channel's loop.
            open_channel: Makes the gRPC channel for a stream; each stream has a connection of its own.
            native: Takes the calls if the server has no sessions.
            causal: Whether a call waits for those before it (C13).
            linger: Seconds to go on trying to resume a session that was cut.
            max_payload: Bytes: the largest message.
            only: Fail, in place of falling back to `native`.
        """
        self.mailbox: Final = io.mailbox
        self.connectivity: Final[Connectivity] = Connectivity(io.loop)
        self.unsupported: bool = False
        """The server has no sessions, and calls go natively."""
        self._io = io
        self._open_channel = open_channel
        self._native = native
        self._causal = causal
        self._linger = linger
        self._max_payload = max_payload
        self._only = only
        self._lock = io.mailbox.lock
        self._session = self._new_session()
        self._waker: asyncio.Future[None] | None = None
        self._pump: Pump | None = None
        self._woken = False  # whether whoever sends will look again by itself
        self._drained: asyncio.Event | None = None
        self._stream: Stream | None = None
        self._taking = True
        self._closing = False
        self._wanted = False
        self._task = io.loop.create_task(self._run())

    def _new_session(self) -> _Session:
        return _Session(causal=self._causal, max_payload=self._max_payload)

    # -- calls, from any thread -------------------------------------------------------------------------

    def begin(self, call: AsyncCall[Any], payload: bytes, options: CallOptions) -> bool:
        """Begin a call. False if the channel is closed or its loop is: nothing was sent, nor ever will be."""
        with_head = False
        if options is not PLAIN or call.deadline is not None:
            call.wait_for_ready = options.wait_for_ready is True
            with_head = call.deadline is not None or bool(options.metadata)
            if with_head:
                payload = call_head(payload, call.time_remaining(), options.metadata)
        with self._lock:
            taken = self._taking
            if taken:
                session = self._session
                call.ids = session.ids
                call.number = session.machine.begin(call.method, payload, call, with_head)
        if not taken:
            return self._begin_natively(call, payload, with_head) if self.unsupported else False
        if not self._woken and not self._wake_from_anywhere():
            return False
        if call.deadline is not None:
            self.mailbox.run(self._set_timer, call)
        return True

    def tell_cancel(self, call: AsyncCall[Any], request: CancelRequest) -> None:
        with self._lock:
            asked = call.ids is self._session.ids and self._session.machine.ask(call.number)
        if asked:
            self._wake_from_anywhere()
        else:
            request.answer(RpcStatus.NO_CALL_ACTIVE)

    def tell_abort(self, call: AsyncCall[Any], failure: Fault) -> None:
        reason = failure.cancel_reason
        assert reason is not None
        with self._lock:
            session = self._session
            if call.ids is session.ids:
                if self._stream is None and call.number in session.machine.outstanding:
                    session.machine.withdraw(lambda other: other is call)  # it may never have left
                session.machine.abort(call.number, abort_head(reason))
        self.mailbox.run(self._after_end, call)
        self._wake_from_anywhere()

    def watch(self, call: AsyncCall[Any]) -> None:
        with self._lock:
            if call.ids is self._session.ids:
                self._session.machine.watch(call.number)
        self._wake_from_anywhere()

    def _set_timer(self, call: AsyncCall[Any]) -> None:
        remaining = call.time_remaining()
        if remaining is not None and not call.done():
            call.timer = self.mailbox.loop.call_later(remaining, call.expire)

    def _wake_from_anywhere(self) -> bool:
        """There is something to send. False if the loop is closed."""
        self._woken = True
        return self.mailbox.run(self._wake)

    def _wake(self) -> None:
        if self._pump is not None:
            if len(self._session.machine.outstanding) == 1:
                self._pump.flush()  # a lone call need not wait for company
            else:
                self._pump.flush_soon()
        elif self._waker is not None and not self._waker.done():
            self._waker.set_result(None)

    async def _sleep_until_needed(self) -> None:
        self._woken = False
        if not self._needed():  # looked at after the flag is down: whoever comes later will wake
            self._waker = self.mailbox.loop.create_future()
            await self._waker
            self._waker = None

    # -- metadata ---------------------------------------------------------------------------------------

    async def initial_metadata(self, call: AsyncCall[Any]) -> grpc.aio.Metadata:
        await call.code()
        return grpc.aio.Metadata() if call.metadata is None else call.metadata[0]

    async def trailing_metadata(self, call: AsyncCall[Any]) -> grpc.aio.Metadata:
        await call.code()
        return grpc.aio.Metadata() if call.metadata is None else call.metadata[1]

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the channel's loop."""
        return await self._io.run(coroutine)

    # -- connecting -------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Open a stream though there is nothing to send."""
        self._wanted = True
        self._wake_from_anywhere()

    def _needed(self) -> bool:
        machine = self._session.machine
        return bool(machine.outstanding) or machine.link.wants_to_send or self._wanted or self._closing

    async def _run(self) -> None:
        backoff = Backoff()
        while not self._closing and not self.unsupported:
            if not self._needed():
                self.connectivity.change(grpc.ChannelConnectivity.IDLE)
                await self._sleep_until_needed()
                continue
            self.connectivity.change(grpc.ChannelConnectivity.CONNECTING)
            try:
                failure = await self._one_stream(backoff)
            except ProtocolError as error:
                _LOGGER.error("the server broke the session's protocol, and the session is ended: %s", error)
                self._lose(f"the server broke the session's protocol: {error}")
                failure = None
            except Exception:
                _LOGGER.exception("a session's stream failed in an unforeseen way")
                failure = fault(RpcStatus.INTERNAL_ERROR, "the session's stream failed in an unforeseen way")
            if self._closing:
                break
            if self._session.machine.is_over(self.mailbox.loop.time(), self._session.linger):
                self._lose("the connection was lost, and could not be had back in time")
            if failure is not None:
                self._wanted = False
                self.connectivity.change(grpc.ChannelConnectivity.TRANSIENT_FAILURE)
                self._refuse_unsent(failure)
                if self._needed():
                    await asyncio.sleep(backoff.next())
        self.connectivity.change(grpc.ChannelConnectivity.SHUTDOWN)

    async def _one_stream(self, backoff: Backoff) -> Fault | None:
        """Open a stream and serve it to its end. Returns why it could not be opened, or None if it was."""
        session = self._session
        machine = session.machine
        async with self._open_channel() as channel:
            method: Any = channel.stream_stream(SESSION_METHOD)
            stream: Stream = method()
            try:
                await stream.write(open_request(session.id, resume=session.opened, ack=machine.link.received))
                data = await stream.read()
                opened, ack = (None, 0) if not isinstance(data, bytes) else read_response(data)[:2]
                if opened is None:
                    return self._not_opened(await _end_of(stream))
                if not opened.found:
                    self._lose(
                        "the server does not know the session any more: it was started anew, or was away too long"
                    )
                    return None
                backoff.reset()
                self._go_on(session, opened, ack)
                self._stream = stream
                await self._serve(stream, machine)
            except grpc.aio.AioRpcError as error:
                if machine.cut_at is not None or not session.opened:
                    return self._not_opened(fault_from_failure(error.code().value[0], error.details() or "", ()))
            except asyncio.InvalidStateError:  # grpc.aio's word for writing to a stream that has ended
                if machine.cut_at is not None or not session.opened:
                    return self._not_opened(await _end_of(stream))
            finally:
                self._stream = None
                stream.cancel()
                if session.opened:
                    machine.cut(self.mailbox.loop.time())
        if machine.closed:
            self._lose("the server ended the session")
        elif not machine.outstanding and machine.link.idle and not self._closing:
            with self._lock:
                if not machine.outstanding:
                    self._session = self._new_session()  # nothing to resume
        return None

    def _go_on(self, session: _Session, opened: Opened, ack: int) -> None:
        with self._lock:
            session.machine.resumed(ack)
        session.opened = True
        session.linger = min(opened.linger, self._linger)
        self._wanted = False
        self.connectivity.change(grpc.ChannelConnectivity.READY)

    async def _serve(self, stream: Stream, machine: ClientSession[AsyncCall[Any]]) -> None:
        link = machine.link

        def next_batch() -> bytes | None:
            self._woken = False
            with self._lock:
                if not link.wants_to_send:
                    return None
                frames = link.take()
            self._woken = True
            return encode_request(frames, link.ack())

        pump = self._pump = Pump(self.mailbox.loop, stream.write, next_batch)
        try:
            pump.flush()
            while not machine.closed:
                data = await stream.read()
                if not isinstance(data, bytes):
                    return
                opened, ack, frames = read_response(data)
                if opened is not None:
                    raise ProtocolError("an Opened in the middle of a stream")
                blocked = link.blocked
                with self._lock:
                    link.arrived(len(frames), len(data), ack)
                for begin in range(0, len(frames), CHUNK):
                    if begin:
                        await asyncio.sleep(0)
                    self._hear(machine, frames[begin : begin + CHUNK])
                if blocked or link.ack_due:
                    pump.flush_soon()
        finally:
            pump.stop()
            self._pump = None
            self._woken = True

    # -- what the server says ---------------------------------------------------------------------------

    def _hear(self, machine: ClientSession[AsyncCall[Any]], frames: list[Frame]) -> None:
        for call, (kind, _, payload) in machine.receive(frames):
            if kind == _REPLY:
                call.settle(read_reply(payload, call.deserialize))
                if call.timer is not None or call.cancel_request is not None:
                    self._after_end(call)
            else:
                self._hear_more(call, kind, payload)
        if self._drained is not None and not machine.outstanding:
            self._drained.set()

    def _hear_more(self, call: AsyncCall[Any], kind: int, payload: bytes) -> None:
        if kind == _NOTE:
            if call.cancel_request is not None:
                call.cancel_request.answer(read_cancel_note(payload))
            return
        if kind == _PROGRESS:
            call.report(read_progress(payload))
            return
        outcome: Outcome
        if kind == _FAULT:
            outcome, metadata = read_fault_head(payload)
        elif kind == _REPLY_WITH_HEAD:
            reply, metadata = read_reply_head(payload)
            outcome = read_reply(reply, call.deserialize)
        else:
            text = f"the reply is larger than the {self._max_payload} bytes that this side takes"
            outcome, metadata = fault(RpcStatus.OUT_OF_MEMORY, text, executed=True), BothMetadata()
        call.metadata = grpc.aio.Metadata(*metadata.initial), grpc.aio.Metadata(*metadata.trailing)
        call.settle(outcome)
        self._after_end(call)

    def _after_end(self, call: AsyncCall[Any]) -> None:
        if call.timer is not None:
            call.timer.cancel()
        if call.cancel_request is not None:
            call.cancel_request.answer(RpcStatus.NO_CALL_ACTIVE)
        if self._drained is not None and not self._session.machine.outstanding:
            self._drained.set()

    # -- the end ----------------------------------------------------------------------------------------

    def _not_opened(self, failure: Fault) -> Fault:
        if failure.grpc_code == grpc.StatusCode.INVALID_ARGUMENT.value[0]:
            self._lose(f"the server does not go on with the session: {failure.message}")
        if failure.grpc_code != grpc.StatusCode.UNIMPLEMENTED.value[0]:
            return failure
        self._lose("the server has no sessions any more")  # only if it had some before
        if self._only:
            text = "the server does not offer sessions, and the channel was opened for nothing else"
            return fault(RpcStatus.CANNOT_SUPPORT, text, executed=False)
        with self._lock:
            self.unsupported = True
            self._taking = False
            withdrawn = self._session.machine.withdraw(lambda _: True)
        for call, _, payload, with_head in withdrawn:
            self._begin_natively(call, payload, with_head)
        return failure

    def _begin_natively(self, call: AsyncCall[Any], payload: bytes, with_head: bool) -> bool:
        metadata: tuple[tuple[str, str | bytes], ...] = ()
        if with_head:
            payload, _, metadata = read_call_head(payload)
        call.driver = self._native
        began = self._native.begin(call, payload, CallOptions(metadata, None, call.wait_for_ready or None, None))
        if call.cancel_request is not None:
            self._native.tell_cancel(call, call.cancel_request)
        return began

    def _refuse_unsent(self, failure: Fault) -> None:
        """There is no connection: calls that are not willing to wait for one fail, and surely were not executed."""
        final = failure.grpc_code != grpc.StatusCode.UNAVAILABLE.value[0]
        with self._lock:
            withdrawn = self._session.machine.withdraw(lambda call: final or not call.wait_for_ready)
        failure = replace(failure, executed=False)
        for item in withdrawn:
            item.call.settle(failure)
            self._after_end(item.call)

    def _lose(self, text: str) -> None:
        """The session is gone: each outstanding call fails, with what is known of its execution (C14)."""
        with self._lock:
            if not self._session.opened:
                return
            lost, self._session = self._session, self._new_session()
            calls = lost.machine.lose()
        code = grpc.StatusCode.UNAVAILABLE.value[0]
        for call, sent in calls:
            if sent:
                call.settle(Fault(RpcStatus.CALL_FAILED, f"{text}; the call may have been executed", code))
            else:
                call.settle(Fault(RpcStatus.CALL_FAILED_DNE, f"{text}; the call was not sent", code, executed=False))
            self._after_end(call)

    async def close(self, grace: float | None) -> None:
        """Close: wait up to `grace` seconds for outstanding calls, then abort them; tell the server."""
        outstanding = self._session.machine.outstanding
        if grace and outstanding:
            self._drained = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._drained.wait(), grace)
        with self._lock:
            self._closing = True
            self._taking = False
        for call in tuple(self._session.machine.outstanding.values()):
            call.abort("the channel was closed before the call settled; the server may go on with it")
        stream, machine = self._stream, self._session.machine
        if stream is not None:
            with self._lock:
                machine.close()
            self._wake()
            with contextlib.suppress(TimeoutError, asyncio.CancelledError, grpc.aio.AioRpcError):
                await asyncio.wait_for(
                    stream.code(), FLUSH_TIMEOUT
                )  # the server ends the stream when it has read it all
        self._task.cancel()
        await asyncio.wait((self._task,))
        self.connectivity.change(grpc.ChannelConnectivity.SHUTDOWN)

    def check_open(self) -> None:
        """Raise InvalidBinding if the channel is closed."""
        if self._closing:
            raise InvalidBinding("the channel is closed; no call was begun")


async def _end_of(stream: Stream) -> Fault:
    return fault_from_failure((await stream.code()).value[0], await stream.details() or "", ())
