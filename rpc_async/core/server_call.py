"""The server's side of one call: from dispatched to settled.

    RUNNING ──ask──> CANCEL_REQUESTED             the client asks and waits (C5)
       │                   │
       ├──── orphan ───────┼──> ORPHANED          nobody waits: aborted, gone, too late, or shut down (S13)
       │                   │        │
       └─ complete, abort, raise, forget ──> SETTLED       the handle is destroyed (S4)

A cancel is a flag and a reason: it never settles the call for the manager routine, which must still complete
or abort (S8). Orphaning releases the client at once and leaves the manager's part owed; what the manager then
answers is dropped, and it is told so (S11). Over a machine's life at most one step says `deliver` or `release`.
The rules are the tables below. No other transitions happen.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from rpc_async.core.outcome import Progress
from rpc_async.status import CancelReason, RpcStatus

__all__ = ["ServerCallMachine", "ServerState", "ServerStep"]


class ServerState(IntEnum):
    """Where a call stands, as its server sees it."""

    RUNNING = 0
    """The manager owes an answer, and the client waits for it."""
    CANCEL_REQUESTED = 1
    """The client asked to stop and waits: the manager still owes an answer, and it will be delivered."""
    ORPHANED = 2
    """Nobody waits. The manager still owes an answer, which will be dropped."""
    SETTLED = 3
    """The server handle is destroyed."""


class ServerStep(NamedTuple):
    """What an event leads to: the next state, the verdict, and what the driver must now do."""

    state: ServerState
    verdict: RpcStatus
    """OK: done. CALL_CANCELLED: nobody waits (S11). INVALID_ASYNC_HANDLE: settled before (S4)."""
    deliver: bool = False
    """Send the outcome that goes with the event to the client."""
    release: bool = False
    """Let the client go: end the call for it with a fault that says why (see `cancel_reason`)."""
    changed: bool = False
    """Tell whoever watches the call in the server."""


_R, _C, _O, _S = ServerState
_OK, _LATE, _GONE = RpcStatus.OK, RpcStatus.CALL_CANCELLED, RpcStatus.INVALID_ASYNC_HANDLE
# A table for each kind of event, by the state that it finds: RUNNING, CANCEL_REQUESTED, ORPHANED, SETTLED.
_ENDED: Final = (
    ServerStep(_S, _OK, deliver=True, changed=True),
    ServerStep(_S, _OK, deliver=True, changed=True),
    ServerStep(_S, _LATE, changed=True),  # S11
    ServerStep(_S, _GONE),  # S4
)
_ASKED: Final = (
    ServerStep(_C, _OK, changed=True),
    ServerStep(_C, _OK),
    ServerStep(_O, _LATE),
    ServerStep(_S, _GONE),
)
_ORPHANED: Final = (
    ServerStep(_O, _OK, release=True, changed=True),
    ServerStep(_O, _OK, release=True, changed=True),
    ServerStep(_O, _LATE),
    ServerStep(_S, _GONE),
)


class ServerCallMachine:
    """The machine of one call on its server's side."""

    __slots__ = ("cancels", "last_progress", "state")

    def __init__(self) -> None:
        self.state: ServerState = _R
        self.cancels: tuple[CancelReason, ...] = ()
        """Every reason that the call was cancelled for, in order: at most a request and what orphaned the call."""
        self.last_progress: Progress | None = None

    @property
    def cancel_reason(self) -> CancelReason | None:
        """Why the call was cancelled, if it was (S13). What orphans a call outranks a request."""
        return self.cancels[-1] if self.cancels else None

    def end(self) -> ServerStep:
        """The manager's part ends, and whoever ended it is told the step's verdict.

        By `complete` or `abort`, by what came out of the routine (S7), or since nobody holds the handle any more (S14):
        it is one event, with the outcome that goes with it.
        """
        step = _ENDED[self.state]
        self.state = step.state
        return step

    def ask(self) -> ServerStep:
        """The client asked the call to stop, and waits for the answer (C5)."""
        return self._cancel(_ASKED[self.state], CancelReason.CLIENT_REQUESTED)

    def orphan(self, reason: CancelReason) -> ServerStep:
        """Nobody waits for the call any more. The first reason for that stays, and outranks a request."""
        return self._cancel(_ORPHANED[self.state], reason)

    def test_cancel(self) -> bool:
        """Tell whether the call was cancelled, or has settled (S10). Changes nothing (S8)."""
        return self.state is not _R

    def progress(self, progress: Progress) -> bool:
        """Keep a progress report, and return whether anyone may still want it."""
        if self.state is _S:
            return False
        self.last_progress = progress
        return True

    def _cancel(self, step: ServerStep, reason: CancelReason) -> ServerStep:
        if step.changed:
            self.cancels += (reason,)
        self.state = step.state
        return step
