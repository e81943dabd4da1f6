"""`connect()`: a `grpc.aio.Channel` whose unary calls are asynchronous calls."""

from __future__ import annotations

import asyncio
import math
import re
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Literal, Self, cast

import grpc
import grpc.aio

from rpc_async.calling.io_loop import IoLoop
from rpc_async.calling.method import UnaryMethod
from rpc_async.calling.native import NativeDriver
from rpc_async.calling.session import SessionDriver
from rpc_async.calling.streaming import StreamingMethod
from rpc_async.errors import CannotSupport, InvalidArgument, InvalidBinding
from rpc_async.wire.metadata import DEFAULT_MAX_PAYLOAD, MAX_METADATA
from rpc_async.wire.session import MAX_BATCH_BYTES

__all__ = ["Channel", "connect"]

_DEFAULT_OPTIONS: Final[tuple[tuple[str, Any], ...]] = (
    ("grpc.max_receive_message_length", DEFAULT_MAX_PAYLOAD),
    ("grpc.max_send_message_length", DEFAULT_MAX_PAYLOAD),
    ("grpc.max_metadata_size", MAX_METADATA),  # room for a fault's whole chain of details (C15)
    ("grpc.absolute_max_metadata_size", MAX_METADATA),
)
_STREAM_OPTIONS: Final[tuple[tuple[str, Any], ...]] = (
    ("grpc.use_local_subchannel_pool", 1),  # a connection of its own, which ends with the stream
)
_KEEPALIVE_TIMEOUT: Final = 20.0
"""Seconds that the server may take to answer a keepalive ping: gRPC's own number."""
_PORT: Final = re.compile(r"(?:[^:/]+|\[[^\]]+\]):([^:/]*)\Z")


