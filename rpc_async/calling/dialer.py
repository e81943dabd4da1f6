"""Makes the gRPC channels that a channel's calls travel by."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import grpc
import grpc.aio

from rpc_async.calling.choice import without_interceptors
from rpc_async.errors import InvalidArgument

__all__ = ["Dialer"]

_STREAM_OPTIONS: Final[dict[str, Any]] = {
    "grpc.use_local_subchannel_pool": 1,  # a connection of its own, which ends with the stream
}
_KEEPALIVE_TIMEOUT: Final = 20.0
"""Seconds that the server may take to answer a keepalive ping: gRPC's own number."""
_INT_MAX: Final = 2**31 - 1
"""The largest number that gRPC takes as a channel argument; as a time between pings it is never."""


class Dialer:
    """Knows a target, and how to connect to it. It does not know the channel, which can be dropped."""

    def __init__(
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None,
        options: Mapping[str, Any],
        interceptors: Sequence[grpc.aio.ClientInterceptor],
        compression: grpc.Compression | None,
        keepalive: float | None,
    ) -> None:
        """Make it. See `connect`."""
        self.target: Final = target
        self.by: Callable[[], grpc.aio.Channel] | None = None
        """Makes each gRPC channel in place of gRPC, for what is not reached by a target."""
        self._credentials = credentials
        self._options = dict(options)
        self._interceptors = tuple(interceptors)
        self._compression = compression
        self._keepalive = keepalive

    @property
    def takes_call_credentials(self) -> bool:
        """Whether calls may have credentials of their own, which gRPC sends over secure connections only."""
        return self._credentials is not None or self.by is not None

    def native(self) -> grpc.aio.Channel:
        """Make the gRPC channel for native calls."""
        return self._dial(self._options, self._interceptors)

    def stream(self) -> grpc.aio.Channel:
        """Make the gRPC channel for one stream of a session."""
        own: dict[str, Any] = {}
        if self._keepalive is not None:
            timeout = math.ceil(min(self._keepalive, _KEEPALIVE_TIMEOUT) * 1000)
            own |= {
                "grpc.keepalive_time_ms": min(math.ceil(self._keepalive * 1000), _INT_MAX),
                "grpc.keepalive_timeout_ms": timeout,
                "grpc.http2.ping_timeout_ms": timeout,  # gRPC up to 1.85 starts this timer only, of 60 s
                "grpc.http2.max_pings_without_data": 0,
            }
        return without_interceptors(self._dial(own | self._options | _STREAM_OPTIONS, ()))

    def _dial(self, options: Mapping[str, Any], interceptors: Sequence[grpc.aio.ClientInterceptor]) -> grpc.aio.Channel:
        if self.by is not None:
            return self.by()
        if not self.target:
            raise InvalidArgument("the target is empty: name a server, such as localhost:50051; no call was begun")
        # By keyword, as gRPC documents it: what wraps these functions reads the keywords (OpenTelemetry does).
        how: dict[str, Any] = {
            "options": tuple(options.items()),
            "compression": self._compression,
            "interceptors": interceptors,
        }
        if self._credentials is None:
            return grpc.aio.insecure_channel(self.target, **how)
        return grpc.aio.secure_channel(self.target, self._credentials, **how)
