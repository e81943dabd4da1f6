"""`server()`: a `grpc.aio.Server` whose handlers may be manager routines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, Final, cast

import grpc
import grpc.aio

from rpc_async import fork
from rpc_async.checks import checked_compression, checked_count, checked_options, checked_seconds
from rpc_async.errors import InvalidArgument, InvalidBinding
from rpc_async.serving.async_calls import AsyncCallsServicer
from rpc_async.serving.codec import Codec, MessageCodec
from rpc_async.serving.dispatcher import Dispatcher
from rpc_async.serving.interceptors import Gate, checked_interceptors, interceptors_of_others, plain_server
from rpc_async.serving.manager import mark_of
from rpc_async.serving.native import NativeManagers, call_details
from rpc_async.serving.ordinary import OrdinaryHandlers
from rpc_async.serving.pipe import shape_of
from rpc_async.serving.session import ManagerMethod, ServedCall
from rpc_async.serving.session_handler import Behind, CallDetails, HandlerCalls
from rpc_async.serving.sessions import SessionService
from rpc_async.v1 import calls_pb2_grpc
from rpc_async.wire.metadata import DEFAULT_MAX_PAYLOAD, MAX_METADATA
from rpc_async.wire.session import MAX_BATCH_BYTES, MAX_BULK_BYTES, SESSION_METHOD
from rpc_async.wire.trailers import DEFAULT_MAX_TRAILERS, LEAST_MAX_TRAILERS

__all__ = ["DEFAULT_GRACE", "DEFAULT_MAX_CALLS", "Server", "server"]

DEFAULT_MAX_CALLS: Final = 131_072
"""Room for the 100,000 parked calls that one server is built for; a bound, as every table must have."""
DEFAULT_GRACE: Final = 5.0
"""Seconds."""

_FLUSH: Final = 1.0
"""Seconds that outcomes get to be written when the grace period is over."""

_KEEPALIVE: Final = 30_000
"""Milliseconds without traffic after which a connection that has calls is tested."""
_KEEPALIVE_TIMEOUT: Final = 20_000
"""Milliseconds that a client may take to answer: gRPC's own number."""

_PAYLOAD_OPTIONS: Final = ("grpc.max_receive_message_length", "grpc.max_send_message_length")
_DEFAULT_OPTIONS: Final[tuple[tuple[str, Any], ...]] = (
    # gRPC drops calls that wait to be taken in, in silence and at random once there are 1,000, and always
    # above 3,000. How many calls there may be is for `max_calls` to say, with a status that says so (S16).
    ("grpc.server.max_pending_requests", 1_000_000),
    ("grpc.server.max_pending_requests_hard_limit", 2_000_000),
    *((name, DEFAULT_MAX_PAYLOAD) for name in _PAYLOAD_OPTIONS),
    ("grpc.max_metadata_size", MAX_METADATA),
    ("grpc.absolute_max_metadata_size", MAX_METADATA),
    # gRPC ends a connection whose client asks more than twice in 5 minutes whether it is still there. A session's
    # client asks as often as its `keepalive` says, at most once a second.
    ("grpc.http2.min_ping_interval_without_data_ms", 100),
    # gRPC itself would look for a client that has vanished without a word after two hours.
    ("grpc.keepalive_time_ms", _KEEPALIVE),
    ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT),
    ("grpc.http2.ping_timeout_ms", _KEEPALIVE_TIMEOUT),  # gRPC up to 1.85 starts this timer only, of 60 s
)


