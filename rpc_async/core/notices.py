"""What somebody is told of a call, and how often: the decisions behind notifications.

`Notice` is one kind of notification of one call (S12):

    IDLE <──subscribe, unsubscribe──> WANTED
     │                                  │
     └─ subscribe after the fact, ──────┴─ it happens ──> QUEUED ──unsubscribe──> SPENT

Over its life at most one step says `deliver`. No other transitions happen.

`Gate` is a kind of notification that comes again and again, of which the latest wins: one that was not taken yet stands
for all that follow it, so that a receiver that does not take any is sent one and no more.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from rpc_async.status import AsyncEvent, CancelReason, Notifications, RpcStatus

__all__ = ["Gate", "Notice", "NoticeState", "NoticeStep", "event_of", "has_happened", "kinds_in"]


class NoticeState(IntEnum):
    """Where one kind of notification of one call stands."""

    IDLE = 0
    """Nobody wants it, and none was queued."""
    WANTED = 1
    """Somebody wants it, and it has not happened."""
    QUEUED = 2
    """The one notification was queued for whoever wanted it."""
    SPENT = 3
    """It was queued, and nobody is subscribed any more."""


class NoticeStep(NamedTuple):
    """What an event leads to."""

    state: NoticeState
    verdict: RpcStatus = RpcStatus.OK
    """INVALID_ASYNC_CALL: somebody is subscribed already, or the one notification was queued. Nothing changed."""
    deliver: bool = False
    """Deliver the notification now."""
    queued: int = 0
    """How many were queued so far."""


_I, _W, _Q, _S = NoticeState
_TAKEN: Final = RpcStatus.INVALID_ASYNC_CALL
# A table for each event, by the state that it finds: IDLE, WANTED, QUEUED, SPENT.
_SUBSCRIBE: Final = (
    NoticeStep(_W),
    NoticeStep(_W, _TAKEN),
    NoticeStep(_Q, _TAKEN, queued=1),
    NoticeStep(_S, _TAKEN, queued=1),
)
_SUBSCRIBE_AFTER_THE_FACT: Final = (NoticeStep(_Q, deliver=True, queued=1), *_SUBSCRIBE[1:])
_HAPPEN: Final = (
    NoticeStep(_I),
    NoticeStep(_Q, deliver=True, queued=1),
    NoticeStep(_Q, queued=1),
    NoticeStep(_S, queued=1),
)
_UNSUBSCRIBE: Final = (
    NoticeStep(_I),
    NoticeStep(_I),
    NoticeStep(_S, queued=1),
    NoticeStep(_S, queued=1),
)


class Notice:
    """The machine of one kind of notification of one call (S12)."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state: NoticeState = _I

    def may_subscribe(self) -> bool:
        """Tell whether `subscribe` would be taken. Changes nothing."""
        return self.state is _I

    def subscribe(self, *, happened: bool) -> NoticeStep:
        """Somebody wants to be told; `happened`: there is something to tell already."""
        return self._step(_SUBSCRIBE_AFTER_THE_FACT if happened else _SUBSCRIBE)

    def happen(self) -> NoticeStep:
        """There is something to tell now."""
        return self._step(_HAPPEN)

    def unsubscribe(self) -> NoticeStep:
        """Nobody wants to be told any more. The step says how many were queued: they may still be on their way."""
        return self._step(_UNSUBSCRIBE)

    def _step(self, table: tuple[NoticeStep, ...]) -> NoticeStep:
        step = table[self.state]
        self.state = step.state
        return step


class Gate:
    """The machine of notifications of which the latest wins."""

    __slots__ = ("on_its_way",)

    def __init__(self) -> None:
        self.on_its_way: bool = False
        """A notification was sent and not taken yet."""

    def news(self) -> bool:
        """There is something new. Returns whether to send a notification: one on its way tells of this too."""
        send = not self.on_its_way
        self.on_its_way = True
        return send

    def taken(self) -> None:
        """The receiver takes the notification, and looks at what is new after this."""
        self.on_its_way = False


_EVENTS: Final = {
    Notifications.CLIENT_DISCONNECT: AsyncEvent.CLIENT_DISCONNECT,
    Notifications.CALL_CANCEL: AsyncEvent.CLIENT_CANCEL,
}


def kinds_in(notifications: int) -> tuple[Notifications, ...] | None:
    """Return the kinds in a mask of `Notifications`; None if it names any other, or none (S12)."""
    kinds = tuple(kind for kind in _EVENTS if notifications & kind)
    return kinds if kinds and notifications == sum(kinds) else None


def event_of(kind: Notifications) -> AsyncEvent:
    """Return the event that a notification of a kind tells."""
    return _EVENTS[kind]


def has_happened(kind: Notifications, cancels: tuple[CancelReason, ...]) -> bool:
    """Tell whether a call that was cancelled for these reasons has something to tell to who wants this kind.

    Each cancel is of one kind: a client that is gone, or whatever else. So who asks for both misses none.
    """
    gone = kind is Notifications.CLIENT_DISCONNECT
    return any((reason is CancelReason.CLIENT_DISCONNECTED) == gone for reason in cancels)
