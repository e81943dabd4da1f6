"""The two ends of a pipe, as both sides of a call use them, from any thread and any event loop.

An end holds its machine, a `Pipe` of the call's `Pipes`, and carries out what it says: it raises its verdicts, wakes
who waits, and has the call tell of SEND_COMPLETE and RECEIVE_COMPLETE. The user is on one side of it, the wire on the
other: a task on the mailbox's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from rpc_async.checks import checked_timeout
from rpc_async.core.pipe import Pipe, Pipes, PipeState, PipeStep
from rpc_async.errors import AsyncCallPending, PipeClosed, PipeEmpty, UsageError, WrongPipeOrder
from rpc_async.latch import Change
from rpc_async.mailbox import Mailbox
from rpc_async.status import AsyncEvent, RpcStatus

__all__ = ["PipeOwner", "PullEnd", "Pulling", "PushEnd", "Pushing"]

SentT = TypeVar("SentT")
PulledT = TypeVar("PulledT")
Refusals = Mapping[RpcStatus, tuple[type[UsageError], str]]


class PipeOwner(Protocol):
    """The call that a pipe belongs to, as its ends see it."""

    @property
    def mailbox(self) -> Mailbox:
        """The way into the loop that carries the call."""
        ...

    @property
    def pipes(self) -> Pipes:
        """The call's pipes. Tell them something only under the mailbox's lock."""
        ...

    def check(self) -> None:
        """Raise if the call is over for whoever uses its pipes here."""

    def over(self) -> Exception:
        """Return what is raised where the pipe is broken, because the call is over."""
        ...

    def freeze(self, message: Any, /) -> Any:
        """Return what is sent of a message: it shares nothing with it. Raises a `UsageError` if that cannot be had."""
        ...

    def tell(self, event: AsyncEvent) -> None:
        """Tell whoever wants to know. From any thread."""


class _End(ABC):
    """What both ends have."""

    __slots__ = ("_awaited", "_hurried", "_lock", "_mailbox", "_owner", "_pipe", "_waiting")

    _refusals: ClassVar[Refusals]
    """What is raised for a verdict of the machine. For one that is not here the call is over."""

    def __init__(self, owner: PipeOwner, pipe: Pipe) -> None:
        self._owner = owner
        self._pipe = pipe
        self._mailbox = owner.mailbox
        self._lock = owner.mailbox.lock
        self._waiting: list[Change] | None = None  # the user's side: threads and tasks
        self._awaited: asyncio.Future[None] | None = None  # the wire's side: its one task
        self._hurried = False

    @property
    def drained(self) -> bool:
        """Whether the null chunk has come out, or nobody wants what comes."""
        return self._pipe.drained

    def close(self) -> None:
        """The call is over, and what is in the pipe of no use any more."""
        with self._lock:
            step = self._pipe.break_()
        self._follow(step)

    @abstractmethod
    def _follow(self, step: PipeStep) -> None:
        """Wake and tell, as a step says."""

    def _raise_unless_done(self, step: PipeStep) -> None:
        if step.verdict is not RpcStatus.OK:
            refusal = self._refusals.get(step.verdict)
            if refusal is None:
                raise self._owner.over()
            error, text = refusal
            raise error(f"{self._name()}: {text}")

    def _name(self) -> str:
        return repr(self._owner)

    # -- the user's side --------------------------------------------------------------------------------

    def _enter(self) -> Change:
        """Wait for the next news. Under the lock."""
        change = Change(self._mailbox)
        if self._waiting is None:
            self._waiting = []
        self._waiting.append(change)
        return change

    def _leave(self, change: Change) -> None:
        with self._lock:
            if self._waiting is not None and change in self._waiting:
                self._waiting.remove(change)

    def _tell(self, event: AsyncEvent) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, None
        for change in waiting or ():
            change.happen()
        self._owner.tell(event)

    async def _news(self, change: Change) -> None:
        try:
            await change
        except BaseException:  # the wait was cancelled, and that is all that was (C11)
            self._leave(change)
            raise

    def _news_in_thread(self, change: Change, end: float | None) -> bool:
        came = False
        try:
            came = change.wait(None if end is None else max(end - time.monotonic(), 0.0))
        finally:
            if not came:
                self._leave(change)
        return came

    # -- the wire's side --------------------------------------------------------------------------------

    async def _turn(self) -> None:
        """Wait until the wire's side is wakened."""
        if not self._hurried:
            self._awaited = self._mailbox.loop.create_future()
            await self._awaited
            self._awaited = None

    def _wake(self) -> None:
        self._mailbox.run(self._wake_here)

    def _wake_here(self) -> None:
        if self._awaited is not None and not self._awaited.done():
            self._awaited.set_result(None)


