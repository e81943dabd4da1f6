"""A channel's target: whatever gRPC resolves, but for what is plainly a mistake."""

from __future__ import annotations

import re
from typing import Any, Final

from rpc_async.errors import InvalidArgument

__all__ = ["checked_target"]

_HOST_AND_PORT: Final = re.compile(r"([^:/]+|\[[^\]]+\]):([^:/]*)\Z")
_SCHEMES: Final = frozenset(
    {"dns", "google-c2p", "google-c2p-experimental", "ipv4", "ipv6", "unix", "unix-abstract", "vsock", "xds"}
)
"""gRPC's names of ways to resolve a name: what follows one is gRPC's to judge.
See https://github.com/grpc/grpc/blob/master/doc/naming.md."""
_NAMED_PORTS: Final = frozenset({"http", "https"})
"""Ports that gRPC knows by name."""


def checked_target(target: Any) -> str:
    """Return a target as it was given.

    Raises:
        InvalidArgument: It is no text, it is blank, or it is a host with a port that is none. An empty one is taken, as
            by gRPC, and refused where it is used; and gRPC takes port 0, where nobody is reached.
    """
    if not isinstance(target, str):
        raise InvalidArgument(f"target {target!r}: the name of a server, such as localhost:50051")
    if target and not target.strip():
        raise InvalidArgument("the target is blank: name a server, such as localhost:50051")
    named = _HOST_AND_PORT.match(target)
    if named is None or named[1].lower() in _SCHEMES or named[2] in _NAMED_PORTS:
        return target
    if not (named[2].isdecimal() and named[2].isascii() and int(named[2]) < 65536):
        raise InvalidArgument(f"target {target!r}: {named[2]!r} is no port; ports are 0 to 65535")
    return target
