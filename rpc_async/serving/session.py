"""The session wire, server's side: many calls on one stream, which outlive it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import grpc
import grpc.aio

from rpc_async.core.frames import Frame, FrameKind, ProtocolError
from rpc_async.core.outcome import Fault, fault
from rpc_async.core.server_session import ServerSession
from rpc_async.errors import BadStubData
from rpc_async.pump import Pump
from rpc_async.serving.codec import Codec
from rpc_async.serving.dispatcher import Routine
from rpc_async.serving.manager import RoutineKind
from rpc_async.serving.record import CallRecord
from rpc_async.serving.session_call import SessionCall
from rpc_async.status import CancelReason, RpcStatus
from rpc_async.wire.metadata import MAX_METADATA, metadata_size
from rpc_async.wire.session import (
    BothMetadata,
    CallIds,
    cancel_note,
    encode_response,
    fault_head,
    opened_response,
    progress_payload,
    read_abort_head,
    read_call_head,
    read_request,
)

if TYPE_CHECKING:
    from rpc_async.serving.sessions import SessionService

__all__ = [
    "Context",
    "Identity",
    "ManagerMethod",
    "ServeOtherwise",
    "ServedCall",
    "ServedSession",
    "Stream",
    "read_message",
    "session_key",
]

CHUNK: Final = 128
"""Frames that are heard before the writer gets its turn: so the client has work while the rest is heard. Fewer are for
the client to send."""
FULL: Final = 256 * 1024 * 1024
"""Bytes of outcomes that wait to be sent: while there are more, that client's new calls are refused. Reading
must go on: what the client reads, it acknowledges in what it sends."""
OVERFULL: Final = FULL + 64 * 1024 * 1024
"""Bytes: a client that does not read so much that waits for it loses its session."""
GRAIN: Final = 4096
"""Bytes that what a session holds may change by before it is weighed again: see `SessionService.weigh`."""

_NO_ROOM: Final = "the server has no room for the request at present: not executed; try again later"

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

    def ask(self) -> RpcStatus | None:
        """The client asked it to stop. Returns what to tell the client; None: it will be told later (`note`)."""
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
    user_agent: str | None = None
    """What the client's library calls itself."""

    def is_that_of(self, other: Identity) -> bool:
        """Tell whether both were authenticated as the same client, or neither was."""
        return (self.identity_key, self.identities) == (other.identity_key, other.identities)


ServeOtherwise = Callable[
    ["ServedSession", int, str, bytes, float | None, tuple[tuple[str, str | bytes], ...]], ServedCall | None
]
"""Starts a call that no manager routine serves: of a session, with a number, a method, a request, the seconds until its
deadline, and metadata. None: there are too many."""


class Stream:
    """A stream that a session has at present."""

    __slots__ = ("context", "pump", "task", "verdict")

    def __init__(self, context: Context, task: asyncio.Task[Any]) -> None:
        self.context: Final = context
        self.task: Final = task
        self.pump: Pump
        self.verdict: tuple[grpc.StatusCode, str] | None = None
        """What the client is told, where the server ends the stream."""

    def end(self, code: grpc.StatusCode, text: str) -> None:
        """End it, and tell the client why."""
        self.verdict = code, text
        self.pump.stop()
        self.task.cancel()


