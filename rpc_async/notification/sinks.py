"""The one function that delivers a notification, and what else hands one over."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import Context
from typing import Final

from rpc_async.errors import UsageError
from rpc_async.mailbox import let_through
from rpc_async.notification.completion import Completion, take

__all__ = ["Sink", "call_routine", "deliver"]

_LOGGER: Final = logging.getLogger("rpc_async")

Sink = Callable[[Completion], object]
"""What takes a notification: from any thread, without blocking. Raises if it cannot. `bind` makes one of a target."""


def deliver(sink: Sink, completion: Completion) -> None:
    """Deliver a notification to its target, from any thread.

    A target that is closed, dead or raises loses the notification, and nothing else: that is logged once (C10).
    KeyboardInterrupt and SystemExit are for the program, and go where `let_through` says.
    """
    try:
        sink(completion)
    except UsageError as error:
        _LOGGER.warning("%r: %s was not delivered: %s; the call is not lost", completion.call, completion.event, error)
    except (KeyboardInterrupt, SystemExit) as error:
        let_through(error)
    except BaseException:
        _LOGGER.exception(
            "%r: %s was not delivered: its target raised; the call is not lost", completion.call, completion.event
        )


def call_routine(context: Context, routine: Callable[[Completion], object], completion: Completion) -> None:
    """Call a user's routine with a notification, where nobody could be told what it raises.

    Args:
        context: The one in which the routine was named, as it was then: each call has a copy, so that what one call of
            the routine sets is seen by no other, and two may run at once.
        routine: The user's.
        completion: What it is told.

    Raises:
        KeyboardInterrupt, SystemExit: It raised that, which is for the program. What else it raises is logged.
    """
    try:
        context.copy().run(routine, take(completion))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        _LOGGER.exception("%r: the routine that was told of %s raised", completion.call, completion.event)