_Table: Final = type(grpc.method_handlers_generic_handler("a.Service", {}))
"""What generated code registers: which handler serves a method does not depend on the call."""
_MAX_METHODS: Final = 10_000
_MAKE: Final[dict[tuple[bool, bool], Callable[..., grpc.RpcMethodHandler[Any, Any]]]] = {
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
"""By what streams: the client, the server."""


class _Default:
    """The type of the default of `Server.stop`: the grace period that the server was made with."""

    def __repr__(self) -> str:
        return "the server's grace period"


_SERVER_GRACE: Final = _Default()


class Server(grpc.aio.Server):
    """A `grpc.aio.Server`: generated code registers on it as on any other. Made by `server()`."""

    def __init__(
        self,
        *,
        max_calls: int | None,
        grace: float | None,
        linger: float,
        disclose_errors: bool,
        max_workers: int | None,
        max_trailers: int,
        interceptors: Sequence[grpc.aio.ServerInterceptor],
        options: Sequence[tuple[str, Any]],
        compression: grpc.Compression | None,
    ) -> None:
        given = dict(options)
        merged = {**dict(_DEFAULT_OPTIONS), **given}
        limit = merged["grpc.max_send_message_length"]
        self._max_payload = DEFAULT_MAX_PAYLOAD if limit < 0 else limit  # gRPC's -1 is "no limit"; ours has one
        received = merged["grpc.max_receive_message_length"]
        max_request = DEFAULT_MAX_PAYLOAD if received < 0 else received
        self._grace = grace
        self._pool = ThreadPoolExecutor(max_workers, thread_name_prefix="rpc_async-manager")
        self._dispatcher = Dispatcher(
            max_calls=max_calls,
            linger=linger,
            disclose_errors=disclose_errors,
            pool=self._pool,
        )
        interceptors = (*interceptors_of_others(), *interceptors)
        self._message_codecs: dict[str, MessageCodec] | None = {} if interceptors else None
        self._managers = NativeManagers(self._dispatcher, intercepted=bool(interceptors), max_trailers=max_trailers)
        self._ordinary = OrdinaryHandlers(self._dispatcher)
        # gRPC's server wants to be started and stopped, and may hang where one that was only made is collected. So it
        # is made when a port or the start needs it, and a server that was dropped before leaves nothing behind.
        self._inner: grpc.aio.Server | None = None
        self._inherited = False
        self._inner_loop: asyncio.AbstractEventLoop | None = None
        self._registered: list[grpc.GenericRpcHandler] = []
        self._terminated: Final = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None
        self._handlers: list[grpc.GenericRpcHandler] = []
        self._tables_only = True
        self._manager_methods: dict[str, ManagerMethod] = {}
        self._behind: dict[str, Behind] = {}
        self._sessions = SessionService(
            self._dispatcher,
            linger=linger,
            max_payload=max_request,
            max_batch=min(max_request, self._max_payload, MAX_BULK_BYTES),
            manager_method=self._manager_methods.get,
            serve_otherwise=self._start_otherwise,
        )
        stream: grpc.RpcMethodHandler[Any, Any] | None = None
        if min(max_request, self._max_payload) >= MAX_BATCH_BYTES:  # else there is no room for a session's batches
            stream = grpc.stream_stream_rpc_method_handler(self._sessions.serve)  # raw: it looks at sizes first
            service, _, method = SESSION_METHOD[1:].partition("/")
            self._register([grpc.method_handlers_generic_handler(service, {method: stream})])
        gate = None
        if self._message_codecs is not None:
            gate = Gate(self._message_codecs, self._max_payload, stream)
        self._others = HandlerCalls(
            self._dispatcher, self._find, interceptors, gate, self._behind.get, self._max_payload
        )
        self._interceptors = tuple(interceptors) if gate is None else (gate, *interceptors)
        self._make_inner: Callable[[], grpc.aio.Server] = partial(
            plain_server(),
            self._pool,
            interceptors=self._interceptors,
            options=tuple(merged.items()),
            compression=compression,
        )
        # Not wrapped: it must answer when the server is busy or draining, and it counts as no call.
        calls_pb2_grpc.add_AsyncCallsServicer_to_server(
            AsyncCallsServicer(self._dispatcher), cast("Any", _Unregistered(self._register, self._handlers))
        )

    @property
    def running_calls(self) -> int:
        """How many calls count against `max_calls` now."""
        return self._dispatcher.running

    # -- registering ------------------------------------------------------------------------------------

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Register handlers. Generated code does this."""
        for handler in generic_rpc_handlers:
            # One that is no table may decide by anything, and so may what comes behind it: it is asked for each call.
            self._tables_only = self._tables_only and type(handler) is _Table
            adapted = _Adapted(handler, partial(self._adapt, fixed=self._tables_only))
            self._handlers.append(adapted)
            self._register([adapted])

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Check the handlers that generated code registers, so that a mistake shows at start-up.

        They are served as the generic handlers that they are registered as, too: see `_Unregistered`.
        """
        for name, handler in method_handlers.items():
            method = f"/{service_name}/{name}"
            self._adapt(method, handler, fixed=False)
            if self._tables_only:  # then the first that has it serves it, always
                copy_context().run(self._find, CallDetails(method, ()))

    def add_insecure_port(self, address: str) -> int:
        """Open a port without encryption; 0 chooses a free one. Returns the port. Raises RuntimeError."""
        return self._made().add_insecure_port(address)

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        """Open a port with TLS; 0 chooses a free one. Returns the port. Raises RuntimeError."""
        return self._made().add_secure_port(address, server_credentials)

    def _register(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        self._registered.extend(handlers)
        if self._inner is not None:
            self._inner.add_generic_rpc_handlers(handlers)

    def after_fork(self) -> None:
        """This is a forked child: as it sees it, the server has stopped, and its calls are its parent's."""
        self._inherited = True
        if self._dispatcher.bound:
            self._dispatcher.mailbox.after_fork()
            for record in self._dispatcher.table.running():
                record.machine.end()  # nothing that is said of it here would reach its client

    def _made(self) -> grpc.aio.Server:
        fork.use(self, self)
        if self._stopping is not None:
            raise InvalidBinding("the server was stopped, which is final: make another")
        if self._inner is None:
            self._inner = self._make_inner()
            self._inner_loop = getattr(self._inner, "_loop", None)
            self._inner.add_generic_rpc_handlers(tuple(self._registered))
        return self._inner

    def _adapt(
        self, method: str, handler: grpc.RpcMethodHandler[Any, Any], *, fixed: bool
    ) -> grpc.RpcMethodHandler[Any, Any]:
        behaviour: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        mark = mark_of(behaviour)
        if mark is None:
            return self._ordinary.wrap(handler)
        pulls, pushes = handler.request_streaming, handler.response_streaming
        if mark.takes_request == pulls:
            raise InvalidArgument(
                f"{method}: the parameters of its manager routine must be "
                + ("(self, call), since the client streams" if pulls else "(self, request, call)")
            )
        if mark.strict_pipes and not (pulls or pushes):
            raise InvalidArgument(f"{method}: strict_pipes is for streaming methods, and this one is unary")
        functions = handler.request_deserializer, handler.response_serializer
        codec_type = Codec if self._message_codecs is None else MessageCodec
        codec = codec_type(method, *functions, self._max_payload)
        wanted: tuple[Any, ...] = (None, None)  # gRPC carries bytes
        if self._message_codecs is not None:
            wanted = functions
        if pulls or pushes:
            shape = shape_of(pulls=pulls, pushes=pushes, strict=mark.strict_pipes)
            routine = behaviour if mark.takes_request else lambda _, call: behaviour(call)
            serve = self._managers.handler(codec, mark.kind, routine, shape)
            return _MAKE[pulls, pushes](serve, *wanted)
        adapted = grpc.unary_unary_rpc_method_handler(self._managers.handler(codec, mark.kind, behaviour), *wanted)
        target = ManagerMethod(Codec(method, *functions, self._max_payload), mark.kind, behaviour)
        if isinstance(codec, MessageCodec):
            assert self._message_codecs is not None
            self._message_codecs[method] = codec
            self._behind[method] = Behind(adapted, target)
        elif fixed:
            self._manager_methods[method] = target
        return adapted

    def _start_otherwise(self, *call: Any) -> ServedCall | None:
        return self._others.start(*call)

    def _find(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Find the handler of a call that came by a session."""
        for one in self._handlers:
            handler = one.service(details)
            if handler is not None:
                return handler
        return None

    # -- life -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start serving, on the event loop that runs here.

        Raises:
            InvalidBinding: A port was opened on another event loop; or the server was stopped.
        """
        inner = self._made()
        loop = asyncio.get_running_loop()
        if self._inner_loop is not None and self._inner_loop is not loop:
            raise InvalidBinding(
                "the server's ports were opened on another event loop than the one that starts it: open them in a "
                "coroutine on the same loop, as in `asyncio.run(main())` where main() makes, opens and starts it"
            )
        self._dispatcher.bind()
        await inner.start()

    async def stop(self, grace: float | _Default | None = _SERVER_GRACE) -> None:
        """Stop: refuse new calls, let the running ones finish, cancel what is left (S15).

        New calls are refused as SERVER_UNAVAILABLE, surely not executed. Until the end of the grace period the
        connections stay: outcomes are delivered, and running calls can be asked to stop. What still runs then is
        cancelled with reason shutdown, and settles as CALL_FAILED for its client.

        Args:
            grace: Seconds; None or 0 is at once; by default the server's own. As in gRPC, a later call with a
                smaller number stops the server sooner.
        """
        if self._inherited:
            return
        seconds = self._grace if isinstance(grace, _Default) else checked_seconds("grace", grace)
        if self._stopping is None:
            if not self._dispatcher.bound:
                self._dispatcher.bind()
            self._stopping = self._dispatcher.loop.create_task(self._stop(seconds))
        else:
            self._dispatcher.loop.call_later(seconds or 0.0, self._dispatcher.hurry)
        await asyncio.shield(self._stopping)

    async def _stop(self, grace: float | None) -> None:
        await self._dispatcher.drain(grace)
        # Each end is told by whoever knows most of it: of managers, of handlers that run, of what waits to be run.
        await asyncio.gather(self._managers.flush(_FLUSH), self._ordinary.cut_off(_FLUSH))
        self._others.cut_off()
        await self._sessions.close(_FLUSH)
        if self._inner is not None:
            await self._inner.stop(_FLUSH if grace else None)
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._terminated.set()

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        """Wait until the server has stopped, at most `timeout` seconds. Returns True if it has not."""
        if self._inherited:
            return False
        try:
            await asyncio.wait_for(self._terminated.wait(), timeout)
        except TimeoutError:
            return True
        return False


class _Unregistered:
    """Registers generic handlers only.

    grpc.aio keeps one request waiting for all generic handlers, and one more for each registered method; it
    steps over all of them for every call that comes in.
    """

    def __init__(
        self, register: Callable[[Sequence[grpc.GenericRpcHandler]], None], handlers: list[grpc.GenericRpcHandler]
    ) -> None:
        self._register = register
        self._handlers = handlers

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Register handlers, for all wires."""
        self._handlers.extend(generic_rpc_handlers)
        self._register(generic_rpc_handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Any) -> None:
        """Do nothing."""


class _Adapted(grpc.GenericRpcHandler):
    """Adapts what another handler gives; once for each method, unless it gives another handler for each call."""

    def __init__(
        self,
        inner: grpc.GenericRpcHandler,
        adapt: Callable[[str, grpc.RpcMethodHandler[Any, Any]], grpc.RpcMethodHandler[Any, Any]],
    ) -> None:
        self._inner = inner
        self._adapt = adapt
        self._adapted: dict[str, tuple[grpc.RpcMethodHandler[Any, Any], grpc.RpcMethodHandler[Any, Any]]] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        call_details.set(handler_call_details)  # gRPC serves the call in this same task
        handler = self._inner.service(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        given, adapted = self._adapted.get(method, (None, None))
        if adapted is None or given is not handler:
            adapted = self._adapt(method, handler)
            # A handler for any name at all must not let the peer fill it.
            if given is not None or len(self._adapted) < _MAX_METHODS:
                self._adapted[method] = handler, adapted
        return adapted


def _checked_trailers(value: int) -> int:
    if type(value) is not int or not LEAST_MAX_TRAILERS <= value <= MAX_METADATA:
        raise InvalidArgument(f"max_trailers {value!r}: bytes, {LEAST_MAX_TRAILERS} to {MAX_METADATA}")
    return value


def server(
    *,
    max_calls: int | None = DEFAULT_MAX_CALLS,
    grace: float | None = DEFAULT_GRACE,
    linger: float = 30.0,
    disclose_errors: bool = False,
    max_workers: int | None = None,
    max_trailers: int = DEFAULT_MAX_TRAILERS,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    options: Sequence[tuple[str, Any]] = (),
    compression: grpc.Compression | None = None,
) -> Server:
    """Make a server. It belongs to the event loop that starts it.

    As with gRPC, ports may be opened before that loop runs, if it is the thread's current one by then.

    Args:
        max_calls: How many calls may run; one more is refused as SERVER_TOO_BUSY (S16). None: no limit.
        grace: Seconds that `stop()` gives to running calls (S15). None: none.
        linger: Seconds that a call can be looked at, by its id, after it has ended.
        disclose_errors: Tell the client the type and text of an exception out of a manager routine (S7).
        max_workers: Threads for plain `def` routines and handlers; None: as many as Python thinks best.
        max_trailers: Bytes of trailers that the clients are known to take, 2,048 to 262,144: a native fault that would
            take more, with its details, its text and the trailing metadata beside it, is cut to this, and says so
            (C15). gRPC's clients take 8 KiB, if `grpc.max_metadata_size` says no more.
        interceptors: gRPC's server interceptors; they run for manager routines as for any handler.
        options: gRPC's channel arguments. `grpc.max_send_message_length` and `grpc.max_receive_message_length`
            are 64 MiB unless they are set here.
        compression: gRPC's compression for what the server sends.

    Raises:
        InvalidArgument: A limit that is negative or no number, or another value that is not of its kind.
    """
    return Server(
        max_calls=checked_count("max_calls", max_calls),
        grace=checked_seconds("grace", grace),
        linger=checked_seconds("linger", linger, optional=False) or 0.0,
        disclose_errors=disclose_errors,
        max_workers=checked_count("max_workers", max_workers),
        max_trailers=_checked_trailers(max_trailers),
        interceptors=checked_interceptors(interceptors),
        options=checked_options(options),
        compression=checked_compression(compression),
    )
