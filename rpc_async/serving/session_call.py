"""A manager routine's call that came by a session."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rpc_async.core.frames import FrameKind
from rpc_async.core.outcome import Outcome, Reply
from rpc_async.core.server_call import ServerState
from rpc_async.errors import InvalidAsyncHandle
from rpc_async.serving.codec import Codec
from rpc_async.serving.record import CallOwner, CallRecord
from rpc_async.status import CancelReason, RpcStatus
from rpc_async.wire.metadata import call_metadata
from rpc_async.wire.session import BothMetadata, fault_head, reply_head

if TYPE_CHECKING:
    from rpc_async.serving.session import Identity, ServedSession

__all__ = ["SessionCall"]

_REPLY, _REPLY_WITH_HEAD, _FAULT = int(FrameKind.REPLY), int(FrameKind.REPLY_WITH_HEAD), int(FrameKind.FAULT)


class SessionCall(CallRecord):
    """One call of a session."""

    __slots__ = ("_session", "_timer", "_trailing", "number")

    def __init__(
        self,
        session: ServedSession,
        number: int,
        codec: Codec,
        owner: CallOwner,
        metadata: tuple[tuple[str, str | bytes], ...],
    ) -> None:
        CallRecord.__init__(self, codec, owner, metadata)
        self.number: int = number
        self._session = session
        self._timer: asyncio.TimerHandle | None = None
        self._trailing: tuple[tuple[str, str | bytes], ...] | None = None

    @property
    def call_id(self) -> str:
        return self._session.ids.of(self.number)

    @property
    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return call_metadata(self._metadata, self.call_id, self._session.identity.user_agent)

    def expire_in(self, seconds: float, loop: asyncio.AbstractEventLoop) -> None:
        """Set the call's deadline (C12)."""
        self._timer = loop.call_later(seconds, self.orphan, CancelReason.DEADLINE)

    def deliver(self, outcome: Outcome) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if type(outcome) is Reply:
            if self._trailing is None:
                self._session.end(self.number, _REPLY, outcome.message)
            else:
                head = reply_head(outcome.message, BothMetadata(trailing=self._trailing))
                self._session.end(self.number, _REPLY_WITH_HEAD, head)
        else:
            assert not isinstance(outcome, Reply)
            head = fault_head(outcome, BothMetadata(trailing=self._trailing or ()))
            self._session.end(self.number, _FAULT, head)

    def orphan(self, reason: CancelReason) -> None:
        super().orphan(reason)
        if self.machine.state is ServerState.ORPHANED and not self.listed:
            self._session.adopt(self)  # its number is forgotten, and its manager still runs

    def ask(self) -> RpcStatus:
        """The client asked the call to stop. Returns what to tell it."""
        self.ask_cancel()
        return RpcStatus.OK

    def watch(self) -> None:
        """The client wants progress reports."""
        if not self.subscribed(self._progressed):  # it may ask as often as it likes
            self.subscribe(self._progressed)
        self._progressed()

    def _progressed(self) -> None:
        if self.machine.last_progress is not None:
            self._owner.mailbox.run(self._session.progressed, self.number, self)

    def peer(self) -> str:
        return self._identity().peer

    def peer_identities(self) -> Iterable[bytes] | None:
        return self._identity().identities

    def peer_identity_key(self) -> str | None:
        return self._identity().identity_key

    def auth_context(self) -> dict[str, Iterable[bytes]]:
        return dict(self._identity().auth_context)

    def _identity(self) -> Identity:
        if self.settled:
            raise InvalidAsyncHandle("the call has ended, and its connection is not known any more (S4)")
        return self._session.identity

    def time_remaining(self) -> float | None:
        if self.cancel_reason is CancelReason.DEADLINE:
            return 0.0  # the client has said so, whose clock started first
        return None if self._timer is None else max(self._timer.when() - self._session.loop.time(), 0.0)

    def set_trailing_metadata(self, metadata: tuple[tuple[str, str | bytes], ...]) -> None:
        self._trailing = metadata
