"""What all methods of a channel have: the messages that they take."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any, Final

import grpc

from rpc_async.calling.call import AsyncCall
from rpc_async.calling.native import PLAIN, CallOptions, RandomId
from rpc_async.checks import checked_compression, checked_timeout
from rpc_async.core.outcome import fault
from rpc_async.errors import BadStubData, InvalidArgument, InvalidBinding, PayloadTooLarge
from rpc_async.notification.targets import Target
from rpc_async.status import AsyncEvent, CancelReason, RpcStatus
from rpc_async.wire.descriptors import request_type
from rpc_async.wire.metadata import CALL_ID_KEY, check_metadata
from rpc_async.wire.raw import raw_bytes

if TYPE_CHECKING:
    from rpc_async.calling.channel import Channel

__all__ = ["MetadataLike", "Method"]

MetadataLike = Iterable[tuple[str, str | bytes]]


class Method:
    """A method of a generated stub."""

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

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._method}>"

    @property
    def channel(self) -> Channel:
        """The channel that the method's calls go by."""
        return self._channel

    def check_options(
        self,
        timeout: float | None,
        metadata: MetadataLike | None,
        credentials: grpc.CallCredentials | None,
        wait_for_ready: bool | None,
        compression: grpc.Compression | None,
    ) -> tuple[float | None, CallOptions]:
        """Return the time-out, and what goes with a call.

        Raises:
            InvalidArgument: Something has a value that it may not have. No call is begun.
            InvalidBinding: There are credentials, and the channel has none.
        """
        if timeout is not None:
            timeout = checked_timeout(timeout)
        if metadata is None and credentials is None and wait_for_ready is None and compression is None:
            return timeout, PLAIN
        if credentials is not None:
            if not isinstance(credentials, grpc.CallCredentials):
                raise InvalidArgument(f"credentials {credentials!r}: a grpc.CallCredentials, or None")
            if not self._channel.takes_call_credentials:
                text = "Call credentials are only valid on secure channels: connect(credentials=…); no call was begun"
                raise InvalidBinding(f"{self._method}: {text}")
        compression = checked_compression(compression)
        pairs = check_metadata(metadata)
        if any(key == CALL_ID_KEY for key, _ in pairs):
            raise InvalidArgument(f"metadata {CALL_ID_KEY!r}: the library chooses it; read `call.call_id`")
        return timeout, CallOptions(pairs, credentials, wait_for_ready, compression)

    @staticmethod
    def _equip(
        call: AsyncCall[Any],
        timeout: float | None,
        user_info: object,
        notify: Target | None,
        key: object,
        events: Collection[AsyncEvent],
    ) -> None:
        """Give a call, before it begins, what most calls do not have."""
        if user_info is not None:
            call.user_info = user_info
        if notify is not None:
            call.listen(notify, key, events)
        if timeout is not None:
            call.deadline = call.driver.mailbox.time() + timeout

    @staticmethod
    def _is_late(call: AsyncCall[Any], timeout: float | None) -> bool:
        """Tell whether a call's deadline has passed before it begins; then it settles, and is not sent (C12)."""
        if timeout is None or timeout > 0:
            return False
        call.ids = RandomId()
        text = "the deadline had passed when the call was begun: it was not sent"
        call.settle(fault(RpcStatus.CALL_CANCELLED, text, cancel_reason=CancelReason.DEADLINE, executed=False))
        return True

    def _closed(self) -> InvalidBinding:
        return InvalidBinding(f"{self._method}: the channel or its event loop is closed; no call was begun")

    def _freeze(self, request: Any) -> Any:
        """Make what gRPC is given share nothing with the message: bytes, or a copy where interceptors look at it."""
        payload = self._to_bytes(request)
        return copy.deepcopy(request) if self._channel.intercepted else payload

    def _to_bytes(self, request: Any) -> bytes:
        """Make what is sent share nothing with the message, which the caller may change at once."""
        if self._request_type is not None and not isinstance(request, self._request_type):
            raise BadStubData(
                f"{self._method}: the message is a {type(request).__name__}, and must be a "
                f"{self._request_type.__name__}; it was not sent"
            )
        try:
            payload: bytes = raw_bytes(request) if self._serialize is None else self._serialize(request)
            size = len(payload) if type(payload) is bytes else memoryview(payload).nbytes
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a CancelledError too: nothing was cancelled
            raise BadStubData(f"{self._method}: the message cannot be serialised; it was not sent: {error}") from error
        if size > self._channel.max_payload:
            raise PayloadTooLarge(
                f"{self._method}: the message takes {size} bytes and may take {self._channel.max_payload}; it was not "
                "sent"
            )
        return payload
