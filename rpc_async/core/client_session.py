"""The client's side of a session: which calls are outstanding, and what the server says about them.

A call is the caller's own object; this machine only keeps it under its number, and gives it back with each frame
that is about it. Claiming a call's end is one `dict.pop`, so a call that was aborted here is not ended again by a
reply that was on its way.

Calls are begun, asked about and aborted from any thread, under a lock of the owner's; what the server says is heard on
one thread, which takes that lock only where it touches what an abort touches: large frames, in and out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Generic, NamedTuple, TypeVar

from rpc_async.core.frames import SERVER_KINDS, Frame, FrameKind, ProtocolError
from rpc_async.core.link import nobody
from rpc_async.core.session import HEAD_ROOM, MAX_METHOD_NAME, MAX_METHODS, METHOD_BITS, Session

__all__ = ["ClientSession", "Lost", "Withdrawn"]

CallT = TypeVar("CallT")

_CALL, _CALL_WITH_HEAD, _METHOD, _CANCEL, _ABORT, _WATCH = (int(kind) for kind in list(FrameKind)[:6])
_REPLY, _REPLY_WITH_HEAD, _FAULT, _CANCEL_NOTE, _PROGRESS, _CLOSE = (int(kind) for kind in list(FrameKind)[6:12])
_START, _PIECE, _DROP = (int(kind) for kind in list(FrameKind)[12:])
_ENDINGS: Final = (_REPLY, _REPLY_WITH_HEAD, _FAULT)
_CALLS: Final = (_CALL, _CALL_WITH_HEAD)
_METHOD_MASK: Final = MAX_METHODS - 1
_NO_LOCK: Final = nullcontext()


class Withdrawn(NamedTuple, Generic[CallT]):
    """A call that was taken back."""

    call: CallT
    method: str
    payload: bytes
    with_head: bool
    in_part: bool = False
    """A part of its request has left this side, and the last part has not."""


class Lost(NamedTuple, Generic[CallT]):
    """What becomes of the calls of a session that is gone (C14)."""

    sent: list[CallT]
    """Those that may have been executed."""
    unsent: list[Withdrawn[CallT]]
    """Those that surely were not, in the order in which they were begun: they can be begun anew (C13)."""


def _call_of(frame: Frame) -> int:
    """Return the number of the call that a client's frame is about; -1 for none."""
    kind, number, _ = frame
    return number >> METHOD_BITS if kind in _CALLS else -1 if kind in (_METHOD, _CLOSE) else number


