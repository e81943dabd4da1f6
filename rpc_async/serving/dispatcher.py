"""Takes calls in, starts their manager routines, and keeps count of them."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from rpc_async.core.outcome import Fault, fault
from rpc_async.mailbox import Mailbox
from rpc_async.serving.call import ServerCall, running_record
from rpc_async.serving.manager import RoutineKind
from rpc_async.serving.record import CallRecord, shutdown_fault
from rpc_async.serving.table import CallTable
from rpc_async.status import CancelReason, RpcStatus

__all__ = ["Dispatcher"]

_LOGGER: Final = logging.getLogger("rpc_async.serving")

_INLINE: Final = RoutineKind.INLINE  # an enumeration's members are looked up by a function
_TASK: Final = RoutineKind.TASK

_TURNS: Final = 8
"""Turns of the loop that an outcome gets to be handed to gRPC before the process ends: two or three will do."""

Routine = Callable[[Any, ServerCall[Any]], Any]


class Dispatcher:
    """What all wires of one server share. Used on the server's loop, once it is bound to that."""

    loop: asyncio.AbstractEventLoop
    mailbox: Mailbox
    context: contextvars.Context
    """What was set where the server was started. Each call begins with a copy of its own, as each of gRPC's does."""

    def __init__(
        self,
        *,
        max_calls: int | None,
        linger: float,
        disclose_errors: bool,
        pool: ThreadPoolExecutor,
    ) -> None:
        self.table: Final = CallTable(linger)
        self.disclose_errors: Final = disclose_errors
        self.draining: bool = False
        self.stopped: bool = False
        self.running: int = 0
        """Calls that count against `max_calls`: of manager routines and of ordinary handlers."""
        self._max_calls = max_calls
        self.pool: Final = pool
        self._tasks: dict[CallRecord, asyncio.Task[None]] = {}
        self._queued: dict[CallRecord, CallRecord] = {}
        """Calls whose routines wait for a thread. Whoever takes one out, which one can only, begins or refuses it."""
        self._idle: asyncio.Event = asyncio.Event()

    @property
    def bound(self) -> bool:
        """Whether it has its event loop."""
        return hasattr(self, "loop")

    def bind(self) -> None:
        """Take the event loop that runs here for the server's."""
        self.loop = asyncio.get_running_loop()
        self.mailbox = Mailbox(self.loop)
        self.context = contextvars.copy_context()

    # -- taking calls in --------------------------------------------------------------------------------

    def refusal(self) -> Fault | None:
        """Return why a call that arrives now is not taken, or None if it is (S15, S16)."""
        if self.draining:
            return fault(
                RpcStatus.SERVER_UNAVAILABLE,
                "the server is shutting down and takes no new calls: not executed",
            )
        if self._max_calls is not None and self.running >= self._max_calls:
            text = f"Concurrent RPC limit exceeded: {self.running} calls run: not executed; try again later"
            return fault(RpcStatus.SERVER_TOO_BUSY, text)
        return None

    def enter(self) -> None:
        """Count a call in."""
        self.running += 1

    def leave(self) -> None:
        """Count a call out."""
        self.running -= 1
        if self.draining and not self.running:
            self._idle.set()

    def open(self, record: CallRecord) -> bool:
        """Enter a call into the table and the count; False if its id is taken."""
        if not self.table.add(record, self.loop):
            return False
        self.running += 1
        return True

    def finished(self, record: CallRecord) -> None:
        """A call has settled."""
        self.table.remove(record, self.loop)
        self.running -= 1
        if self.draining and not self.running:
            self._idle.set()

    # -- running manager routines -----------------------------------------------------------------------

    def start(
        self,
        record: CallRecord,
        kind: RoutineKind,
        routine: Routine,
        request: Any,
        context: contextvars.Context,
        handle_type: Callable[[Any], ServerCall[Any]] = ServerCall,
    ) -> None:
        """Start a call's manager routine where its kind runs, in a context that is this call's alone."""
        handle = handle_type(record)
        record.hold(handle)
        if kind is _INLINE:
            context.run(self._run, record, routine, request, handle)
        elif kind is _TASK:
            task = _start_task(self._run_task(record, routine, request, handle), self.loop, context)
            if not task.done():
                self._tasks[record] = task  # the loop itself holds tasks only weakly
        else:
            self._queued[record] = record
            self.pool.submit(context.run, self._run_in_thread, record, routine, request, handle)

    def _run_in_thread(self, record: CallRecord, routine: Routine, request: Any, handle: ServerCall[Any]) -> None:
        if self._queued.pop(record, None) is not None:
            self._run(record, routine, request, handle)

    def _run(self, record: CallRecord, routine: Routine, request: Any, handle: ServerCall[Any]) -> None:
        running_record.set(record)
        try:
            routine(request, handle)
        except BaseException as error:  # whatever it is, it ends this call and no other (S7)
            self._raised(record, error)
        finally:
            del request, handle  # this frame must not be what keeps the handle alive
            record.returned()

    async def _run_task(self, record: CallRecord, routine: Routine, request: Any, handle: ServerCall[Any]) -> None:
        running_record.set(record)
        try:
            await routine(request, handle)
        except BaseException as error:  # a cancelled task is no reason for a client to hang either
            self._raised(record, error)
        finally:
            del request, handle
            record.returned()
            self._tasks.pop(record, None)  # not there, if the task never waited for anything

    def _raised(self, record: CallRecord, error: BaseException) -> None:
        record.raised(error)
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            self.let_through(error)

    def let_through(self, error: BaseException) -> None:
        """Have what is to end the process end it, out of the loop, once its call's outcome is on its way."""
        self.mailbox.run(self._let_through, error)

    def _let_through(self, error: BaseException, turns: int = _TURNS) -> None:
        if not turns:
            raise error
        self.loop.call_soon(self._let_through, error, turns - 1)

    # -- shutting down ----------------------------------------------------------------------------------

    async def drain(self, grace: float | None) -> None:
        """Refuse new calls, wait up to `grace` seconds for the running ones, then cancel what still runs (S15)."""
        self.draining = True
        if grace and self.running:
            self._idle.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), grace)
        if self.running:
            _LOGGER.warning("the server's grace period is over: %d calls are cancelled", self.running)
        self.stopped = True
        for record in tuple(self._queued):
            if self._queued.pop(record, None) is not None:
                record.refuse(shutdown_fault(executed=False))
                record.returned()
        for record in self.table.running():
            record.orphan(CancelReason.SHUTDOWN)

    def hurry(self) -> None:
        """End the grace period now."""
        self._idle.set()


if sys.version_info >= (3, 12):

    def _start_task(
        routine: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop, context: contextvars.Context
    ) -> asyncio.Task[None]:
        """Make a task that takes its first step now: one that never waits costs no turn of the loop."""
        return asyncio.Task(routine, loop=loop, context=context, eager_start=True)

else:

    def _start_task(
        routine: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop, context: contextvars.Context
    ) -> asyncio.Task[None]:
        """Make a task. Its first step is its own: `current_task()` and `timeout()` would be wrong outside it."""
        return asyncio.Task(routine, loop=loop, context=context)
