"""Manager routines that misbehave: they raise, forget their call, complete it twice, or when it is too late."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Callable, Sequence
from enum import IntEnum, auto
from typing import Any, Final

import rpc_async
from rpc_async import CallCancelled, CallError, CallFailed, CancelReason, RpcStatus, manager
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
from tests.harness import EchoCall, Servicer, serve
from tests.soak.counts import PATIENCE, Budget, Counts, comes
from tests.soak.servers import keeps_nothing

__all__ = ["handlers"]

CALLS = 100
"""On each wire, for each server."""
GRACE = 0.02
"""Seconds."""

Reply = demo_pb2.EchoResponse
_Call = tuple["Sin", rpc_async.AsyncCall[Reply]]
_REPLY: Final = Reply(payload=b"reply")


class Sin(IntEnum):
    """What a routine does."""

    RAISES = auto()
    RAISES_A_CANCEL = auto()
    """`asyncio.CancelledError`, as where its task was cancelled."""
    RAISES_AFTER = auto()
    """After it has completed its call."""
    FORGETS = auto()
    """Returns, and keeps nothing of the call."""
    FORGETS_LATER = auto()
    """Keeps the handle for a while."""
    TWICE = auto()
    """Completes the call, and completes and aborts it again."""
    TWICE_FROM_THREADS = auto()
    WRONG_TYPE = auto()
    """Completes it with a message of another type."""
    TOO_LATE = auto()
    """Keeps the handle until the server has shut down."""


class _Sinner(Servicer):
    """Does what the request says."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self.kept: list[EchoCall] = []

    @manager
    async def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
        sin = Sin(request.payload[0])
        if sin is Sin.RAISES:
            raise RuntimeError("as it was told to")
        if sin is Sin.RAISES_A_CANCEL:
            raise asyncio.CancelledError
        if sin is Sin.RAISES_AFTER:
            call.complete(_REPLY)
            raise RuntimeError("after the end")
        if sin is Sin.TWICE:
            call.complete(_REPLY)
            self.refused(lambda: call.complete(Reply(payload=b"another")))
            self.refused(lambda: call.abort(600, "and then not"))
        elif sin is Sin.TWICE_FROM_THREADS:
            await asyncio.gather(*(asyncio.to_thread(_try_to_complete, call) for _ in range(3)))
        elif sin is Sin.WRONG_TYPE:
            self.refused(lambda: call.complete(demo_pb2.FailResponse()))  # type: ignore[arg-type]  # what is shown
        elif sin is Sin.FORGETS_LATER:
            asyncio.get_running_loop().call_later(0.001, str, call)
        elif sin is Sin.TOO_LATE:
            self.kept.append(call)

    def refused(self, act: Callable[[], object]) -> None:
        """Do what must raise."""
        try:
            act()
        except rpc_async.UsageError:
            return
        self.counts.blame("settled_twice", "a second completion was taken")


def _try_to_complete(call: EchoCall) -> None:
    try:
        call.complete(_REPLY)
    except rpc_async.InvalidAsyncHandle:
        return


_GOOD = (Sin.RAISES_AFTER, Sin.TWICE, Sin.TWICE_FROM_THREADS)
"""Where the client gets the reply all the same."""


async def handlers(counts: Counts, budget: Budget) -> None:
    """Serve calls with routines that misbehave, and shut down: each call settles once, and as it should."""
    rng = random.Random(budget.seed)
    while budget.more(counts.calls):
        await _one_server(counts, rng)


async def _one_server(counts: Counts, rng: random.Random) -> None:
    servicer = _Sinner(counts)
    async with serve(servicer) as (server, target):
        async with (
            rpc_async.connect(target, transport="session") as session,
            rpc_async.connect(target, transport="native") as native,
        ):
            calls: list[_Call] = []
            for channel in (session, native):
                echo = demo_pb2_grpc.DemoStub(channel).Echo
                calls += [
                    (sin, rpc_async.begin(echo, demo_pb2.EchoRequest(payload=bytes([sin]))))
                    for sin in rng.choices(list(Sin), k=CALLS)
                ]
            counts.calls += len(calls)
            await _judge_all(counts, [(sin, call) for sin, call in calls if sin is not Sin.TOO_LATE])
            late = [(sin, call) for sin, call in calls if sin is Sin.TOO_LATE]
            await comes(lambda: len(servicer.kept) == len(late))
            counts.check(not any(call.done() for _, call in late), "a call that is kept was settled")
            await server.stop(GRACE)
            await _judge_all(counts, late)
        for kept in servicer.kept:
            counts.check(kept.cancel_reason is CancelReason.SHUTDOWN, f"{kept!r}: {kept.cancel_reason}")
            told = kept.complete(_REPLY)
            counts.check(told is RpcStatus.CALL_CANCELLED, f"{kept!r}: completed after shutdown: {told}")
        counts.check(await comes(lambda: keeps_nothing(server)), "the server still keeps something")


async def _judge_all(counts: Counts, calls: Sequence[_Call]) -> None:
    gc.collect()  # what is forgotten in a cycle is only known now
    for sin, call in calls:
        try:
            reply = await asyncio.wait_for(call, PATIENCE)
        except TimeoutError:
            counts.blame("hung", f"{sin.name}: {call!r}")
        except CallError as error:
            _judge_failure(counts, sin, error)
        else:
            counts.replies += 1
            counts.check(sin in _GOOD and reply == _REPLY, f"{sin.name}: {reply!r}")


def _judge_failure(counts: Counts, sin: Sin, error: Any) -> None:
    counts.failed += 1
    expected = CallFailed if sin is not Sin.WRONG_TYPE else CallError
    good = isinstance(error, expected) and not isinstance(error, CallCancelled) and sin not in _GOOD
    counts.check(good and error.executed is not False, f"{sin.name}: {error!r}")
    counts.more[f"{sin.name.lower().replace('_', ' ')}: {RpcStatus(error.status).name}"] += 1
