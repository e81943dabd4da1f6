"""Cancelling, deadlines, and what waiting does to a call."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from tests.compat.lab import (
    ALL_KINDS,
    Lab,
    Seen,
    attempt,
    both_ways,
    case,
    downward,
    drained,
    ended,
    method,
    outcome,
    unary,
    upward,
)
from tests.harness import Seen as Later

SOON = 0.15
"""Seconds: a deadline that passes."""
LONG = 60.0
"""Seconds: one that does not."""


class Waiting:
    """Handlers that never answer, and what they have seen."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def wait(self, request: Any, context: Any) -> bytes:
        try:
            self.begun.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return b""

    async def wait_down(self, request: Any, context: Any) -> AsyncIterator[bytes]:
        yield b"first"
        await self.wait(request, context)

    def handlers(self) -> dict[str, Any]:
        return {
            "Wait": unary(self.wait),
            "Down": downward(self.wait_down),
            "Up": upward(self.wait),
            "Both": both_ways(self.wait_down),
        }


@case()
async def cancel_while_it_runs(lab: Lab) -> Seen:
    waiting = Waiting()
    call = method(await lab.channel(waiting.handlers()), "Wait")(b"")
    done = call.done()
    await waiting.begun.wait()
    seen = {"done before": done, "cancel": call.cancel(), "again": call.cancel()}
    await waiting.cancelled.wait()
    return {**seen, **await ended(call)}


@case()
async def awaiting_a_cancelled_call(lab: Lab) -> Seen:
    waiting = Waiting()
    call = method(await lab.channel(waiting.handlers()), "Wait")(b"")
    await waiting.begun.wait()
    call.cancel()
    return {"awaited": await outcome(call)}


@case(managers=True)
async def what_a_cancel_does_to_its_handler(lab: Lab) -> Seen:
    begun, ended_as = asyncio.Event(), Later[str]()

    async def work(request: bytes, context: Any) -> bytes:
        begun.set()
        try:
            await asyncio.sleep(0.3)
        except asyncio.CancelledError:
            ended_as.set("CancelledError")
            raise
        ended_as.set("it went on to its end")
        return b"done"

    call = method(await lab.channel({"Work": unary(work)}), "Work")(b"")
    await begun.wait()
    call.cancel()
    return {"the handler": await ended_as.get(), "code": (await call.code()).name}


@case()
async def cancel_before_it_left(lab: Lab) -> Seen:
    waiting = Waiting()
    call = method(await lab.channel(waiting.handlers()), "Wait")(b"")
    return {"cancel": call.cancel(), "code": (await call.code()).name, "cancelled": call.cancelled()}


@case(managers=True)
async def cancel_after_the_end(lab: Lab) -> Seen:
    call = method(await lab.channel(ALL_KINDS), "Echo")(b"x")
    await call
    return {"cancel": call.cancel(), "reply": await call, **await ended(call)}


@case()
async def cancel_streams(lab: Lab) -> Seen:
    waiting = Waiting()
    channel = await lab.channel(waiting.handlers())
    down = method(channel, "Down", "unary_stream")(b"")
    first = await down.read()
    up = method(channel, "Up", "stream_unary")()
    await up.write(b"a")
    both = method(channel, "Both", "stream_stream")()
    await both.write(b"a")
    await both.read()
    seen: Seen = {"first": first, "cancel": [call.cancel() for call in (down, up, both)]}
    seen["read"] = await outcome(down.read())
    seen["awaited"] = await outcome(up)
    seen["write"] = await outcome(both.write(b"b"))
    return {**seen, "codes": [(await call.code()).name for call in (down, up, both)]}


async def _wait_for(call: Any) -> Any:
    """Wait for a call and give up: what the waiting raises, and whether the call is still there."""
    waited = await outcome(asyncio.wait_for(call, SOON))
    return waited


@case()
async def wait_for_that_times_out(lab: Lab) -> Seen:
    waiting = Waiting()
    call = method(await lab.channel(waiting.handlers()), "Wait")(b"")
    await waiting.begun.wait()
    waited = await _wait_for(call)
    return {"waited": waited, "the call is over": call.done()}


@case()
async def a_task_that_waits_is_cancelled(lab: Lab) -> Seen:
    waiting = Waiting()
    call = method(await lab.channel(waiting.handlers()), "Wait")(b"")

    async def wait() -> None:
        await call

    task = asyncio.ensure_future(wait())
    await waiting.begun.wait()
    task.cancel()
    raised = await asyncio.gather(task, return_exceptions=True)
    return {"task": type(raised[0]).__name__, "the call is over": call.done()}


