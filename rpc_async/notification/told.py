"""Who is told of a call that was begun with `notify=`, or given to a handle's `notify`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from typing import Any

from rpc_async.core.notices import Gate
from rpc_async.errors import CannotSupport, InvalidArgument
from rpc_async.mailbox import Mailbox
from rpc_async.notification.completion import Completion, latest
from rpc_async.notification.sinks import deliver
from rpc_async.notification.targets import Target, bind
from rpc_async.status import AsyncEvent

__all__ = ["Told"]


class Told:
    """A target that is told of a call, and those that were named before it: most calls have one, and no list."""

    __slots__ = ("_before", "_gates", "_key", "_sink", "_watched")

    def __init__(
        self,
        target: Target,
        key: object,
        events: Collection[AsyncEvent],
        mailbox: Mailbox,
        known: Collection[AsyncEvent],
    ) -> None:
        """Make it; raises what `AsyncCall.notify` raises. `known`: the events that the call has."""
        self._gates: dict[AsyncEvent, Gate] | None = None
        if isinstance(events, (str, bytes)) or not isinstance(events, Collection):
            raise InvalidArgument(f"events={events!r}: a tuple of AsyncEvent; nothing will be told")
        if events:
            unknown = [event for event in events if event not in known]
            if unknown:
                names = ", ".join(AsyncEvent(event).name for event in known)
                raise CannotSupport(f"events={unknown!r}: this call tells of {names}; nothing will be told")
            self._gates = {event: Gate() for event in events if event is not AsyncEvent.CALL_COMPLETE}
        self._sink: Callable[[Completion], object] = bind(target, mailbox)
        self._key = key
        self._before: Told | None = None
        self._watched = bool(self._gates)

    @property
    def watched(self) -> bool:
        """Whether any of them wants to be told of more than the end."""
        return self._watched

    def wants(self, event: AsyncEvent) -> bool:
        """Tell whether any of them wants to be told of an event that comes again and again."""
        return self._watched and any(one._gates is not None and event in one._gates for one in self._all())

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
            return
        with ExitStack() as stack:  # whatever one of them raises, all are told
            for one in reversed(tuple(self._all())):
                stack.callback(deliver, one._sink, Completion(AsyncEvent.CALL_COMPLETE, call, one._key))

    def tell(self, event: AsyncEvent, call: Any) -> None:
        """Tell those who want to know of an event, unless they have not taken the one before. On the mailbox's loop."""
        with ExitStack() as stack:
            for one in reversed(tuple(self._all())):
                gate = None if one._gates is None else one._gates.get(event)
                if gate is not None and gate.news():
                    stack.callback(deliver, one._sink, latest(event, call, one._key, gate))

    def _all(self) -> Iterator[Told]:
        chain: list[Told] = [self]
        while (before := chain[-1]._before) is not None:
            chain.append(before)
        return reversed(chain)
