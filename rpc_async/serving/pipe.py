"""Calls with pipes, server's side: gRPC's streaming methods, served by manager routines."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast

import grpc.aio

from rpc_async.core.outcome import Fault, Outcome, fault
from rpc_async.core.pipe import Pipes
from rpc_async.core.server_call import ServerCallMachine, ServerState
from rpc_async.errors import BadStubData, PipeDisciplineError
from rpc_async.mailbox import Mailbox
from rpc_async.notification.targets import Target
from rpc_async.notification.told import Told
from rpc_async.pipe import PullEnd, Pulling, PushEnd, Pushing
from rpc_async.serving.call import ServerCall
from rpc_async.serving.codec import Codec
from rpc_async.serving.native_call import Context, NativeCall
from rpc_async.serving.record import CallRecord
from rpc_async.status import AsyncEvent, CancelReason, RpcStatus
from rpc_async.wire.metadata import CALL_ID_KEY

if TYPE_CHECKING:
    from rpc_async.serving.dispatcher import Dispatcher

_LOGGER: Final = logging.getLogger("rpc_async.serving")

__all__ = ["UNARY", "PipeRecord", "ServerPullCall", "ServerPushCall", "ServerPushPullCall", "Shape", "shape_of"]

ReplyT = TypeVar("ReplyT")
SentT = TypeVar("SentT")
PulledT = TypeVar("PulledT")

_CONFIRM: Final = 0.02
"""Seconds from the end of what a client sends until it is believed, where it cannot be confirmed. See `_confirmed`."""
_EVENTS: Final = (AsyncEvent.SEND_COMPLETE, AsyncEvent.RECEIVE_COMPLETE)


class PipeRecord(NativeCall):
    """The record of a call with pipes.

    It counts among the running calls until its last chunk has left, even if its manager has completed it before.
    """

    __slots__ = (
        "_carriers",
        "_codec_of_chunks",
        "_due",
        "_introduced",
        "_introducing",
        "_served",
        "_told",
        "pipes",
        "pull_end",
        "push_end",
    )

    def __init__(
        self,
        call_id: str | None,
        codec: Codec,
        dispatcher: Dispatcher,
        metadata: tuple[tuple[str, str | bytes], ...],
        context: Context,
        shape: Shape,
    ) -> None:
        self.pipes: Pipes = Pipes(pushing=shape.pushes, pulling=shape.pulls, server=True, strict=shape.strict)
        """The machine of the pipes."""
        completing = _Completing(codec, self.pipes, dispatcher.mailbox)
        super().__init__(call_id, cast("Codec", completing), dispatcher, metadata, context)
        completing.machine = self.machine
        self._codec_of_chunks = codec
        self.push_end: PushEnd[Any] | None = None
        if self.pipes.pushing is not None:
            self.push_end = PushEnd(self, self.pipes.pushing)
        self.pull_end: PullEnd[Any] | None = None
        if self.pipes.pulling is not None:
            self.pull_end = PullEnd(self, self.pipes.pulling)
        self._told: Told | None = None
        self._carriers: list[asyncio.Task[None]] = []
        self._introducing = asyncio.Lock()
        self._introduced = False
        self._served = False
        self._due = False

    # -- the pipes' side --------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise if the manager can do nothing with the pipes any more."""
        if self.machine.state in (ServerState.ORPHANED, ServerState.SETTLED):
            raise self.over()

    def over(self) -> Exception:
        """Return what is raised where a pipe is broken."""
        return self._destroyed() if self.settled else self.cancelled_error()

    def freeze(self, message: Any) -> Any:
        """Return what is sent of a message (P1)."""
        return self._codec_of_chunks.encode(message, "chunk", "it was not pushed")

    def notify(self, target: Target, key: object, events: Collection[AsyncEvent]) -> None:
        """See `ServerPushCall.notify`."""
        told = Told(target, key, events, self.mailbox, _EVENTS)
        self.check()
        with self._lock:
            self._told = told.join(self._told)

    def tell(self, event: AsyncEvent) -> None:
        """Tell whoever asked to be told of a pipe."""
        if self._told is not None:
            self.mailbox.run(self._tell, event)

    def _tell(self, event: AsyncEvent) -> None:
        handle = self.handle()
        if self._told is not None and handle is not None and not self.settled:
            self._told.tell(event, handle)

    # -- the end ----------------------------------------------------------------------------------------

    def deliver(self, outcome: Outcome) -> None:
        if self.push_end is not None:
            if self.settled:
                self.push_end.finish()  # what was pushed goes before the outcome, whatever it is
            else:
                self.push_end.close()  # nobody waits for it
        if self.pull_end is not None:
            self.pull_end.close()
        super().deliver(outcome)

    def _finish(self, outcome: Outcome, deliver: bool) -> None:
        self._told = None
        if deliver:
            self.deliver(outcome)
        if self._served:
            self._owner.finished(self)
        self._due = True

    def close(self) -> None:
        super().close()
        self._served = True
        if self._due:
            self._owner.finished(self)

    # -- the wire's side --------------------------------------------------------------------------------

    def carry(self, context: Context) -> None:
        """Begin to carry the pipes over gRPC's call."""
        if self.pull_end is not None:
            self._spawn(self._receive(context, self.pull_end))
        if self.push_end is not None:
            self._spawn(self._send(context, self.push_end))

    def _spawn(self, carrying: Coroutine[Any, Any, None]) -> None:
        self._carriers.append(self._loop.create_task(carrying))

    async def flushed(self) -> None:
        """Wait until nothing is being written that must be written before the outcome."""
        if self.push_end is not None:
            await asyncio.wait((self._carriers[-1],))  # and does not cancel it, as awaiting it would
        async with self._introducing:
            self._introduced = True

    async def _send(self, context: Context, pushes: PushEnd[Any]) -> None:
        try:
            if self.chose_id and self.pull_end is None:
                await self._introduce(context)
            while (chunk := await pushes.take()) is not None:
                await self._introduce(context)
                await context.write(chunk)
                pushes.sent()
        except grpc.aio.BaseError:  # the client is gone: gRPC cancels the handler, which sees to all that follows
            return
        except Exception as error:
            _LOGGER.exception("%r: gRPC, or an interceptor, failed in an unforeseen way", self)
            self._fail(fault(RpcStatus.INTERNAL_ERROR, f"{type(error).__name__}: {error}", executed=True))

    async def _receive(self, context: Context, pulls: PullEnd[Any]) -> None:
        try:
            while await pulls.room():
                chunk = await context.read()
                if chunk is grpc.aio.EOF:
                    if await self._confirmed(context):
                        pulls.ended()
                    return
                pulls.arrived(self._codec_of_chunks.decode(chunk))
        except grpc.aio.BaseError:  # as above
            return
        except Exception as error:
            text = str(error) if isinstance(error, BadStubData) else f"{self.method}: a chunk does not parse: {error}"
            self._fail(fault(RpcStatus.BAD_STUB_DATA, text, executed=True))

    async def _introduce(self, context: Context) -> bool:
        """Send the initial metadata. False: they were sent before, or it is too late for them."""
        async with self._introducing:
            if self._introduced:
                return False
            self._introduced = True
            await context.send_initial_metadata(((CALL_ID_KEY, self.call_id),) if self.chose_id else ())
            return True

    async def _confirmed(self, context: Context) -> bool:
        """Tell whether the end of what the client sends is its own: a client that aborts, or is gone, looks the same.

        gRPC tells of the end first, and some milliseconds later that it was none: a file half sent would be taken for
        whole. Nothing can be sent to a client that is gone, so the initial metadata, kept back for this, are the proof.
        Where chunks have taken them along, it is time that has to tell.
        """
        if self.outcome is not None:
            return False
        try:
            if not await self._introduce(context):
                await asyncio.sleep(_CONFIRM)
        except grpc.aio.BaseError:
            return False
        return True

    def _fail(self, failure: Fault) -> None:
        step = self._end()
        if step.verdict is not RpcStatus.INVALID_ASYNC_HANDLE:
            self._settle(step, failure)


