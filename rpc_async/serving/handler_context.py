"""gRPC's context, for a handler whose call is none of gRPC's: it does what gRPC's own does, oddities included.

What a handler was tried with on the native wire must work the same by a session, and what is an error there must be one
here. `tests/integration/test_handlers.py` holds the two against each other.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

import grpc
import grpc.aio

from rpc_async.errors import InvalidArgument
from rpc_async.status import CancelReason, GrpcCode
from rpc_async.wire.faults import grpc_status_code
from rpc_async.wire.metadata import Metadatum, check_metadata
from rpc_async.wire.session import BothMetadata

if TYPE_CHECKING:
    from rpc_async.serving.session import Identity

__all__ = ["ContextCall", "HandlerContext", "InvalidMetadataError", "SyncHandlerContext", "as_bytes", "code_number"]

_LOGGER: Final = logging.getLogger("rpc_async.serving")
_LAST_BY_NUMBER: Final = int(GrpcCode.DATA_LOSS)

_grpc_checks: Final[Callable[[Any], None] | None] = getattr(
    sys.modules.get("grpc._cython.cygrpc"), "raise_if_not_valid_trailing_metadata", None
)
"""gRPC's own check of what a handler gives as trailing metadata: no public part of it, and it can be done without."""

Pairs = tuple[tuple[str, str | bytes], ...]


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


class InvalidMetadataError(grpc.aio.InternalError):
    """Metadata that cannot be sent."""


class HandlerContext(grpc.aio.ServicerContext[Any, Any]):
    """The context of a handler that is a coroutine. Used on the server's loop."""

    def __init__(self, call: ContextCall) -> None:
        self.call: Final = call
        self.number: int = 0
        """The canonical number of the code to send."""
        self.text: str | None = ""
        self.trailing: Pairs = ()
        self.abortion: grpc.aio.AbortError | None = None
        """What `abort` raised: it ends the call, even if the handler goes on."""
        self.sent: bool = False
        """The outcome was sent: nothing follows."""
        self.begun: bool = False
        """The handler's function was called."""
        self.deserialize: Callable[[bytes], Any] | None = None
        self.serialize: Callable[[Any], Any] | None = None
        self._code: object = None
        self._initial: Pairs = ()
        self._introduced = False
        self._cut_off = False
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[Any], None]] = []

    # -- what the wire does -----------------------------------------------------------------------------

    @abstractmethod
    async def receive(self) -> bytes | None:
        """Return the next message; None at the end."""

    @abstractmethod
    async def put(self, message: bytes) -> None:
        """Send a message."""

    @abstractmethod
    def send_outcome(self, number: int, text: str, trailing: Pairs) -> None:
        """End the call for its client, with a canonical code, behind what was put."""

    async def introduce(self, initial_metadata: Pairs) -> None:
        """Send the initial metadata. By a session, they go with the outcome."""
        self._initial = initial_metadata

    # -- what runs the handler does ---------------------------------------------------------------------

    def both(self) -> BothMetadata:
        """Return the metadata to send."""
        return BothMetadata(self._initial, _checked(self.trailing))

    def begin(self) -> None:
        """The handler's function is about to be called, here. From any thread. Raises CancelledError if it may not."""
        with self._lock:
            if self._cut_off:
                raise asyncio.CancelledError
            self.begun = True

    def cut_off(self) -> bool:
        """Have the handler not begin any more, and what it still says lost. Returns whether the outcome was sent."""
        with self._lock:
            self._cut_off = True
        return self.sent

    def check(self) -> None:
        """Raise if the call is over."""
        if self.abortion is not None:
            raise self.abortion
        if self.sent or self._cut_off:
            raise grpc.aio.UsageError("RPC already finished.")

    def finish(self, number: int | None = None, text: str | None = None) -> None:
        """End the call for its client, unless that was done: with what the handler has set, or with a failure."""
        if self.sent or self._cut_off:
            return
        self.sent = True
        try:
            _checked(self.trailing)
        except InvalidMetadataError as error:
            self.trailing, number, text = (), int(GrpcCode.INTERNAL), str(error)
        number = self.number if number is None else number
        shown = (self.text if text is None else text) or ""
        self.send_outcome(number, shown.encode("utf-8", "backslashreplace").decode(), self.trailing)

    def ended(self) -> None:
        """Tell whoever wants to know that the handler is done with."""
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback(self)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException:
                _LOGGER.exception("%s: a done-callback raised", self.call.method)

    # -- what gRPC's context has ------------------------------------------------------------------------

    async def read(self) -> Any:
        self.check()
        message = await self.receive()
        self.check()
        if message is None:
            return grpc.aio.EOF
        return message if self.deserialize is None else self.deserialize(message)

    async def write(self, message: Any) -> None:
        self.check()
        await self.put(as_bytes(self.serialize, message))
        self._introduced = True

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        self.check()
        if self._introduced:
            raise grpc.aio.UsageError("Send initial metadata failed: already sent")
        checked = _checked(_pairs(tuple(initial_metadata), "initial metadata"))
        self._introduced = True
        await self.introduce(checked)

    async def abort(self, code: Any, details: Any = "", trailing_metadata: Any = ()) -> NoReturn:
        _expect(details, str, "details")
        _expect(trailing_metadata, tuple, "trailing_metadata")
        if self.abortion is not None:
            raise grpc.aio.UsageError("Abort already called!")
        abortion = self.abortion = grpc.aio.AbortError("Locally aborted.")
        if trailing_metadata != () or not self.trailing:  # else those that were set before
            self.trailing = _pairs(trailing_metadata)
        if details != "" or not self.text:
            self.text = details
        self._code, self.number = code, code_number(code)
        # gRPC lets its client wait for ever for the reply of a call that is aborted with OK.
        self.finish(number=self.number or int(GrpcCode.UNKNOWN))
        raise abortion

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        await self.abort(status.code, status.details, status.trailing_metadata)

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        self.trailing = _pairs(trailing_metadata)

    def invocation_metadata(self) -> Any:
        return self.call.metadata

    def set_code(self, code: Any) -> None:
        self.number = code_number(code)
        self._code = code

    def set_details(self, details: Any) -> None:
        _expect(details, str, "details")
        self.text = details

    def set_compression(self, compression: grpc.Compression) -> None:
        """Change nothing: a session's frames are not compressed one by one. Raises RuntimeError if it is too late."""
        if self._introduced:
            raise RuntimeError("set the compression before the initial metadata are sent")

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

    def code(self) -> Any:
        return self._code

    def details(self) -> Any:
        return self.text

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._callbacks.append(callback)

    def cancelled(self) -> bool:
        return self.number == GrpcCode.CANCELLED

    def done(self) -> bool:
        return self.sent


