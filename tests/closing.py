"""Closes channels at random moments: `python -m tests.closing --times 10000`.

Every call must settle, every close return, and the process live: gRPC takes a process with it where something that is
closed is used. Each round is a client of its own, with calls of its own, on one of several servers and wires, closed in
one of several ways after so many turns of its event loop. Ends with 0 if all was well.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import random
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Final

import grpc
import grpc.aio

import rpc_async
from rpc_async.calling.choice import Transport
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
from tests.harness import EchoCall, Servicer

PATIENCE: Final = 20.0
"""Seconds until a round counts as hung."""
ROUNDS_A_LOOP: Final = 25
"""Rounds until the event loop is a new one."""


class Plain(Servicer):
    """Ordinary handlers, some of them slow."""

    async def Echo(self, request: demo_pb2.EchoRequest, context: Any) -> demo_pb2.EchoResponse:
        if request.payload == b"slow":
            await asyncio.sleep(60)
        return demo_pb2.EchoResponse(payload=request.payload)


class Managers(Servicer):
    """Manager routines, some of which never complete."""

    @rpc_async.manager
    async def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
        if request.payload == b"slow":
            await call.wait_cancelled()
        call.complete(demo_pb2.EchoResponse(payload=request.payload))


class Silent(grpc.GenericRpcHandler):
    """Answers nothing that is no call of the demo's."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        async def wait(_: Any, context: Any) -> None:
            await asyncio.sleep(60)

        return grpc.stream_stream_rpc_method_handler(wait)


async def _serve(made: dict[str, str], ready: threading.Event, over: threading.Event) -> None:
    servers: dict[str, grpc.aio.Server] = {
        "plain": grpc.aio.server(),
        "silent": grpc.aio.server(),
        "ours": rpc_async.server(),
    }
    for name, server in servers.items():
        demo_pb2_grpc.add_DemoServicer_to_server(Managers() if name == "ours" else Plain(), server)
        if name == "silent":
            server.add_generic_rpc_handlers((Silent(),))
        made[name] = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
    made["nobody"] = "127.0.0.1:1"
    ready.set()
    await asyncio.to_thread(over.wait)
    for server in servers.values():
        await server.stop(None)


class Round:
    """One client: its wire, its server, its calls, and how it is closed."""

    def __init__(self, dice: random.Random, targets: dict[str, str]) -> None:
        wires: list[Transport] = ["auto", "auto", "session", "native"]
        self.wire: Transport = dice.choice(wires)
        self.server = dice.choice(["plain", "plain", "ours", "ours", "silent", "nobody"])
        self.target = targets[self.server]
        self.calls = dice.choice([0, 1, 1, 3, 20])
        self.turns = dice.choice([0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 200])
        self.how = dice.choice([close, close_with_grace, close_cancelled, close_twice, leave, drop])
        self.collect = dice.random() < 0.2
        self.dice = dice

    def __str__(self) -> str:
        return f"{self.wire} to {self.server}, {self.calls} calls, {self.how.__name__} after {self.turns} turns"

    async def play(self) -> list[rpc_async.AsyncCall[Any]]:
        """Play it. Returns its calls, which must have settled, or settle soon where the channel was only dropped."""
        channel = rpc_async.connect(self.target, transport=self.wire, open_timeout=self.dice.choice([0.01, 0.1, 5.0]))
        echo = demo_pb2_grpc.DemoStub(channel).Echo
        calls = []
        for _ in range(self.calls):
            payload = self.dice.choice([b"slow", b"fast"])
            timeout = self.dice.choice([None, None, 0.02, 60.0])
            call = rpc_async.begin(echo, demo_pb2.EchoRequest(payload=payload), timeout=timeout)
            what = self.dice.random()
            if what < 0.1:
                call.cancel()
            elif what < 0.2:
                call.request_cancel()
            calls.append(call)
        for _ in range(self.turns):
            await asyncio.sleep(0)
        del echo
        await self.how(channel)
        del channel
        if self.collect:
            gc.collect()
        if self.how is drop:
            for call in calls:
                call.cancel()
        return calls


async def close(channel: rpc_async.Channel) -> None:
    """Close it."""
    await channel.close()


async def close_with_grace(channel: rpc_async.Channel) -> None:
    """Close it with a grace."""
    await channel.close(0.01)


async def close_cancelled(channel: rpc_async.Channel) -> None:
    """Cancel a close, and close it again."""
    closing = asyncio.ensure_future(channel.close(random.choice([None, 0.01])))
    for _ in range(random.randrange(6)):
        await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    await channel.close()


async def close_twice(channel: rpc_async.Channel) -> None:
    """Close it twice at once, from two loops."""
    in_a_thread = asyncio.to_thread(asyncio.run, channel.close())
    await asyncio.gather(channel.close(60.0), channel.close(), in_a_thread)


async def leave(channel: rpc_async.Channel) -> None:
    """Leave its `async with`, by an exception."""
    with contextlib.suppress(RuntimeError, rpc_async.InvalidBinding):
        async with channel:
            raise RuntimeError


async def drop(channel: rpc_async.Channel) -> None:
    """Do not close it."""


Way = Callable[[rpc_async.Channel], Coroutine[Any, Any, None]]


async def _some(rounds: list[Round], ends: Counter[str]) -> list[rpc_async.AsyncCall[Any]]:
    left: list[rpc_async.AsyncCall[Any]] = []
    for one in rounds:
        try:
            calls = await asyncio.wait_for(one.play(), PATIENCE)
        except TimeoutError:
            ends[f"hung: {one}"] += 1
            continue
        for call in calls:
            if not call.done() and one.how is not drop:
                ends[f"pending: {one}"] += 1
        left += calls
    return left


def main() -> int:
    """Run the program. Returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=1000, help="how many channels to close")
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = random.randrange(1 << 32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    dice = random.Random(seed)
    warnings.simplefilter("ignore", ResourceWarning)  # those that are dropped are meant to be
    logging.getLogger("rpc_async").setLevel(logging.ERROR)
    targets: dict[str, str] = {}
    ready, over = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(targets, ready, over)))
    thread.start()
    ready.wait()
    ends: Counter[str] = Counter()
    left = options.times
    while left:
        count = min(left, ROUNDS_A_LOOP)
        left -= count
        calls = asyncio.run(_some([Round(dice, targets) for _ in range(count)], ends))
        ends.update("pending after its loop had ended" for call in calls if not call.done())
        ends.update(rpc_async.RpcStatus(call.status()).name for call in calls)
    over.set()
    thread.join()
    bad = sum(count for end, count in ends.items() if end.startswith(("hung", "pending")))
    for end, count in sorted(ends.items()):
        print(f"{count:8,} {end}")
    print(f"{options.times:,} channels closed: {'all is well' if not bad else f'{bad} BAD'}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
