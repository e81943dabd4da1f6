"""Tells a manager of its call's cancel, in place of its looking (S12)."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rpc_async.core.notices import Notice, event_of, has_happened, kinds_in
from rpc_async.errors import CannotSupport, InvalidArgument, InvalidAsyncCall, InvalidAsyncHandle
from rpc_async.notification.completion import Completion
from rpc_async.notification.sinks import Sink, deliver
from rpc_async.notification.targets import Target, bind
from rpc_async.status import Notifications

if TYPE_CHECKING:
    from rpc_async.serving.record import CallRecord

__all__ = ["Notifier"]


class _Wanted(NamedTuple):
    """Who wants to be told of a kind."""

    sink: Sink
    key: object


class Notifier:
    """The subscriptions of one call: a hook of its record, and there only if somebody has subscribed."""

    __slots__ = ("_mailbox", "_notices", "_record", "_wanted")

    def __init__(self, record: CallRecord) -> None:
        self._record: Final = weakref.ref(record)  # which holds this
        self._mailbox: Final = record.mailbox
        self._notices: Final[dict[Notifications, Notice]] = {}
        self._wanted: dict[Notifications, _Wanted] = {}

    def subscribe(self, handle: Any, notifications: int, target: Target | None, key: object) -> None:
        """See `ServerCall.subscribe`."""
        record = self._record()
        assert record is not None
        kinds = kinds_in(notifications)
        if kinds is None:
            raise CannotSupport(
                f"{record!r}: notifications {notifications!r}: CLIENT_DISCONNECT, CALL_CANCEL, or both; nothing was "
                "subscribed"
            )
        if target is None:
            raise InvalidArgument(f"{record!r}: None is no target, and would be told nothing; nothing was subscribed")
        wanted = _Wanted(bind(target, self._mailbox), key)
        due = []
        with self._mailbox.lock:
            if record.settled:
                raise InvalidAsyncHandle(f"{record!r} was completed or aborted before: nothing was subscribed (S4)")
            notices = [self._notices.setdefault(kind, Notice()) for kind in kinds]
            if not all(notice.may_subscribe() for notice in notices):
                raise InvalidAsyncCall(
                    f"{record!r}: there is a subscription to {notifications!r}, or its one notification was queued; "
                    "nothing was subscribed (S12)"
                )
            for kind, notice in zip(kinds, notices, strict=True):
                if notice.subscribe(happened=has_happened(kind, record.machine.cancels)).deliver:
                    due.append(kind)
                else:
                    self._wanted[kind] = wanted
        for kind in due:
            deliver(wanted.sink, Completion(event_of(kind), handle, key))

    def unsubscribe(self, notification: int) -> int:
        """See `ServerCall.unsubscribe`."""
        kinds = kinds_in(notification)
        if kinds is None or len(kinds) != 1:
            raise CannotSupport(
                f"{self._record()!r}: notification {notification!r}: CLIENT_DISCONNECT or CALL_CANCEL, one at a time; "
                "nothing was unsubscribed"
            )
        with self._mailbox.lock:
            dropped = self._wanted.pop(kinds[0], None)  # let go of outside the lock
            notice = self._notices.get(kinds[0])
            queued = 0 if notice is None else notice.unsubscribe().queued
        del dropped
        return queued

    def __call__(self) -> None:
        """Tell what there is to tell: the record has changed."""
        record = self._record()
        if record is None or not self._wanted:
            return
        handle = record.handle()
        told: list[tuple[Notifications, _Wanted]] = []
        with self._mailbox.lock:
            wanted, cancels = self._wanted, record.machine.cancels
            if record.settled or handle is None:
                self._wanted = {}  # they may hold the handle; they are let go of outside the lock
            else:
                due = [kind for kind in wanted if has_happened(kind, cancels) and self._notices[kind].happen().deliver]
                told = [(kind, wanted.pop(kind)) for kind in due]
        for kind, (sink, key) in told:
            deliver(sink, Completion(event_of(kind), handle, key))
