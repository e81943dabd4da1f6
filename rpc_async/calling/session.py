"""The session wire, client's side: many calls on one stream, which is opened again when it is cut.

The machine says what is sent and which call a frame is about; this driver carries. `begin` and the cancels may come
from any thread: they push under the mailbox's lock, and the writer takes under it. All else happens on the loop.
`streams.py` has the connections.

Calls leave by the door, too: to native calls, where the server has no sessions, and from a session that is gone to the
next one. Both happen on the loop in one step, in the order in which the calls were begun (C13), and only to calls that
surely were not executed (C14). Who holds a call's handle in another thread may have looked up this driver just before:
so what is told of a call that is not outstanding here is looked at once more on the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, Literal, TypeVar

import grpc
import grpc.aio

from rpc_async.calling.call import AsyncCall
from rpc_async.calling.cancel_request import CancelRequest
from rpc_async.calling.connectivity import Connectivity
from rpc_async.calling.io_loop import IoLoop
from rpc_async.calling.native import PLAIN, CallOptions, NativeDriver, read_reply
from rpc_async.calling.streams import Session, Streams
from rpc_async.core.client_session import ClientSession, Withdrawn
from rpc_async.core.door import Door, Wire
from rpc_async.core.frames import Frame, FrameKind, ProtocolError
from rpc_async.core.outcome import Fault, Outcome, fault, not_executed
from rpc_async.errors import CannotSupport
from rpc_async.status import CancelReason, RpcStatus
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

_LOGGER: Final = logging.getLogger("rpc_async.calling")

_REPLY, _REPLY_WITH_HEAD, _FAULT = int(FrameKind.REPLY), int(FrameKind.REPLY_WITH_HEAD), int(FrameKind.FAULT)
_NOTE, _PROGRESS = int(FrameKind.CANCEL_NOTE), int(FrameKind.PROGRESS)

MAX_TRIES: Final = 3
"""Sessions that may be lost in the middle of one call's request. Whatever cuts them would cut the next one too."""

_FULL: Final = "the server does not take what waits to be sent already: not sent; try again later"
_LOOP_ENDED: Final = "the channel's event loop ended before the call settled"
_CLOSED: Final = "the channel was closed before the call settled; the server may go on with it"

T = TypeVar("T")