class _Completing:
    """What a reply goes through, in place of the codec alone: a call is completed once its pipes are drained (P5)."""

    __slots__ = ("_codec", "_lock", "_pipes", "machine", "method")

    def __init__(self, codec: Codec, pipes: Pipes, mailbox: Mailbox) -> None:
        self.method: Final = codec.method
        self._codec = codec
        self._pipes = pipes
        self._lock = mailbox.lock
        self.machine: ServerCallMachine | None = None

    def encode(self, reply: Any) -> Any:
        """Freeze a reply, or check that there is none where chunks were pushed in its place."""
        with self._lock:
            verdict = self._pipes.may_complete()
        assert self.machine is not None
        abandoned = self.machine.cancel_reason not in (None, CancelReason.CLIENT_REQUESTED)
        if verdict is not RpcStatus.OK and not abandoned:  # if it is, what it is completed with is dropped (S11)
            raise PipeDisciplineError(
                f"{self.method}: the call was completed before its pipes were drained; pull to the end first, or "
                "discard(); with strict_pipes push the end, too: the client gets an error (P5)"
            )
        if self._pipes.pushing is None:
            return self._codec.encode(reply)
        if reply is not None:
            raise BadStubData(
                f"{self.method}: complete() takes no reply, since its replies are pushed: the client gets an error (S5)"
            )
        return None


