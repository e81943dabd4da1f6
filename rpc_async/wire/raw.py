"""Messages of methods without a serialiser, whose users bring bytes."""

from __future__ import annotations

from typing import Any

__all__ = ["raw_bytes"]


def raw_bytes(message: Any) -> bytes:
    """Return what is sent for anything that has bytes: a copy, where it could still be changed.

    Raises:
        TypeError: It has no bytes.
    """
    return message if type(message) is bytes else memoryview(message).tobytes()
