"""Very many clients that connect at once."""

from __future__ import annotations

import asyncio

from benchmarks.children import Children
from tests.soak.clients import start_client
from tests.soak.counts import PATIENCE, Budget, Counts
from tests.soak.cuts import settle_down
from tests.soak.servers import ServerProcess, start_server

__all__ = ["crowd"]

MOST_IN_ONE = 2500
"""Clients that one process is."""
LEAST_PROCESSES = 2
MIB = 1 << 20
SLACK = 16 * MIB
"""Bytes that the last crowd may leave in the server over the first and a quarter: its memory lies in fragments."""


async def crowd(counts: Counts, budget: Budget) -> None:
    """Have so many clients connect at once, each for a call, and again: the server keeps no more of it."""
    processes = max(LEAST_PROCESSES, -(-budget.least // MOST_IN_ONE))
    each = -(-budget.least // processes)
    resident: list[int] = []
    async with Children() as children:
        server = await start_server(children)
        while len(resident) < 2 or budget.more(counts.calls):
            clients = await asyncio.gather(
                *(start_client(children, "many", server.target, "--calls", str(each)) for _ in range(processes))
            )
            for said in await asyncio.gather(*(client.ask("connect") for client in clients)):
                counts.add(said)
            peak = await server.look()
            counts.more["sessions at once"] = max(counts.more["sessions at once"], peak["sessions"])
            await asyncio.gather(*(client.ask("go") for client in clients))
            await settle_down(server, counts)
            resident.append(await _at_rest(server))
    counts.more["MiB in the server after the first crowd"] = resident[0] // MIB
    counts.more["MiB in the server after the last crowd"] = resident[-1] // MIB
    counts.check(resident[-1] < _room(resident[0]), f"the server's bytes after each crowd: {resident}")


def _room(first: int) -> int:
    return first + first // 4 + SLACK


async def _at_rest(server: ServerProcess) -> int:
    """Return the server's memory once gRPC has let go of its connections, which it does later than the library."""
    end = asyncio.get_running_loop().time() + PATIENCE
    then = (await server.look())["resident"]
    while True:
        await asyncio.sleep(0.2)
        now = (await server.look())["resident"]
        if abs(now - then) < MIB or asyncio.get_running_loop().time() > end:
            return now
        then = now
