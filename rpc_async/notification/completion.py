"""`Completion`: one notification."""

from __future__ import annotations

from typing import Any, NamedTuple

from rpc_async.core.notices import Gate
from rpc_async.status import AsyncEvent

__all__ = ["Completion", "latest", "take"]


class Completion(NamedTuple):
    """One notification: what happened, to which call, and the key that was given with the target (C9)."""

    event: AsyncEvent
    """What happened."""
    call: Any
    """The call's handle: an `AsyncCall`, or a `ServerCall` on the server."""
    key: Any
    """What was given as `key`, verbatim."""


class _Latest(Completion):
    """A notification of which the latest wins: until it is taken, no other of its kind is sent for its call."""

    gate: Gate


def latest(event: AsyncEvent, call: Any, key: Any, gate: Gate) -> Completion:
    """Make one that goes through a gate, which has let it pass."""
    made = _Latest(event, call, key)
    made.gate = gate
    return made


def take(completion: Completion) -> Completion:
    """Return what the receiver is given, now that it takes the notification. Whatever hands one over calls this."""
    if type(completion) is not _Latest:
        return completion
    completion.gate.taken()
    return Completion(*completion)
