"""A checker of the sender's rule: every order of events over two real links, with bounds so small that all count.

A state is both links, what each side's driver knows (whether its writer is awake), and what is on its way. From each
state every event that may come next is tried: a frame is pushed, small or large, or put first, dropped, or taken back;
a writer that is awake asks for a batch; a batch is heard, by the server in parts, as its driver does; time passes; the
stream is cut. What comes from outside is bounded by a budget, so the states are finitely many, and all of them are
visited, the nearest first.
"""

from __future__ import annotations

import copyreg
import pickle
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

import pytest

from rpc_async.core import link
from rpc_async.core.frames import Frame, FrameKind
from rpc_async.core.link import Link

BOUNDS: Final = {
    "link.MAX_PAYLOAD": 2, "link.MAX_BATCH": 5, "link.MAX_BATCH_FRAMES": 3, "link.FRAME_COST": 1,
    "link.PIECES": 2, "link.TRANSFERS": 2, "link.WINDOW": 30, "link.ACK_BYTES": 3,
    "link.BATCH_ROOM": 0, "pacing.SHARE": 2,
    "pacing.MAX_PAYLOAD": 2, "pacing.LEAST": 7, "pacing.AT_FIRST": 7, "pacing.MOST": 9, "pacing.STEP": 2,
}  # fmt: skip
"""The bounds in bytes, as small as they can be while they stand to each other as they do; those in frames stay."""
FRAMES: Final = {**BOUNDS, "link.WINDOW_FRAMES": 3, "link.ACK_FRAMES": 2, "link.ACK_BYTES": 1000, "link.WINDOW": 1000}
"""The bounds in frames; those in bytes never count."""
SIZES: Final = (2, 7)
"""Bytes of what is pushed: a frame, and four pieces, of which the last is short."""


def shrink(patch: pytest.MonkeyPatch, bounds: Mapping[str, int]) -> None:
    """Make the bounds of `rpc_async.core` small."""
    for name, value in bounds.items():
        patch.setattr(f"rpc_async.core.{name}", value)


copyreg.pickle(memoryview, lambda view: (memoryview, (view.tobytes(),)))  # a piece is a view


class Budget(NamedTuple):
    """How often each thing may still come from outside."""

    client: int = 0
    """Frames that the client pushes, of any size."""
    server: int = 0
    small: int = 0
    """Small frames that the client pushes."""
    drops: int = 0
    withdrawals: int = 0
    ticks: int = 0
    cuts: int = 0


class Side:
    """One side: its link, and what its driver knows."""

    def __init__(self, *, causal: bool, chunk: int) -> None:
        self.awake = True  # a writer with a new stream looks without being woken
        self.link = Link(causal=causal, wake=self.wake)
        self.link.allow(4)
        self.chunk = chunk
        self.pushed = 0

    def wake(self) -> None:
        self.awake = True


Batch = tuple[list[Frame], int]


