"""Completions, cancels, aborts and deadlines that race: each call has one outcome."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import rpc_async
from rpc_async import CallAborted, CallCancelled, CallError, CancelReason, DeadlineExceeded, RpcStatus, manager
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
from tests.harness import EchoCall, Servicer, SocketWire, serve
from tests.soak.counts import Budget, Counts, comes
from tests.soak.servers import keeps_nothing

__all__ = ["races"]

THREADS = 4
BATCH = 1000
"""Calls that are raced at a time."""
CODE = 600
"""What the server aborts with."""
DEADLINE = 0.25
"""Seconds, in every tenth call: about when the batch is raced."""
NATIVE_SHARE = 10
"""One batch of so many goes natively."""

Reply = demo_pb2.EchoResponse
_REPLY = Reply(payload=b"reply")


class _Raced:
    """One call, with both its handles, and what was taken of all that was done to it."""

    __slots__ = ("aborted", "call", "counts", "ended", "notified", "number", "server_call")

    def __init__(self, number: int, call: rpc_async.AsyncCall[Reply], counts: Counts) -> None:
        self.number = number
        self.call = call
        self.counts = counts
        self.server_call: EchoCall | None = None
        """None of a call that was out of time before it arrived."""
        self.ended: list[str] = []
        """What ended it on the server. A list's `append` is atomic."""
        self.aborted: list[bool] = []
        """Aborts by the client that were taken."""
        self.notified: list[bool] = []
        call.add_done_callback(lambda _: self.notified.append(True))

    def complete(self) -> None:
        self._end("completed", lambda server_call: server_call.complete(_REPLY))

    def abort(self) -> None:
        self._end("aborted", lambda server_call: server_call.abort(CODE, "raced"))

    def _end(self, how: str, end: Callable[[EchoCall], object]) -> None:
        if self.server_call is not None:
            try:
                end(self.server_call)
            except rpc_async.InvalidAsyncHandle:
                return
            self.ended.append(how)

    def ask(self) -> None:
        self.call.request_cancel()

    def cancel(self) -> None:
        if self.call.cancel():
            self.aborted.append(True)

    def judge(self) -> None:
        """See whether everybody was told the same, and once."""
        counts, ended = self.counts, self.ended
        if len(ended) > 1:
            counts.blame("executed_twice", f"call {self.number} was ended by {ended}")
        if len(self.aborted) > 1 or len(self.notified) > 1:
            counts.blame("settled_twice", f"call {self.number}: {self.aborted}, {self.notified}")
        if not ((ended or self.server_call is None) and self.notified):
            counts.blame("hung", f"call {self.number}: {ended}, {self.notified}")
        try:
            reply = self.call.complete()
        except CallError as error:
            self._judge_failure(error)
        else:
            counts.replies += 1
            good = reply == _REPLY and ended == ["completed"] and not self.aborted
            counts.check(good and self.call.status() is RpcStatus.OK, f"call {self.number}: {reply!r}, {ended}")

    def _judge_failure(self, error: CallError) -> None:
        counts = self.counts
        if type(error) is CallAborted:
            counts.failed += 1
            good = error.status == CODE and self.ended == ["aborted"] and not self.aborted
        else:
            counts.cancelled += 1
            late = type(error) is DeadlineExceeded and error.cancel_reason is CancelReason.DEADLINE
            good = not self.aborted if late else type(error) is CallCancelled and len(self.aborted) == 1
        counts.check(good, f"call {self.number}: {error!r}, {self.ended}, {self.aborted}")


class _Keeping(Servicer):
    """Gives each call its server's handle."""

    def __init__(self) -> None:
        self.raced: list[_Raced] = []
        """The calls that wait for theirs."""

    @manager(inline=True)
    def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
        one = self.raced[int.from_bytes(request.payload)] if self.raced else None
        if one is None or one.call.call_id != call.call_id:
            call.complete(_REPLY)  # it was out of time before it arrived
        else:
            one.server_call = call

    async def all_here(self) -> bool:
        """Wait until every call has arrived or is out of time."""
        return await comes(lambda: all(one.server_call is not None or one.call.done() for one in self.raced))


async def races(counts: Counts, budget: Budget) -> None:
    """Complete, abort, ask to stop, cancel and time out the same calls from several threads at once."""
    rng = random.Random(budget.seed)
    servicer = _Keeping()
    async with serve(servicer) as (server, target):
        async with rpc_async.connect(target, transport="session") as session:
            async with rpc_async.connect(target, transport="native") as native:
                batches = 0
                while budget.more(counts.calls):
                    wire: SocketWire = "native" if batches % NATIVE_SHARE == NATIVE_SHARE - 1 else "session"
                    echo = demo_pb2_grpc.DemoStub(native if wire == "native" else session).Echo
                    await _race(counts, servicer, echo, rng)
                    batches += 1
        await comes(lambda: keeps_nothing(server))
        counts.check(keeps_nothing(server), "the server still keeps something")


async def _race(counts: Counts, servicer: _Keeping, method: Any, rng: random.Random) -> None:
    raced = servicer.raced = []
    for number in range(BATCH):
        timeout = DEADLINE if number % 10 == 0 else None
        call = rpc_async.begin(method, demo_pb2.EchoRequest(payload=number.to_bytes(4)), timeout=timeout)
        raced.append(_Raced(number, call, counts))
    counts.calls += BATCH
    if not await servicer.all_here():
        counts.blame("hung", f"only {sum(one.server_call is not None for one in raced)} of {BATCH} calls arrived")
    servicer.raced = []
    await asyncio.to_thread(_hammer, raced, [rng.random() for _ in range(THREADS)])
    await comes(lambda: all(one.notified for one in raced))
    for one in raced:
        one.judge()


def _hammer(raced: list[_Raced], seeds: list[float]) -> None:
    """Do to every call what its lot is, in several threads at once, in each in an order of its own."""
    barrier = threading.Barrier(len(seeds))

    def work(seed: float) -> None:
        rng = random.Random(seed)
        actions: list[Callable[[], None]] = []
        for one in raced:
            lot = one.number % 4
            actions.append(one.complete if lot != 1 else one.abort)
            actions += [partial(rng.choice((one.complete, one.abort)))] if lot == 2 else []
            actions += [one.ask] if lot > 1 or rng.random() < 0.2 else []
            actions += [one.cancel] if lot == 3 else []
        rng.shuffle(actions)
        barrier.wait()
        for action in actions:
            action()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
