"""Servers and clients that are killed with SIGKILL: what each side then knows."""

from __future__ import annotations

import asyncio
import signal
from functools import partial
from typing import Any

import grpc

import rpc_async
from benchmarks.children import Children
from rpc_async import CallError, CancelReason, RpcStatus
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
from rpc_async.testing import CuttingProxy
from tests.harness import EchoCall, SocketWire, serve
from tests.soak.clients import start_client
from tests.soak.counts import PATIENCE, Budget, Counts, comes
from tests.soak.servers import ServerProcess, keeps_nothing, start_server
from tests.soak.work import Caller, Mode, Work

__all__ = ["killed_clients", "killed_servers", "no_server", "server_killed"]

WIRES: tuple[SocketWire, ...] = ("session", "native")
LARGE = 16 << 20
"""Bytes: far more than a session sends ahead, so that some of it has never left."""
PARKED = 50
"""Calls of each client that is killed."""
LINGER: dict[SocketWire, float] = {"session": 0.2, "native": 3600.0}
"""Seconds that the server waits for a client that was killed; a native call's client is not waited for."""


async def killed_servers(counts: Counts, budget: Budget) -> None:
    """Kill servers at every moment of a call's life, on both wires."""
    rounds = 0
    while budget.more(rounds):
        for wire in WIRES:
            await server_killed(counts, wire, anew=rounds % 2 == 0)
            await no_server(counts, wire)
        rounds += 1


async def server_killed(counts: Counts, wire: SocketWire, *, anew: bool) -> None:
    """Kill a server with calls in every stage, and start it anew or not; each call says what is known of it."""
    async with Children() as children:
        old, new = await asyncio.gather(start_server(children), start_server(children))
        async with CuttingProxy(old.target) as proxy:
            async with rpc_async.connect(proxy.target, transport=wire, linger=30.0 if anew else 1.0) as channel:
                caller, echo = Caller(counts), demo_pb2_grpc.DemoStub(channel).Echo
                began: dict[str, rpc_async.AsyncCall[Any]] = {}
                running = caller.order(Mode.PARK)
                began["while it ran"] = caller.begin(echo, running)
                await _reached(counts, old, 1)
                proxy.stall("to_client")
                began["when it had run"] = caller.begin(echo, caller.order(Mode.TASK))
                await _reached(counts, old, 2)
                proxy.stall("to_server")
                seen = proxy.bytes_to_server
                began["on its way"] = caller.begin(echo, caller.order(Mode.TASK))
                counts.check(await comes(lambda: proxy.bytes_to_server > seen), "no call leaves a client")
                if wire == "session":
                    began["half of it sent"] = caller.begin(echo, caller.order(Mode.TASK), LARGE)
                    began["behind that"] = caller.begin(echo, caller.order(Mode.TASK), wait_for_ready=True)
                proxy.refusing = True
                proxy.cut()
                await _noticed(counts, channel)
                began["not willing to wait"] = caller.begin(echo, caller.order(Mode.TASK))
                if wire == "session":
                    began["never sent"] = caller.begin(echo, caller.order(Mode.TASK), wait_for_ready=True)
                executed = await old.executed()
                old.signal(signal.SIGKILL)
                counts.cuts += 1
                if anew:
                    await comes(began["not willing to wait"].done)
                    proxy.lead_to(new.target)
                    proxy.refusing = False
                proxy.resume()
                for when, call in began.items():
                    if when in _BEGUN_ANEW and (anew or call is not began["half of it sent"]):
                        if not anew:
                            call.cancel()  # it would wait for a server for ever, as it was begun to do
                        error = await caller.outcome(call, rpc_async.CallCancelled)
                        counts.check((error is None) is anew, f"{wire}: killed with a call {when}: {error!r}")
                        counts.more["begun anew" if anew else "waited on"] += 1
                        continue
                    error = await caller.outcome(call, *_EXPECTED[when][:1])
                    counts.check(
                        error is not None and (type(error), error.status, error.executed) == _EXPECTED[when],
                        f"{wire}: killed with a call {when}: {error!r}",
                    )
                    counts.more[_known(error)] += 1
                if anew:
                    await caller.outcome(caller.begin(echo, caller.order(Mode.TASK), wait_for_ready=True))
                    for number, times in enumerate((await new.executed()).counts):
                        executed.counts.extend(bytes(max(0, number + 1 - len(executed.counts))))
                        executed.counts[number] += times
                await caller.audit(executed)


