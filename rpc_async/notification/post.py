"""`Post`: told in a foreign event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any

from rpc_async.errors import InvalidArgument, InvalidAsyncCall
from rpc_async.mailbox import Mailbox
from rpc_async.notification.completion import Completion
from rpc_async.notification.sinks import call_routine
from rpc_async.notification.tk import TkPoster

__all__ = ["Post"]

Poster = Callable[[Callable[[], object]], object]


class Post:
    """Has `routine(completion)` called in a foreign event loop. Source: RPC_ASYNC_STATE's HWND; C9.

    What gets it there is one of

    - an asyncio loop;
    - a Tk widget, such as the root: make the `Post` on Tk's own thread, and `close()` it before the root is destroyed;
    - anything that takes a function and has it called in its loop, from any thread and without blocking: such as the
      `emit` of a Qt signal that is connected to `lambda function: function()`.

    If the loop is closed, or posting raises, the notification is lost, which is logged; the call is not.
    """

    __slots__ = ("_closed", "_poster", "_routine")

    def __init__(
        self, where: asyncio.AbstractEventLoop | Poster | Any, routine: Callable[[Completion], object]
    ) -> None:
        """Make one.

        Args:
            where: An asyncio loop, a Tk widget, or something that posts a function.
            routine: Called with a `Completion`. It must not block; what it raises is logged.

        Raises:
            InvalidArgument: `where` is none of these, or the routine cannot be called.
            CannotSupport: This Tk cannot wait for a socket, as on Windows: look into a `CompletionQueue` from `after`.
        """
        if not callable(routine):
            raise InvalidArgument(f"Post(..., {routine!r}): the routine must be something to call")
        self._poster: Poster
        if isinstance(where, asyncio.AbstractEventLoop):
            self._poster = _asyncio_poster(where)
        elif (tk := getattr(where, "tk", None)) is not None:
            self._poster = TkPoster(tk)
        elif callable(where):
            self._poster = where
        else:
            raise InvalidArgument(
                f"Post({where!r}, ...): an asyncio loop, a Tk widget, or something that posts a function to a loop"
            )
        self._routine = routine
        self._closed = False

    def bind(self) -> Callable[[Completion], None]:
        """Return what takes a completion, from any thread; the routine will run in the context that is here now."""
        context = copy_context()

        def put(completion: Completion) -> None:
            if self._closed:
                raise InvalidAsyncCall("the Post was closed")
            self._poster(partial(call_routine, context, self._routine, completion))

        return put

    def close(self) -> None:
        """Post nothing more: calls that settle later are not told of here, which is logged. On Tk's own thread."""
        self._closed = True
        if isinstance(self._poster, TkPoster):
            self._poster.close()


def _asyncio_poster(loop: asyncio.AbstractEventLoop) -> Poster:
    mailbox = Mailbox(loop)

    def post(function: Callable[[], object]) -> None:
        if not mailbox.post(function):
            raise InvalidAsyncCall(f"the event loop {loop!r} is closed")

    return post
