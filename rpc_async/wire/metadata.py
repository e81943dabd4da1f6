"""Metadata, and the limits on what travels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from rpc_async.errors import InvalidArgument
from rpc_async.wire.faults import MAX_STATUS_SIZE

__all__ = [
    "CALL_ID_KEY",
    "DEFAULT_MAX_PAYLOAD",
    "MAX_METADATA",
    "Metadatum",
    "call_metadata",
    "check_metadata",
    "client_call_id",
    "metadata_size",
]

CALL_ID_KEY: Final = "rpc-async-call-id"
DEFAULT_MAX_PAYLOAD: Final = 64 * 1024 * 1024
"""Bytes: the largest request or reply, unless the options say otherwise."""
MAX_METADATA: Final = 4 * MAX_STATUS_SIZE
"""Bytes: the largest metadata this library accepts. gRPC's own default of 8 KiB would cut a fault's chain."""

_METADATA_KEY: Final = re.compile(r"[0-9a-z_.\-]+\Z")
_DROPPED: Final = frozenset(
    {
        "content-type",
        "grpc-accept-encoding",
        "grpc-encoding",
        "grpc-internal-encoding-request",
        "grpc-message",
        "grpc-previous-rpc-attempts",
        "grpc-server-stats-bin",
        "grpc-status",
        "grpc-tags-bin",
        "grpc-timeout",
        "grpc-trace-bin",
        "te",
        "user-agent",
    }
)
"""Names that gRPC keeps for itself: what a user gives under one is dropped, on every wire as by gRPC."""


class Metadatum(NamedTuple):
    """One pair of metadata, as gRPC gives it to a server."""

    key: str
    value: str | bytes


def check_metadata(metadata: Any) -> tuple[tuple[str, str | bytes], ...]:
    """Return metadata as a tuple of pairs, without what gRPC keeps for itself and drops.

    Args:
        metadata: Pairs of a key and a value, such as a tuple of tuples or a `grpc.aio.Metadata`; or None.

    Raises:
        InvalidArgument: It is no sequence of pairs; a key or a value that gRPC does not allow, or a value of the wrong
            type for its key.
    """
    if metadata is None:
        return ()
    return tuple([pair for pair in map(_checked_pair, _pairs(metadata)) if pair[0] not in _DROPPED])


def _pairs(metadata: Any) -> Iterable[Any]:
    if isinstance(metadata, (str, bytes, Mapping)):
        raise InvalidArgument(f"metadata {metadata!r}: pairs of a key and a value, such as (('key', 'value'),)")
    try:
        return tuple(metadata)
    except InvalidArgument:
        raise
    except Exception as error:
        raise InvalidArgument(f"metadata {metadata!r}: pairs of a key and a value: {error}") from error


def _checked_pair(pair: Any) -> tuple[str, str | bytes]:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise InvalidArgument(f"metadata: {pair!r} is no pair of a key and a value")
    key, value = pair
    if isinstance(key, bytes) and key.isascii():
        key = key.decode("ascii")
    if not (isinstance(key, str) and _METADATA_KEY.match(key)):
        raise InvalidArgument(f"metadata key {key!r}: lower-case letters, digits and _ . - only")
    if not isinstance(value, bytes if key.endswith("-bin") else (str, bytes)):
        raise InvalidArgument(f"metadata {key!r}: the value must be bytes if the key ends in -bin, else text")
    if not (key.endswith("-bin") or _is_text(value)):
        raise InvalidArgument(f"metadata {key!r}: text has printable ASCII characters only; use a key ending in -bin")
    return key, value


def _is_text(value: str | bytes) -> bool:
    return value.isascii() and (value if isinstance(value, str) else value.decode("ascii")).isprintable()


def metadata_size(metadata: Iterable[tuple[str, str | bytes]]) -> int:
    """Return the bytes that metadata takes, as gRPC counts them."""
    return sum(len(key) + len(value) + 32 for key, value in metadata)


_NOT_SHOWN: Final = frozenset({CALL_ID_KEY, "content-type", "grpc-timeout", "te"})
"""What gRPC keeps to itself of what a client gives; and a session's calls have ids already."""


def call_metadata(
    metadata: Iterable[tuple[str, str | bytes]], call_id: str, user_agent: str | None
) -> tuple[Metadatum, ...]:
    """Return the metadata of a session's call, with what a gRPC call of its own would have had beside its client's."""
    own = (("user-agent", user_agent),) if user_agent is not None else ()
    theirs = (pair for pair in metadata if pair[0] not in _NOT_SHOWN)
    return tuple(Metadatum(*pair) for pair in (*own, *theirs, (CALL_ID_KEY, call_id)))


def client_call_id(metadata: Iterable[tuple[str, Any]]) -> str | None:
    """Return the call id that a client chose, or None if it chose none."""
    for key, value in metadata:
        if key == CALL_ID_KEY:
            return value if isinstance(value, str) else ""
    return None