class SyncHandlerContext(grpc.ServicerContext):
    """The same for a handler that runs in a thread, as gRPC's own for such handlers.

    gRPC's lacks what is below `-- beyond gRPC's --`, which `grpc.ServicerContext` declares all the same.
    """

    def __init__(self, context: HandlerContext) -> None:
        self.callbacks: Final[list[Callable[[], None]]] = []
        """What to call once the handler has returned."""
        self._context = context

    def send_initial_metadata(self, initial_metadata: Any) -> None:
        self._on_loop(self._context.send_initial_metadata(initial_metadata))

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        self._context.set_trailing_metadata(trailing_metadata)

    def abort(self, code: Any, details: Any = "", trailing_metadata: Any = ()) -> NoReturn:
        self._on_loop(self._context.abort(code, details, trailing_metadata))
        raise AssertionError("unreachable: abort raises")

    def abort_with_status(self, status: grpc.Status) -> NoReturn:
        self.abort(status.code, status.details, status.trailing_metadata)

    def set_code(self, code: Any) -> None:
        self._context.set_code(code)

    def set_details(self, details: Any) -> None:
        self._context.set_details(details)

    def set_compression(self, compression: grpc.Compression) -> None:
        self._context.set_compression(compression)

    def disable_next_message_compression(self) -> None:
        self._context.disable_next_message_compression()

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

    def add_callback(self, callback: Callable[[], None]) -> Any:
        """Have `callback` called once the handler has returned; not if it raises. Returns None, as gRPC's does."""
        self.callbacks.append(callback)

    # -- beyond gRPC's ----------------------------------------------------------------------------------

    def trailing_metadata(self) -> Any:
        return self._context.trailing_metadata()

    def code(self) -> Any:
        return self._context.code()

    def details(self) -> Any:
        return self._context.details()

    def is_active(self) -> bool:
        return self._context.call.cause is None and not self._context.done()

    def cancel(self) -> bool:
        self._context.call.loop.call_soon_threadsafe(self._context.call.orphan, CancelReason.CLIENT_ABORTED)
        return True

    def _on_loop(self, doing: Any) -> None:
        asyncio.run_coroutine_threadsafe(doing, self._context.call.loop).result()


def code_number(code: object) -> int:
    """Return the canonical number of whatever was given as a code; UNKNOWN for what is none.

    Of numbers gRPC takes those up to 15: UNAUTHENTICATED, which came later, only as a member of its enumeration.
    """
    if isinstance(code, int):
        return int(code) if 0 <= code <= _LAST_BY_NUMBER else int(GrpcCode.UNKNOWN)
    value = getattr(code, "value", None)
    number = value[0] if isinstance(value, tuple) and value else None
    return int(grpc_status_code(number).value[0]) if isinstance(number, int) else int(GrpcCode.UNKNOWN)


def as_bytes(serialize: Callable[[Any], Any] | None, message: Any) -> bytes:
    """Return what is sent of a message: text is UTF-8 before its serialiser gets it, and no message is an empty one.

    Raises:
        TypeError: It is no bytes, or what its serialiser made of it.
    """
    if isinstance(message, str):
        message = message.encode()
    raw = message if serialize is None else serialize(message)
    if raw is None:
        return b""
    if type(raw) is not bytes:
        raise TypeError(f"Expected bytes, got {type(raw).__name__}")
    return raw


def _expect(value: object, kind: type, name: str) -> None:
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"Argument '{name}' has incorrect type (expected {kind.__name__}, got {type(value).__name__})")


def _pairs(metadata: Any, what: str | None = None) -> Pairs:
    if what is None and _grpc_checks is not None:
        _grpc_checks(metadata)  # in its own words
    wrong = TypeError(f"{what or 'trailing metadata'}: pairs of text, and of text or bytes, not {metadata!r}")
    if isinstance(metadata, dict) or not hasattr(metadata, "__iter__"):
        raise wrong
    pairs = tuple(metadata)
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2):
            raise wrong
        if not (isinstance(pair[0], str) and isinstance(pair[1], (str, bytes))):
            raise wrong
    return pairs


def _checked(pairs: Pairs) -> Pairs:
    try:
        return check_metadata(pairs)
    except (InvalidArgument, UnicodeDecodeError) as error:
        raise InvalidMetadataError("Invalid metadata") from error
