"""The work that is done while things break: calls with numbers, a servicer that keeps count of them, and their end."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum, auto
from typing import Any, Final, NamedTuple

import rpc_async
from rpc_async import AsyncCall, begin, manager
from rpc_async.demo.v1 import demo_pb2
from tests.harness import EchoCall, Servicer
from tests.soak.counts import PATIENCE, Counts, comes

__all__ = ["Caller", "Ledger", "Mode", "Order", "Work"]

Reply = demo_pb2.EchoResponse
_ORDER: Final = struct.Struct(">QBHI")


class Mode(IntEnum):
    """What the manager routine does."""

    TASK = auto()
    """Completes the call in its task."""
    THREAD = auto()
    """Has a thread complete it."""
    WAIT = auto()
    """Completes it when it was asked to stop, or after some time."""
    PARK = auto()
    """Keeps it until the test says so."""


class Order(NamedTuple):
    """What a call asks for: in its request's first bytes."""

    number: int
    mode: Mode = Mode.TASK
    milliseconds: int = 0
    """How long `WAIT` waits."""
    size: int = 0
    """Bytes of the reply."""

    def request(self, padding: int = 0) -> demo_pb2.EchoRequest:
        """Make a request of it, that is so many bytes longer than it need be."""
        return demo_pb2.EchoRequest(payload=_ORDER.pack(*self) + bytes(padding))

    @classmethod
    def read(cls, payload: bytes) -> Order:
        """Read a request."""
        number, mode, milliseconds, size = _ORDER.unpack_from(payload)
        return cls(number, Mode(mode), milliseconds, size)

    def reply(self) -> Reply:
        """Make the reply."""
        return Reply(payload=self.number.to_bytes(8) + bytes(self.size))

    def answered_by(self, reply: Reply) -> bool:
        """Tell whether this is the reply."""
        return reply.payload[:8] == self.number.to_bytes(8) and len(reply.payload) == 8 + self.size


class Ledger:
    """How often something happened to each call, by its number; 255 stands for more."""

    def __init__(self, counts: Iterable[int] = ()) -> None:
        self.counts: Final = bytearray(counts)

    def note(self, number: int) -> None:
        """It happened once more."""
        if number >= len(self.counts):
            self.counts.extend(bytes(max(number + 1, 2 * len(self.counts)) - len(self.counts)))
        self.counts[number] = min(self.counts[number] + 1, 255)

    def __getitem__(self, number: int) -> int:
        return self.counts[number] if number < len(self.counts) else 0

    def total(self) -> int:
        """Return how many calls it happened to."""
        return len(self.counts) - self.counts.count(0)


class Work(Servicer):
    """Does what orders say, and keeps count of what was executed."""

    def __init__(self) -> None:
        self.executed: Final = Ledger()
        self.parked: list[EchoCall] = []
        self._pool = ThreadPoolExecutor(1)

    @manager
    async def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
        order = Order.read(request.payload)
        self.executed.note(order.number)
        if order.mode is Mode.PARK:
            self.parked.append(call)
        elif order.mode is Mode.THREAD:
            self._pool.submit(call.complete, order.reply())
        else:
            if order.mode is Mode.WAIT:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(call.wait_cancelled(), order.milliseconds / 1000)
            else:
                await asyncio.sleep(0)
            call.complete(order.reply())

    def finish(self, size: int) -> int:
        """Complete the calls that were parked, each with so many bytes. Returns how many clients were there still."""
        parked, self.parked = self.parked, []
        reply = Reply(payload=bytes(size))
        return sum(call.complete(reply) is rpc_async.RpcStatus.OK for call in parked)


class Caller:
    """Begins calls, and sees to it that each settles once, and as it may."""

    def __init__(self, counts: Counts) -> None:
        self.counts: Final = counts
        self._settled: Final = Ledger()
        self._replied: list[int] = []
        self._surely_not: list[int] = []
        self._next = 0

    def order(self, mode: Mode = Mode.TASK, milliseconds: int = 0, size: int = 0) -> Order:
        """Give the next call's order its number."""
        number, self._next = self._next, self._next + 1
        return Order(number, mode, milliseconds, size)

    def begin(self, method: Any, order: Order, padding: int = 0, **options: Any) -> AsyncCall[Reply]:
        """Begin a call."""
        call: AsyncCall[Reply] = begin(method, order.request(padding), **options)
        call.user_info = order
        self.counts.calls += 1
        call.add_done_callback(lambda _: self._settled.note(order.number))
        return call

    async def outcome(self, call: AsyncCall[Reply], *may_be: type[rpc_async.CallError]) -> rpc_async.CallError | None:
        """Wait for a call's outcome, which must be its reply, or one of these. Returns the failure, if it is one."""
        order, counts = call.user_info, self.counts
        assert isinstance(order, Order)
        try:
            reply = await asyncio.wait_for(call, PATIENCE)
        except TimeoutError:
            counts.blame("hung", f"{call!r}, {order}")
            call.cancel()
            return None
        except rpc_async.CallError as error:
            self._failed(order, error, may_be)
            return error
        counts.replies += 1
        counts.check(order.answered_by(reply), f"{call!r}: another call's reply")
        self._replied.append(order.number)
        return None

    def _failed(self, order: Order, error: rpc_async.CallError, may_be: tuple[type[rpc_async.CallError], ...]) -> None:
        counts = self.counts
        if error.executed is False:
            self._surely_not.append(order.number)
        if type(error) not in may_be:
            counts.blame("lost", f"{order}: {error!r}")
        elif isinstance(error, rpc_async.CallCancelled):
            counts.cancelled += 1
        elif error.executed is False:
            counts.refused += 1
        else:
            counts.failed += 1

    async def audit(self, executed: Ledger) -> None:
        """Compare what the client was told with what the server did, when every call has settled."""
        counts, settled = self.counts, self._settled
        await comes(lambda: settled.total() == self._next)  # the last notifications
        for number in range(self._next):
            if executed[number] > 1:
                counts.blame("executed_twice", f"call {number}, {executed[number]} times")
            if settled[number] > 1:
                counts.blame("settled_twice", f"call {number}, {settled[number]} times")
            elif not settled[number]:
                counts.blame("hung", f"call {number} was never notified")
        for number in self._replied:
            counts.check(executed[number], f"call {number} has a reply, and was not executed")
        for number in self._surely_not:
            counts.check(not executed[number], f"call {number} was executed, where it surely was not")
