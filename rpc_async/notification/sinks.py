"""The one function that delivers a notification, and what else hands one over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from rpc_async.errors import UsageError
from rpc_async.notification.completion import Completion, take

__all__ = ["Sink", "call_routine", "deliver"]

_LOGGER: Final = logging.getLogger("rpc_async")

Sink = Callable[[Completion], object]
"""What takes a notification: from any thread, without blocking. Raises if it cannot. `bind` makes one of a target."""


def deliver(sink: Sink, completion: Completion) -> None:
    """Deliver a notification to its target, from any thread.

    A target that is closed, dead or raises loses the notification, and nothing else: that is logged once (C10).
    """
    try:
        sink(completion)
    except UsageError as error:
        _LOGGER.warning("%r: %s was not delivered: %s; the call is not lost", completion.call, completion.event, error)
    except Exception:
        _LOGGER.exception(
            "%r: %s was not delivered: its target raised; the call is not lost", completion.call, completion.event
        )


def call_routine(routine: Callable[[Completion], object], completion: Completion) -> None:
    """Call a user's routine with a notification, where nobody could be told what it raises."""
    try:
        routine(take(completion))
    except (Exception, asyncio.CancelledError):
        _LOGGER.exception("%r: the routine that was told of %s raised", completion.call, completion.event)
