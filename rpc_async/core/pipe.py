"""Pipes: parameters of a call that travel in chunks.

A `Pipe` is one end of one: a bounded buffer between the user and the wire, the same for the end that is pushed into
(the user puts chunks in, the wire takes them out) and for the end that is pulled from (the other way round).

    OPEN ──null chunk in──> ENDED ──null chunk out──> DRAINED
     │                        │
     ├──────── fail ──────────┼──> FAILING ──last chunk out──> BROKEN     what is there can still be had
     ├──────── break ─────────┴──────────────────────────────> BROKEN     nothing can be had
     └──────── discard (of any of them but BROKEN) ──────────> DISCARDED  what comes is thrown away

The bound (P4): a chunk is taken while less than `MAX_BYTES` and less than `MAX_CHUNKS` are there, so at most one chunk
more than that is ever held. Where it is not taken the verdict is ASYNC_CALL_PENDING and nothing changed: SEND_COMPLETE
is then due as soon as half of the room is free. So it is once all that was pushed has left. Where there is nothing to
pull the verdict is ASYNC_CALL_PENDING too, and RECEIVE_COMPLETE is due as soon as there is, or as soon as it is sure
that there never will be. A chunk takes room until it has left: until `left` is said for the one that was pulled last.

`Pipes` is what the pipes of a call and the call itself owe each other (P5).

No other transitions happen. Source: asynchronous pipes.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import Any, Final, NamedTuple

from rpc_async.core.outcome import Fault, Outcome
from rpc_async.status import RpcStatus

__all__ = ["MAX_BYTES", "MAX_CHUNKS", "Pipe", "PipeState", "PipeStep", "Pipes"]

MAX_BYTES: Final = 1024 * 1024
"""Bytes that an end of a pipe holds before it takes no more chunks."""
MAX_CHUNKS: Final = 256
"""Chunks that it holds before it takes no more, however small they are."""


class PipeState(IntEnum):
    """Where one end of a pipe stands."""

    OPEN = 0
    """Chunks go in and come out."""
    ENDED = 1
    """The null chunk is in, behind those that are still there."""
    DRAINED = 2
    """The null chunk is out."""
    FAILING = 3
    """The call has failed, behind the chunks that are still there."""
    BROKEN = 4
    """The call is over, and the pipe with it."""
    DISCARDED = 5
    """Whoever pulled wants no more: what still comes is thrown away."""


class PipeStep(NamedTuple):
    """What an event leads to: the verdict, and whom the driver must now tell."""

    verdict: RpcStatus = RpcStatus.OK
    """OK: done. ASYNC_CALL_PENDING: not now, and nothing changed. PIPE_CLOSED: the null chunk was pushed before (P3).
    PIPE_EMPTY: it was pulled before. NO_CALL_ACTIVE: the call is over, and its outcome says how."""
    chunk: Any = None
    """The chunk that was pulled; None, with the verdict OK, is the null chunk (P2)."""
    send: bool = False
    """SEND_COMPLETE: whoever pushes can go on, or learns by pushing that the call is over."""
    receive: bool = False
    """RECEIVE_COMPLETE: whoever pulls can go on, or learns by pulling that the call is over."""


_O, _E, _D, _F, _B, _X = PipeState
_OK, _CLOSED, _EMPTY, _OVER = RpcStatus.OK, RpcStatus.PIPE_CLOSED, RpcStatus.PIPE_EMPTY, RpcStatus.NO_CALL_ACTIVE
_PENDING: Final = RpcStatus.ASYNC_CALL_PENDING

# For each event, by the state that it finds: OPEN, ENDED, DRAINED, FAILING, BROKEN, DISCARDED.
_PUSH: Final = (_OK, _CLOSED, _CLOSED, _OVER, _OVER, _OK)  # P3
_END: Final = ((_E, _OK), (_E, _CLOSED), (_D, _CLOSED), (_F, _OVER), (_B, _OVER), (_X, _OK))
# Where there is no chunk to pull:
_PULL: Final = ((_O, _PENDING), (_D, _OK), (_D, _EMPTY), (_B, _OVER), (_B, _OVER), (_X, _EMPTY))
_FAIL: Final = (_F, _F, _D, _F, _B, _X)
_BREAK: Final = (_B, _B, _D, _B, _B, _X)
_DISCARD: Final = (_X, _X, _X, _X, _B, _X)


class Pipe:
    """The machine of one end of a pipe."""

    __slots__ = ("_bytes", "_chunks", "_leaving", "_owed", "_refused", "_wanted", "state")

    def __init__(self) -> None:
        self.state: PipeState = _O
        self._chunks: deque[tuple[Any, int]] = deque()
        self._bytes = 0
        self._leaving: tuple[int, int] = (0, 0)  # chunks and bytes that were pulled, and have not left
        self._refused = False  # somebody waits for room
        self._owed = False  # something was pushed that SEND_COMPLETE was not said for
        self._wanted = False  # somebody waits for a chunk

    # -- looking ----------------------------------------------------------------------------------------

    @property
    def chunks(self) -> int:
        """How many chunks can be pulled now."""
        return len(self._chunks)

    @property
    def held(self) -> int:
        """How many bytes take room."""
        return self._bytes

    @property
    def drained(self) -> bool:
        """Whether nothing is left to be pulled, and nothing can come that anybody wants."""
        return self.state in (_D, _X)

    # -- whoever pushes ---------------------------------------------------------------------------------

    def push(self, chunk: Any, size: int) -> PipeStep:
        """Put a chunk in, of `size` bytes, if there is room for it."""
        verdict = _PUSH[self.state]
        if verdict is not _OK or self.state is _X:
            return PipeStep(verdict)
        if not self.ask_room():
            return PipeStep(_PENDING)
        self._chunks.append((chunk, size))
        self._bytes += size
        self._owed = True
        return self._came()

    def end(self) -> PipeStep:
        """Put the null chunk in (P3)."""
        self.state, verdict = _END[self.state]
        if verdict is not _OK:
            return PipeStep(verdict)
        self._owed = True
        return self._came()._replace(send=self._send_complete())

    def ask_room(self) -> bool:
        """Tell whether a chunk would be taken; if not, SEND_COMPLETE is due once there is room again."""
        room = self.state is not _O or self._has_room(MAX_BYTES, MAX_CHUNKS)
        self._refused = self._refused or not room
        return room

    # -- whoever pulls ----------------------------------------------------------------------------------

    def pull(self) -> PipeStep:
        """Take the next chunk out. It takes room until `left` is said."""
        if self._chunks:
            chunk, size = self._chunks.popleft()
            count, total = self._leaving
            self._leaving = count + 1, total + size
            return PipeStep(_OK, chunk)
        self.state, verdict = _PULL[self.state]
        self._wanted = verdict is _PENDING
        return PipeStep(verdict)

    def left(self) -> PipeStep:
        """What was pulled has left: its room is free."""
        self._bytes -= self._leaving[1]
        self._leaving = 0, 0
        return PipeStep(send=self._send_complete())

    def discard(self) -> PipeStep:
        """Whoever pulls wants no more."""
        return self._drop(_DISCARD[self.state])

    # -- the call ---------------------------------------------------------------------------------------

    def fail(self) -> PipeStep:
        """The call has failed behind the chunks that are there."""
        self.state = _FAIL[self.state]
        refused, self._refused = self._refused, False
        return self._came()._replace(send=refused)

    def break_(self) -> PipeStep:
        """The call is over: what is there is of no use any more."""
        return self._drop(_BREAK[self.state])

    # -- what follows -----------------------------------------------------------------------------------

    def _has_room(self, most_bytes: int, most_chunks: int) -> bool:
        return self._bytes < most_bytes and len(self._chunks) + self._leaving[0] < most_chunks

    def _came(self) -> PipeStep:
        wanted, self._wanted = self._wanted, False
        return PipeStep(receive=wanted)

    def _drop(self, state: PipeState) -> PipeStep:
        self.state = state
        self._bytes = self._leaving[1]
        self._chunks.clear()
        send, self._owed, self._refused = self._owed or self._refused, False, False
        return self._came()._replace(send=send)

    def _send_complete(self) -> bool:
        """Tell whether SEND_COMPLETE is due."""
        empty = not self._chunks and not self._leaving[0]
        room = self._refused and self._has_room(MAX_BYTES // 2 + 1, MAX_CHUNKS // 2 + 1)
        due = room or (empty and self._owed)
        if due:
            self._refused = False
            self._owed = not empty
        return due


class Pipes:
    """What the pipes of one call, and the call itself, owe each other, as one side sees it.

    Which of two pipes goes first is free, as in gRPC, and chunks of both may cross. With `strict` it is as documented:
    the pipe that goes in (from the client to the server) first, to its end, and then the one that goes out.
    """

    __slots__ = ("pulling", "pushing", "server", "strict")

    def __init__(self, *, pushing: bool, pulling: bool, server: bool, strict: bool) -> None:
        self.pushing: Final = Pipe() if pushing else None
        """The end that this side pushes into."""
        self.pulling: Final = Pipe() if pulling else None
        """The end that this side pulls from."""
        self.server: Final = server
        self.strict: Final = strict

    def may_push(self) -> RpcStatus:
        """Return OK, or WRONG_PIPE_ORDER: the server has not pulled to the end yet (P5)."""
        late = self.strict and self.server and self.pulling is not None and not self.pulling.drained
        return RpcStatus.WRONG_PIPE_ORDER if late else _OK

    def may_pull(self) -> RpcStatus:
        """Return OK, or WRONG_PIPE_ORDER: the client has not pushed to the end yet (P5)."""
        early = self.strict and not self.server and self.pushing is not None and self.pushing.state is _O
        return RpcStatus.WRONG_PIPE_ORDER if early else _OK

    def may_complete(self) -> RpcStatus:
        """Return OK, or PIPE_DISCIPLINE_ERROR: the server has not pulled to the end; or not pushed to it (P5).

        The reply is the end of the pipe that goes out, on the wire too; only with `strict` must it be pushed before.
        """
        undone = self.pulling is not None and not self.pulling.drained
        unended = self.strict and self.pushing is not None and self.pushing.state is _O
        return RpcStatus.PIPE_DISCIPLINE_ERROR if undone or unended else _OK

    def may_collect(self, outcome: Outcome | None) -> RpcStatus:
        """Return OK, or PIPE_DISCIPLINE_ERROR: the client has not pushed to the end, or not pulled to it (P5).

        ASYNC_CALL_PENDING: it has done its part, and the call has not settled (C1). A failure is collected at any time,
        and so is the reply of a server that did not want all that could have been pushed. Only with `strict` must the
        null chunk have been pulled, too, behind the last one.
        """
        if type(outcome) is Fault:
            return _OK
        unpulled = self.pulling is not None and self.pulling.chunks > 0
        if outcome is not None:
            undrained = self.strict and self.pulling is not None and not self.pulling.drained
            return RpcStatus.PIPE_DISCIPLINE_ERROR if unpulled or undrained else _OK
        unended = self.pushing is not None and self.pushing.state is _O
        return RpcStatus.PIPE_DISCIPLINE_ERROR if unended or unpulled else _PENDING
