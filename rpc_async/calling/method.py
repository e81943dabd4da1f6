"""One unary method of a channel: what `stub.Method` is, and `begin()`."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import grpc
import grpc.aio

from rpc_async.calling.call import AsyncCall
from rpc_async.calling.native import PLAIN, CallOptions
from rpc_async.errors import BadStubData, InvalidArgument, InvalidBinding, PayloadTooLarge
from rpc_async.notification.targets import Target
from rpc_async.status import AsyncEvent
from rpc_async.wire.descriptors import request_type
from rpc_async.wire.metadata import check_metadata

if TYPE_CHECKING:
    from rpc_async.calling.channel import Channel

__all__ = ["UnaryMethod", "begin"]

RequestT = TypeVar("RequestT")
ReplyT = TypeVar("ReplyT")

MetadataLike = Iterable[tuple[str, str | bytes]]


class UnaryMethod(grpc.aio.UnaryUnaryMultiCallable[RequestT, ReplyT]):
    """A method of a generated stub: calling it begins a call and returns its handle."""

    def __init__(
        self,
        channel: Channel,
        method: str,
        serialize: Callable[[Any], bytes] | None,
        deserialize: Callable[[bytes], Any] | None,
    ) -> None:
        self._channel = channel
        self._method: Final = method
        self._serialize = serialize
        self._deserialize = deserialize
        self._request_type = None if serialize is None else request_type(method)  # None: the user brings bytes

    @property
    def channel(self) -> Channel:
        """The channel that the method's calls go by."""
        return self._channel

    def __call__(
        self,
        request: RequestT,
        *,
        timeout: float | None = None,
        metadata: MetadataLike | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
        user_info: object = None,
        notify: Target | None = None,
        key: object = None,
        events: Collection[AsyncEvent] = (),
    ) -> AsyncCall[ReplyT]:
        """Begin a call, as `begin` does."""
        channel = self._channel
        options = PLAIN
        if not (metadata is None and credentials is None and wait_for_ready is None and compression is None):
            options = CallOptions(check_metadata(metadata), credentials, wait_for_ready, compression)
        if timeout is not None and not math.isfinite(timeout):
            raise InvalidArgument(f"timeout {timeout}: a number of seconds, or None for none; no call was begun")
        payload = self._freeze(request)
        session = channel.session()
        if session is None or credentials is not None or compression is not None:
            return self._begin_natively(payload, timeout, options, user_info, notify, key, events)
        call: AsyncCall[ReplyT] = AsyncCall(session, self._method, self._deserialize)
        if user_info is not None:
            call.user_info = user_info
        if notify is not None:
            call.listen(notify, key, events)
        if timeout is not None:
            call.deadline = session.mailbox.time() + timeout
        if not session.begin(call, payload, options):
            raise self._closed()
        if events:
            call.watch()
        return call

    def _begin_natively(
        self,
        payload: Any,
        timeout: float | None,
        options: CallOptions,
        user_info: object,
        notify: Target | None,
        key: object,
        events: Collection[AsyncEvent],
    ) -> AsyncCall[ReplyT]:
        native, intercepted = self._channel.native(), self._channel.intercepted
        functions = (self._serialize, self._deserialize) if intercepted else (None, None)
        call: AsyncCall[ReplyT] = AsyncCall(native, self._method, None if intercepted else self._deserialize)
        if user_info is not None:
            call.user_info = user_info
        if notify is not None:
            call.listen(notify, key, events)
        if timeout is not None:
            call.deadline = native.mailbox.time() + timeout
        if not native.begin(call, payload, options, functions):
            raise self._closed()
        if events:
            call.watch()
        return call

    def _closed(self) -> InvalidBinding:
        return InvalidBinding(f"{self._method}: the channel or its event loop is closed; no call was begun")

    def _freeze(self, request: RequestT) -> Any:
        """Make what is sent share nothing with the message, which the caller may change at once."""
        if self._request_type is not None and not isinstance(request, self._request_type):
            raise BadStubData(
                f"{self._method}: the request is a {type(request).__name__}, and must be a "
                f"{self._request_type.__name__}; no call was begun"
            )
        try:
            payload = request if self._serialize is None else self._serialize(request)
            size = memoryview(payload).nbytes  # type: ignore[arg-type]  # bytes, whatever the request's type
        except Exception as error:
            raise BadStubData(
                f"{self._method}: the request cannot be serialised; no call was begun: {error}"
            ) from error
        if size > self._channel.max_payload:
            raise PayloadTooLarge(
                f"{self._method}: the request takes {size} bytes and may take {self._channel.max_payload}; no call was "
                "begun"
            )
        return copy.deepcopy(request) if self._channel.intercepted else payload


def begin(
    method: grpc.aio.UnaryUnaryMultiCallable[RequestT, ReplyT],
    request: RequestT,
    *,
    timeout: float | None = None,
    metadata: MetadataLike | None = None,
    credentials: grpc.CallCredentials | None = None,
    wait_for_ready: bool | None = None,
    compression: grpc.Compression | None = None,
    user_info: object = None,
    notify: Target | None = None,
    key: object = None,
    events: Collection[AsyncEvent] = (),
) -> AsyncCall[ReplyT]:
    """Begin a call and return its completion handle at once. The typed form of `stub.Method(request, ...)`.

    From any thread and any event loop. The request is serialised before this returns.

    Args:
        method: A unary method of a generated stub on a `Channel` of this library.
        request: The request.
        timeout: Seconds until the call's deadline, told to the server (C12). None: no deadline.
        metadata: gRPC's metadata, as pairs.
        credentials: gRPC's call credentials.
        wait_for_ready: As in gRPC: wait for a connection, in place of failing where there is none.
        compression: gRPC's compression for the request.
        user_info: Yours: it is the handle's `user_info`.
        notify: What is told that the call has settled: a `CompletionQueue`, an `asyncio.Event` or `threading.Event`, an
            `Apc`, a `Post`, or something to call with a `Completion` (C9). As `AsyncCall.notify`, which tells more.
        key: Yours: it is handed back verbatim with the notification.
        events: What else to tell: PROGRESS.

    Raises:
        BadStubData: The request is not of the method's type, or cannot be serialised.
        PayloadTooLarge: The request is over the size limit.
        InvalidArgument: A parameter with a value that it may not have.
        InvalidBinding: The channel is closed or was never opened.
        QueueClosed: The queue to be told is closed.
        CannotSupport: An event that the call does not have.

    When it raises, no call was begun and nothing will be notified (C8).
    """
    if not isinstance(method, UnaryMethod):
        raise InvalidArgument(
            f"begin() takes a unary method of a stub made on an rpc_async channel, not {method!r}; no call was begun"
        )
    typed: UnaryMethod[RequestT, ReplyT] = method
    return typed(
        request,
        timeout=timeout,
        metadata=metadata,
        credentials=credentials,
        wait_for_ready=wait_for_ready,
        compression=compression,
        user_info=user_info,
        notify=notify,
        key=key,
        events=events,
    )
