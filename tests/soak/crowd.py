"""Very many clients that connect at once."""

from __future__ import annotations

import asyncio

from benchmarks.children import Children
from tests.soak.clients import start_client
from tests.soak.counts import Budget, Counts
from tests.soak.cuts import settle_down
from tests.soak.servers import start_server

__all__ = ["crowd"]

MOST_IN_ONE = 2500
"""Clients that one process is."""
LEAST_PROCESSES = 2
MIB = 1 << 20
SLACK = 16 * MIB
"""Bytes that the allocator may keep in the server between two crowds."""


async def crowd(counts: Counts, budget: Budget) -> None:
    """Have so many clients connect at once, each for a call; twice, and the second crowd costs no memory any more."""
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
            resident.append((await settle_down(server, counts))["resident"])
    grown = resident[-1] - resident[0]
    counts.more["MiB in the server after the first crowd"] = resident[0] // MIB
    counts.more["MiB in the server after the last crowd"] = resident[-1] // MIB
    counts.check(grown < SLACK, f"the server grew by {grown} bytes from its first crowd to its last")