class _PipeServerCall(ServerCall[ReplyT]):
    """What the server handles of calls with pipes have."""

    __slots__ = ()

    def notify(
        self,
        target: Target,
        key: object = None,
        events: Collection[AsyncEvent] = (AsyncEvent.SEND_COMPLETE, AsyncEvent.RECEIVE_COMPLETE),
    ) -> None:
        """Have a target told when a pipe that was full has room, and when one that was empty has something.

        SEND_COMPLETE comes too once all that was pushed is sent. The latest wins: while one was not taken, no other of
        its kind is sent. Keep the handle: a call whose handle nobody holds is forgotten (S14).

        Args:
            target: As for `AsyncCall.notify`.
            key: Yours: it is handed back verbatim.
            events: Which of the two.

        Raises:
            InvalidArgument: The target is none.
            CannotSupport: Another event.
            CallCancelled: Nobody waits for the call any more.
            InvalidAsyncHandle: The call was completed or aborted before (S4).
        """
        cast("PipeRecord", self._record).notify(target, key, events)


class ServerPullCall(Pulling[PulledT], _PipeServerCall[ReplyT]):
    """The server handle of a call that chunks are pulled from: of a client-streaming method.

    Pull to the end, then `complete(reply)`. Its manager routine is called as `(self, call)`.
    """

    __slots__ = ("_pull_end",)

    def __init__(self, record: CallRecord) -> None:
        super().__init__(record)
        self._pull_end: PullEnd[PulledT] = _there(cast("PipeRecord", record).pull_end)


class ServerPushCall(Pushing[SentT], _PipeServerCall[None]):
    """The server handle of a call that chunks are pushed into: of a server-streaming method.

    Push, then `complete()`, which ends the pipe, and is its end on the wire. Its manager routine is called as
    `(self, request, call)`.
    """

    __slots__ = ("_push_end",)

    def __init__(self, record: CallRecord) -> None:
        super().__init__(record)
        self._push_end: PushEnd[SentT] = _there(cast("PipeRecord", record).push_end)

    def complete(self, reply: None = None) -> RpcStatus:
        """Complete the call, behind what was pushed. See `ServerCall.complete`."""
        return super().complete(reply)


class ServerPushPullCall(Pushing[SentT], Pulling[PulledT], _PipeServerCall[None]):
    """The server handle of a call with a pipe each way: of a bidirectionally streaming method.

    Pull to the end, push what there is to push, then `complete()`. What is pulled and what is pushed may cross, unless
    its manager is marked with `strict_pipes`. Its manager routine is called as `(self, call)`.
    """

    __slots__ = ("_pull_end", "_push_end")

    def __init__(self, record: CallRecord) -> None:
        super().__init__(record)
        self._push_end: PushEnd[SentT] = _there(cast("PipeRecord", record).push_end)
        self._pull_end: PullEnd[PulledT] = _there(cast("PipeRecord", record).pull_end)

    def complete(self, reply: None = None) -> RpcStatus:
        """Complete the call, behind what was pushed. See `ServerCall.complete`."""
        return super().complete(reply)


EndT = TypeVar("EndT")


def _there(end: EndT | None) -> EndT:
    assert end is not None
    return end


class Shape(NamedTuple):
    """Which pipes the calls of a method have, as their server sees them, and how they are used."""

    pushes: bool
    pulls: bool
    handle_type: Callable[[Any], ServerCall[Any]]
    strict: bool = False


UNARY: Final = Shape(pushes=False, pulls=False, handle_type=ServerCall)
"""No pipes."""


def shape_of(*, pulls: bool, pushes: bool, strict: bool) -> Shape:
    """Return the shape of a method's calls, by what gRPC says: the client streams, the server streams."""
    if pulls and pushes:
        return Shape(pushes, pulls, ServerPushPullCall, strict)
    if pulls:
        return Shape(pushes, pulls, ServerPullCall, strict)
    return Shape(pushes, pulls, ServerPushCall, strict) if pushes else UNARY