class PushEnd(_End, Generic[SentT]):
    """The end of a pipe that is pushed into."""

    __slots__ = ()

    _refusals: ClassVar[Refusals] = {
        RpcStatus.ASYNC_CALL_PENDING: (
            AsyncCallPending,
            (
                "the pipe holds as much as it may, and the other side is behind: nothing was pushed; wait for "
                "SEND_COMPLETE, or use write() or put(), which wait (P4)"
            ),
        ),
        RpcStatus.PIPE_CLOSED: (PipeClosed, "the end of the pipe was pushed before: nothing was pushed (P3)"),
        RpcStatus.WRONG_PIPE_ORDER: (
            WrongPipeOrder,
            (
                "the pipe that comes in must be pulled to its end before anything is pushed, with strict_pipes: "
                "nothing was pushed (P5)"
            ),
        ),
    }

    def push(self, message: SentT | None) -> RpcStatus:
        """See `Pushing.push`."""
        if message is None:
            return self.end()
        change = self._push(self._frozen(message), wait=False)
        assert change is None
        return RpcStatus.OK

    async def write(self, message: SentT) -> None:
        """See `Pushing.write`."""
        frozen = self._frozen(message)
        while (change := self._push(frozen, wait=True)) is not None:
            await self._news(change)

    def put(self, message: SentT, timeout: float | None) -> None:
        """See `Pushing.put`."""
        end = None if timeout is None else time.monotonic() + checked_timeout(timeout)
        frozen = self._frozen(message)
        while (change := self._push(frozen, wait=True)) is not None:
            if not self._news_in_thread(change, end):
                raise TimeoutError(f"{self._name()}: there was no room in the pipe for {timeout} s; nothing was pushed")

    def end(self) -> RpcStatus:
        """See `Pushing.end`."""
        self._owner.check()
        with self._lock:
            order = self._owner.pipes.may_push()
            step = self._pipe.end() if order is RpcStatus.OK else PipeStep(order)
        self._raise_unless_done(step)
        self._follow(step)
        return step.verdict

    def finish(self) -> None:
        """The call is completed: that is the end of the pipe, if nobody said so before."""
        with self._lock:
            step = self._pipe.end()
        self._follow(step)

    def _frozen(self, message: SentT) -> tuple[Any, int]:
        self._owner.check()
        frozen = self._owner.freeze(message)
        return frozen, _size(frozen)

    def _push(self, frozen: tuple[Any, int], *, wait: bool) -> Change | None:
        """Push; where there is no room, return what to wait for, or raise."""
        change: Change | None = None
        with self._lock:
            order = self._owner.pipes.may_push()
            step = self._pipe.push(*frozen) if order is RpcStatus.OK else PipeStep(order)
            if wait and step.verdict is RpcStatus.ASYNC_CALL_PENDING:
                change = self._enter()
        if change is None:
            self._raise_unless_done(step)
            self._follow(step)
        return change

    def _follow(self, step: PipeStep) -> None:
        if step.receive:
            self._wake()
        if step.send:
            self._tell(AsyncEvent.SEND_COMPLETE)

    # -- the wire's side --------------------------------------------------------------------------------

    async def take(self) -> Any:
        """Wait for a chunk to send, and return it; None at the end of the pipe (`drained`), or if it is broken."""
        while True:
            with self._lock:
                step = self._pipe.pull()
            if step.verdict is not RpcStatus.ASYNC_CALL_PENDING:
                self._follow(step)
                return step.chunk
            await self._turn()

    def sent(self) -> None:
        """What was taken is sent."""
        with self._lock:
            step = self._pipe.left()
        self._follow(step)


