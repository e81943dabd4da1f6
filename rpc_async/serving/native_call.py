"""A call that came as a gRPC call of its own."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import grpc.aio

from rpc_async.core.outcome import Outcome
from rpc_async.errors import InvalidAsyncHandle
from rpc_async.serving.codec import Codec
from rpc_async.serving.record import CallRecord

if TYPE_CHECKING:
    from rpc_async.serving.dispatcher import Dispatcher

__all__ = ["Context", "NativeCall"]

Context = grpc.aio.ServicerContext[Any, Any]


class NativeCall(CallRecord):
    """A call that came as a gRPC call of its own."""

    __slots__ = (
        "_call_id",
        "_context",
        "_loop",
        "_peer",
        "_timeout",
        "_waiter",
        "chose_id",
        "outcome",
        "trailing",
    )

    def __init__(
        self,
        call_id: str | None,
        codec: Codec,
        dispatcher: Dispatcher,
        metadata: tuple[tuple[str, str | bytes], ...],
        context: Context,
    ) -> None:
        CallRecord.__init__(self, codec, dispatcher, metadata)
        self._call_id = call_id or secrets.token_urlsafe(24)
        self.chose_id: Final = call_id is None
        """The server chose the call's id, and must tell the client."""
        self.outcome: Outcome | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.trailing: tuple[tuple[str, str | bytes], ...] = ()
        self._loop = dispatcher.loop
        self._context: Context | None = context
        self._peer: str | None = None
        self._timeout = _deadline(context)

    @property
    def call_id(self) -> str:
        return self._call_id

    def deliver(self, outcome: Outcome) -> None:
        self.outcome = outcome
        if self._waiter is not None and not self._waiter.done():  # done: gRPC has cancelled the call
            self._waiter.set_result(None)

    async def wait(self) -> None:
        """Wait for the outcome, on the server's loop. A call that completes inside its routine need not."""
        self._waiter = self._loop.create_future()
        await self._waiter

    def close(self) -> None:
        """Let go of the gRPC call, which must not be touched once its handler has returned."""
        with self._lock:
            self._context = None
            if self.settled:  # an orphaned call's manager may still ask
                self._peer = None

    def keep_peer(self) -> None:
        """Keep what an orphaned call's manager may still want to know. gRPC may forget it with the connection."""
        if self._peer is None:
            self._peer = self.peer()

    def peer(self) -> str:
        if self._peer is not None:
            return self._peer
        with self._lock:
            return self._open().peer()

    def peer_identities(self) -> Iterable[bytes] | None:
        with self._lock:
            return self._open().peer_identities()

    def peer_identity_key(self) -> str | None:
        with self._lock:
            return self._open().peer_identity_key()

    def auth_context(self) -> dict[str, Iterable[bytes]]:
        with self._lock:
            return dict(self._open().auth_context())

    def time_remaining(self) -> float | None:
        with self._lock:
            if self._context is None:
                return None if self._timeout is None else 0.0
            remaining = _deadline(self._context)
            return None if remaining is None else max(remaining, 0.0)

    def deadline_is_past(self) -> bool:
        """Tell whether a cancel that came now is the deadline's.

        The client's clock started first, and gRPC sends a time-out rounded up to two or three digits: so the
        client's deadline can pass a little before the server's own.
        """
        remaining = self.time_remaining()
        return remaining is not None and remaining <= 0.05 + 0.02 * (self._timeout or 0.0)

    def set_trailing_metadata(self, metadata: tuple[tuple[str, str | bytes], ...]) -> None:
        self.trailing = metadata

    def _open(self) -> Context:
        if self._context is None:
            raise InvalidAsyncHandle("the call has ended, and its connection is not known any more (S4)")
        return self._context


def _deadline(context: Context) -> float | None:
    remaining: float | None = context.time_remaining()  # the type stubs leave the None out
    return remaining