@case()
async def a_task_that_iterates_is_cancelled(lab: Lab) -> Seen:
    waiting = Waiting()
    call = method(await lab.channel(waiting.handlers()), "Down", "unary_stream")(b"")
    first = asyncio.Event()

    async def iterate() -> None:
        async for _ in call:
            first.set()

    task = asyncio.ensure_future(iterate())
    await first.wait()
    task.cancel()
    raised = await asyncio.gather(task, return_exceptions=True)
    await waiting.cancelled.wait()
    return {"task": type(raised[0]).__name__, "code": (await call.code()).name}


@case()
async def a_deadline_that_passes(lab: Lab) -> Seen:
    waiting = Waiting()
    channel = await lab.channel(waiting.handlers())
    call = method(channel, "Wait")(b"", timeout=SOON)
    seen = {"unary": await outcome(call), **await ended(call), "left": call.time_remaining()}
    await waiting.cancelled.wait()
    return {
        **seen,
        "down": await drained(method(channel, "Down", "unary_stream")(b"", timeout=SOON)),
        "up": await outcome(method(channel, "Up", "stream_unary")(iter([b"a"]), timeout=SOON)),
        "both": await drained(method(channel, "Both", "stream_stream")(iter([b"a"]), timeout=SOON)),
    }


@case(managers=True)
async def a_deadline_that_is_met(lab: Lab) -> Seen:
    async def left(request: bytes, context: Any) -> bytes:
        remaining = context.time_remaining()
        return b"none" if remaining is None else b"%d" % (0 < remaining <= LONG + 1)

    call = method(await lab.channel({"Left": unary(left)}), "Left")
    timed = call(b"", timeout=LONG)
    remaining = timed.time_remaining()
    return {
        "in time": await timed,
        "on the client": remaining is not None and 0 < remaining <= LONG,
        "without one": await call(b""),
    }


@case()
async def odd_timeouts(lab: Lab) -> Seen:
    call = method(await lab.channel(ALL_KINDS), "Echo")
    far = {f"{seconds:g} s": await outcome(call(b"x", timeout=seconds)) for seconds in (1e5, 1e8)}
    return {**far, "-1 s": await outcome(call(b"x", timeout=-1))}  # at 0 s gRPC's server may still be in time


@case()
async def timeouts_beyond_what_can_be_counted(lab: Lab) -> Seen:
    call = method(await lab.channel(ALL_KINDS), "Echo")
    odd = (1e10, 1e18, math.inf)
    return {f"{seconds:g} s": await attempt(partial(call, b"x", timeout=seconds)) for seconds in odd}


@case()
async def timeouts_that_are_no_numbers(lab: Lab) -> Seen:
    call = method(await lab.channel(ALL_KINDS), "Echo")
    return {
        "nan": await attempt(lambda: call(b"x", timeout=math.nan)),
        "text": await attempt(lambda: call(b"x", timeout="1")),
    }


@case()
async def a_handler_whose_client_has_gone_is_cancelled(lab: Lab) -> Seen:
    waiting = Waiting()
    channel = await lab.channel(waiting.handlers())
    call = method(channel, "Wait")(b"")
    await waiting.begun.wait()
    await channel.close()
    await waiting.cancelled.wait()
    return {"code": (await call.code()).name}


@case()
async def a_handler_that_goes_on_though_it_was_cancelled(lab: Lab) -> Seen:
    begun, gone = asyncio.Event(), asyncio.Event()

    async def stubborn(request: bytes, context: Any) -> bytes:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            gone.set()
        return b"too late"

    channel = await lab.channel({"Stubborn": unary(stubborn), "Echo": ALL_KINDS["Echo"]})
    call = method(channel, "Stubborn")(b"")
    await begun.wait()
    call.cancel()
    await gone.wait()
    return {"code": (await call.code()).name, "next": await method(channel, "Echo")(b"next")}


@case()
async def a_handler_that_raises_cancelled_error_itself(lab: Lab) -> Seen:
    async def fail(request: bytes, context: Any) -> bytes:
        raise asyncio.CancelledError

    channel = await lab.channel({"Fail": unary(fail), "Echo": ALL_KINDS["Echo"]})
    return {
        "failed": await outcome(method(channel, "Fail")(b"", timeout=1)),
        "next": await method(channel, "Echo")(b"next"),
    }
