"""Who is told of a call that was begun with `notify=`, or given to `AsyncCall.notify`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

from rpc_async.core.notices import Gate
from rpc_async.errors import CannotSupport
from rpc_async.mailbox import Mailbox
from rpc_async.notification.completion import Completion, latest
from rpc_async.notification.sinks import deliver
from rpc_async.notification.targets import Target, bind
from rpc_async.status import AsyncEvent

__all__ = ["Told"]

_KNOWN = frozenset({AsyncEvent.CALL_COMPLETE, AsyncEvent.PROGRESS})


class Told:
    """A target that is told of a call, and those that were named before it: most calls have one, and no list."""

    __slots__ = ("_before", "_gate", "_key", "_sink", "_watched")

    def __init__(self, target: Target, key: object, events: Collection[AsyncEvent], mailbox: Mailbox) -> None:
        """Make it; raises what `AsyncCall.notify` raises."""
        self._gate: Gate | None = None
        if events:
            unknown = [event for event in events if event not in _KNOWN]
            if unknown:
                raise CannotSupport(
                    f"events={unknown!r}: a call tells of its end, and of PROGRESS; nothing will be told"
                )
            if AsyncEvent.PROGRESS in events:
                self._gate = Gate()
        self._sink: Callable[[Completion], object] = bind(target, mailbox)
        self._key = key
        self._before: Told | None = None
        self._watched = self._gate is not None

    @property
    def watched(self) -> bool:
        """Whether any of them wants progress reports."""
        return self._watched

    def join(self, before: Told | None) -> Told:
        """Add this one to those before it."""
        if before is not None:
            self._before = before
            self._watched = self._watched or before._watched
        return self

    def end(self, call: Any) -> None:
        """Tell all that the call has settled (C8)."""
        if self._before is None:
            deliver(self._sink, Completion(AsyncEvent.CALL_COMPLETE, call, self._key))
        else:
            for one in self._all():
                deliver(one._sink, Completion(AsyncEvent.CALL_COMPLETE, call, one._key))

    def progress(self, call: Any) -> None:
        """Tell those who want to know that there is a new report. On the channel's loop."""
        for one in self._all():
            gate = one._gate
            if gate is not None and gate.news():
                deliver(one._sink, latest(AsyncEvent.PROGRESS, call, one._key, gate))

    def _all(self) -> Iterator[Told]:
        chain: list[Told] = [self]
        while (before := chain[-1]._before) is not None:
            chain.append(before)
        return reversed(chain)
