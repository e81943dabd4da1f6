"""A fault in gRPC's trailers, within what its client is known to take (C15).

gRPC lets nobody send trailers of any size: most clients take 8 KiB, and a call whose trailers are larger fails for its
client as RESOURCE_EXHAUSTED, with nothing that the server said. So a fault is made to fit. What does not fit is left
out in this order, and the fault says what was:

1. the second copy of the text, which `grpc-status-details-bin` has beside `grpc-message`: it is cut, nothing is lost;
2. `details`: the chain, from its end;
3. `text`: its end;
4. `trailing_metadata`: what the manager set beside its fault.

The code and the number are never left out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final, NamedTuple

from google.rpc import status_pb2

from rpc_async.core.outcome import Fault
from rpc_async.wire.faults import STATUS_DETAILS_KEY, encodable, fault_to_status

__all__ = ["DEFAULT_MAX_TRAILERS", "LEAST_MAX_TRAILERS", "Trailers", "fault_to_trailers", "trailers_size"]

_LOGGER: Final = logging.getLogger("rpc_async.serving")

DEFAULT_MAX_TRAILERS: Final = 8000
"""Bytes: a little less than the 8 KiB that gRPC's clients take unless they are told otherwise."""
LEAST_MAX_TRAILERS: Final = 2048
"""Bytes: the lowest that a server may be set to."""

Pairs = tuple[tuple[str, str | bytes], ...]
_Size = Callable[[str], int]

_PAIR: Final = 32
"""Bytes that HTTP/2 counts for each header beside its name and its value (RFC 9113, 10.5.1)."""
_OWN: Final = 288
"""Bytes that gRPC's own headers of a failure take: `:status`, `content-type`, `grpc-status`, `grpc-accept-encoding`."""
_COPY: Final = 256
"""Bytes of the copy of a text that is cut: some clients (Go) show the copy."""
_LEAST: Final = 1024
"""Bytes that a fault has at the least; where the manager's own trailing metadata leaves less, it is left out."""
_CUT: Final = "..."
_PLAIN: Final = bytes(byte for byte in range(0x20, 0x7F) if byte != 0x25)
"""What `grpc-message` holds as it is; all else takes three bytes."""


class Trailers(NamedTuple):
    """What a failed call ends with."""

    message: str
    metadata: Pairs


def trailers_size(message: str, metadata: Iterable[tuple[str, str | bytes]]) -> int:
    """Return the bytes that they take, with gRPC's own, as the strictest of gRPC's libraries counts them.

    Binary values are base64 on the wire for all but C-core's own clients, and texts percent-encoded.
    """
    return _OWN + _size("grpc-message", _encoded(message)) + sum(_pair_size(key, value) for key, value in metadata)


def fault_to_trailers(failure: Fault, trailing: Pairs = (), limit: int = DEFAULT_MAX_TRAILERS) -> Trailers:
    """Return what a call ends with that fails so, within `limit` bytes.

    Args:
        failure: How it fails.
        trailing: What its manager, or its handler, set beside that.
        limit: Bytes, at least `LEAST_MAX_TRAILERS`.
    """
    failure = replace(failure, message=encodable(failure.message))
    whole = _trailers(failure, failure.message, trailing)
    if trailers_size(*whole) <= limit:
        return whole
    if trailing and limit - trailers_size("", trailing) < _LEAST:
        trailing, failure = (), _without(failure, "trailing_metadata")
    return _fit(failure, trailing, limit)


def _without(failure: Fault, what: str) -> Fault:
    _LOGGER.info("the %s of a failure of %s was cut, for its client may not take as much", what, failure.status)
    return replace(failure, shed=(*failure.shed, what))


def _fit(failure: Fault, trailing: Pairs, limit: int) -> Trailers:
    def size(one: Fault) -> int:
        return trailers_size(*_trailers(one, "", trailing))

    if size(failure) > limit:
        if failure.details:
            failure = _without(failure, "details")
        while failure.details and size(failure) > limit:
            failure = replace(failure, details=failure.details[:-1])
        if size(failure) > limit:
            failure = _without(failure, "text")
            room = limit - size(replace(failure, message="")) - _base64(_COPY)
            failure = replace(failure, message=_cut(failure.message, room, _encoded))
    # The copy takes what is left: at least what was kept for it above.
    room = (limit - size(failure)) * 3 // 4 - 8
    return _trailers(failure, _cut(failure.message, room, lambda text: len(text.encode())), trailing)


def _trailers(failure: Fault, copy: str, trailing: Pairs) -> Trailers:
    status: status_pb2.Status = fault_to_status(failure)
    status.message = copy
    return Trailers(failure.message, (*trailing, (STATUS_DETAILS_KEY, status.SerializeToString())))


def _cut(text: str, room: int, size: _Size) -> str:
    """Return as much of the beginning of a text as there is room for."""
    if size(text) <= room:
        return text
    least, most = 0, len(text)
    while least < most:
        middle = (least + most + 1) // 2
        if size(text[:middle]) + len(_CUT) <= room:
            least = middle
        else:
            most = middle - 1
    return text[:least] + _CUT if least else ""


def _encoded(text: str) -> int:
    data = text.encode()
    return len(data) + 2 * len(data.translate(None, _PLAIN))


def _base64(size: int) -> int:
    return (size * 4 + 2) // 3


def _pair_size(key: str, value: str | bytes) -> int:
    return _size(key, _base64(len(value)) if key.endswith("-bin") else len(value))


def _size(key: str, value: int) -> int:
    return len(key) + value + _PAIR