class ClientSession(Session, Generic[CallT]):
    """The machine of one session on its client's side."""

    __slots__ = ("_methods", "closed", "outstanding")

    def __init__(self, *, causal: bool, max_payload: int, wake: Callable[[], object] = nobody) -> None:
        """Make a session.

        Args:
            causal: Whether a call waits for the large requests before it (C13).
            max_payload: Bytes: the largest message that this side takes.
            wake: Wakes the writer; see `Link`.
        """
        super().__init__(causal=causal, max_payload=max_payload, wake=wake)
        self.outstanding: Final[dict[int, CallT]] = {}
        """The calls that have not ended, by their numbers."""
        self.closed: bool = False
        """The server has ended the session."""
        self._methods: dict[str, int] = {}

    # -- what the client says ---------------------------------------------------------------------------

    def begin(self, method: str, payload: bytes, call: CallT, with_head: bool = False) -> int:
        """Begin a call. Returns its number; 0 if the link is full, and nothing has changed: the server does not read.

        Raises:
            ProtocolError: The session has named as many methods as it may, or it cannot name this one.
        """
        if self.link.full:
            return 0
        named = self._methods.get(method)
        if named is None:
            named = self._name(method)
        number = self.begun + 1
        self.begun: int = number
        self.outstanding[number] = call
        self.link.push(_CALL_WITH_HEAD if with_head else _CALL, number << METHOD_BITS | named, payload, number)
        return number

    def ask(self, number: int) -> bool:
        """Ask the server to stop a call (C5). False if it is not outstanding."""
        if number not in self.outstanding:
            return False
        self._tell(_CANCEL, number, b"")
        return True

    def watch(self, number: int) -> None:
        """Ask for a call's progress reports."""
        if number in self.outstanding:
            self._tell(_WATCH, number, b"")

    def abort(self, number: int, head: bytes = b"") -> CallT | None:
        """Do not wait for a call any more, and tell the server so (C6). Returns the call if it was outstanding."""
        call = self.outstanding.pop(number, None)
        if call is not None:
            self.assembly.discard(number)
            if self.link.drop(number):
                self.link.push(_ABORT, number, head)
            else:
                self._tell(_ABORT, number, head)
        return call

    def _tell(self, kind: int, number: int, head: bytes) -> None:
        """Say something about a call: after the call itself, but not after large requests that came later."""
        if self.link.holds_large:
            waiting = (number >> METHOD_BITS for kind, number, _ in self.link.never_left() if kind in _CALLS)
            if number < next(waiting, self.begun + 1):
                self.link.push_first(kind, number, head)
                return
        self.link.push(kind, number, head)

    def close(self) -> None:
        """End the session: the last frame."""
        self.link.push(_CLOSE, 0, b"")

    def withdraw(self, which: Callable[[CallT], bool]) -> list[Withdrawn[CallT]]:
        """Take back the calls of which nothing has left this side, if `which` says so, and all that was said of them.

        They are outstanding no more, and were surely not executed.
        """
        out = self.outstanding
        numbers = {
            number >> METHOD_BITS
            for kind, number, _ in self.link.never_left()
            if kind in _CALLS and (call := out.get(number >> METHOD_BITS)) is not None and which(call)
        }
        if not numbers:
            return []
        names = {number: name for name, number in self._methods.items()}
        withdrawn = []
        for kind, number, payload in self.link.withdraw(lambda frame: _call_of(frame) in numbers):
            if kind in _CALLS:
                call = out.pop(number >> METHOD_BITS)
                withdrawn.append(Withdrawn(call, names[number & _METHOD_MASK], payload, kind == _CALL_WITH_HEAD))
        return withdrawn

    def lose(self) -> Lost[CallT]:
        """The session is gone, and nothing is outstanding in it any more. Returns what becomes of its calls (C14).

        One surely was not executed if its frame, or the last piece of it, has not left this side.
        """
        out = self.outstanding
        never = {frame[1] >> METHOD_BITS: frame for frame in self.link.never_left() if frame[0] in _CALLS}
        kept = {frame[1] >> METHOD_BITS: frame for frame in self.link.unfinished()} | never
        names = {number: name for name, number in self._methods.items()}
        unsent = []
        for call_number in sorted(kept.keys() & out.keys()):
            kind, number, payload = kept[call_number]
            call, in_part = out.pop(call_number), call_number not in never
            unsent.append(Withdrawn(call, names[number & _METHOD_MASK], payload, kind == _CALL_WITH_HEAD, in_part))
        lost = Lost(list(out.values()), unsent)
        out.clear()
        return lost

    def _name(self, method: str) -> int:
        number = len(self._methods)
        if number >= MAX_METHODS:
            raise ProtocolError(f"more than {MAX_METHODS} methods in one session")
        if not method.isprintable() or len(name := method.encode()) > MAX_METHOD_NAME:
            raise ProtocolError(f"a method's name has {MAX_METHOD_NAME} bytes at the most, and can be printed")
        self._methods[method] = number
        self.link.push(_METHOD, number, name)
        return number

    # -- what the server says ---------------------------------------------------------------------------

    def receive(
        self, frames: list[Frame], lock: AbstractContextManager[object] = _NO_LOCK
    ) -> Iterator[tuple[CallT, Frame]]:
        """Yield each frame that is about an outstanding call, with the call; an ended one is outstanding no more.

        A large reply is yielded when it is whole; one that is too large, as its START or its last PIECE.

        Args:
            frames: What the server says.
            lock: What other threads hold while they tell this machine something; held for large frames only, since
                claiming a call's end is one step.

        Raises:
            ProtocolError: The server said what it may not say.
        """
        end = self.outstanding.pop
        for one in frames:
            frame = one
            kind, number, payload = frame
            if kind == _REPLY or kind in _ENDINGS:
                call = end(number, None)
                if kind == _FAULT:
                    with lock:
                        self.link.drop(number)  # the server does not want the rest of the request
            elif kind == _PIECE:
                with lock:
                    whole = self.assembly.piece(number, payload)
                if whole is None:
                    continue
                frame = whole
                if whole[0] == _REPLY and len(whole[2]) > self.max_payload:
                    frame = one
                call = end(number, None)
            elif kind == _START:
                self._check(number)
                with lock:
                    size = self.assembly.start(number, number, payload, _ENDINGS)
                    if size <= self.max_payload + HEAD_ROOM and number in self.outstanding:
                        continue
                    self.assembly.discard(number)
                call = end(number, None)
                if call is not None:
                    yield call, frame
                continue
            elif kind == _DROP:
                with lock:
                    self.assembly.drop(number)
                continue
            elif kind == _CLOSE:
                self.closed = True
                return
            elif kind in SERVER_KINDS:
                call = self.outstanding.get(number)
            else:
                raise ProtocolError(f"a frame of kind {kind}, which no server sends")
            if call is not None:
                yield call, frame
            else:
                self._check(number)

    def _check(self, number: int) -> None:
        if not 0 < number <= self.begun:
            raise ProtocolError(f"a frame about call {number}, where {self.begun} calls were begun")
