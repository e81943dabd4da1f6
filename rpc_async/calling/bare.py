"""gRPC's streams without what grpc.aio puts around each message.

grpc.aio's `write` and `read` look at the call's state and style before each message and take it through coroutines of
their own, which costs some microseconds; and if the server ends a call while its client writes, `write` often puts the
code INTERNAL in place of the status that the server gave. What they call takes and gives bytes only. It is no public
part of grpc.aio: where it is not there, or there are interceptors, these are `write` and `read` themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["bare_reader", "bare_writer"]


def bare_writer(stream: Any) -> Callable[[Any], Coroutine[Any, Any, object]]:
    """Return what writes a message to a stream on which the first one was written, or its metadata have come."""
    inner = getattr(stream, "_cython_call", None)
    if getattr(stream, "_request_serializer", None) is not None:
        inner = None
    write: Callable[[Any], Coroutine[Any, Any, object]] = getattr(inner, "send_serialized_message", stream.write)
    return write


def bare_reader(stream: Any) -> Callable[[], Coroutine[Any, Any, Any]]:
    """Return what reads a message from a stream on which one was read; `stream.read()` tells why it has ended."""
    inner = getattr(stream, "_cython_call", None)
    if getattr(stream, "_response_deserializer", None) is not None:
        inner = None
    read: Callable[[], Coroutine[Any, Any, Any]] = getattr(inner, "receive_serialized_message", stream.read)
    return read