_EXPECTED: dict[str, tuple[type[CallError], int, bool | None]] = {
    "while it ran": (rpc_async.CallFailed, RpcStatus.CALL_FAILED, None),
    "when it had run": (rpc_async.CallFailed, RpcStatus.CALL_FAILED, None),
    "on its way": (rpc_async.CallFailed, RpcStatus.CALL_FAILED, None),
    "half of it sent": (rpc_async.ServerUnavailable, RpcStatus.SERVER_UNAVAILABLE, False),
    "not willing to wait": (rpc_async.ServerUnavailable, RpcStatus.SERVER_UNAVAILABLE, False),
}
"""What is known of a call, by when the server was killed."""

_BEGUN_ANEW = {"half of it sent", "behind that", "never sent"}
"""Calls that surely were not executed: the next server gets them; where there is none, those that are willing wait."""


def _known(error: CallError | None) -> str:
    return "told nothing" if error is None else f"told {error.status}"


async def _reached(counts: Counts, server: ServerProcess, executed: int) -> None:
    """Wait until the server has executed so many calls."""
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE
    while (await server.look())["executed"] < executed:
        if loop.time() > end:
            counts.blame("hung", f"the server never executed call {executed}")
            return


async def _noticed(counts: Counts, channel: Any) -> None:
    """Wait until the client knows that it has no connection."""
    counts.check(
        await comes(lambda: channel.get_state() is not grpc.ChannelConnectivity.READY), "the client notices no cut"
    )


async def no_server(counts: Counts, wire: SocketWire) -> None:
    """Call where nobody listens."""
    async with CuttingProxy("127.0.0.1:1") as proxy:
        target = proxy.target
    async with rpc_async.connect(target, transport=wire) as channel:
        caller = Caller(counts)
        call = caller.begin(demo_pb2_grpc.DemoStub(channel).Echo, caller.order())
        error = await caller.outcome(call, rpc_async.ServerUnavailable)
        counts.check(error is not None and error.executed is False, f"{wire}: no server: {error!r}")
        counts.more[_known(error)] += 1


async def killed_clients(counts: Counts, budget: Budget) -> None:
    """Kill clients with calls outstanding: the server cancels them, natively at once and of a session after linger."""
    rounds = 0
    while budget.more(rounds):
        await asyncio.gather(*(_clients_killed(counts, wire) for wire in WIRES))
        rounds += 1


def _all_cancelled(calls: list[EchoCall]) -> bool:
    return all(call.test_cancel() for call in calls)


async def _clients_killed(counts: Counts, wire: SocketWire) -> None:
    work = Work()
    async with serve(work, linger=LINGER[wire]) as (server, target), Children() as children:
        for _ in range(2):
            client = await start_client(children, "park", target, "--wire", wire, "--calls", str(PARKED))
            counts.check(await comes(lambda: len(work.parked) == PARKED), f"{len(work.parked)} calls arrived")
            counts.calls += len(work.parked)
            client.signal(signal.SIGKILL)
            counts.cuts += 1
            parked, work.parked = work.parked, []
            if not await comes(partial(_all_cancelled, parked)):
                counts.blame("hung", f"{sum(not call.test_cancel() for call in parked)} calls were never cancelled")
            for call in parked:
                reason = call.cancel_reason
                counts.check(reason is CancelReason.CLIENT_DISCONNECTED, f"{call!r}: {reason}")
                told = call.complete(demo_pb2.EchoResponse())
                counts.check(told is RpcStatus.CALL_CANCELLED, f"{call!r}: the reply was taken: {told}")
                counts.cancelled += 1
            counts.check(await comes(lambda: keeps_nothing(server)), f"the server still keeps something: {server!r}")
