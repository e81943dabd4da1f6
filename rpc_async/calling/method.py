"""A unary method of a channel, which is what `stub.Method` is; and `begin()`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final, TypedDict, TypeVar, Unpack, overload

import grpc
import grpc.aio

from rpc_async.calling.call import AsyncCall
from rpc_async.calling.messages import MetadataLike, Method
from rpc_async.calling.native import PLAIN, CallOptions
from rpc_async.calling.pipe import PullCall, PushCall, PushPullCall
from rpc_async.calling.streaming import StreamingMethod
from rpc_async.errors import InvalidArgument
from rpc_async.notification.targets import Target
from rpc_async.status import AsyncEvent

__all__ = ["UnaryMethod", "begin"]

RequestT = TypeVar("RequestT")
ReplyT = TypeVar("ReplyT")


class UnaryMethod(Method, grpc.aio.UnaryUnaryMultiCallable[RequestT, ReplyT]):
    """A method of a generated stub: calling it begins a call and returns its handle."""

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
        if not (
            timeout is None
            and metadata is None
            and credentials is None
            and wait_for_ready is None
            and compression is None
        ):
            timeout, options = self.check_options(timeout, metadata, credentials, wait_for_ready, compression)
        session = channel.session()
        if session is None or credentials is not None or compression is not None:
            reason = None if session is None else self._must_go_natively(credentials is not None)
            return self._begin_natively(self._freeze(request), timeout, options, user_info, notify, key, events, reason)
        payload = self._to_bytes(request)
        call: AsyncCall[ReplyT] = AsyncCall(session, self._method, self._deserialize)
        if not (user_info is None and timeout is None and notify is None):
            self._equip(call, timeout, user_info, notify, key, events)
            if self._is_late(call, timeout):
                return call
        if not session.begin(call, payload, options):
            raise self._closed()
        if events:
            call.watch()
        return call

    def _must_go_natively(self, has_credentials: bool) -> str:
        """Return why a call cannot go by a session. Raises InvalidArgument where the channel has nothing else."""
        what = f"{'credentials' if has_credentials else 'compression'} of its own, which gRPC's own client sees to"
        if self._channel.transport == "session":
            raise InvalidArgument(
                f"{self._method}: the call has {what}, and its channel was opened with transport='session': use 'auto' "
                "or 'native'; no call was begun"
            )
        return f"the call has {what}"

    def _begin_natively(
        self,
        payload: Any,
        timeout: float | None,
        options: CallOptions,
        user_info: object,
        notify: Target | None,
        key: object,
        events: Collection[AsyncEvent],
        reason: str | None,
    ) -> AsyncCall[ReplyT]:
        native, intercepted = self._channel.native(), self._channel.intercepted
        functions = (self._serialize, self._deserialize) if intercepted else (None, None)
        call: AsyncCall[ReplyT] = AsyncCall(native, self._method, None if intercepted else self._deserialize)
        call.reason = reason
        self._equip(call, timeout, user_info, notify, key, events)
        if self._is_late(call, timeout):
            return call
        if not native.begin(call, payload, options, functions):
            raise self._closed()
        if events:
            call.watch()
        return call


_NOTHING: Final = object()


class BeginOptions(TypedDict, total=False):
    """What `begin` takes beside the method and its request."""

    timeout: float | None
    metadata: MetadataLike | None
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None
    user_info: object
    notify: Target | None
    key: object
    events: Collection[AsyncEvent]


class PipeOptions(BeginOptions, total=False):
    """What it takes for a method with pipes."""

    strict_pipes: bool


@overload
def begin(
    method: grpc.aio.UnaryUnaryMultiCallable[RequestT, ReplyT], request: RequestT, **options: Unpack[BeginOptions]
) -> AsyncCall[ReplyT]: ...
@overload
def begin(
    method: grpc.aio.StreamUnaryMultiCallable[RequestT, ReplyT], **options: Unpack[PipeOptions]
) -> PushCall[RequestT, ReplyT]: ...
@overload
def begin(
    method: grpc.aio.UnaryStreamMultiCallable[RequestT, ReplyT], request: RequestT, **options: Unpack[PipeOptions]
) -> PullCall[ReplyT]: ...
@overload
def begin(
    method: grpc.aio.StreamStreamMultiCallable[RequestT, ReplyT], **options: Unpack[PipeOptions]
) -> PushPullCall[RequestT, ReplyT]: ...
def begin(
    method: Any,
    request: Any = _NOTHING,
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
    strict_pipes: bool = False,
) -> AsyncCall[Any]:
    """Begin a call and return its completion handle at once. The typed form of `stub.Method(request, ...)`.

    From any thread and any event loop. The request is serialised before this returns.

    Args:
        method: A method of a generated stub on a `Channel` of this library.
        request: The request, where the method takes one: not for a method whose requests are pushed into a pipe.
        timeout: Seconds until the call's deadline, told to the server (C12); 0 or less has passed already, and more
            than 1e9 is as much as that. None: no deadline.
        metadata: gRPC's metadata, as pairs: texts in printable ASCII, or bytes under keys that end in `-bin`. Names
            that gRPC keeps for itself, such as `grpc-timeout` and `user-agent`, are dropped, as gRPC does.
        credentials: gRPC's call credentials.
        wait_for_ready: As in gRPC: wait for a connection, in place of failing where there is none.
        compression: gRPC's compression for the request.
        user_info: Yours: it is the handle's `user_info`.
        notify: What is told that the call has settled: a `CompletionQueue`, an `asyncio.Event` or `threading.Event`, an
            `Apc`, a `Post`, or something to call with a `Completion` (C9). As `AsyncCall.notify`, which tells more.
        key: Yours: it is handed back verbatim with the notification.
        events: What else to tell: PROGRESS; SEND_COMPLETE and RECEIVE_COMPLETE of pipes.
        strict_pipes: For a method with a pipe each way: use them in the documented order, the one that goes in first,
            to its end, and then the one that comes out (P5). By default chunks may cross, as in gRPC.

    Returns:
        An `AsyncCall`; for streaming methods one with pipes: a `PushCall`, a `PullCall`, or a `PushPullCall`.

    Raises:
        BadStubData: The request is not of the method's type, or cannot be serialised.
        PayloadTooLarge: The request is over the size limit.
        InvalidArgument: A parameter with a value that it may not have; or credentials or compression on a channel that
            was opened with transport="session".
        InvalidBinding: The channel is closed or was never opened.
        QueueClosed: The queue to be told is closed.
        CannotSupport: An event that the call does not have.

    When it raises, no call was begun and nothing will be notified (C8).
    """
    if isinstance(method, UnaryMethod) and request is not _NOTHING and not strict_pipes:
        return method(
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
    if isinstance(method, StreamingMethod):
        timeout, options = method.check_options(timeout, metadata, credentials, wait_for_ready, compression)
        return method.begin(
            () if request is _NOTHING else (request,),
            options,
            timeout=timeout,
            user_info=user_info,
            notify=notify,
            key=key,
            events=events,
            strict_pipes=strict_pipes,
        )
    if isinstance(method, UnaryMethod):
        raise InvalidArgument(f"begin(): {method!r} is unary: it takes a request, and has no pipes; no call was begun")
    raise InvalidArgument(
        f"begin() takes a method of a stub made on an rpc_async channel, not {method!r}; no call was begun"
    )