class Channel(grpc.aio.Channel):
    """A `grpc.aio.Channel`: generated stubs are made on it as on any other. Made by `connect()`.

    `async with` uses the running event loop; plain `with` starts a thread with a loop of the channel's own. The
    handles of its calls may be used from any thread and any loop in both cases. Without either, the channel uses
    the loop that runs when it is first used, as gRPC's own do, and must be closed.
    """

    def __init__(
        self,
        target: str,
        *,
        credentials: grpc.ChannelCredentials | None,
        options: Sequence[tuple[str, Any]],
        interceptors: Sequence[grpc.aio.ClientInterceptor],
        compression: grpc.Compression | None,
        transport: Literal["auto", "session", "native"],
        causal: bool,
        linger: float,
        keepalive: float | None,
    ) -> None:
        merged = {**dict(_DEFAULT_OPTIONS), **dict(options)}
        limit, received = merged["grpc.max_send_message_length"], merged["grpc.max_receive_message_length"]
        self._max_reply = DEFAULT_MAX_PAYLOAD if received < 0 else received
        self.target: Final = target
        self.intercepted: Final = bool(interceptors)
        """Whether gRPC interceptors see the calls, which want messages, not bytes."""
        self.max_payload: Final[int] = DEFAULT_MAX_PAYLOAD if limit < 0 else limit
        """Bytes: the largest request."""
        self._credentials = credentials
        self._options = tuple(merged.items())
        self._interceptors = tuple(interceptors)
        self._compression = compression
        self._dial: Callable[[], grpc.aio.Channel] | None = None
        """Makes the gRPC channel in place of gRPC, for what is not reached by a target."""
        self._lock = threading.Lock()
        if min(self.max_payload, self._max_reply) < MAX_BATCH_BYTES and transport != "native":
            if transport == "session":
                raise InvalidArgument(f"transport 'session' needs message limits of {MAX_BATCH_BYTES} bytes or more")
            transport = "native"
        self._transport = transport
        self._causal = causal
        self._linger = linger
        self._keepalive = keepalive
        self._io: IoLoop | None = None
        self._native: NativeDriver | None = None
        self._session: SessionDriver | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<Channel to {self.target}>"

    # -- opening and closing ----------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._open(IoLoop.running())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __enter__(self) -> Self:
        io = IoLoop.in_thread(f"rpc_async-channel {self.target}")
        try:
            io.run_blocking(self._open_async(io))
        except BaseException:
            io.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._io is not None
        self._io.run_blocking(self._close(None))
        self._io.stop()

    async def close(self, grace: float | None = None) -> None:
        """Close the channel. A call that has not settled is aborted, and settles as CALL_CANCELLED.

        Args:
            grace: Seconds to wait for outstanding calls first. None: none.
        """
        if self._io is None:
            self._closed = True
            return
        await self._io.run(self._close(grace))

    async def _open_async(self, io: IoLoop) -> None:
        self._open(io)

    def _open(self, io: IoLoop) -> NativeDriver:
        with self._lock:
            if self._closed:
                raise InvalidBinding(f"{self!r} is closed; connect() again")
            if self._native is not None:
                if self._io is not None and self._io.loop is io.loop:
                    return self._native
                raise InvalidBinding(f"{self!r} is open already, on another event loop")
            self._io = io
            native = NativeDriver(io, self._inner(self._options, self._interceptors))
            if self._transport != "native":
                self._session = SessionDriver(
                    io,
                    self._stream_channel,
                    native,
                    causal=self._causal,
                    linger=self._linger,
                    max_payload=self._max_reply,
                    only=self._transport == "session",
                )
            self._native = native
            return native

    def _inner(
        self, options: Sequence[tuple[str, Any]], interceptors: Sequence[grpc.aio.ClientInterceptor]
    ) -> grpc.aio.Channel:
        if self._dial is not None:
            return self._dial()
        if self._credentials is None:
            return grpc.aio.insecure_channel(self.target, options, self._compression, interceptors)
        return grpc.aio.secure_channel(self.target, self._credentials, options, self._compression, interceptors)

    def _stream_channel(self) -> grpc.aio.Channel:
        """Make the gRPC channel for one stream of a session."""
        options = [*self._options, *_STREAM_OPTIONS]
        if self._keepalive is not None:
            timeout = math.ceil(min(self._keepalive, _KEEPALIVE_TIMEOUT) * 1000)
            options += [
                ("grpc.keepalive_time_ms", math.ceil(self._keepalive * 1000)),
                ("grpc.keepalive_timeout_ms", timeout),
                ("grpc.http2.ping_timeout_ms", timeout),  # gRPC up to 1.85 starts this timer only, of 60 s
                ("grpc.http2.max_pings_without_data", 0),
            ]
        return self._inner(options, ())

    async def _close(self, grace: float | None) -> None:
        with self._lock:
            self._closed = True
            native, self._native = self._native, None
            session, self._session = self._session, None
        closing = (driver.close(grace) for driver in (session, native) if driver is not None)
        await asyncio.gather(*closing)

    def native(self) -> NativeDriver:
        """Return what carries native calls; open the channel on the running loop if need be."""
        native = self._native
        if native is not None:
            return native
        if self._closed:
            raise InvalidBinding(f"{self!r} is closed; no call was begun")
        try:
            io = IoLoop.running()
        except RuntimeError:
            raise InvalidBinding(
                f"{self!r} is not open: use it inside `with` or `async with`; no call was begun"
            ) from None
        return self._open(io)

    def session(self) -> SessionDriver | None:
        """Return what carries calls by sessions; None where they go natively."""
        session = self._session
        if session is None and self._transport != "native":
            self.native()
            session = self._session
        return session

    @property
    def causal(self) -> bool:
        """Whether calls that one thread begins are dispatched in that order (C13). Can be set until the channel opens.

        Raises CannotSupport when it is changed later: a session keeps the order that it was opened with.
        """
        return self._causal

    @causal.setter
    def causal(self, value: bool) -> None:
        with self._lock:
            if value != self._causal and (self._native is not None or self._closed):
                raise CannotSupport(f"{self!r} was opened with causal={self._causal}, and keeps it")
            self._causal = value

    # -- gRPC's own -------------------------------------------------------------------------------------

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Return the state of the connection, as gRPC names it."""
        if self._closed:
            return grpc.ChannelConnectivity.SHUTDOWN
        session = self.session()
        if session is None or session.unsupported:
            return self.native().channel.get_state(try_to_connect)
        if try_to_connect:
            session.connect()
        return session.connectivity.state

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until the state is another than `last_observed_state`."""
        native, session = self.native(), self.session()
        if session is None or session.unsupported:
            await native.run(_awaited(native.channel.wait_for_state_change(last_observed_state)))
        else:
            await session.run(session.connectivity.wait_for_change(last_observed_state))

    async def channel_ready(self) -> None:
        """Wait until the channel is connected."""
        while (state := self.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
            if state is grpc.ChannelConnectivity.SHUTDOWN and self._closed:
                raise InvalidBinding(f"{self!r} is closed")
            await self.wait_for_state_change(state)

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> UnaryMethod[Any, Any]:
        """Return a unary method. Generated stubs do this."""
        return UnaryMethod(self, method, request_serializer, response_deserializer)

    def unary_stream(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> grpc.aio.UnaryStreamMultiCallable[Any, Any]:
        """Return a server-streaming method. Generated stubs do this."""
        return cast(
            "grpc.aio.UnaryStreamMultiCallable[Any, Any]",
            StreamingMethod(self, "unary_stream", method, request_serializer, response_deserializer),
        )

    def stream_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> grpc.aio.StreamUnaryMultiCallable[Any, Any]:
        """Return a client-streaming method. Generated stubs do this."""
        return cast(
            "grpc.aio.StreamUnaryMultiCallable[Any, Any]",
            StreamingMethod(self, "stream_unary", method, request_serializer, response_deserializer),
        )

    def stream_stream(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> grpc.aio.StreamStreamMultiCallable[Any, Any]:
        """Return a bidirectionally streaming method. Generated stubs do this."""
        return cast(
            "grpc.aio.StreamStreamMultiCallable[Any, Any]",
            StreamingMethod(self, "stream_stream", method, request_serializer, response_deserializer),
        )


async def _awaited(coroutine: Any) -> None:
    await coroutine


def connect(
    target: str,
    *,
    credentials: grpc.ChannelCredentials | None = None,
    causal: bool = True,
    transport: Literal["auto", "session", "native"] = "auto",
    linger: float = 30.0,
    keepalive: float | None = 30.0,
    options: Sequence[tuple[str, Any]] = (),
    interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
    compression: grpc.Compression | None = None,
) -> Channel:
    """Make a channel to a server; use it in `async with`, or in plain `with`. It connects when it is used.

    Args:
        target: gRPC's name of the server, such as `localhost:50051` or `dns:///host:443`.
        credentials: gRPC's channel credentials; None: no encryption.
        causal: Calls that one thread begins are dispatched in that order (C13). False lets small calls overtake large
            ones on a session.
        transport: How calls travel. "session": many on one stream, which survives a cut connection. "native": each is a
            gRPC call of its own, to any gRPC server. "auto": by a session if the server offers them, else natively; and
            natively where there are interceptors, or for a call with credentials or compression of its own.
            Calls of streaming methods are gRPC calls of their own in any case.
        linger: Seconds to go on trying to resume a session after a cut; the server's own number counts too.
        keepalive: Seconds without traffic after which the session's connection is tested; it is given up if there is
            no answer in as many seconds, at most 20. gRPC tests at most once a second. None: never.
        options: gRPC's channel arguments. `grpc.max_send_message_length` and `grpc.max_receive_message_length` are
            64 MiB unless they are set here.
        interceptors: gRPC's client interceptors.
        compression: gRPC's compression for what the client sends.

    Raises:
        InvalidArgument: The target is empty or its port is no port; the transport is unknown, or cannot have
            interceptors; a number of seconds that is none.
    """
    if transport not in ("auto", "session", "native"):
        raise InvalidArgument(f"transport {transport!r}: 'auto', 'session' or 'native'")
    if transport == "session" and (interceptors or compression is not None):
        raise InvalidArgument("transport 'session' has no place for client interceptors or compression: use 'auto'")
    if not (math.isfinite(linger) and linger >= 0):
        raise InvalidArgument(f"linger {linger}: seconds, 0 or more")
    if keepalive is not None and not (math.isfinite(keepalive) and keepalive > 0):
        raise InvalidArgument(f"keepalive {keepalive}: seconds, more than 0, or None for none")
    if transport == "auto" and (interceptors or compression is not None):
        transport = "native"
    if not target.strip():
        raise InvalidArgument("the target is empty: name a server, such as localhost:50051")
    named = _PORT.match(target)
    if named and not (named[1].isdecimal() and 0 < int(named[1]) < 65536):
        raise InvalidArgument(f"target {target!r}: {named[1]!r} is no port; ports are 1 to 65535")
    return Channel(
        target,
        credentials=credentials,
        options=options,
        interceptors=interceptors,
        compression=compression,
        transport=transport,
        causal=causal,
        linger=linger,
        keepalive=keepalive,
    )
