"""What a call costs that waits: memory of the client and of the server, for many parked calls in one session.

`python -m benchmarks.parked TARGET N` is the client, in a process of its own; it prints JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import grpc.aio

import rpc_async
from benchmarks.cases import Client, open_channel, start_servers
from benchmarks.children import Children, lines_from_run
from benchmarks.report import Row, Section, Target
from benchmarks.servers import FINISH_METHOD, LOOK_METHOD, PARK_METHOD, resident_bytes

__all__ = ["measure_parked"]

PARKED = Client("session, parked", "session", "parked")
PAYLOAD = b"x" * 100

_BURST = 1000
"""How many calls are begun until the server has taken them in."""
_JUDGED = 10_000
"""From this number of calls on, what a process has at the start hardly counts."""
_WARM_UP = 200

CLIENT_TARGET = Target("<=", 2, "KiB in the client")
SERVER_TARGET = Target("<=", 4, "KiB in the server")


class _Client:
    """Parks calls on a channel, and ends them."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._park: Any = channel.unary_unary(PARK_METHOD)
        self._look: Any = channel.unary_unary(LOOK_METHOD)
        self._finish: Any = channel.unary_unary(FINISH_METHOD)

    async def park(self, count: int) -> list[rpc_async.AsyncCall[bytes]]:
        """Begin calls, and wait until the server has them all."""
        calls: list[rpc_async.AsyncCall[bytes]] = []
        for start in range(0, count, _BURST):
            calls += [rpc_async.begin(self._park, PAYLOAD) for _ in range(start, min(start + _BURST, count))]
            while (await self.look())["parked"] < len(calls):
                pass
        return calls

    async def look(self, *, collect: bool = False) -> Any:
        """Ask the server how many calls it keeps, and for its memory, after a garbage collection if need be."""
        return json.loads(await self._look(b"collect" if collect else b""))

    async def end(self, calls: Sequence[rpc_async.AsyncCall[bytes]]) -> dict[str, int]:
        """End every call in one of three ways, in turn, and count how they ended: cancelled, aborted, completed."""
        cancelled, aborted, completed = calls[0::3], calls[1::3], calls[2::3]
        for start in range(0, len(cancelled), _BURST):
            for told in [call.request_cancel() for call in cancelled[start : start + _BURST]]:
                await told
        for call in aborted:
            call.cancel()
        await self._finish(b"")
        ended: Counter[str] = Counter()
        for call, expected in ((call, b"cancelled") for call in cancelled):
            ended["cancelled"] += await call == expected
        for call, expected in ((call, b"completed") for call in completed):
            ended["completed"] += await call == expected
        for call in aborted:
            ended["aborted"] += call.status() == rpc_async.RpcStatus.CALL_CANCELLED
        return dict(ended)


async def _park(target: str, count: int) -> dict[str, Any]:
    async with open_channel(PARKED, target) as channel:
        client = _Client(channel)
        await client.end(await client.park(_WARM_UP))
        server_before = (await client.look(collect=True))["resident"]
        gc.collect()
        client_before = resident_bytes()
        calls = await client.park(count)
        gc.collect()
        client_after = resident_bytes()
        server_after = (await client.look(collect=True))["resident"]
        return {
            "calls": count,
            "client_kib": (client_after - client_before) / count / 1024,
            "server_kib": (server_after - server_before) / count / 1024,
            "ended": await client.end(calls),
        }


async def measure_parked(counts: Sequence[int], progress: Callable[[str], object]) -> Section:
    """Measure with each number of calls, in new processes."""
    title = "parked: memory for each call that waits, all in one session"
    headings = ("parked calls", "client KiB/call", "server KiB/call", "cancelled", "aborted", "completed")
    section = Section("parked", title, headings)
    for count in counts:
        progress(f"{count:,} parked calls")
        async with Children() as children:
            targets = await start_servers(children, (PARKED,))
            client = await children.python("benchmarks.parked", targets[PARKED.server], str(count))
            section.rows.append(_row(await client.ask()))
    lost = [row.data["calls"] for row in section.rows if sum(row.data["ended"].values()) != row.data["calls"]]
    section.note = f"CALLS DID NOT END AS THEY SHOULD with {lost} parked" if lost else "every call ended as it should"
    return section


def _row(result: dict[str, Any]) -> Row:
    count, ended = result["calls"], result["ended"]
    cells = (
        f"{count:,}",
        f"{result['client_kib']:.2f}",
        f"{result['server_kib']:.2f}",
        *(f"{ended.get(how, 0):,}" for how in ("cancelled", "aborted", "completed")),
    )
    judged = count >= _JUDGED
    targets = ((CLIENT_TARGET, "client_kib"), (SERVER_TARGET, "server_kib")) if judged else ()
    return Row(cells, result, tuple(target.judge(result[name]) for target, name in targets))


if __name__ == "__main__":
    lines_from_run()
    print(json.dumps(asyncio.run(_park(sys.argv[1], int(sys.argv[2])))))
