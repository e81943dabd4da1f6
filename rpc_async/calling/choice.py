"""Which wire a channel's calls may take at all, which is known before it connects. `docs/grpc.md` has the whole table.

A session carries what gRPC does for each call: metadata, deadlines, both kinds of metadata that come back, status
details. What gRPC does for a call by way of its own client, a session cannot: so those channels' calls go natively.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

import grpc
import grpc.aio

from rpc_async.errors import InvalidArgument
from rpc_async.wire.session import MAX_BATCH_BYTES

__all__ = ["Choice", "Transport", "choose", "has_interceptors", "without_interceptors"]

Transport = Literal["auto", "session", "native"]

_BY_GRPC: Final = {
    "grpc.service_config": "a service config, which gRPC's own client follows call by call",
    "grpc.lb_policy_name": "a load-balancing policy, which sends each call where it likes",
    "grpc.default_compression_algorithm": "compression, which gRPC's own client does for each message",
    "grpc.default_compression_level": "compression, which gRPC's own client does for each message",
    "grpc.enable_channelz": "channelz, which counts the calls of gRPC's own client",
    "grpc.ssl_session_cache": "a cache of TLS sessions, which is for the connections of gRPC's own client",
}
"""Channel options that say what gRPC is to do for each call."""
_LIMITS: Final = ("grpc.max_send_message_length", "grpc.max_receive_message_length")
_PLAIN_CREDENTIALS: Final = {
    "ALTSChannelCredentials",
    "InsecureChannelCredentials",
    "LocalChannelCredentials",
    "SSLChannelCredentials",
}
"""gRPC's classes of channel credentials that say who the connection's ends are, and are not asked for each call."""
_BALANCED: Final = re.compile(r"(xds|google-c2p)(-experimental)?:", re.IGNORECASE)
_INTERCEPTOR_LISTS: Final = (
    "_unary_unary_interceptors",
    "_unary_stream_interceptors",
    "_stream_unary_interceptors",
    "_stream_stream_interceptors",
)


class Choice(NamedTuple):
    """Which wire, and why."""

    transport: Transport
    reason: str


def choose(
    transport: Transport,
    *,
    target: str,
    credentials: grpc.ChannelCredentials | None,
    options: Mapping[str, Any],
    intercepted: bool,
    compression: grpc.Compression | None,
) -> Choice:
    """Return which wire a channel's calls take, as far as it is known before it connects.

    Raises:
        InvalidArgument: The wire asked for is "session", and the channel has what no session can do.
    """
    if transport == "native":
        return Choice("native", "the channel was opened with transport='native'")
    hindrance = _hindrance(target, credentials, options, intercepted, compression)
    if hindrance is None:
        return Choice(transport, "")
    if transport == "session":
        raise InvalidArgument(f"transport 'session' has no place for {hindrance}: use 'auto' or 'native'")
    return Choice("native", f"the channel has {hindrance}")


def _hindrance(
    target: str,
    credentials: grpc.ChannelCredentials | None,
    options: Mapping[str, Any],
    intercepted: bool,
    compression: grpc.Compression | None,
) -> str | None:
    if intercepted:
        return "client interceptors, which gRPC's own client calls for each call"
    if compression is not None:
        return _BY_GRPC["grpc.default_compression_algorithm"]
    for name, what in _BY_GRPC.items():
        if name in options and options[name] != 0:  # an option that is set to 0 is off
            return what
    if credentials is not None and _asked_for_each_call(credentials):
        return "credentials that gRPC's own client asks for each call"
    if _BALANCED.match(target):
        return f"the target {target!r}, which sends each call where it likes"
    if any(0 <= options[name] < MAX_BATCH_BYTES for name in _LIMITS if name in options):
        return f"message limits under the {MAX_BATCH_BYTES} bytes that a session's batches take"
    return None


def _asked_for_each_call(credentials: grpc.ChannelCredentials) -> bool:
    """Tell whether channel credentials hold call credentials; of a kind that is not known, they may."""
    inner = getattr(credentials, "_credentials", None)
    return type(inner).__name__ not in _PLAIN_CREDENTIALS


def has_interceptors(channel: grpc.aio.Channel) -> bool:
    """Tell whether a gRPC channel has client interceptors, whoever gave it them: instrumentation does so by itself."""
    return any(getattr(channel, name, None) for name in _INTERCEPTOR_LISTS)


def without_interceptors(channel: grpc.aio.Channel) -> grpc.aio.Channel:
    """Take a gRPC channel's interceptors from it: they are for the user's calls, and not for a session's stream."""
    for name in _INTERCEPTOR_LISTS:
        found = getattr(channel, name, None)
        if found:
            found.clear()
    return channel