class ServedSession:
    """One session: holds its machine, reads and writes its streams, and starts its calls."""

    __slots__ = (
        "_gate",
        "_greeting",
        "_hearing",
        "_progress",
        "_sent",
        "_service",
        "_weighed",
        "identity",
        "ids",
        "key",
        "loop",
        "machine",
        "stream",
    )  # fmt: skip

    def __init__(self, service: SessionService, session_id: bytes, identity: Identity) -> None:
        self.ids: Final = CallIds(session_id)
        self.key: Final = session_key(session_id)
        self.machine: Final[ServerSession[ServedCall]] = ServerSession(
            max_payload=service.max_payload, wake=self._rouse
        )
        self.identity: Identity = identity
        self.stream: Stream | None = None
        self.loop: Final = service.dispatcher.loop
        self._service = service
        self._greeting = False
        self._hearing = False
        self._gate = GRAIN
        self._weighed = 0
        self._progress: dict[int, CallRecord] = {}
        self._sent: asyncio.Event | None = None

    # -- streams ----------------------------------------------------------------------------------------

    def attach(self, context: Context) -> Stream:
        """Go on with a new stream."""
        if self.stream is not None:
            self.stream.end(grpc.StatusCode.ABORTED, "the session was resumed on another stream")
        task = asyncio.current_task()
        assert task is not None
        stream = Stream(context, task)
        self.stream = stream
        self._greeting = True
        stream.pump = Pump(self.loop, context.write, self._next_batch, partial(self._service.failed, self, stream))
        return stream

    async def read(self, stream: Stream, size: int, frames: list[Frame], ack: int) -> None:
        """Read the stream to its end; its first message has been read, and had this."""
        await self._arrived(stream.pump, size, frames, ack)
        while not self.machine.closed:
            message = await read_message(stream.context)
            if not isinstance(message, bytes):
                return
            opening, ack, frames = read_request(message)
            if opening is not None:
                raise ProtocolError("an Open in the middle of a stream")
            await self._arrived(stream.pump, len(message), frames, ack)

    async def _arrived(self, pump: Pump, size: int, frames: list[Frame], ack: int) -> None:
        link = self.machine.link
        for begin in range(0, len(frames) or 1, CHUNK):
            if begin:
                await asyncio.sleep(0)
            chunk = frames[begin : begin + CHUNK]
            # A stream can be cut between two chunks: what was not heard has not arrived, and comes again.
            # What the batch takes counts with its last chunk, so that all of it is acknowledged at once.
            last = begin + CHUNK >= len(frames)
            link.arrived(len(chunk), size if last else 0, ack, self.loop.time())
            self._hear_all(chunk)
            pump.flush()
            self._weigh()

    def _weigh(self) -> None:
        self._gate = self.machine.link.queued_bytes + GRAIN
        held = self.machine.held
        if not -GRAIN < held - self._weighed < GRAIN:
            self._weighed = held
            self._service.weigh(self)

    def _next_batch(self) -> bytes | None:
        link = self.machine.link
        if self._greeting:
            self._greeting = False
            return opened_response(self._service.opened(found=True), link.ack())
        if self._progress and link.ready:
            self._push_progress()
        frames = link.next(self.loop.time())
        if frames is None:
            if self._sent is not None and link.all_taken:
                self._sent.set()
            return None
        return encode_response(frames, link.ack())

    def _rouse(self) -> None:
        """Have the writer look soon: there is something to send. The link calls it when something was pushed.

        Whoever says something calls `wake` after it, or is heard, after which the writer looks anyway. So a turn of the
        loop for the writer is asked for only where other calls run, whose outcomes may go out with this.
        """
        if self.stream is not None and not self._hearing and self.machine.calls:
            self.stream.pump.flush_soon()

    def wake(self) -> None:
        """Something was said to the client, and the link has woken the writer."""
        if self._hearing:
            return
        if self.machine.link.queued_bytes > self._gate:
            self._weigh()
        if self.stream is not None and not self.machine.calls:
            self.stream.pump.flush()  # the outcome of a lone call need not wait for company

    async def close(self) -> None:
        """End the session for its client, once everything was sent; and wait until that is sent."""
        await self._all_sent()  # large outcomes go in pieces, which the end would overtake
        self.machine.close()
        await self._all_sent()

    async def _all_sent(self) -> None:
        self._sent = asyncio.Event()
        if self.stream is not None:
            self.stream.pump.flush()
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
        refusal = (None if target is None else dispatcher.refusal()) or self._refusal()
        if refusal is not None:
            self.refuse(number, refusal)
            return
        timeout: float | None = None
        metadata: tuple[tuple[str, str | bytes], ...] = ()
        if with_head:
            payload, timeout, metadata = read_call_head(payload)
        if len(payload) > service.max_payload or (metadata and metadata_size(metadata) > MAX_METADATA):
            self.refuse(number, fault(RpcStatus.OUT_OF_MEMORY, self._too_large(), executed=False))
            return
        if target is None:
            call = service.serve_otherwise(self, number, method, payload, timeout, metadata)
            if call is None:
                self.refuse(number, fault(RpcStatus.SERVER_TOO_BUSY, "the server serves as many calls as it may"))
            else:
                self.machine.calls[number] = call
            return
        codec, kind, routine = target
        try:
            request = codec.decode(payload)
        except BadStubData as error:
            self.refuse(number, fault(RpcStatus.BAD_STUB_DATA, str(error), executed=False))
            return
        except (KeyboardInterrupt, SystemExit) as error:
            self.refuse(number, fault(RpcStatus.BAD_STUB_DATA, f"{method}: the request was not read", executed=False))
            dispatcher.let_through(error)
            return
        self.machine.calls[number] = record = SessionCall(self, number, codec, dispatcher, metadata)
        dispatcher.running += 1
        if timeout is not None:
            record.expire_in(timeout, self.loop)
        if dispatcher.table.expects:
            dispatcher.table.meet(record, self.loop)
        dispatcher.start(record, kind, routine, request, dispatcher.context.copy())

    def _about(self, kind: int, number: int, payload: bytes) -> None:
        if kind == _ABORT:
            reason = read_abort_head(payload)
            call = self.machine.release(number)
            if call is not None:
                call.orphan(reason)
            return
        if kind == _START:
            self.refuse(number, fault(RpcStatus.OUT_OF_MEMORY, self._too_large(), executed=False))
            return
        call = self.machine.calls.get(number)
        if kind == _CANCEL:
            status = RpcStatus.NO_CALL_ACTIVE if call is None else call.ask()
            if status is not None:
                self.note(number, status)
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
        return (
            f"the request is over the {self._service.max_payload} bytes that the server takes, or its metadata over "
            f"{MAX_METADATA}: not executed"
        )

    # -- what the server says ---------------------------------------------------------------------------

    def end(self, number: int, kind: int, payload: bytes) -> None:
        """Send a call's outcome, unless nobody waits for it any more."""
        if self.machine.end(number, kind, payload) and not self._hearing:
            self.wake()

    def refuse(self, number: int, failure: Fault) -> None:
        """Send the outcome of a call that was not taken."""
        self.machine.refuse(number, _FAULT, fault_head(failure, BothMetadata()))
        self.wake()

    def relieve(self) -> None:
        """Throw away the large requests that have not arrived whole: the server needs the room."""
        numbers = self.machine.relieve()
        for number in numbers:
            head = fault_head(fault(RpcStatus.SERVER_TOO_BUSY, _NO_ROOM), BothMetadata())
            self.machine.refuse(number, _FAULT, head)
        if numbers and self.stream is not None:
            self.stream.pump.flush_soon()

    def note(self, number: int, status: RpcStatus) -> None:
        """Tell the client what became of its asking a call to stop."""
        self.machine.link.push(_NOTE, number, cancel_note(status))
        self.wake()

    def progressed(self, number: int, record: CallRecord) -> None:
        """A call that is watched has a new report. The latest wins."""
        self._progress[number] = record
        self._rouse()  # it is pushed when it is sent

    def _push_progress(self) -> None:
        for number, record in self._progress.items():
            report = record.last_progress
            if number in self.machine.calls and report is not None:
                self.machine.link.push(_PROGRESS, number, progress_payload(report))
        self._progress.clear()

    def adopt(self, call: SessionCall) -> None:
        """Have a call found by its id though its number is forgotten."""
        self._service.dispatcher.table.list(call)

    def abandon(self, reason: CancelReason) -> None:
        """The session is over: let go of what it holds, and cancel what it still runs."""
        calls = tuple(self.machine.calls.values())
        self.machine.calls.clear()
        self.machine.forget()
        self._progress.clear()
        for call in calls:
            call.orphan(reason)


async def read_message(context: Context) -> Any:
    """Read a stream's next message; something else than bytes at its end."""
    try:
        return await context.read()
    except Exception as error:  # gRPC has ended the stream itself, for which it has no name
        raise asyncio.CancelledError from error


def session_key(session_id: bytes) -> bytes:
    """Return what a session is found by: not the secret itself, which a look-up might give away by its time."""
    return blake2b(session_id, digest_size=32, person=b"rpc_async table").digest()
