"""Frames: what a session's two sides say to each other. `protos/rpc_async/v1/session.proto` tells each one's meaning.

A frame is a plain tuple, because a session handles tens of thousands of them in a second.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

__all__ = ["CLIENT_KINDS", "MAX_PAYLOAD", "SERVER_KINDS", "TRANSFER", "Frame", "FrameKind", "ProtocolError"]

Frame = tuple[int, int, bytes]
"""Kind, number, payload."""

MAX_PAYLOAD: Final = 64 * 1024
"""Bytes: the largest payload of one frame. A larger one travels in pieces."""


class FrameKind(IntEnum):
    """What a frame is."""

    CALL = 1
    """Client: a call of the method with this number; the payload is its request."""
    CALL_WITH_HEAD = 2
    """Client: a call with a deadline or metadata."""
    METHOD = 3
    """Client: gives a method a number."""
    CANCEL = 4
    """Client: asks the call to stop (C5)."""
    ABORT = 5
    """Client: does not wait for the call any more (C6)."""
    WATCH = 6
    """Client: wants the call's progress reports."""
    REPLY = 7
    """Server: the call has succeeded."""
    REPLY_WITH_HEAD = 8
    """Server: the call has succeeded, and there is trailing metadata."""
    FAULT = 9
    """Server: the call has failed."""
    CANCEL_NOTE = 10
    """Server: what became of a CANCEL."""
    PROGRESS = 11
    """Server: a progress report."""
    CLOSE = 12
    """Both: the end of the session."""
    START = 16
    """Both: a frame with a large payload begins."""
    PIECE = 17
    """Both: the next piece of it."""
    DROP = 18
    """Both: it ends here, unfinished."""


TRANSFER: Final = int(FrameKind.START)
"""This kind and those above it are about large frames; those below it are whole frames."""

CLIENT_KINDS: Final = frozenset(range(1, 7)) | {FrameKind.CLOSE, FrameKind.START, FrameKind.PIECE, FrameKind.DROP}
SERVER_KINDS: Final = frozenset(range(7, 13)) | {FrameKind.START, FrameKind.PIECE, FrameKind.DROP}


class ProtocolError(Exception):
    """The peer said what the protocol does not allow: the stream must end, and the session with it."""
