"""Channels: connecting, waiting for it, closing."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import grpc
import grpc.aio

from tests.compat.ends import Waiting
from tests.compat.lab import ALL_KINDS, Lab, Seen, attempt, case, ended, method, outcome

STATES = grpc.ChannelConnectivity


def nobody() -> str:
    """Return a target where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@case()
async def nobody_listens(lab: Lab) -> Seen:
    call = method(lab.connect(nobody()), "Echo")
    first, second = call(b""), call(b"", wait_for_ready=False)
    return {
        "code": (await first.code()).name,
        "explained": "refused" in (await first.details()).lower(),
        "without waiting": (await second.code()).name,
        "raises": (await outcome(first)).split(":")[0],
    }


@case()
async def wait_for_ready_and_a_deadline(lab: Lab) -> Seen:
    call = method(lab.connect(nobody()), "Echo")(b"", wait_for_ready=True, timeout=0.2)
    return {"code": (await call.code()).name}


@case()
async def wait_for_ready_and_a_server_that_comes(lab: Lab) -> Seen:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    channel = lab.connect(f"127.0.0.1:{port}", options=[("grpc.initial_reconnect_backoff_ms", 100)])
    call = method(channel, "Echo")(b"late", wait_for_ready=True)
    while channel.get_state() is not STATES.TRANSIENT_FAILURE:
        await channel.wait_for_state_change(channel.get_state())
    pending = call.done()
    await lab.serve(ALL_KINDS, address=f"127.0.0.1:{port}")
    return {"done before": pending, "reply": await call}


@case()
async def wait_for_connection(lab: Lab) -> Seen:
    channel, alone = await lab.channel(ALL_KINDS), lab.connect(nobody())
    seen = {}
    for kind, name, argument in (
        ("unary_unary", "Echo", b"x"),
        ("unary_stream", "Count", b"1"),
        ("stream_unary", "Join", None),
        ("stream_stream", "Chat", None),
    ):
        arguments = () if argument is None else (argument,)
        good = method(channel, name, kind)(*arguments)
        bad = method(alone, name, kind)(*arguments)
        seen[f"{kind}, somebody"] = await outcome(good.wait_for_connection())
        seen[f"{kind}, nobody"] = str(await outcome(bad.wait_for_connection())).split(":")[0]
        good.cancel()
    return seen


@case()
async def the_states_of_a_connection(lab: Lab) -> Seen:
    served = await lab.serve(ALL_KINDS)
    channel = lab.connect(served.target)
    seen: Seen = {"at first": channel.get_state().name}
    state = channel.get_state(try_to_connect=True)
    while state is not STATES.READY:
        await channel.wait_for_state_change(state)
        state = channel.get_state()
    seen["reply"] = await method(channel, "Echo")(b"x")
    seen["then"] = channel.get_state().name
    await channel.close()
    return {**seen, "closed": channel.get_state().name}


@case()
async def the_states_with_nobody_there(lab: Lab) -> Seen:
    channel = lab.connect(nobody())
    state = channel.get_state(try_to_connect=True)
    seen = [state.name]
    while state is not STATES.TRANSIENT_FAILURE:
        await channel.wait_for_state_change(state)
        state = channel.get_state()
    return {"first": seen, "last": state.name}


@case()
async def channel_ready(lab: Lab) -> Seen:
    channel = await lab.channel(ALL_KINDS)
    ready = await outcome(channel.channel_ready())
    return {"ready": ready, "state": channel.get_state().name, "reply": await method(channel, "Echo")(b"x")}


@case()
async def channel_ready_with_nobody_there(lab: Lab) -> Seen:
    channel = lab.connect(nobody())
    return {"ready": await outcome(asyncio.wait_for(channel.channel_ready(), 0.3))}


@case()
async def close_aborts_what_runs(lab: Lab) -> Seen:
    waiting = Waiting()
    channel = await lab.channel(waiting.handlers())
    call, down = method(channel, "Wait")(b""), method(channel, "Down", "unary_stream")(b"")
    await waiting.begun.wait()
    await down.read()
    await channel.close()
    return {"unary": call.done(), "code": (await call.code()).name, "down": (await down.code()).name}