class PullEnd(_End, Generic[PulledT]):
    """The end of a pipe that is pulled from."""

    __slots__ = ()

    _refusals: ClassVar[Refusals] = {
        RpcStatus.ASYNC_CALL_PENDING: (
            AsyncCallPending,
            "there is nothing to pull yet; wait for RECEIVE_COMPLETE, or use read() or get(), which wait (P2)",
        ),
        RpcStatus.PIPE_EMPTY: (PipeEmpty, "the end of the pipe was pulled before, or the pipe was discarded"),
        RpcStatus.WRONG_PIPE_ORDER: (
            WrongPipeOrder,
            "the pipe that goes in must be ended before anything is pulled, with strict_pipes (P5)",
        ),
    }

    def pull(self) -> PulledT | None:
        """See `Pulling.pull`."""
        step, _ = self._pull(wait=False)
        chunk: PulledT | None = step.chunk
        return chunk

    async def read(self) -> PulledT | None:
        """See `Pulling.read`."""
        while True:
            step, change = self._pull(wait=True)
            if change is None:
                chunk: PulledT | None = step.chunk
                return chunk
            await self._news(change)

    def get(self, timeout: float | None) -> PulledT | None:
        """See `Pulling.get`."""
        end = None if timeout is None else time.monotonic() + checked_timeout(timeout)
        while True:
            step, change = self._pull(wait=True)
            if change is None:
                chunk: PulledT | None = step.chunk
                return chunk
            if not self._news_in_thread(change, end):
                raise TimeoutError(f"{self._name()}: nothing came through the pipe for {timeout} s")

    def discard(self) -> None:
        """See `Pulling.discard`."""
        with self._lock:
            step = self._pipe.discard()
        self._follow(step)

    def _pull(self, *, wait: bool) -> tuple[PipeStep, Change | None]:
        """Pull; where nothing is there, return what to wait for, or raise."""
        self._owner.check()
        change: Change | None = None
        left = PipeStep()
        with self._lock:
            order = self._owner.pipes.may_pull()
            step = self._pipe.pull() if order is RpcStatus.OK else PipeStep(order)
            if step.verdict is RpcStatus.OK:
                left = self._pipe.left()
            elif wait and step.verdict is RpcStatus.ASYNC_CALL_PENDING:
                change = self._enter()
        if change is None:
            self._raise_unless_done(step)
            self._follow(left)
        return step, change

    def _follow(self, step: PipeStep) -> None:
        if step.send:
            self._wake()
        if step.receive:
            self._tell(AsyncEvent.RECEIVE_COMPLETE)

    # -- the wire's side --------------------------------------------------------------------------------

    async def room(self) -> bool:
        """Wait until there is room for a chunk that arrives. False: none is wanted any more."""
        while True:
            with self._lock:
                room = self._pipe.ask_room()
                state = self._pipe.state
            if room or self._hurried:
                return state in (PipeState.OPEN, PipeState.DISCARDED)
            await self._turn()

    def hurry(self) -> None:
        """Do not wait for room any more: all that still comes is how the call ended. On the mailbox's loop."""
        self._hurried = True
        self._wake_here()

    def arrived(self, chunk: PulledT) -> None:
        """A chunk has arrived, which there was room for."""
        with self._lock:
            step = self._pipe.push(chunk, _size(chunk))
        self._follow(step)

    def ended(self) -> None:
        """The null chunk has arrived."""
        with self._lock:
            step = self._pipe.end()
        self._follow(step)

    def failed(self) -> None:
        """The call has failed behind the chunks that have arrived."""
        with self._lock:
            step = self._pipe.fail()
        self._follow(step)


def _size(chunk: Any) -> int:
    """Return how many bytes a chunk takes; 0 for a type that does not tell: the bound on their number holds for it."""
    if isinstance(chunk, (bytes, bytearray, memoryview)):
        return len(chunk)
    size: int = chunk.ByteSize() if hasattr(chunk, "ByteSize") else 0
    return size