@dataclass
class World:
    """A state."""

    client: Side
    server: Side
    up: deque[Batch]
    down: deque[Batch]
    now: int
    budget: Budget

    @classmethod
    def first(cls, causal: bool, budget: Budget) -> World:
        return cls(Side(causal=causal, chunk=99), Side(causal=False, chunk=2), deque(), deque(), 0, budget)

    def copy(self) -> World:
        made: World = pickle.loads(pickle.dumps(self, pickle.HIGHEST_PROTOCOL))
        return made

    def key(self) -> Any:
        """Return what tells this state from others: all but how far the counts have come."""
        ours, theirs = self.client.link, self.server.link
        return (
            _key(self.client, self.now), _key(self.server, self.now), self.budget,
            tuple((len(frames), *frames, ack - ours.acknowledged) for frames, ack in self.down),
            tuple((len(frames), *frames, ack - theirs.acknowledged) for frames, ack in self.up),
            ours._sent - theirs.received, theirs._sent - ours.received,
        )  # fmt: skip

    # -- events ---------------------------------------------------------------------------------------------

    def events(self) -> Iterator[tuple[str, Callable[[World], None]]]:
        """Iterate over all that may come next: what the drivers do by themselves first."""
        for name, side in (("client", self.client), ("server", self.server)):
            if side.awake:
                yield f"{name} writes", partial(World.write, name=name)
        if self.up:
            yield "server hears", partial(World.hear, name="server")
        if self.down:
            yield "client hears", partial(World.hear, name="client")
        budget = self.budget
        for name, side in (("client", self.client), ("server", self.server)):
            if getattr(budget, name):
                for size in SIZES:
                    yield f"{name} pushes {size}", partial(World.push, name=name, size=size)
                yield f"{name} puts first", partial(World.push, name=name, size=-1)
            if budget.drops:
                for _, number, _ in side.link.unfinished():
                    yield f"{name} drops {number}", partial(World.drop, name=name, number=number)
        if budget.small:
            yield "client pushes a small one", World.push_small
        if budget.withdrawals:
            for number in {frame[1] for frame in self.client.link.never_left()}:
                yield f"client takes {number} back", partial(World.withdraw, number=number)
        if budget.ticks:
            yield "time passes", World.tick
        if budget.cuts:
            yield "a cut", World.cut

    @property
    def quiet(self) -> bool:
        """Whether nothing comes by itself any more."""
        return not (self.client.awake or self.server.awake or self.up or self.down)

    def _spend(self, name: str) -> None:
        self.budget = self.budget._replace(**{name: getattr(self.budget, name) - 1})

    def write(self, name: str) -> None:
        side: Side = getattr(self, name)
        frames = side.link.next(self.now)
        if frames is None:
            side.awake = False
        else:
            (self.up if name == "client" else self.down).append((frames, side.link.ack()))

    def hear(self, name: str) -> None:
        side: Side = getattr(self, name)
        frames, ack = (self.down if name == "client" else self.up).popleft()
        size = sum(len(payload) + 1 for _, _, payload in frames) + 1
        for begin in range(0, len(frames) or 1, side.chunk):  # as `ServedSession` does
            part = frames[begin : begin + side.chunk]
            side.link.arrived(len(part), size if begin + side.chunk >= len(frames) else 0, ack, self.now)

    def push_small(self) -> None:
        self._spend("small")
        self.client.pushed += 1
        self.client.link.push(FrameKind.CALL, self.client.pushed, b"")

    def push(self, name: str, size: int) -> None:
        self._spend(name)
        side: Side = getattr(self, name)
        side.pushed += 1
        if size < 0:
            side.link.push_first(FrameKind.CANCEL, side.pushed, b"")
        else:
            side.link.push(FrameKind.CALL, side.pushed, bytes(size))

    def drop(self, name: str, number: int) -> None:
        self._spend("drops")
        assert getattr(self, name).link.drop(number)

    def withdraw(self, number: int) -> None:
        self._spend("withdrawals")
        assert self.client.link.withdraw(lambda frame: frame[1] == number)

    def tick(self) -> None:
        self._spend("ticks")
        self.now += 1

    def cut(self) -> None:
        self._spend("cuts")
        self.up.clear()
        self.down.clear()
        ours, theirs = self.client.link, self.server.link
        received = ours.received, theirs.received
        ours.resume(received[1])
        theirs.resume(received[0])
        self.client.awake = self.server.awake = True

    # -- what must hold -------------------------------------------------------------------------------------

    def check(self) -> None:
        """See that nobody sleeps who could send; and that nothing waits where nothing is on its way that could help it.

        Raises:
            AssertionError: It is not so.
        """
        for name, other in (("client", self.server), ("server", self.client)):
            side: Side = getattr(self, name)
            one = side.link
            assert side.awake or not one.wants_to_send, f"the {name} may send, and nobody looks"
            assert side.awake or one.asleep, f"the {name}'s link takes its writer to be awake"
            if self.quiet:
                assert one.all_taken, f"the {name} waits for what nothing is going to say"
                assert one._pacer.room, f"the {name} has no room, and nothing is going to make any"
                assert one._sent == other.link.received, f"not all of the {name}'s frames have come"


def _key(side: Side, now: int) -> Any:
    one = side.link
    pacer = one._pacer
    base = one.acknowledged

    def large(item: Any) -> Any:
        return (item.number, len(item.payload), item.taken) if isinstance(item, link._Large) else item

    return (
        side.awake, side.pushed, one._causal,
        tuple(map(large, one._queue)), tuple(map(large, one._large)), tuple(one._unfinished),
        tuple(tuple(batch.frames) for batch in one._retained), tuple(tuple(batch.frames) for batch in one._again),
        one._sent - base, one.received - one._told, one._unacknowledged_bytes, one._empty,
        tuple((sent.frames - base, sent.size, sent.at - now, pacer._arrived - sent.before) for sent in pacer._flight),
        pacer._in_flight, pacer._batch, pacer._window, pacer._searching, pacer._shortest,
        pacer._measured_at - now, pacer._reduced_at - now, pacer._small_at - now, pacer._rate, one._over_bytes,
    )  # fmt: skip


class Explored(NamedTuple):
    """What was visited."""

    states: int
    depth: int
    """Events until the last of them."""
    quiet: int
    """States in which nothing came by itself any more."""


def explore(first: World) -> Explored:
    """Visit every state that can be reached, the nearest first, and check each.

    Raises:
        AssertionError: A state is wrong. The events that lead to it are in the message.
    """
    seen = {first.key()}
    ahead: deque[tuple[World, int, Any]] = deque([(first, 0, None)])
    deepest, quiet = 0, 0
    while ahead:
        world, depth, path = ahead.popleft()
        deepest, quiet = depth, quiet + world.quiet
        for name, event in world.events():
            after = world.copy()
            event(after)
            try:
                after.check()
            except AssertionError as error:
                raise AssertionError(f"{error}, after: {', '.join(_names((name, path)))}") from error
            if (key := after.key()) not in seen:
                seen.add(key)
                ahead.append((after, depth + 1, (name, path)))
    return Explored(len(seen), deepest, quiet)


def _names(path: Any) -> list[str]:
    names: list[str] = []
    while path is not None:
        name, path = path
        names.append(name)
    return names[::-1]