@case()
async def close_with_grace_lets_calls_end(lab: Lab) -> Seen:
    begun, go = asyncio.Event(), asyncio.Event()

    async def wait(request: bytes, context: Any) -> bytes:
        begun.set()
        await go.wait()
        return b"in time"

    channel = await lab.channel({"Wait": grpc.unary_unary_rpc_method_handler(wait)})
    call = method(channel, "Wait")(b"")
    await begun.wait()
    closing = asyncio.ensure_future(channel.close(5.0))
    asyncio.get_running_loop().call_later(0.1, go.set)
    await closing
    return {"reply": await outcome(call)}


@case()
async def close_with_grace_that_runs_out(lab: Lab) -> Seen:
    waiting = Waiting()
    channel = await lab.channel(waiting.handlers())
    call = method(channel, "Wait")(b"")
    await waiting.begun.wait()
    await channel.close(0.1)
    return {"code": (await call.code()).name}


@case()
async def what_a_closed_channel_says(lab: Lab) -> Seen:
    channel = await lab.channel(ALL_KINDS)
    call, down = method(channel, "Echo"), method(channel, "Count", "unary_stream")
    up, both = method(channel, "Join", "stream_unary"), method(channel, "Chat", "stream_stream")
    await call(b"x")
    await channel.close()
    return {
        "again": await outcome(channel.close()),
        "unary": await attempt(lambda: call(b"x")),
        "down": await attempt(lambda: down(b"1")),
        "up": await attempt(lambda: up(iter([b"x"]))),
        "both": await attempt(lambda: both(iter([b"x"]))),
        "state": channel.get_state().name,
        "change": await attempt(lambda: channel.wait_for_state_change(STATES.SHUTDOWN)),
        "ready": await attempt(channel.channel_ready),
    }


@case()
async def a_channel_that_closes_beside_calls_of_another(lab: Lab) -> Seen:
    waiting = Waiting()
    served = await lab.serve(waiting.handlers())
    call = method(lab.connect(served.target), "Wait")(b"")
    asked = [asyncio.ensure_future(one) for one in (call.code(), call.details(), call.initial_metadata())]
    await waiting.begun.wait()
    for other in (lab.connect(served.target), grpc.aio.insecure_channel(served.target)):
        await other.close()
    seen = {"the call": call.done(), "asked": [one.done() for one in asked]}
    call.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    return seen


@case()
async def a_channel_as_a_context(lab: Lab) -> Seen:
    served = await lab.serve(ALL_KINDS)
    async with lab.connect(served.target) as channel:
        inside = await method(channel, "Echo")(b"x")
    return {"inside": inside, "after": channel.get_state().name}


@case()
async def a_server_that_went_and_came_back(lab: Lab) -> Seen:
    served = await lab.serve(ALL_KINDS, options=[("grpc.so_reuseport", 0)])
    channel = lab.connect(served.target, options=[("grpc.initial_reconnect_backoff_ms", 100)])
    first = await method(channel, "Echo")(b"one")
    await served.server.stop(None)
    lost = method(channel, "Echo")(b"two")
    code = (await lost.code()).name
    await lab.serve(ALL_KINDS, address=f"127.0.0.1:{served.port}", options=[("grpc.so_reuseport", 0)])
    again = await method(channel, "Echo")(b"three", wait_for_ready=True)
    return {"first": first, "meanwhile": code, "again": again}


@case()
async def targets(lab: Lab) -> Seen:
    served = await lab.serve(ALL_KINDS)
    seen = {}
    for form in ("127.0.0.1:{}", "ipv4:127.0.0.1:{}", "dns:///localhost:{}", "localhost:{}"):
        seen[form] = await method(lab.connect(form.format(served.port)), "Echo")(b"x")
    return seen


@case()
async def a_socket_without_a_file(lab: Lab) -> Seen:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        name = f"unix-abstract:compat-{free.getsockname()[1]}-{lab.mix}"
    await lab.serve(ALL_KINDS, address=name)
    return {"reply": await outcome(method(lab.connect(name), "Echo")(b"x"))}


@case()
async def targets_that_lead_nowhere(lab: Lab) -> Seen:
    async def one(target: str) -> Any:
        return await attempt(lambda: method(lab.connect(target), "Echo")(b"").code())

    return {target or "(empty)": str(await one(target)) for target in ("", "[::]:0", "127.0.0.1:0")}


@case()
async def end_of_a_call_whose_channel_closed(lab: Lab) -> Seen:
    waiting = Waiting()
    channel = await lab.channel(waiting.handlers())
    call = method(channel, "Wait")(b"")
    await waiting.begun.wait()
    await channel.close()
    seen = await ended(call)
    return {"done": seen["done"], "code": seen["code"], "cancelled": seen["cancelled"]}
