"""The calls of a server, by id: those that run, those that ended lately, and cancels that came too early.

Used on the server's loop only. Everything here has a bound.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

from rpc_async.serving.record import CallRecord
from rpc_async.status import CancelReason

__all__ = ["CallTable"]

MAX_ENDED: Final = 4096
"""How many calls that ended can still be looked at; those that were looked up, cancelled, or
reported progress. Most are none of that, and need not be kept. The oldest goes first."""
MAX_EARLY_CANCELS: Final = 4096
"""How many cancels can wait for their calls. The oldest goes first."""
EARLY_CANCEL_LIFE: Final = 30.0
"""Seconds that a cancel waits for its call: far longer than a call can be overtaken on a connection."""


class CallSource(Protocol):
    """Keeps the running calls of a wire that has numbers of its own for them."""

    def find(self, call_id: str) -> CallRecord | None:
        """Return the call with this id, if it is one of these."""
        ...

    def running(self) -> list[CallRecord]:
        """Return the calls that run now."""
        ...


class CallTable:
    """Finds a call by its id.

    A cancel can overtake its call: they travel on streams of their own, and the call may have a large request
    to bring. So a cancel for an unknown call is kept for a while, and meets the call when it comes.
    """

    def __init__(self, linger: float) -> None:
        self._running: dict[str, CallRecord] = {}
        self._ended: OrderedDict[str, CallRecord] = OrderedDict()
        self._early: OrderedDict[str, tuple[bool, float]] = OrderedDict()
        self._expected: dict[str, Callable[[CallRecord], None]] = {}
        self._linger = linger
        self.sources: Final[list[CallSource]] = []
        self.ordinary: Final[set[str]] = set()
        """The ids of running calls of ordinary gRPC handlers, which cannot be asked anything."""

    def running(self) -> list[CallRecord]:
        """Return the calls that run now."""
        return [*self._running.values(), *(record for source in self.sources for record in source.running())]

    def add(self, record: CallRecord, loop: asyncio.AbstractEventLoop) -> bool:
        """Enter a call, and apply a cancel that came before it.

        Returns:
            False, and nothing changed, if a call with this id runs already.
        """
        if record.call_id in self._running:
            return False
        self.list(record)
        if self._early:
            self.meet(record, loop)
        if self._expected and (expecting := self._expected.pop(record.call_id, None)) is not None:
            expecting(record)
        return True

    def list(self, record: CallRecord) -> None:
        """Keep a call under its id."""
        self._running[record.call_id] = record
        record.listed = True

    def expect(self, call_id: str, function: Callable[[CallRecord], None] | None) -> None:
        """Have a function called with a call when it is entered. None: no more."""
        self._expected.pop(call_id, None)
        if function is not None:
            self._expected[call_id] = function

    @property
    def expects(self) -> bool:
        """Whether there are cancels that came before their calls."""
        return bool(self._early)

    def meet(self, record: CallRecord, loop: asyncio.AbstractEventLoop) -> None:
        """Apply a cancel that came before its call."""
        abort, came = self._early.pop(record.call_id, (None, 0.0))
        if abort is not None and loop.time() - came <= EARLY_CANCEL_LIFE:
            cancel(record, abort=abort)

    def remove(self, record: CallRecord, loop: asyncio.AbstractEventLoop) -> None:
        """A call has ended: if anyone may ask what became of it, keep it for a while among the ended."""
        if record.listed:
            del self._running[record.call_id]
        machine = record.machine
        if record.asked_for or machine.cancels or machine.last_progress is not None:
            record.ended_at = loop.time()
            self._ended[record.call_id] = record
            if len(self._ended) > MAX_ENDED:
                self._ended.popitem(last=False)

    def find(self, call_id: str, now: float) -> CallRecord | None:
        """Return a call that runs, or that ended less than `linger` seconds ago."""
        record = self._running.get(call_id)
        for source in self.sources:
            record = record or source.find(call_id)
        if record is not None:
            record.asked_for = True
        else:
            record = self._ended.get(call_id)
            if record is not None and now - record.ended_at > self._linger:
                del self._ended[call_id]
                record = None
        return record

    def keep_cancel(self, call_id: str, abort: bool, now: float) -> None:
        """Keep a cancel for a call that is not here (yet). An abort outranks a request."""
        known, _ = self._early.pop(call_id, (False, 0.0))
        self._early[call_id] = (abort or known, now)
        if len(self._early) > MAX_EARLY_CANCELS:
            self._early.popitem(last=False)


def cancel(record: CallRecord, *, abort: bool) -> None:
    """Do what a client's cancel asks for."""
    if abort:
        record.orphan(CancelReason.CLIENT_ABORTED)
    else:
        record.ask_cancel()
