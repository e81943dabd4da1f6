"""The users' server interceptors: they see every call, whatever wire it came by, and never a session's stream."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final

import grpc
import grpc.aio

from rpc_async.core.outcome import fault
from rpc_async.errors import BadStubData, InvalidArgument
from rpc_async.serving.codec import Codec, MessageCodec
from rpc_async.serving.native import abort_call
from rpc_async.serving.native_call import Context
from rpc_async.status import RpcStatus
from rpc_async.wire.session import SESSION_METHOD

__all__ = ["Gate", "checked_interceptors", "interceptors_of_others", "plain_server"]

Handler = Any  # grpc.RpcMethodHandler, whose type arguments exist in its stubs only
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]

_SELF_CANCELLED: Final = "an interceptor raised CancelledError, though nobody cancelled the call"


class Gate(grpc.aio.ServerInterceptor):
    """Goes before the users' interceptors.

    A session's stream is none of their calls, and passes them by. A request that does not parse is refused as
    BAD_STUB_DATA, where gRPC itself would answer UNKNOWN, which says less. An interceptor that raises what gRPC has no
    answer to ends its call.
    """

    def __init__(self, codecs: dict[str, MessageCodec], max_payload: int, stream: Handler | None) -> None:
        """Make it: `codecs` are those of the manager routines' unary methods, `stream` serves sessions."""
        self._codecs = codecs
        self._max_payload = max_payload
        self._stream = stream
        self._decoders: dict[str, tuple[tuple[Any, Any], Codec]] = {}

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        method = handler_call_details.method
        if method == SESSION_METHOD and self._stream is not None:
            return self._stream
        try:
            handler = await continuation(handler_call_details)
        except asyncio.CancelledError:
            if _cancelled():
                raise
            return _failing(_SELF_CANCELLED)
        except Exception:
            raise  # which gRPC answers
        except BaseException as error:  # gRPC would leave the client waiting
            return _failing(f"an interceptor raised {type(error)}", error)
        return self.decode_first(method, handler)

    def decode_first(self, method: str, handler: Handler | None) -> Handler | None:
        """Return the handler to run, for the one that the users' interceptors have given."""
        if handler is None or method not in self._codecs:
            return handler
        behaviour: Any = handler.unary_unary
        if not inspect.iscoroutinefunction(behaviour):
            return handler
        functions = handler.request_deserializer, handler.response_serializer
        before, codec = self._decoders.get(method, (None, None))
        if codec is None or before != functions:
            codec = Codec(method, *functions, self._max_payload)
            self._decoders[method] = functions, codec
        return grpc.unary_unary_rpc_method_handler(_decoding(codec, behaviour))


def _decoding(codec: Codec, behaviour: Any) -> Callable[[bytes, Context], Awaitable[bytes]]:
    async def serve(payload: bytes, context: Context) -> bytes:
        try:
            request = codec.decode(payload)
        except BadStubData as error:
            await abort_call(context, fault(RpcStatus.BAD_STUB_DATA, str(error), executed=False))
        reply: bytes = codec.encode(await behaviour(request, context))
        return reply

    return serve


def _cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and bool(task.cancelling())


def _failing(text: str, error: BaseException | None = None) -> Handler:
    """Return a handler, for a method of any kind, that fails the call."""

    async def serve(_: Any, context: Context) -> None:
        try:
            await abort_call(context, fault(RpcStatus.CALL_FAILED, text, executed=False))
        finally:
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise error

    return grpc.stream_stream_rpc_method_handler(serve)


def checked_interceptors(interceptors: Any) -> tuple[grpc.aio.ServerInterceptor, ...]:
    """Return interceptors as a tuple. Raises InvalidArgument."""
    try:
        given = tuple(interceptors or ())
    except TypeError:
        raise InvalidArgument(f"interceptors {interceptors!r}: a sequence of grpc.aio.ServerInterceptor") from None
    for one in given:
        if not isinstance(one, grpc.aio.ServerInterceptor):
            raise InvalidArgument(f"interceptors: {one!r} is no grpc.aio.ServerInterceptor")
    return given


# -- libraries that put theirs before all servers -------------------------------------------------------


def plain_server() -> Callable[..., grpc.aio.Server]:
    """Return gRPC's own `grpc.aio.server`, whatever has taken its place."""
    module = sys.modules.get("grpc.aio._server")
    own: Callable[..., grpc.aio.Server] = getattr(module, "server", grpc.aio.server)
    return own


def interceptors_of_others() -> tuple[grpc.aio.ServerInterceptor, ...]:
    """Return what a library that has replaced `grpc.aio.server` puts before each server's own interceptors.

    So do tracing libraries that instrument all of a program. Theirs must not stand before the `Gate`, where they would
    see sessions' streams and not the calls in them. Their function is called with options that end it when they are
    read, which is before anything is made; what it made of the interceptors is found on the way there.
    """
    if grpc.aio.server is plain_server():
        return ()
    mark = _Mark()
    try:
        grpc.aio.server(interceptors=[mark], options=_Unreadable())
    except _ReadError as error:
        trace = error.__traceback__
        found: Sequence[Any] = ()
        while trace is not None:
            given = trace.tb_frame.f_locals.get("interceptors")
            if isinstance(given, (list, tuple)) and mark in given:
                found = given
            trace = trace.tb_next
        return tuple(one for one in found if one is not mark)
    return ()


class _ReadError(Exception):
    """The options were read."""


class _Unreadable(Sequence[Any]):
    """Options that cannot be read."""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Any]:
        raise _ReadError

    def __getitem__(self, index: Any) -> Any:
        raise _ReadError


class _Mark(grpc.aio.ServerInterceptor):
    """Stands where a server's own interceptors would."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        return await continuation(handler_call_details)
