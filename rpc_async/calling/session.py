"""The session wire, client's side: many calls on one stream, which is opened again when it is cut.

The machine says what is sent and which call a frame is about; this driver carries. `begin` and the cancels may come
from any thread: they push under the mailbox's lock, and the writer takes under it. All else happens on the loop.
`streams.py` has the connections.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Final, TypeVar

import grpc
import grpc.aio

from rpc_async.calling.call import AsyncCall
from rpc_async.calling.cancel_request import CancelRequest
from rpc_async.calling.connectivity import Connectivity
from rpc_async.calling.io_loop import IoLoop
from rpc_async.calling.native import PLAIN, CallOptions, NativeDriver, read_reply
from rpc_async.calling.streams import Session, Streams
from rpc_async.core.client_session import ClientSession
from rpc_async.core.frames import Frame, FrameKind, ProtocolError
from rpc_async.core.outcome import Fault, Outcome, fault
from rpc_async.errors import CannotSupport
from rpc_async.status import RpcStatus
from rpc_async.wire.session import (
    BothMetadata,
    abort_head,
    call_head,
    read_call_head,
    read_cancel_note,
    read_fault_head,
    read_progress,
    read_reply_head,
)

__all__ = ["SessionDriver"]

_REPLY, _REPLY_WITH_HEAD, _FAULT = int(FrameKind.REPLY), int(FrameKind.REPLY_WITH_HEAD), int(FrameKind.FAULT)
_NOTE, _PROGRESS = int(FrameKind.CANCEL_NOTE), int(FrameKind.PROGRESS)

_FULL: Final = "the server does not take what waits to be sent already: not sent; try again later"

T = TypeVar("T")


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
        self.unsupported: bool = False
        """The server has no sessions, and calls go natively."""
        self._io = io
        self._native = native
        self._causal = causal
        self._max_payload = max_payload
        self._only = only
        self._lock = io.mailbox.lock
        self.session: Session = self._new_session()
        """The session that calls are begun in."""
        self._drained: asyncio.Event | None = None
        self._taking = True
        self._streams = Streams(self, io.mailbox, open_channel, linger=linger)
        self.connectivity: Final[Connectivity] = self._streams.connectivity

    def _new_session(self) -> Session:
        return Session(causal=self._causal, max_payload=self._max_payload, wake=self._rouse)

    def _rouse(self) -> None:
        self._streams.rouse()

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
                session = self.session
                call.ids = session.ids
                try:
                    call.number = session.machine.begin(call.method, payload, call, with_head)
                except ProtocolError as error:
                    text = f"{call.method}: {error}; no call was begun; use transport='native'"
                    raise CannotSupport(text) from error
        if not taken:
            return self._begin_natively(call, payload, with_head) if self.unsupported else False
        if not call.number:
            return call.settle(fault(RpcStatus.SERVER_TOO_BUSY, _FULL))
        if not self._streams.hurry():
            return False
        if call.deadline is not None:
            self.mailbox.run(self._set_timer, call)
        return True

    def tell_cancel(self, call: AsyncCall[Any], request: CancelRequest) -> None:
        with self._lock:
            asked = call.ids is self.session.ids and self.session.machine.ask(call.number)
        if asked:
            self._streams.hurry()
        else:
            request.answer(RpcStatus.NO_CALL_ACTIVE)

    def tell_abort(self, call: AsyncCall[Any], failure: Fault) -> None:
        reason = failure.cancel_reason
        assert reason is not None
        with self._lock:
            session = self.session
            if call.ids is session.ids:
                if self._streams.stream is None and call.number in session.machine.outstanding:
                    session.machine.withdraw(lambda other: other is call)  # it may never have left
                session.machine.abort(call.number, abort_head(reason))
        self.mailbox.run(self._after_end, call)
        self._streams.hurry()

    def watch(self, call: AsyncCall[Any]) -> None:
        with self._lock:
            if call.ids is self.session.ids:
                self.session.machine.watch(call.number)
        self._streams.hurry()

    def _set_timer(self, call: AsyncCall[Any]) -> None:
        remaining = call.time_remaining()
        if remaining is not None and not call.done():
            call.timer = self.mailbox.loop.call_later(remaining, call.expire)

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

    def connect(self) -> None:
        """Open a stream though there is nothing to send."""
        self._streams.connect()

    # -- what the server says ---------------------------------------------------------------------------

    def hear(self, machine: ClientSession[AsyncCall[Any]], frames: list[Frame]) -> None:
        """The server has said this. Raises ProtocolError if it may not."""
        for call, (kind, number, payload) in machine.receive(frames, self._lock):
            if kind == _REPLY:
                call.settle(read_reply(payload, call.deserialize))
                if call.timer is not None or call.cancel_request is not None:
                    self._after_end(call)
            else:
                try:
                    self._hear_more(call, kind, payload)
                except ProtocolError:
                    machine.outstanding[number] = call  # what ended it cannot be read: it is lost with the others
                    raise
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
        if self._drained is not None and not self.session.machine.outstanding:
            self._drained.set()

    # -- the end ----------------------------------------------------------------------------------------

    def renew(self) -> None:
        """The stream has ended with nothing to resume: the next one is for a new session, unless calls came since."""
        with self._lock:
            if not self.session.machine.outstanding:
                self.session = self._new_session()

    def not_opened(self, failure: Fault) -> Fault:
        """No stream could be opened: fall back, if the server has no sessions.

        Returns what to tell the calls that do not wait for one.
        """
        if failure.grpc_code == grpc.StatusCode.INVALID_ARGUMENT.value[0]:
            self.lose(f"the server does not go on with the session: {failure.message}")
        if failure.grpc_code != grpc.StatusCode.UNIMPLEMENTED.value[0]:
            return failure
        self.lose("the server has no sessions any more")  # only if it had some before
        if self._only:
            text = "the server does not offer sessions, and the channel was opened for nothing else"
            return fault(RpcStatus.CANNOT_SUPPORT, text, executed=False)
        with self._lock:
            self.unsupported = True
            self._taking = False
            self._streams.stopped = True
            withdrawn = self.session.machine.withdraw(lambda _: True)
        for call, _, payload, with_head, _ in withdrawn:
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

    def refuse_unsent(self, failure: Fault) -> None:
        """There is no connection: calls that are not willing to wait for one fail, and surely were not executed."""
        final = failure.grpc_code != grpc.StatusCode.UNAVAILABLE.value[0]
        with self._lock:
            withdrawn = self.session.machine.withdraw(lambda call: final or not call.wait_for_ready)
        failure = replace(failure, executed=False)
        for item in withdrawn:
            item.call.settle(failure)
            self._after_end(item.call)

    def lose(self, text: str) -> None:
        """The session is gone: each outstanding call fails, with what is known of its execution (C14)."""
        with self._lock:
            if not self.session.opened:
                return
            lost, self.session = self.session, self._new_session()
            gone = lost.machine.lose()
        calls = [(call, True) for call in gone.sent] + [(one.call, False) for one in gone.unsent]
        code = grpc.StatusCode.UNAVAILABLE.value[0]
        for call, sent in calls:
            if sent:
                call.settle(Fault(RpcStatus.CALL_FAILED, f"{text}; the call may have been executed", code))
            else:
                call.settle(Fault(RpcStatus.CALL_FAILED_DNE, f"{text}; the call was not sent", code, executed=False))
            self._after_end(call)

    async def close(self, grace: float | None) -> None:
        """Close: wait up to `grace` seconds for outstanding calls, then abort them; tell the server."""
        outstanding = self.session.machine.outstanding
        if grace and outstanding:
            self._drained = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._drained.wait(), grace)
        with self._lock:
            self._taking = False
        for call in tuple(self.session.machine.outstanding.values()):
            call.abort("the channel was closed before the call settled; the server may go on with it")
        await self._streams.close()