class SessionDriver:
    """Carries calls over sessions, one at a time. Made on the channel's loop."""

    def __init__(
        self,
        io: IoLoop,
        open_channel: Callable[[], grpc.aio.Channel],
        native: NativeDriver,
        *,
        target: str,
        causal: bool,
        linger: float,
        patience: float,
        max_stream_bytes: int | None,
        max_payload: int,
        max_batch: int,
        only: bool,
    ) -> None:
        """Make it.

        Args:
            io: The channel's loop.
            open_channel: Makes the gRPC channel for a stream; each stream has a connection of its own.
            native: Takes the calls if the server has no sessions.
            target: The server's name, for the log.
            causal: Whether a call waits for those before it (C13).
            linger: Seconds to go on trying to resume a session that was cut.
            patience: Seconds that the server may take to answer the opening of a stream.
            max_stream_bytes: Bytes that one stream may carry to the server; None: any number.
            max_payload: Bytes: the largest message.
            max_batch: Bytes: what gRPC's limits leave for a message of the stream.
            only: Fail, in place of falling back to `native`.
        """
        self.mailbox: Final = io.mailbox
        self._io = io
        self._native = native
        self._target = target
        self._causal = causal
        self._max_payload = max_payload
        self._only = only
        self._lock = io.mailbox.lock
        self._door = Door(only=only)
        self._said: Wire | None = None
        self.session: Session = self._new_session()
        """The session that calls are begun in."""
        self._taking = True
        self._moved: asyncio.Future[None] = self.mailbox.loop.create_future()
        self._streams = Streams(
            self,
            io.mailbox,
            open_channel,
            self._door,
            linger=linger,
            patience=patience,
            max_stream_bytes=max_stream_bytes,
            max_batch=max_batch,
        )
        self.connectivity: Final[Connectivity] = self._streams.connectivity

    def _new_session(self) -> Session:
        return Session(causal=self._causal, max_payload=self._max_payload, wake=self._rouse)

    def _rouse(self) -> None:
        self._streams.rouse()

    @property
    def transport(self) -> Literal["session", "native"]:
        """The wire, as `AsyncCall.transport` tells it."""
        return "session"

    def why(self, call: AsyncCall[Any]) -> str:
        """Return why a call goes this way."""
        return self._door.reason

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
                    if self._only:
                        text = f"{call.method}: {error}; no call was begun; use transport='native'"
                        raise CannotSupport(text) from error
                    call.ids = None
                    taken = False
                    call.reason = str(error)
        if not taken:
            return self._begin_natively(call, payload, with_head) if not self._streams.stopped else False
        if not call.number:
            return call.settle(fault(RpcStatus.SERVER_TOO_BUSY, _FULL))
        if not self._streams.hurry():
            return False
        if call.deadline is not None:
            self.mailbox.run(self._set_timer, call)
        return True

    def tell_cancel(self, call: AsyncCall[Any], request: CancelRequest) -> None:
        if self._ask(call):
            self._streams.hurry()
        elif not self.mailbox.run(self._tell_cancel, call, request):
            request.answer(RpcStatus.INVALID_BINDING)

    def _tell_cancel(self, call: AsyncCall[Any], request: CancelRequest) -> None:
        if call.driver is not self:
            call.driver.tell_cancel(call, request)
        elif self._ask(call):
            self._streams.hurry()
        else:
            request.answer(RpcStatus.NO_CALL_ACTIVE)

    def _ask(self, call: AsyncCall[Any]) -> bool:
        with self._lock:
            return call.ids is self.session.ids and self.session.machine.ask(call.number)

    def tell_abort(self, call: AsyncCall[Any], failure: Fault) -> None:
        self._abort(call, failure)
        self.mailbox.run(self._after_abort, call, failure)
        self._streams.hurry()

    def _abort(self, call: AsyncCall[Any], failure: Fault) -> None:
        reason = failure.cancel_reason
        assert reason is not None
        with self._lock:
            session = self.session
            if call.ids is session.ids:
                if self._streams.stream is None and call.number in session.machine.outstanding:
                    session.machine.withdraw(lambda other: other is call)  # it may never have left
                session.machine.abort(call.number, abort_head(reason))

    def _after_abort(self, call: AsyncCall[Any], failure: Fault) -> None:
        if call.driver is not self:
            call.driver.tell_abort(call, failure)
        else:
            self._abort(call, failure)  # it may have been begun anew
        self._after_end(call)

    def watch(self, call: AsyncCall[Any]) -> None:
        call.watched = True
        self._watch(call)
        self.mailbox.run(self._watch_elsewhere, call)
        self._streams.hurry()

    def _watch(self, call: AsyncCall[Any]) -> None:
        with self._lock:
            if call.ids is self.session.ids:
                self.session.machine.watch(call.number)

    def _watch_elsewhere(self, call: AsyncCall[Any]) -> None:
        if call.driver is not self:
            call.driver.watch(call)

    def _set_timer(self, call: AsyncCall[Any]) -> None:
        remaining = call.time_remaining()
        if remaining is None or call.done() or call.driver is not self:
            return
        call.timer = self.mailbox.loop.call_later(remaining, call.expire)
        if not (self.session.opened or self._only):
            self.mailbox.loop.call_later(remaining / 2, self._hurry, call)

    def _hurry(self, call: AsyncCall[Any]) -> None:
        """Half of a call's time is over, and nobody knows whether the server offers sessions: do not wait for that."""
        if not (self.session.opened or call.done() or call.driver is not self):
            self._hand_over("half of a call's time had passed before the server said whether it offers sessions")

    # -- metadata ---------------------------------------------------------------------------------------

    async def initial_metadata(self, call: AsyncCall[Any]) -> grpc.aio.Metadata:
        await self._settled_or_moved(call)
        if call.driver is not self:
            return await call.driver.initial_metadata(call)
        return grpc.aio.Metadata() if call.metadata is None else call.metadata[0]

    async def trailing_metadata(self, call: AsyncCall[Any]) -> grpc.aio.Metadata:
        await call.code()
        if call.driver is not self:
            return await call.driver.trailing_metadata(call)
        return grpc.aio.Metadata() if call.metadata is None else call.metadata[1]

    async def _settled_or_moved(self, call: AsyncCall[Any]) -> None:
        """Wait until a call of this driver's has settled, or is another driver's."""
        settled = asyncio.ensure_future(call.code())
        try:
            while not settled.done() and call.driver is self:
                await asyncio.wait((settled, self._moved), return_when=asyncio.FIRST_COMPLETED)
        finally:
            settled.cancel()

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

    # -- the door ---------------------------------------------------------------------------------------

    def go_natively(self) -> grpc.aio.Channel:
        """Have calls go natively, those that wait and those that come, until `go_by_sessions`. Returns by what."""
        with self._lock:
            self._taking = False
        self._native.reason = self._door.reason
        self._hand_over(self._door.reason)
        self._say()
        return self._native.channel

    def go_by_sessions(self) -> None:
        """The calls that come go by a session again."""
        with self._lock:
            self._taking = not self._streams.stopped

    def _hand_over(self, reason: str) -> None:
        """Have all calls that have not left go natively, in the order in which they were begun."""
        withdrawn = self._withdraw(lambda _: True)
        for one in withdrawn:
            one.call.reason = reason
            self._begin_natively(one.call, one.payload, one.with_head)
        moved, self._moved = self._moved, self.mailbox.loop.create_future()
        moved.set_result(None)

    def _withdraw(self, which: Callable[[AsyncCall[Any]], bool]) -> list[Withdrawn[AsyncCall[Any]]]:
        """Take calls back that have not left. A session that no server knows goes with the last of them."""
        with self._lock:
            session = self.session
            withdrawn = session.machine.withdraw(which)
            if not (session.opened or session.machine.outstanding):
                self.session = self._new_session()  # what is left are names of methods: no reason to connect
        return withdrawn

    def _begin_natively(self, call: AsyncCall[Any], payload: bytes, with_head: bool) -> bool:
        metadata: tuple[tuple[str, str | bytes], ...] = ()
        if with_head:
            payload, _, metadata = read_call_head(payload)
        if call.timer is not None:
            call.timer.cancel()  # gRPC has one
        call.driver = self._native
        began = self._native.begin(call, payload, CallOptions(metadata, None, call.wait_for_ready or None, None))
        if call.watched:
            self._native.watch(call)
        request = call.cancel_request
        if request is not None and request.status is RpcStatus.ASYNC_CALL_PENDING:
            self._native.tell_cancel(call, request)
        return began

    def _say(self) -> None:
        """Log which wire the channel's calls take, once for each change."""
        if self._said is not self._door.wire:
            self._said = self._door.wire
            how = "by sessions" if self._said is Wire.SESSION else "natively"
            _LOGGER.info("the calls to %s go %s: %s", self._target, how, self._door.reason)

    def opened(self) -> None:
        """A stream has been opened."""
        self._say()

    # -- what is lost -----------------------------------------------------------------------------------

    def renew(self) -> None:
        """The stream has ended with nothing to resume: the next one is for a new session, unless calls came since."""
        with self._lock:
            if not self.session.machine.outstanding:
                self.session = self._new_session()

    def refuse_unsent(self, failure: Fault, *, all_of_them: bool) -> None:
        """There is no session: fail the calls that are not willing to wait for one, or all; none was executed."""
        withdrawn = self._withdraw(lambda call: all_of_them or not call.wait_for_ready)
        failure = not_executed(failure)
        for item in withdrawn:
            item.call.settle(failure)
            self._after_end(item.call)

    def lose(self, text: str) -> None:
        """The session is gone: what may have been executed fails, and the rest is begun anew in the next one (C14)."""
        with self._lock:
            if not self.session.opened:
                return
            gone, self.session = self.session, self._new_session()
            lost = gone.machine.lose()
            elsewhere = self._begin_anew(lost.unsent)
        code = grpc.StatusCode.UNAVAILABLE.value[0]
        for call in lost.sent:
            call.settle(Fault(RpcStatus.CALL_FAILED, f"{text}; the call may have been executed", code))
            self._after_end(call)
        for one in elsewhere:
            if self._only:
                why = f"{MAX_TRIES} sessions were lost in the middle of its request" if one.in_part else _FULL
                call_text = f"{text}; {why}; the call was not executed"
                one.call.settle(Fault(RpcStatus.CALL_FAILED_DNE, call_text, code, executed=False))
                self._after_end(one.call)
            else:
                one.call.reason = f"{MAX_TRIES} sessions were lost in the middle of its request"
                self._begin_natively(one.call, one.payload, one.with_head)

    def _begin_anew(self, unsent: Iterable[Withdrawn[AsyncCall[Any]]]) -> list[Withdrawn[AsyncCall[Any]]]:
        """Begin calls in the session that is new, in their order. Under the lock. Returns those that must not be."""
        machine, ids = self.session.machine, self.session.ids
        elsewhere = []
        for one in unsent:
            call = one.call
            if call.done():  # it was aborted just now
                continue
            call.tries += one.in_part
            payload = one.payload
            if one.with_head and call.deadline is not None:
                request, _, metadata = read_call_head(payload)
                payload = call_head(request, call.time_remaining(), metadata)
            call.number = 0 if call.tries >= MAX_TRIES else machine.begin(one.method, payload, call, one.with_head)
            if not call.number:
                elsewhere.append(one)
                continue
            call.ids = ids
            if call.watched:
                machine.watch(call.number)
            if call.cancel_request is not None:
                machine.ask(call.number)
        return elsewhere

    def ended(self) -> None:
        """There will be no stream any more: settle what is outstanding."""
        with self._lock:
            self._taking = False
            calls = tuple(self.session.machine.outstanding.values())
            self.session.machine.outstanding.clear()
            self.session.machine.forget()
        failure = fault(RpcStatus.CALL_CANCELLED, _LOOP_ENDED, cancel_reason=CancelReason.CLIENT_ABORTED)
        for call in calls:
            call.settle(failure)
            self._after_end(call)

    # -- the end ----------------------------------------------------------------------------------------

    @property
    def outstanding(self) -> list[AsyncCall[Any]]:
        """The calls that have not settled."""
        with self._lock:
            return list(self.session.machine.outstanding.values())

    def abort_all(self) -> None:
        """Take no more calls, and abort those that are outstanding."""
        with self._lock:
            self._taking = False
        for call in self.outstanding:
            call.abort(_CLOSED)

    async def close(self) -> None:
        """Tell the server that the session ends, and close its stream. To be called after `abort_all`."""
        await self._streams.close()
