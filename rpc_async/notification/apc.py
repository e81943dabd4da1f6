"""`Apc` and `alertable_wait`: told in the thread that made the call, when that thread says that it can be."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Final, NamedTuple

from rpc_async.errors import InvalidArgument, InvalidAsyncCall
from rpc_async.notification.completion import Completion, take
from rpc_async.notification.handoff import Handoff

__all__ = ["Apc", "alertable_wait"]

_LOGGER: Final = logging.getLogger("rpc_async")

Routine = Callable[[Completion], object]


class _Pending(NamedTuple):
    """A routine that is to run, in which context, and for what."""

    context: Context
    routine: Routine
    completion: Completion


def _lost(pending: deque[_Pending], thread: str) -> None:
    for _, _, completion in pending:
        _LOGGER.warning(
            "%r: %s is lost: the thread %s, which was to be told, has ended; the call is not",
            completion.call,
            completion.event.name,
            thread,
        )


class _Apcs(Handoff[_Pending]):
    """What is to run in one thread. Lives as long as the thread: nothing but the thread's locals holds it."""

    __slots__ = ("__weakref__", "_thread")

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.current_thread().name
        ended = weakref.finalize(self, _lost, self._items, self._thread)
        ended.atexit = False

    def __repr__(self) -> str:
        return f"<the APCs of thread {self._thread}>"

    def run(self, timeout: float | None) -> int:
        """See `alertable_wait`."""
        try:
            pending = self._take(1, timeout)
        except TimeoutError:
            return 0
        due, ran = len(self), 0
        while pending:
            context, routine, completion = pending[0]
            ran += 1
            context.copy().run(routine, take(completion))
            pending = self._take_now(1) if ran <= due else []
        return ran


class _Here(threading.local):
    def __init__(self) -> None:
        self.apcs = _Apcs()


_here: Final = _Here()


class Apc:
    """Has `routine(completion)` called in the thread that gave it, only while that thread waits alertably.

    The thread is that which begins the call with `notify=`, or calls `notify`; it then says `alertable_wait()` when it
    can be told. If it ends without, its notifications are lost, which is logged; the calls are not.
    Source: RPC_ASYNC_STATE's APC; C9.
    """

    __slots__ = ("_routine",)

    def __init__(self, routine: Routine) -> None:
        """Make one.

        Args:
            routine: Called with a `Completion`. What it raises comes out of `alertable_wait`.

        Raises:
            InvalidArgument: The routine cannot be called.
        """
        if not callable(routine):
            raise InvalidArgument(f"Apc({routine!r}): the routine must be something to call")
        self._routine = routine

    def bind(self) -> Callable[[Completion], None]:
        """Return what takes a completion, from any thread, for the thread that runs here."""
        routine, thread, apcs = self._routine, threading.current_thread().name, weakref.ref(_here.apcs)
        context = copy_context()

        def put(completion: Completion) -> None:
            here = apcs()
            if here is None:
                raise InvalidAsyncCall(f"the thread {thread}, which was to be told, has ended")
            here.put(_Pending(context, routine, completion))

        return put


def alertable_wait(timeout: float | None = None) -> int:
    """Block this thread until there are APCs for it, and run them. Source: SleepEx's alertable wait; C9.

    Runs all that are there, one after the other; such as come meanwhile are for the next wait. If one raises, that
    comes out of this, and those after it are for the next wait too.

    Args:
        timeout: Seconds; None waits for ever, 0 does not wait.

    Returns:
        How many ran: 0 if none came in time.

    Raises:
        InvalidAsyncCall: This thread runs an event loop, which would stand still; timeout=0 does not wait.
    """
    return _here.apcs.run(timeout)
