"""The completion handles of calls with pipes: gRPC's streaming methods."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, TypeVar

import grpc
import grpc.aio

from rpc_async.calling.bare import bare_writer
from rpc_async.calling.call import AsyncCall, CallDriver
from rpc_async.core.outcome import Fault, Outcome, Reply, fault
from rpc_async.core.pipe import Pipes, PipeState
from rpc_async.errors import PipeClosed, PipeDisciplineError
from rpc_async.mailbox import Mailbox, let_through
from rpc_async.pipe import PullEnd, Pulling, PushEnd, Pushing
from rpc_async.status import AsyncEvent, CancelReason, RpcStatus

__all__ = ["Freeze", "PipeCall", "PullCall", "PushCall", "PushPullCall", "Shape"]

_LOGGER: Final = logging.getLogger("rpc_async.calling")

ReplyT = TypeVar("ReplyT")
SentT = TypeVar("SentT")
PulledT = TypeVar("PulledT")

Freeze = Callable[[Any], Any]
"""Makes what is sent of a message."""


class Shape(NamedTuple):
    """Which pipes a call has, as its client sees it, and how they are used."""

    pushes: bool
    pulls: bool
    strict: bool


class PipeCall(AsyncCall[ReplyT]):
    """The completion handle of a call with pipes. All that an `AsyncCall` can do, it can.

    The call settles when the server has completed it, and all that it pushed has arrived: what nobody pulls holds it
    back. `async with` and `with` end the pipe and wait for the outcome on the way out; left early, by an exception or
    before all was pulled, they abort the call.
    """

    _events = (
        AsyncEvent.CALL_COMPLETE,
        AsyncEvent.SEND_COMPLETE,
        AsyncEvent.RECEIVE_COMPLETE,
        AsyncEvent.PROGRESS,
    )

    _push_end: PushEnd[Any]
    _pull_end: PullEnd[Any]

    def __init__(
        self,
        driver: CallDriver,
        method: str,
        deserialize: Callable[[bytes], Any] | None,
        freeze: Freeze,
        shape: Shape,
    ) -> None:
        super().__init__(driver, method, deserialize)
        self.pipes: Final[Pipes] = Pipes(pushing=shape.pushes, pulling=shape.pulls, server=False, strict=shape.strict)
        """The machine of the pipes."""
        self.freeze: Final[Freeze] = freeze
        """Makes what is sent of a message."""
        self._pushes: PushEnd[Any] | None = None
        self._pulls: PullEnd[Any] | None = None
        if self.pipes.pushing is not None:
            self._push_end = self._pushes = PushEnd(self, self.pipes.pushing)
        if self.pipes.pulling is not None:
            self._pull_end = self._pulls = PullEnd(self, self.pipes.pulling)
        self._listened = True  # to the end: the pipes are

    def complete(self) -> ReplyT:
        """Return the reply of a call that has settled, and whose pipes are drained. Source: RpcAsyncCompleteCall; P5.

        Raises:
            PipeDisciplineError: The pipe that is pushed into was not ended, or that which is pulled from has more;
                nothing was consumed.
            AsyncCallPending: The call has not settled; it stays outstanding.
            CallError: The call failed.
        """
        with self._mailbox.lock:
            verdict = self.pipes.may_collect(self._machine.outcome)
        if verdict is RpcStatus.PIPE_DISCIPLINE_ERROR:
            raise PipeDisciplineError(
                f"{self!r}: a call is completed once its pipes are drained: push the end of the one, and pull the "
                "other to its end, or discard() it; nothing was consumed (P5)"
            )
        return super().complete()

    # -- with -------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._leave(kind is not None):
            await self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._leave(kind is not None):
            self.result()

    def _leave(self, early: bool) -> bool:
        """End the pipes; return whether there is an outcome to wait for, or abort the call if there is none."""
        pushing, pulling = self.pipes.pushing, self.pipes.pulling
        over = pulling is not None and pulling.state in (PipeState.FAILING, PipeState.BROKEN)
        if early or (pulling is not None and not pulling.drained and not over):
            self.abort("the block that used the call was left before its end; the server may go on with it")
            return False
        if self._pushes is not None and pushing is not None and pushing.state is PipeState.OPEN:
            self._pushes.finish()
        return True

    async def wait_for_connection(self) -> None:
        """Wait until the call has left, as gRPC's own does; raises `CallError` if it failed before."""
        await self.driver.run(self._left())
        if isinstance(self._machine.outcome, Fault):
            self._raise(self._machine.outcome)

    async def _left(self) -> None:
        native: Any = self.native
        if native is None:  # it was aborted before it began
            await self._outcome()
            return
        try:
            await native.wait_for_connection()
        except (grpc.aio.AioRpcError, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            await self._outcome()

    # -- the pipes' side --------------------------------------------------------------------------------

    @property
    def mailbox(self) -> Mailbox:
        """The way into the channel's loop."""
        return self._mailbox

    def check(self) -> None:
        """Do nothing: the pipes know when a call is over for its client."""

    def over(self) -> Exception:
        """Return what is raised where a pipe is broken."""
        outcome = self._machine.outcome
        if isinstance(outcome, Fault):
            return self._error(outcome)
        return PipeClosed(f"{self!r}: the server has completed the call, and takes no more (P3)")

    def tell(self, event: AsyncEvent) -> None:
        """Tell whoever asked to be told of a pipe."""
        if self._told is not None:
            self._mailbox.run(self._tell, event)

    def _tell(self, event: AsyncEvent) -> None:
        if self._told is not None:
            self._told.tell(event, self)

    def _notify(self) -> None:
        """The call has settled: that ends its pipes, before anybody is told (P6)."""
        outcome = self._machine.outcome
        if self._pushes is not None:
            self._pushes.close()
        if self._pulls is not None:
            if type(outcome) is Reply:
                self._pulls.ended()
            elif isinstance(outcome, Fault) and outcome.cancel_reason is CancelReason.CLIENT_ABORTED:
                self._pulls.close()  # whoever aborts wants nothing more
            else:
                self._pulls.failed()
        super()._notify()

    def after_fork(self) -> None:
        super().after_fork()
        if self._pushes is not None:
            self._pushes.close()
        if self._pulls is not None:
            self._pulls.failed()

    # -- the driver's side ------------------------------------------------------------------------------

    def settle(self, outcome: Outcome) -> bool:
        if isinstance(outcome, Fault) and outcome.status == RpcStatus.OUT_OF_MEMORY and outcome.executed is False:
            outcome = replace(outcome, executed=None)  # a chunk was too large: others before it may have arrived
        return super().settle(outcome)

    async def carry(self, native: Any, spawn: Callable[[Coroutine[Any, Any, None]], object]) -> Any:
        """Carry the pipes over gRPC's call, and return its reply, or raise as it does. On the channel's loop."""
        if self._pushes is not None:
            spawn(self._send(native, self._pushes))
        if self._pulls is None:
            return await native
        return await self._receive(native, self._pulls)

    async def _send(self, native: Any, pushes: PushEnd[Any]) -> None:
        try:
            await native.wait_for_connection()
            write = bare_writer(native)
            while (chunk := await pushes.take()) is not None:
                await write(chunk)
                pushes.sent()
            if pushes.drained:
                await native.done_writing()
        except (grpc.aio.BaseError, grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # grpc.aio's words for a call that has ended; how, its outcome says
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            _LOGGER.exception("%r: gRPC, or an interceptor, failed in an unforeseen way", self)
            self.settle(fault(RpcStatus.INTERNAL_ERROR, f"{type(error).__name__}: {error}"))
            native.cancel()

    async def _receive(self, native: Any, pulls: PullEnd[Any]) -> None:
        native.add_done_callback(lambda _: pulls.hurry())
        while await pulls.room():
            chunk = await native.read()
            if chunk is grpc.aio.EOF:
                return
            if self.deserialize is not None:
                try:
                    chunk = self.deserialize(chunk)
                except BaseException as error:  # the user's: whatever it is, this call ends with it, and no other
                    text = f"a chunk ({len(chunk)} bytes) does not parse; the call was aborted: {error}"
                    self.settle(fault(RpcStatus.BAD_STUB_DATA, text, executed=True))
                    native.cancel()
                    if isinstance(error, (KeyboardInterrupt, SystemExit)):
                        let_through(error)
                    return
            pulls.arrived(chunk)


class PushCall(Pushing[SentT], PipeCall[ReplyT]):
    """The completion handle of a call that chunks are pushed into: of a client-streaming method.

    Its reply comes when the server has completed it, usually after the end of the pipe.
    """


class PullCall(Pulling[PulledT], PipeCall[None]):
    """The completion handle of a call that chunks are pulled from: of a server-streaming method. Its reply is None."""


class PushPullCall(Pushing[SentT], Pulling[PulledT], PipeCall[None]):
    """The completion handle of a call with a pipe each way: of a bidirectionally streaming method. Its reply is None.

    What is pushed and what is pulled may cross, unless it was begun with `strict_pipes`.
    """
