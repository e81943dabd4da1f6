"""gRPC's context, for a handler whose call is none of gRPC's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

import grpc
import grpc.aio

from rpc_async.status import CancelReason
from rpc_async.wire.metadata import Metadatum, check_metadata
from rpc_async.wire.session import BothMetadata

if TYPE_CHECKING:
    from rpc_async.serving.session import Identity

__all__ = ["ContextCall", "HandlerContext", "SyncHandlerContext"]

_LOGGER: Final = logging.getLogger("rpc_async.serving")


class ContextCall(Protocol):
    """What a context needs of its call."""

    @property
    def method(self) -> str:
        """The method's full name."""
        ...

    @property
    def metadata(self) -> tuple[Metadatum, ...]:
        """The metadata that came with it."""
        ...

    @property
    def deadline(self) -> float | None:
        """When its deadline passes, on the loop's clock."""
        ...

    @property
    def cause(self) -> CancelReason | None:
        """Why the client does not wait any more."""
        ...

    @property
    def identity(self) -> Identity:
        """Who calls."""
        ...

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The server's loop."""
        ...

    def orphan(self, reason: CancelReason) -> None:
        """Cancel it."""


class HandlerContext(grpc.aio.ServicerContext[Any, Any]):
    """The context of a handler that is a coroutine. Used on the server's loop."""

    def __init__(self, call: ContextCall) -> None:
        self.call: Final = call
        self.status: grpc.StatusCode = grpc.StatusCode.OK
        self.text: str = ""
        self.trailing: tuple[tuple[str, str | bytes], ...] = ()
        self._initial: tuple[tuple[str, str | bytes], ...] = ()
        self._callbacks: list[Callable[[Any], None]] = []
        self._ended = False

    def both(self) -> BothMetadata:
        """Return the metadata to send."""
        return BothMetadata(self._initial, self.trailing)

    def ended(self) -> None:
        """Tell whoever wants to know that the call has ended."""
        self._ended = True
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback(self)
            except Exception:
                _LOGGER.exception("%s: a done-callback raised", self.call.method)

    async def read(self) -> Any:
        raise grpc.aio.UsageError("a unary call has nothing to read")

    async def write(self, message: Any) -> None:
        raise grpc.aio.UsageError("a unary call's reply is what its handler returns")

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        self.introduce(check_metadata(initial_metadata))

    def introduce(self, initial_metadata: tuple[tuple[str, str | bytes], ...]) -> None:
        """Have this sent as initial metadata. From any thread."""
        self._initial = initial_metadata

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        self.fail(code, details, trailing_metadata)
        raise grpc.aio.AbortError("the call was aborted")

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        await self.abort(status.code, status.details or "", status.trailing_metadata or ())

    def fail(self, code: grpc.StatusCode, details: str, trailing_metadata: Any) -> None:
        """Set the failure that an abort is."""
        if code is grpc.StatusCode.OK:
            raise grpc.aio.UsageError("a call cannot be aborted with the code OK")
        self.status, self.text = code, details
        self.trailing = (*self.trailing, *check_metadata(trailing_metadata))

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        self.trailing = check_metadata(trailing_metadata)

    def invocation_metadata(self) -> Any:
        return self.call.metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        self.status = code

    def set_details(self, details: str) -> None:
        self.text = details

    def set_compression(self, compression: grpc.Compression) -> None:
        """Change nothing: a session's frames are not compressed one by one."""

    def disable_next_message_compression(self) -> None:
        """Change nothing, as `set_compression`."""

    def peer(self) -> str:
        return self.call.identity.peer

    def peer_identities(self) -> Any:
        return self.call.identity.identities

    def peer_identity_key(self) -> str | None:
        return self.call.identity.identity_key

    def auth_context(self) -> Any:
        return self.call.identity.auth_context

    def time_remaining(self) -> float:
        deadline = self.call.deadline
        # gRPC's stubs leave the None out.
        return None if deadline is None else max(deadline - self.call.loop.time(), 0.0)  # type: ignore[return-value]

    def trailing_metadata(self) -> Any:
        return self.trailing

    def code(self) -> grpc.StatusCode:
        return self.status

    def details(self) -> str:
        return self.text

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._callbacks.append(callback)

    def cancelled(self) -> bool:
        return self.call.cause is not None

    def done(self) -> bool:
        return self._ended


class SyncHandlerContext(grpc.ServicerContext):
    """The same for a handler that runs in a thread, as gRPC's own for such handlers."""

    def __init__(self, context: HandlerContext) -> None:
        self._context = context

    def send_initial_metadata(self, initial_metadata: Any) -> None:
        self._context.introduce(check_metadata(initial_metadata))

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        self._context.set_trailing_metadata(trailing_metadata)

    def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: Any = ()) -> NoReturn:
        self._context.fail(code, details, trailing_metadata)
        raise grpc.aio.AbortError("the call was aborted")

    def abort_with_status(self, status: grpc.Status) -> NoReturn:
        self.abort(status.code, status.details or "", status.trailing_metadata or ())

    def set_code(self, code: grpc.StatusCode) -> None:
        self._context.set_code(code)

    def set_details(self, details: str) -> None:
        self._context.set_details(details)

    def set_compression(self, compression: grpc.Compression) -> None:
        """Change nothing: a session's frames are not compressed one by one."""

    def disable_next_message_compression(self) -> None:
        """Change nothing, as `set_compression`."""

    def invocation_metadata(self) -> Any:
        return self._context.invocation_metadata()

    def peer(self) -> str:
        return self._context.peer()

    def peer_identities(self) -> Any:
        return self._context.peer_identities()

    def peer_identity_key(self) -> str | None:
        return self._context.peer_identity_key()

    def auth_context(self) -> Any:
        return self._context.auth_context()

    def time_remaining(self) -> Any:
        return self._context.time_remaining()

    def trailing_metadata(self) -> Any:
        return self._context.trailing

    def code(self) -> grpc.StatusCode:
        return self._context.status

    def details(self) -> str:
        return self._context.text

    def is_active(self) -> bool:
        return self._context.call.cause is None and not self._context.done()

    def cancel(self) -> bool:
        self._context.call.loop.call_soon_threadsafe(self._context.call.orphan, CancelReason.CLIENT_ABORTED)
        return True

    def add_callback(self, callback: Callable[[], None]) -> bool:
        if self._context.done():
            return False
        self._context.add_done_callback(lambda _: callback())
        return True
