"""Puts large frames together again from their pieces."""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO
from typing import Final

from rpc_async.core.frames import MAX_PAYLOAD, ProtocolError

__all__ = ["Assembly"]

MAX_TRANSFERS: Final = 16_384
"""Large frames that may be on their way at once. One that has sent no piece yet takes next to nothing."""
BUFFER_MEMORY: Final = 160
"""Bytes of memory that a large frame takes of which something has come, beside that."""
RESERVE_AT: Final = 512 * 1024
"""Bytes of a frame that have come when room is set aside for all of it."""
RESERVE: Final = 33 * 1024 * 1024
"""Bytes that are set aside at the least: of so many C libraries give addresses only, and no memory until it is used."""
RESERVATIONS: Final = 8
"""Frames that room is set aside for at once: twice as many as a sender of ours has on their way. Others just grow."""


class _Partial:
    """A large frame that has not come whole.

    Each piece goes to its place as it arrives. Joining them all at the end would take the whole frame's memory from the
    system at once: for 16 MiB the loop would stand still for 6 ms and more.
    """

    __slots__ = ("_buffer", "kind", "number", "reserved", "size", "so_far", "wanted")

    def __init__(self, kind: int, number: int, size: int) -> None:
        self.kind = kind
        self.number = number
        self.size = size
        self.so_far = 0
        self.wanted = True
        self.reserved = False
        self._buffer: BytesIO | None = None

    @property
    def memory(self) -> int:
        """Bytes of memory that it takes."""
        return 0 if self._buffer is None else self.so_far + BUFFER_MEMORY

    def add(self, piece: bytes) -> None:
        """Put the next piece to its place."""
        if self.wanted:
            if self._buffer is None:
                self._buffer = BytesIO()
            self._buffer.write(piece)
        self.so_far += len(piece)

    def reserve(self) -> None:
        """Set room aside for all of it, if the system has so many addresses."""
        with suppress(MemoryError):  # then it grows, as small ones do
            assert self._buffer is not None
            reserved = BytesIO(bytes(max(self.size, RESERVE)))
            reserved.write(self._buffer.getbuffer())
            self._buffer = reserved
            self.reserved = True

    def whole(self) -> bytes | None:
        """Return the payload of a frame that has come whole, with no copy; None if nobody wants it."""
        if self._buffer is None:
            return None
        self._buffer.truncate()
        return self._buffer.getvalue()

    def discard(self) -> None:
        """Take no memory from here on."""
        self.wanted = self.reserved = False
        self._buffer = None


class Assembly:
    """The large frames that one side is receiving, by the numbers of their calls."""

    __slots__ = ("_partial", "_room", "held_bytes")

    def __init__(self, room: int) -> None:
        """Make room for `room` bytes of unfinished frames, with what their pieces take beside them."""
        self._room = room
        self._partial: dict[int, _Partial] = {}
        self.held_bytes: int = 0
        """Bytes of memory that unfinished frames take."""

    def __contains__(self, call: int) -> bool:
        return call in self._partial

    def start(self, call: int, number: int, payload: bytes, kinds: tuple[int, ...]) -> int:
        """A large frame begins. Returns the size that it will have.

        Args:
            call: The number of its call.
            number: The frame's own number.
            payload: That of the START frame.
            kinds: What the large frame may be.

        Raises:
            ProtocolError: It cannot be a large frame; or the call has one on its way; or there are too many.
        """
        if len(payload) != 9 or payload[0] not in kinds:
            raise ProtocolError(f"call {call}: no large frame begins like this")
        kind, size = payload[0], int.from_bytes(payload[1:])
        if call in self._partial:
            raise ProtocolError(f"call {call}: a large frame begins inside another")
        if size <= MAX_PAYLOAD:
            raise ProtocolError(f"call {call}: a large frame of {size} bytes")
        if len(self._partial) >= MAX_TRANSFERS:
            raise ProtocolError(f"more than {MAX_TRANSFERS} large frames at once")
        self._partial[call] = _Partial(kind, number, size)
        return size

    def piece(self, call: int, payload: bytes) -> tuple[int, int, bytes] | None:
        """A piece has arrived. Returns the whole frame if it was the last one, and the frame is wanted.

        Raises:
            ProtocolError: No such frame is on its way; or the piece is empty, or too much.
        """
        partial = self._partial.get(call)
        if partial is None:
            raise ProtocolError(f"call {call}: a piece of no large frame")
        if not 0 < len(payload) <= partial.size - partial.so_far:
            raise ProtocolError(f"call {call}: a piece of {len(payload)} bytes, which is empty or past the frame's end")
        self.held_bytes -= partial.memory
        if partial.so_far < RESERVE_AT <= partial.so_far + len(payload) and self._may_reserve(partial, payload):
            partial.reserve()
        partial.add(payload)
        self.held_bytes += partial.memory
        if self.held_bytes > self._room:
            raise ProtocolError(f"unfinished large frames take more than {self._room} bytes")
        if partial.so_far < partial.size:
            return None
        del self._partial[call]
        self.held_bytes -= partial.memory
        whole = partial.whole()
        return None if whole is None else (partial.kind, partial.number, whole)

    def _may_reserve(self, partial: _Partial, payload: bytes) -> bool:
        """Tell whether room is set aside for a frame.

        Not where its pieces are large: nothing small goes beside them that could feel a stop, and memory that was used
        before is quicker to have than what was set aside, of which each page is new.
        """
        if not partial.wanted or len(payload) > MAX_PAYLOAD:
            return False
        return sum(other.reserved for other in self._partial.values()) < RESERVATIONS

    def discard(self, call: int) -> None:
        """Nobody wants the call's large frame any more, if there is one.

        It takes no memory from here on, and gives nothing at its end.
        """
        partial = self._partial.get(call)
        if partial is not None and partial.wanted:
            self.held_bytes -= partial.memory
            partial.discard()

    def discard_all(self) -> list[int]:
        """Nobody wants any of them any more. Returns the calls of those that were wanted."""
        calls = [call for call, partial in self._partial.items() if partial.wanted]
        for call in calls:
            self.discard(call)
        return calls

    def drop(self, call: int) -> None:
        """The frame ends here, unfinished.

        Raises:
            ProtocolError: No such frame is on its way.
        """
        if call not in self._partial:
            raise ProtocolError(f"call {call}: the end of no large frame")
        self.discard(call)
        del self._partial[call]
