"""What both sides of a session have in common: a link, and a life that outlasts its streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rpc_async.core.assembly import Assembly
from rpc_async.core.link import Link

__all__ = ["HEAD_ROOM", "MAX_CALLS", "MAX_METHODS", "MAX_METHOD_NAME", "METHOD_BITS", "Session"]

METHOD_BITS: Final = 12
MAX_METHODS: Final = 1 << METHOD_BITS
"""Methods that one session can name. A call's frame has a number that says both: call << METHOD_BITS | method."""
MAX_CALLS: Final = (1 << 64 - METHOD_BITS) - 1
"""The highest number of a call."""
MAX_METHOD_NAME: Final = 1024
"""Bytes."""
HEAD_ROOM: Final = 512 * 1024
"""Bytes that a large frame may take beside its message: its metadata, and a fault's text and details."""
_TRANSFERS: Final = 4
"""Messages of the full size that may be unfinished at once; see `link.TRANSFERS`."""


class Session:
    """One side of a session. Time is passed in, in seconds of any clock that only goes forward."""

    __slots__ = ("assembly", "begun", "cut_at", "link", "max_payload")

    def __init__(self, *, causal: bool, max_payload: int, wake: Callable[[], object]) -> None:
        self.link: Final = Link(causal=causal, wake=wake)
        self.assembly: Final = Assembly(_TRANSFERS * (max_payload + HEAD_ROOM))
        self.max_payload: Final = max_payload
        """Bytes: the largest message that this side takes."""
        self.begun: int = 0
        """The number of the latest call."""
        self.cut_at: float | None = None
        """When the stream was cut; None while there is one."""

    def cut(self, now: float) -> None:
        """The stream has ended without a CLOSE. Everything else stays as it is."""
        if self.cut_at is None:
            self.cut_at = now

    def resumed(self, received: int) -> None:
        """There is a stream again, and the other side has received so many frames.

        Raises:
            ProtocolError: It cannot have received so many.
        """
        self.link.resume(received)
        self.cut_at = None

    @property
    def held(self) -> int:
        """Bytes of memory that the session takes: what it has to send, and what it has not received whole."""
        return self.link.held + self.assembly.held_bytes

    def forget(self) -> None:
        """The session has ended: let go of all that it holds."""
        self.link.forget()
        self.assembly.discard_all()

    def time_left(self, now: float, linger: float) -> float | None:
        """Return the seconds until it is over, `linger` seconds after the cut; None while there is a stream."""
        return None if self.cut_at is None else self.cut_at + linger - now
