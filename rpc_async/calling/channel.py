"""`connect()`: a `grpc.aio.Channel` whose unary calls are asynchronous calls."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import warnings
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Self

import grpc
import grpc.aio

from rpc_async import fork
from rpc_async.calling.carriers import Carriers
from rpc_async.calling.choice import Transport, choose, has_interceptors
from rpc_async.calling.dialer import Dialer
from rpc_async.calling.io_loop import IoLoop
from rpc_async.calling.method import UnaryMethod
from rpc_async.calling.native import NativeDriver
from rpc_async.calling.session import SessionDriver
from rpc_async.calling.streaming import StreamStreamMethod, StreamUnaryMethod, UnaryStreamMethod
from rpc_async.calling.target import checked_target
from rpc_async.checks import checked_compression, checked_options, checked_seconds, checked_timeout, more_than_0
from rpc_async.errors import CannotSupport, InvalidArgument, InvalidBinding
from rpc_async.wire.metadata import DEFAULT_MAX_PAYLOAD, MAX_METADATA
from rpc_async.wire.session import MAX_BATCH_BYTES, MAX_BULK_BYTES

__all__ = ["Channel", "connect"]

_LOGGER: Final = logging.getLogger("rpc_async.calling")

_DEFAULT_OPTIONS: Final[tuple[tuple[str, Any], ...]] = (
    ("grpc.max_receive_message_length", DEFAULT_MAX_PAYLOAD),
    ("grpc.max_send_message_length", DEFAULT_MAX_PAYLOAD),
    ("grpc.max_metadata_size", MAX_METADATA),  # room for a fault's whole chain of details (C15)
    ("grpc.absolute_max_metadata_size", MAX_METADATA),
)


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
        transport: Transport,
        causal: bool,
        linger: float,
        keepalive: float | None,
        open_timeout: float,
        max_stream_bytes: int | None,
    ) -> None:
        merged = {**dict(_DEFAULT_OPTIONS), **dict(options)}
        limit, received = merged["grpc.max_send_message_length"], merged["grpc.max_receive_message_length"]
        self._max_reply = DEFAULT_MAX_PAYLOAD if received < 0 else received
        self.target: Final = target
        self.intercepted: bool = bool(interceptors)
        """Whether gRPC interceptors see the calls, which want messages, not bytes."""
        self.max_payload: Final[int] = DEFAULT_MAX_PAYLOAD if limit < 0 else limit
        """Bytes: the largest request."""
        self.transport: Transport
        """How calls travel, as far as it is known before the channel connects. See `connect`."""
        self.transport, self._why = choose(
            transport,
            target=target,
            credentials=credentials,
            options=dict(options),
            intercepted=self.intercepted,
            compression=compression,
        )
        self._dialer = Dialer(target, credentials, merged, interceptors, compression, keepalive)
        self._lock = threading.Lock()
        self._causal = causal
        self._linger = linger
        self._open_timeout = open_timeout
        self._max_stream_bytes = max_stream_bytes
        self._carriers: Carriers | None = None
        self._native: NativeDriver | None = None
        self._session: SessionDriver | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<Channel to {self.target}>"

    # -- opening and closing ----------------------------------------------------------------------------

    def after_fork(self) -> None:
        """This is a forked child: as it sees it, the channel is closed."""
        self._lock = threading.Lock()
        self._closed = True
        self._carriers = self._native = self._session = None

    async def __aenter__(self) -> Self:
        self._open(IoLoop.running())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __enter__(self) -> Self:
        fork.refuse_in_child(self)
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
        if self._carriers is None:  # it was left by a process that had been forked meanwhile
            return
        io = self._carriers.io
        try:
            io.run_blocking(self._close(None))
        finally:
            io.stop()

    async def close(self, grace: float | None = None) -> None:
        """Close the channel. A call that has not settled is aborted, and settles as CALL_CANCELLED.

        It goes on to its end where the caller is cancelled. Closing again waits for that end, and brings it forward
        if its own `grace` is over sooner.

        Args:
            grace: Seconds to wait for outstanding calls first. None: none.
        """
        if self._carriers is None:
            self._closed = True
            return
        if grace is not None:
            grace = checked_timeout(grace, "grace")
        if self._carriers.io.loop.is_closed():  # with which all has ended that this could end
            self._forget()
            self._carriers.abort_all()
            return
        await self._carriers.io.run(self._close(grace))

    async def _close(self, grace: float | None) -> None:
        carriers = self._carriers
        assert carriers is not None
        self._forget()
        await carriers.close(grace)

    def _forget(self) -> None:
        """Take no more calls."""
        with self._lock:
            self._closed = True
            self._native = self._session = None

    def __del__(self) -> None:
        carriers = getattr(self, "_carriers", None)
        if carriers is None or self._closed or carriers.io.loop.is_closed():
            return
        text = f"{self!r} was dropped and not closed: its connections are closed once its calls have settled"
        warnings.warn(text, ResourceWarning, source=self, stacklevel=1)
        carriers.io.mailbox.post(carriers.release)

    async def _open_async(self, io: IoLoop) -> None:
        self._open(io)

    def _open(self, io: IoLoop) -> NativeDriver:
        fork.use(self, self)
        with self._lock:
            if self._closed:
                raise InvalidBinding(f"{self!r} is closed; connect() again")
            if self._carriers is not None:
                if self._carriers.io.loop is io.loop:
                    return self._carriers.native
                raise InvalidBinding(f"{self!r} is open already, on another event loop")
            channel = self._dialer.native()
            if has_interceptors(channel):  # those that were given, or what instruments gRPC from outside
                self.intercepted = True
                if self.transport == "auto":
                    self.transport, self._why = "native", "the channel has client interceptors"
            native = NativeDriver(io, channel, self._why)
            session = None
            if self.transport == "native":
                _LOGGER.info("the calls to %s go natively: %s", self.target, self._why)
            else:
                session = SessionDriver(
                    io,
                    self._dialer.stream,
                    native,
                    target=self.target,
                    causal=self._causal,
                    linger=self._linger,
                    patience=self._open_timeout,
                    max_stream_bytes=self._max_stream_bytes,
                    max_payload=self._max_reply,
                    max_batch=min(self.max_payload, self._max_reply, MAX_BULK_BYTES),
                    only=self.transport == "session",
                )
            self._carriers = Carriers(io, native, session)
            self._session = session
            self._native = native
            return native

    @property
    def _loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop, under the name by which code that was written for gRPC's own channels finds it."""
        return None if self._carriers is None else self._carriers.io.loop

    def native(self) -> NativeDriver:
        """Return what carries native calls; open the channel on the running loop if need be."""
        native = self._native
        if native is not None:
            return native
        fork.refuse_in_child(self)
        if self._closed:
            raise InvalidBinding(f"{self!r} is closed; no call was begun")
        try:
            io = IoLoop.running()
        except RuntimeError:
            raise InvalidBinding(
                f"{self!r} is not open: use it inside `with` or `async with`; no call was begun"
            ) from None
        return self._open(io)

    @property
    def takes_call_credentials(self) -> bool:
        """Whether its calls may have credentials of their own."""
        return self._dialer.takes_call_credentials

    def session(self) -> SessionDriver | None:
        """Return what carries calls by sessions; None where they go natively."""
        session = self._session
        if session is None and self.transport != "native":
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
        """Return the state of the connection that calls go by, as gRPC names it.

        Args:
            try_to_connect: Have the channel connect, and go on trying until it has.
        """
        if self._closed:
            return grpc.ChannelConnectivity.SHUTDOWN
        session = self.session()
        if session is None:
            return self.native().channel.get_state(try_to_connect)
        if try_to_connect:
            session.connect()
        return session.connectivity.state

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until the state is another than `last_observed_state`."""
        native, session = self.native(), self.session()
        if session is None:
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
        return UnaryStreamMethod(self, "unary_stream", method, request_serializer, response_deserializer)

    def stream_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> grpc.aio.StreamUnaryMultiCallable[Any, Any]:
        """Return a client-streaming method. Generated stubs do this."""
        return StreamUnaryMethod(self, "stream_unary", method, request_serializer, response_deserializer)

    def stream_stream(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> grpc.aio.StreamStreamMultiCallable[Any, Any]:
        """Return a bidirectionally streaming method. Generated stubs do this."""
        return StreamStreamMethod(self, "stream_stream", method, request_serializer, response_deserializer)


async def _awaited(coroutine: Any) -> None:
    await coroutine


def _checked_interceptors(interceptors: Any) -> tuple[grpc.aio.ClientInterceptor, ...]:
    try:
        given = tuple(interceptors or ())
    except TypeError:
        raise InvalidArgument(f"interceptors {interceptors!r}: a sequence of grpc.aio.ClientInterceptor") from None
    for one in given:
        if not isinstance(one, grpc.aio.ClientInterceptor):
            raise InvalidArgument(f"interceptors: {one!r} is no grpc.aio.ClientInterceptor")
    return given


def connect(
    target: str,
    *,
    credentials: grpc.ChannelCredentials | None = None,
    causal: bool = True,
    transport: Transport = "auto",
    linger: float = 30.0,
    keepalive: float | None = 30.0,
    open_timeout: float = 5.0,
    max_stream_bytes: int | None = None,
    options: Sequence[tuple[str, Any]] = (),
    interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
    compression: grpc.Compression | None = None,
) -> Channel:
    """Make a channel to a server; use it in `async with`, or in plain `with`. It connects when it is used.

    Args:
        target: gRPC's name of the server, such as `localhost:50051`, `dns:///host:443`, `unix:path` or whatever else
            gRPC resolves; a name without a port has gRPC's port, 443.
        credentials: gRPC's channel credentials; None: no encryption.
        causal: Calls that one thread begins are dispatched in that order (C13). False lets small calls overtake large
            ones on a session.
        transport: How calls travel. "session": many on one stream, which survives a cut connection. "native": each is a
            gRPC call of its own, to any gRPC server. "auto": by a session if the server offers them, else natively; and
            natively where the channel has what only gRPC's own client does for each call (interceptors, compression,
            call credentials, a service config; `docs/grpc.md` lists all of it), or the call has credentials or
            compression of its own. `AsyncCall.transport` tells, and `transport_reason` why.
            Calls of streaming methods are gRPC calls of their own in any case.
        linger: Seconds to go on trying to resume a session after a cut; the server's own number counts too.
        keepalive: Seconds without traffic after which the session's connection is tested; it is given up if there is
            no answer in as many seconds, at most 20. gRPC tests at most once a second. None: never.
        open_timeout: Seconds that a server may take, once there is a connection, to say whether it offers sessions.
            After that its calls go natively.
        max_stream_bytes: Bytes that a proxy on the way lets one gRPC call carry to the server (nginx calls it
            `client_max_body_size`), 524,288 or more: a session turns to a fresh stream before that. None: any number.
        options: gRPC's channel arguments. `grpc.max_send_message_length` and `grpc.max_receive_message_length` are
            64 MiB unless they are set here.
        interceptors: gRPC's client interceptors.
        compression: gRPC's compression for what the client sends.

    Raises:
        InvalidArgument: The target is blank, no text, or its port is no port (an empty one is refused at the first
            use); the transport is unknown, or it is "session" and the channel has what no session can do; a number of
            seconds that is none; another value that is not of its kind.
    """
    if transport not in ("auto", "session", "native"):
        raise InvalidArgument(f"transport {transport!r}: 'auto', 'session' or 'native'")
    most: Any = max_stream_bytes
    if most is not None and not (type(most) is int and most >= MAX_BATCH_BYTES):
        raise InvalidArgument(f"max_stream_bytes {max_stream_bytes}: {MAX_BATCH_BYTES} or more, or None for any number")
    if credentials is not None and not isinstance(credentials, grpc.ChannelCredentials):
        raise InvalidArgument(f"credentials {credentials!r}: a grpc.ChannelCredentials, or None")
    channel = Channel(
        checked_target(target),
        credentials=credentials,
        options=checked_options(options),
        interceptors=_checked_interceptors(interceptors),
        compression=checked_compression(compression),
        transport=transport,
        causal=causal,
        linger=checked_seconds("linger", linger, optional=False) or 0.0,
        keepalive=None if keepalive is None else more_than_0("keepalive", keepalive),
        open_timeout=more_than_0("open_timeout", open_timeout),
        max_stream_bytes=max_stream_bytes,
    )
    if channel.transport == "native" and dict(checked_options(options)).get("grpc.enable_channelz"):
        with contextlib.suppress(RuntimeError):  # no loop runs here yet
            channel.native()  # which channelz knows from then on, as it knows gRPC's own
    return channel
