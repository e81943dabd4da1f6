"""A streaming method of a channel: begun with pipes by `begin()`; called as in gRPC, it is gRPC's own."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import grpc.aio

from rpc_async.calling.messages import Method
from rpc_async.calling.native import CallOptions
from rpc_async.calling.pipe import PipeCall, PullCall, PushCall, PushPullCall, Shape
from rpc_async.checks import checked_timeout
from rpc_async.errors import CannotSupport, InvalidArgument
from rpc_async.notification.targets import Target
from rpc_async.status import AsyncEvent
from rpc_async.wire.metadata import check_metadata

if TYPE_CHECKING:
    from rpc_async.calling.channel import Channel

    _UnaryStream = grpc.aio.UnaryStreamMultiCallable[Any, Any]
    _StreamUnary = grpc.aio.StreamUnaryMultiCallable[Any, Any]
    _StreamStream = grpc.aio.StreamStreamMultiCallable[Any, Any]
else:  # which gRPC 1.76 has without parameters
    _UnaryStream = grpc.aio.UnaryStreamMultiCallable
    _StreamUnary = grpc.aio.StreamUnaryMultiCallable
    _StreamStream = grpc.aio.StreamStreamMultiCallable

__all__ = ["StreamStreamMethod", "StreamUnaryMethod", "StreamingMethod", "UnaryStreamMethod"]

_HANDLES: dict[str, type[PipeCall[Any]]] = {
    "unary_stream": PullCall,
    "stream_unary": PushCall,
    "stream_stream": PushPullCall,
}


class StreamingMethod(Method):
    """A streaming method of a generated stub. gRPC's part of it is made when it is needed: the channel may not be open.

    Its calls are always gRPC calls of their own, whatever way the channel's unary ones travel.
    """

    def __init__(
        self,
        channel: Channel,
        kind: str,
        method: str,
        serialize: Callable[[Any], bytes] | None,
        deserialize: Callable[[bytes], Any] | None,
    ) -> None:
        super().__init__(channel, method, serialize, deserialize)
        self._kind = kind
        self._plain: Callable[..., Any] | None = None
        self._pushes = kind != "unary_stream"
        self._pulls = kind != "stream_unary"
        self._raw: Callable[..., Any] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it as in gRPC, on the channel's own event loop."""
        if kwargs.get("timeout") is not None:
            kwargs["timeout"] = checked_timeout(kwargs["timeout"])
        if kwargs.get("metadata") is not None:
            kwargs["metadata"] = check_metadata(kwargs["metadata"])
        driver = self._channel.native()
        if not driver.mailbox.here():
            raise CannotSupport(
                f"{self._method}: gRPC's own form of a streaming call is used on the channel's own event loop: open "
                "the channel with `async with` there; or use rpc_async.begin(), in any thread; no call was begun"
            )
        if self._plain is None:
            self._plain = self._make(driver.channel, self._serialize, self._deserialize)
        return self._plain(*args, **kwargs)

    def begin(
        self,
        request: tuple[Any, ...],
        options: CallOptions,
        *,
        timeout: float | None,
        user_info: object,
        notify: Target | None,
        key: object,
        events: Collection[AsyncEvent],
        strict_pipes: bool,
    ) -> PipeCall[Any]:
        """Begin a call with pipes. See `rpc_async.begin`."""
        if len(request) != (0 if self._pushes else 1):
            raise InvalidArgument(
                f"{self._method}: its requests are pushed into a pipe: begin(stub.Method); no call was begun"
                if self._pushes
                else f"{self._method}: begin(stub.Method, request) takes one request; no call was begun"
            )
        payload = tuple(self._freeze(one) for one in request)
        driver = self._channel.native()
        shape = Shape(self._pushes, self._pulls, strict_pipes)
        deserialize = None if self._channel.intercepted else self._deserialize
        call = _HANDLES[self._kind](driver, self._method, deserialize, self._freeze, shape)
        call.reason = "a streaming method's calls are gRPC calls of their own"
        self._equip(call, timeout, user_info, notify, key, events)
        if self._is_late(call, timeout):
            return call
        if not driver.begin_pipes(call, self._invoke, payload, options):
            raise self._closed()
        if events:
            call.watch()
        return call

    def _invoke(self, *args: Any, **kwargs: Any) -> Any:
        """Make gRPC's call, which carries bytes, or messages where gRPC interceptors want to see them."""
        if self._raw is None:
            functions = (self._serialize, self._deserialize) if self._channel.intercepted else (None, None)
            self._raw = self._make(self._channel.native().channel, *functions)
        return self._raw(*args, **kwargs)

    def _make(self, channel: grpc.aio.Channel, *functions: Any) -> Callable[..., Any]:
        made: Callable[..., Any] = getattr(channel, self._kind)(self._method, *functions)
        return made


class UnaryStreamMethod(StreamingMethod, _UnaryStream):
    """A server-streaming method, which is gRPC's kind of it too."""


class StreamUnaryMethod(StreamingMethod, _StreamUnary):
    """A client-streaming method, which is gRPC's kind of it too."""


class StreamStreamMethod(StreamingMethod, _StreamStream):
    """A bidirectionally streaming method, which is gRPC's kind of it too."""
