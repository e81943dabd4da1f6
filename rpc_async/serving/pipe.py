"""Calls with pipes, server's side: gRPC's streaming methods, served by manager routines."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from functools import partial
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
        "_auth",
        "_carrier",
        "_codec_of_chunks",
        "_due",
        "_introduced",
        "_introducing",
        "_served",
        "_told",
        "closed",
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
        self._carrier: asyncio.Task[None] | None = None
        self._introducing = asyncio.Lock()
        self._introduced = False
        self.closed: bool = False
        """gRPC's call is over."""
        self._due = False
        # gRPC's task may end where it writes, outside its handler: from then on its call is not to be asked.
        self._auth = context.peer_identities(), context.peer_identity_key(), dict(context.auth_context())
        self.keep_peer()

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
        if self.closed:
            self._owner.finished(self)
        self._due = True

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        self.closed = True
        if self._due:
            self._owner.finished(self)

    # -- who calls --------------------------------------------------------------------------------------

    def peer_identities(self) -> Iterable[bytes] | None:
        return self._known()[0]

    def peer_identity_key(self) -> str | None:
        return self._known()[1]

    def auth_context(self) -> dict[str, Iterable[bytes]]:
        return dict(self._known()[2])

    def _known(self) -> tuple[Iterable[bytes] | None, str | None, Mapping[str, Iterable[bytes]]]:
        with self._lock:
            self._open()
            return self._auth

    # -- the wire's side --------------------------------------------------------------------------------

    def carry(self, context: Context, requests: AsyncIterable[Any] | None) -> None:
        """Begin to carry what comes in over gRPC's call: through `requests`, if there are interceptors."""
        if self.pull_end is not None:
            read = context.read
            if requests is not None:
                chunks = aiter(requests)
                read = partial(_next, chunks)
            self._carrier = self._loop.create_task(self._receive(context, read, self.pull_end))

    async def introduced(self) -> None:
        """Wait until no initial metadata are on their way, and have none sent any more but by the outcome."""
        async with self._introducing:
            self._introduced = True

    async def _receive(self, context: Context, read: Callable[[], Awaitable[Any]], pulls: PullEnd[Any]) -> None:
        try:
            while await pulls.room():
                chunk = await read()
                if chunk is grpc.aio.EOF:
                    if await self._confirmed(context):
                        pulls.ended()
                    return
                pulls.arrived(self._codec_of_chunks.decode(chunk))
        except grpc.aio.BaseError:  # the client is gone: gRPC cancels the handler, which sees to all that follows
            return
        except BaseException as error:  # out of the user's deserialiser, or an interceptor
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            text = str(error) if isinstance(error, BadStubData) else f"{self.method}: a chunk was not read: {error!r}"
            self._fail(fault(RpcStatus.BAD_STUB_DATA, text, executed=True))
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                self._owner.let_through(error)

    async def introduce(self, context: Context) -> bool:
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
            if not await self.introduce(context):
                await asyncio.sleep(_CONFIRM)
        except grpc.aio.BaseError:
            return False
        return True

    def broke(self, error: Exception) -> None:
        """gRPC, or an interceptor, failed where a chunk was sent."""
        _LOGGER.error("%r: gRPC, or an interceptor, failed in an unforeseen way", self, exc_info=error)
        self._fail(fault(RpcStatus.INTERNAL_ERROR, f"{type(error).__name__}: {error}", executed=True))

    def _fail(self, failure: Fault) -> None:
        step = self._end()
        if step.verdict is not RpcStatus.INVALID_ASYNC_HANDLE:
            self._settle(step, failure)


async def _next(chunks: AsyncIterator[Any]) -> Any:
    """Return the next chunk, or gRPC's mark of the end."""
    try:
        return await anext(chunks)
    except StopAsyncIteration:
        return grpc.aio.EOF


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
