"""`FakeClock`: an event loop on virtual time, for tests of deadlines, grace and linger that take no time.

The model is trio's `MockClock`. An event loop asks its selector to wait for files, and says for how long: until its
next timer is due. That is asked only when nothing else is left to do. So the whole of a virtual time is a selector that
does not wait, and puts the clock forward in its place.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import selectors
from collections.abc import Coroutine, Mapping
from itertools import count
from typing import Any, Final, TypeVar

from rpc_async.errors import InvalidArgument, InvalidAsyncCall

__all__ = ["FakeClock"]

_ROUNDING: Final = 1e-9
"""Seconds: what adding times may be wrong by. A loop runs its timers that much too early."""

T = TypeVar("T")
_Ready = tuple[selectors.SelectorKey, int]


class FakeClock:
    """A clock that stands still until a test moves it, and the event loop that lives by it.

        clock = FakeClock()

        async def main():
            async with rpc_async.testing.pair(...) as pair:
                call = rpc_async.begin(stub.Echo, request, timeout=3600)
                await clock.advance(3600)
                assert call.done()

        clock.run(main())

    All that waits by the loop follows it: `asyncio.sleep` and `timeout`, and of this library every deadline,
    `abort_after`, back-off, linger and grace. What waits in a thread does not (`AsyncCall.result(timeout)`), nor do
    sockets, nor gRPC itself: so join client and server by `pair()`.
    """

    def __init__(self, *, autojump: float | None = None) -> None:
        """Make a clock, which stands at 0.

        Args:
            autojump: Jump to the next timer whenever the loop has had nothing to do for this many real seconds; 0: at
                once. None: never, and time stands still until `advance`. The loop cannot see what other threads, other
                processes and the network are about to bring: where a test waits for those too, give them time, such as
                0.05, or a timer will be over before their answer comes.
        """
        if autojump is not None and not (math.isfinite(autojump) and autojump >= 0):
            raise InvalidArgument(f"autojump {autojump}: seconds, 0 or more, or None for never")
        self._autojump = autojump
        self._now = 0.0
        self._goals: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        return f"<FakeClock at {self._now:g} s>"

    def time(self) -> float:
        """Return the seconds that have passed on this clock. From any thread."""
        return self._now

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """Make the event loop that lives by this clock: a loop factory, for `asyncio.Runner` and test frameworks.

        Raises:
            InvalidAsyncCall: It has one already that is not closed.
        """
        if self._loop is not None and not self._loop.is_closed():
            raise InvalidAsyncCall(f"{self!r} has an event loop already: make another clock for another loop")
        self._loop = _Loop(self)
        return self._loop

    def run(self, main: Coroutine[Any, Any, T], *, debug: bool | None = None) -> T:
        """Run a coroutine as `asyncio.run` does, on an event loop that lives by this clock.

        Args:
            main: The coroutine.
            debug: As in `asyncio.run`.
        """
        autojump = self._autojump
        try:
            with asyncio.Runner(debug=debug, loop_factory=self.new_event_loop) as runner:
                try:
                    return runner.run(main)
                finally:
                    self._autojump = None  # what the loop's end waits for is threads
        finally:
            self._autojump = autojump

    async def advance(self, seconds: float) -> None:
        """Put the clock forward, and have all that is due by then done, in order, with all that follows from it.

        Each timer runs when the clock shows its own time. When this returns, nothing is left to do until the next one,
        as far as this loop can see: see `autojump` for what it cannot.

        Args:
            seconds: Seconds, 0 or more. With 0, only what is ready is done.

        Raises:
            InvalidArgument: A negative number of seconds, or one that is none.
            InvalidAsyncCall: Another event loop runs here.
        """
        if not (math.isfinite(seconds) and seconds >= 0):
            raise InvalidArgument(f"advance {seconds}: seconds, 0 or more; the clock was not moved")
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            raise InvalidAsyncCall(f"{self!r} has another event loop: run the test by `clock.run(main())`")
        done: asyncio.Future[None] = loop.create_future()
        heapq.heappush(self._goals, (self._now + seconds, next(self._order), done))
        await done

    # -- the selector's side ----------------------------------------------------------------------------

    def _wait(self, selector: selectors.BaseSelector, timeout: float | None) -> list[_Ready]:
        """Do what a loop's selector is asked to: wait for files until the next timer is due, `timeout` from now."""
        if timeout is not None and timeout <= 0:
            if self._now + _ROUNDING == self._now:  # after some months: what is due now would never be found due
                self._now = math.nextafter(self._now, math.inf)
            return selector.select(0)
        while self._goals and self._goals[0][2].done():
            heapq.heappop(self._goals)  # whoever wanted it was cancelled
        if not self._goals:
            ready = selector.select(None if timeout is None else self._autojump)
            if not ready and timeout is not None:
                self._now += timeout
            return ready
        ready = selector.select(0)
        if not ready:
            self._move(math.inf if timeout is None else timeout)
        return ready

    def _move(self, timeout: float) -> None:
        """Nothing is left to do now: go to the next timer, or to the goal if that is nearer."""
        goal, _, done = self._goals[0]
        if self._now + timeout <= goal + max(_ROUNDING, 2 * math.ulp(goal)):
            self._now += timeout
            return
        self._now = max(self._now, goal)
        heapq.heappop(self._goals)
        done.set_result(None)


class _Loop(asyncio.SelectorEventLoop):
    """An event loop on virtual time."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock: Final = clock
        super().__init__(_Selector(clock))

    def time(self) -> float:
        return self._clock.time()


class _Selector(selectors.BaseSelector):
    """The system's selector, which waits as the clock says."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._inner = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[_Ready]:
        return self._clock._wait(self._inner, timeout)

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._inner.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._inner.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._inner.modify(fileobj, events, data)

    def close(self) -> None:
        self._inner.close()

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._inner.get_key(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._inner.get_map()