class Pushing(Generic[SentT]):
    """A handle with a pipe to push into. Every method may be called from any thread.

    The pipe holds what the other side is not ready for, up to 1 MiB or 256 chunks (and never more than one chunk above
    that); nothing else on the way holds more than the connection's own flow control lets it (P4).
    """

    __slots__ = ()

    _push_end: PushEnd[SentT]

    def push(self, message: SentT | None) -> RpcStatus:
        """Push a chunk, without waiting; None is the null chunk, the end of the pipe (`end`).

        The message is serialised before this returns: it may be changed and used again (P1).
        Source: asynchronous pipes; P1, P3, P4.

        Returns:
            OK.

        Raises:
            AsyncCallPending: The pipe is full, because the other side is behind: nothing was pushed. SEND_COMPLETE
                follows when there is room (P4).
            PipeClosed: The end was pushed before; or the call has succeeded without what is pushed now (P3).
            WrongPipeOrder: With `strict_pipes`, on the server: the other pipe was not pulled to its end (P5).
            BadStubData: The message is not of the method's type; nothing was pushed.
            PayloadTooLarge: The message is over the size limit; nothing was pushed.
            CallError: The call has failed, and all state of it is cleaned up (P6).
            InvalidAsyncHandle: On the server: the call was completed or aborted before (S4).
        """
        return self._push_end.push(message)

    def end(self) -> RpcStatus:
        """Push the null chunk: nothing follows. Raises as `push` does (P3)."""
        return self._push_end.end()

    async def write(self, message: SentT) -> None:
        """Push a chunk, and wait, on any event loop, until there is room for it. Raises as `push` does otherwise.

        A wait that is cancelled has pushed nothing.
        """
        await self._push_end.write(message)

    def put(self, message: SentT, timeout: float | None = None) -> None:
        """Push a chunk, and block this thread until there is room for it. Raises as `push` does otherwise.

        Args:
            message: The chunk.
            timeout: Seconds; None waits for ever.

        Raises:
            TimeoutError: There was no room in time; nothing was pushed.
            InvalidAsyncCall: This thread runs the event loop that must send: `await call.write(message)` instead.
        """
        self._push_end.put(message, timeout)


class Pulling(Generic[PulledT]):
    """A handle with a pipe to pull from, or to iterate over. Every method may be called from any thread.

    The pipe reads ahead, up to 1 MiB or 256 chunks; then the other side is held back (P4).
    """

    __slots__ = ()

    _pull_end: PullEnd[PulledT]

    def pull(self) -> PulledT | None:
        """Return the next chunk, without waiting; None is the null chunk, the end of the pipe.

        Source: asynchronous pipes; P2.

        Raises:
            AsyncCallPending: There is nothing to pull yet. RECEIVE_COMPLETE follows when there is (P2).
            PipeEmpty: The end was pulled before, or the pipe was discarded.
            WrongPipeOrder: With `strict_pipes`, on the client: the other pipe was not ended (P5).
            CallError: The call has failed, behind what was pulled, and all state of it is cleaned up (P6).
            InvalidAsyncHandle: On the server: the call was completed or aborted before (S4).
        """
        return self._pull_end.pull()

    async def read(self) -> PulledT | None:
        """Return the next chunk, or None at the end; wait for it on any event loop. Raises as `pull` does otherwise."""
        return await self._pull_end.read()

    def get(self, timeout: float | None = None) -> PulledT | None:
        """Return the next chunk, or None at the end; block this thread until it is there.

        Args:
            timeout: Seconds; None waits for ever.

        Raises:
            TimeoutError: Nothing came in time.
            InvalidAsyncCall: This thread runs the event loop that must receive: `await call.read()` instead.
            PipeEmpty, WrongPipeOrder, CallError, InvalidAsyncHandle: As for `pull`.
        """
        return self._pull_end.get(timeout)

    def discard(self) -> None:
        """Want no more: what is there, and what still comes, is thrown away, and the pipe counts as drained."""
        self._pull_end.discard()

    async def __aiter__(self) -> AsyncIterator[PulledT]:
        """Iterate over the chunks to the end of the pipe, on any event loop."""
        with contextlib.suppress(PipeEmpty):  # another has pulled the end
            while (chunk := await self._pull_end.read()) is not None:
                yield chunk

    def __iter__(self) -> Iterator[PulledT]:
        """Iterate over the chunks to the end of the pipe, and block this thread for each."""
        with contextlib.suppress(PipeEmpty):
            while (chunk := self._pull_end.get(None)) is not None:
                yield chunk
