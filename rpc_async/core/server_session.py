"""The server's side of a session: which calls run, and what the client says about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Generic, NamedTuple, TypeVar

from rpc_async.core.frames import Frame, FrameKind, ProtocolError
from rpc_async.core.link import nobody
from rpc_async.core.session import HEAD_ROOM, MAX_CALLS, MAX_METHOD_NAME, MAX_METHODS, METHOD_BITS, Session

__all__ = ["ServerSession", "Told"]

CallT = TypeVar("CallT")

_CALL, _CALL_WITH_HEAD, _METHOD, _CANCEL, _ABORT, _WATCH = (int(kind) for kind in list(FrameKind)[:6])
_CANCEL_NOTE, _CLOSE = int(FrameKind.CANCEL_NOTE), int(FrameKind.CLOSE)
_START, _PIECE, _DROP = (int(kind) for kind in list(FrameKind)[12:])
_CALLS: Final = (_CALL, _CALL_WITH_HEAD)
_ABOUT: Final = (_CANCEL, _ABORT, _WATCH)
_METHOD_MASK: Final = MAX_METHODS - 1
_told: Final = tuple.__new__  # a named tuple's own `__new__` takes twice as long


class Told(NamedTuple):
    """What the client has said, for the driver to act on."""

    kind: int
    """CALL, CALL_WITH_HEAD, CANCEL, ABORT or WATCH; or START, which is a call that is too large."""
    number: int
    """The call's number."""
    payload: bytes
    """The frame's payload."""
    method: str
    """The method of a call."""


class ServerSession(Session, Generic[CallT]):
    """The machine of one session on its server's side."""

    __slots__ = ("_early", "_methods", "calls", "closed")

    def __init__(self, *, max_payload: int, wake: Callable[[], object] = nobody) -> None:
        """Make a session.

        Args:
            max_payload: Bytes: the largest message that this side takes.
            wake: Wakes the writer; see `Link`.
        """
        super().__init__(causal=False, max_payload=max_payload, wake=wake)  # replies may overtake each other
        self.calls: Final[dict[int, CallT]] = {}
        """The calls whose outcome the client waits for, by their numbers."""
        self.closed: bool = False
        """The client has ended the session."""
        self._methods: list[str] = []
        self._early: dict[int, list[int]] = {}

    def receive(self, frames: list[Frame]) -> Iterator[Told]:
        """Yield what the client says about its calls; put a call that is taken into `calls` before going on.

        Raises:
            ProtocolError: The client said what it may not say.
        """
        for kind, number, payload in frames:
            if kind in _CALLS:
                # The parts of `_begin` and `_method`, for there is one of these for every call.
                call, method = number >> METHOD_BITS, number & _METHOD_MASK
                if not (self.begun < call <= MAX_CALLS and method < len(self._methods)):
                    self._begin(number)
                    self._method(number)
                self.begun: int = call
                yield _told(Told, (kind, call, payload, self._methods[method]))
            elif kind in _ABOUT:
                if not 0 < number <= self.begun:
                    raise ProtocolError(f"a frame about call {number}, where {self.begun} calls were begun")
                if number not in self.assembly:
                    yield Told(kind, number, payload, "")
                elif kind == _ABORT:
                    self.assembly.discard(number)
                    self._early.pop(number, None)
                elif kind not in self._early.setdefault(number, []):
                    self._early[number].append(kind)
            elif kind == _PIECE:
                yield from self._piece(number, payload)
            elif kind == _START:
                self._method(number)
                call = self._begin(number)
                if self.assembly.start(call, number, payload, _CALLS) > self.max_payload + HEAD_ROOM:
                    self.assembly.discard(call)
                    yield Told(kind, call, payload, "")
            elif kind == _DROP:
                self.assembly.drop(number)
                self._early.pop(number, None)
            elif kind == _METHOD:
                self._name(number, payload)
            elif kind == _CLOSE:
                self.closed = True
                return
            else:
                raise ProtocolError(f"a frame of kind {kind}, which no client sends")

    def end(self, number: int, kind: int, payload: bytes) -> bool:
        """Send a call's outcome, unless the client waits for it no more."""
        if self.calls.pop(number, None) is None:
            return False
        self.link.push(kind, number, payload)
        return True

    def refuse(self, number: int, kind: int, payload: bytes) -> None:
        """Send the outcome of a call that was not taken."""
        self.link.push(kind, number, payload)

    def release(self, number: int) -> CallT | None:
        """The client waits for the call no more: drop what was on its way to it. Returns the call, if it runs."""
        self.link.drop(number)
        return self.calls.pop(number, None)

    def relieve(self) -> list[int]:
        """Throw away the large requests that have not arrived whole. Returns their calls, to be refused."""
        return self.assembly.discard_all()

    def close(self) -> None:
        """End the session: the last frame."""
        self.link.push(_CLOSE, 0, b"")

    def _piece(self, number: int, payload: bytes) -> Iterator[Told]:
        whole = self.assembly.piece(number, payload)
        early = self._early.pop(number, ()) if self._early and number not in self.assembly else ()
        if whole is not None:
            yield Told(whole[0], number, whole[2], self._method(whole[1]))
            for kind in early:
                yield Told(kind, number, b"", "")

    def _begin(self, number: int) -> int:
        call = number >> METHOD_BITS
        if not self.begun < call <= MAX_CALLS:
            raise ProtocolError(f"call {call} after call {self.begun}: the numbers of calls must rise")
        self.begun = call
        return call

    def _method(self, number: int) -> str:
        method = number & _METHOD_MASK
        if method >= len(self._methods):
            raise ProtocolError(f"a call of method {method}, where {len(self._methods)} have a name")
        return self._methods[method]

    def _name(self, number: int, payload: bytes) -> None:
        if number != len(self._methods) or number >= MAX_METHODS:
            raise ProtocolError(f"a name for method {number}, where {len(self._methods)} have one of {MAX_METHODS}")
        if len(payload) > MAX_METHOD_NAME:
            raise ProtocolError(
                f"method {number}: a name of {len(payload)} bytes, where {MAX_METHOD_NAME} are the most"
            )
        try:
            name = payload.decode()
        except UnicodeDecodeError as error:
            raise ProtocolError(f"method {number}: the name is no UTF-8") from error
        if not name.isprintable():  # it is logged
            raise ProtocolError(f"method {number}: the name has characters that cannot be printed")
        self._methods.append(name)
