"""The client's side of one call: from begun to settled.

    PENDING ──request_cancel──> CANCELLING        the server was asked; its answer is awaited (C5)
       │                            │
       └────── abort, answer ───────┴──────> SETTLED

The rules are the table below. What comes too late changes nothing and asks for nothing: the first outcome
stays, and over a machine's life exactly one step says `notify` (C8). No other transitions happen.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from rpc_async.core.outcome import Fault, Outcome, Progress, Reply
from rpc_async.status import RpcStatus

__all__ = ["ClientCall", "ClientState", "ClientStep"]


class ClientState(IntEnum):
    """Where a call stands, as its client sees it."""

    PENDING = 0
    """Outstanding, and nobody asked it to stop."""
    CANCELLING = 1
    """Outstanding, and the server was asked to stop it. Its answer settles the call."""
    SETTLED = 2
    """The one outcome is there."""


class ClientStep(NamedTuple):
    """What an event leads to: the next state, and what the driver must now do."""

    state: ClientState
    tell_cancel: bool = False
    """Ask the server to stop (a non-abortive cancel)."""
    tell_abort: bool = False
    """Tell the server that nobody waits any more (an abortive cancel)."""
    notify: bool = False
    """The call has settled with this event's outcome: deliver the completion notification."""


_P, _C, _S = ClientState
# A table for each event, by the state that it finds: PENDING, CANCELLING, SETTLED.
_REQUEST_CANCEL: Final = (
    ClientStep(_C, tell_cancel=True),  # C5
    ClientStep(_C),  # asked already
    ClientStep(_S),  # C7
)
_ABORT: Final = (
    ClientStep(_S, tell_abort=True, notify=True),  # C6
    ClientStep(_S, tell_abort=True, notify=True),
    ClientStep(_S),  # C7
)
_ANSWER: Final = (
    ClientStep(_S, notify=True),
    ClientStep(_S, notify=True),  # whatever it is, it is the verdict (C5)
    ClientStep(_S),
)


class ClientCall:
    """The machine of one call on its client's side."""

    __slots__ = ("last_progress", "outcome", "state")

    def __init__(self) -> None:
        self.state: ClientState = _P
        self.outcome: Outcome | None = None
        self.last_progress: Progress | None = None

    def request_cancel(self) -> ClientStep:
        """The user asked for a non-abortive cancel (C5)."""
        return self._step(_REQUEST_CANCEL, None)

    def abort(self, outcome: Fault) -> ClientStep:
        """The call ends here and now with `outcome`, whatever the server does (C6)."""
        return self._step(_ABORT, outcome)

    def answer(self, outcome: Outcome) -> ClientStep:
        """The call's outcome arrived from the server, or from the layer below."""
        step = _ANSWER[self.state]  # as `_step`, which would be one more function for each call
        if step.notify:
            self.outcome = outcome
        self.state = step.state
        return step

    def progress(self, progress: Progress) -> bool:
        """A progress report arrived: keep it, and return whether anyone should be told."""
        if self.state is _S:
            return False
        self.last_progress = progress
        return True

    def status(self) -> int:
        """Return ASYNC_CALL_PENDING until the call has settled, then OK or the failure (C2)."""
        outcome = self.outcome
        if outcome is None:
            return RpcStatus.ASYNC_CALL_PENDING
        return RpcStatus.OK if isinstance(outcome, Reply) else outcome.status

    def _step(self, table: tuple[ClientStep, ...], outcome: Outcome | None) -> ClientStep:
        step = table[self.state]
        if step.notify:
            self.outcome = outcome
        self.state = step.state
        return step
