"""A server is stopped under load, in a process of its own: what its clients are told is true (S15, C14)."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

import rpc_async
from rpc_async import RpcStatus, begin
from tests.harness import PATIENCE, SocketWire, until

SERVER = """
import asyncio, signal, sys, time
import grpc
import rpc_async

executed = []

class Kinds:
    @rpc_async.manager(inline=True)
    def inline(self, request, call):
        executed.append(request)
        call.complete(request)

    @rpc_async.manager
    async def task(self, request, call):
        executed.append(request)
        await asyncio.sleep(0.02)
        call.complete(request)

    @rpc_async.manager
    def thread(self, request, call):
        executed.append(request)
        time.sleep(0.002)
        call.complete(request)

    @rpc_async.manager
    async def stubborn(self, request, call):
        executed.append(request)
        await call.wait_cancelled()
        call.complete(request)

    async def ordinary(self, request, context):
        executed.append(request)
        await asyncio.sleep(0.02)
        return request

    async def endless(self, request, context):
        executed.append(request)
        await asyncio.Event().wait()

    def sync(self, request, context):
        executed.append(request)
        time.sleep(0.002)
        return request

async def main():
    server = rpc_async.server(grace=float(sys.argv[1]), max_workers=4)
    kinds = Kinds()
    methods = {
        name: grpc.unary_unary_rpc_method_handler(getattr(kinds, name))
        for name in ("inline", "task", "thread", "stubborn", "ordinary", "endless", "sync")
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print(port, flush=True)
    await stop.wait()
    await server.stop()

asyncio.run(main())
print(" ".join(request.decode() for request in executed))
"""

KINDS = ("inline", "task", "thread", "stubborn", "ordinary", "endless", "sync")
WORKERS = 10
"""For each kind."""


class Load:
    """Calls, one after the other in each worker, until the server is gone."""

    def __init__(self, channel: Any) -> None:
        self.outcomes: dict[str, rpc_async.CallError | None] = {}
        self.gone = False
        self.answered: Counter[str] = Counter()
        self._channel = channel

    async def work(self, kind: str, worker: int) -> None:
        """One worker."""
        method, number = self._channel.unary_unary(f"/t.T/{kind}"), 0
        while not self.gone:
            number += 1
            name = f"{kind}-{worker}-{number}"
            try:
                await begin(method, name.encode())
                self.outcomes[name] = None
                self.answered[kind] += 1
            except rpc_async.CallError as error:
                self.outcomes[name] = error
                if error.status == RpcStatus.SERVER_UNAVAILABLE:
                    await asyncio.sleep(0)


@pytest.mark.parametrize("grace", [0, 0.3])
async def test_S15_a_server_that_is_stopped_under_load_tells_the_truth(socket_wire: SocketWire, grace: float) -> None:
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(grace)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = (await asyncio.to_thread(process.stdout.readline)).strip()
        async with rpc_async.connect(f"127.0.0.1:{port}", transport=socket_wire) as channel:
            load = Load(channel)
            working = [asyncio.create_task(load.work(kind, one)) for kind in KINDS for one in range(WORKERS)]
            busy = [kind for kind in KINDS if kind not in ("stubborn", "endless")]
            await until(lambda: all(load.answered[kind] >= WORKERS for kind in busy))
            process.send_signal(signal.SIGTERM)
            said, _ = await asyncio.to_thread(process.communicate, timeout=PATIENCE)
            load.gone = True
            await asyncio.wait_for(asyncio.gather(*working), PATIENCE)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    executed = Counter(said.split())
    assert max(executed.values()) == 1, "executed twice"
    told = Counter(("answered" if error is None else RpcStatus(error.status).name) for error in load.outcomes.values())
    assert set(told) <= {"answered", "SERVER_UNAVAILABLE", "CALL_FAILED", "CALL_FAILED_DNE"}, told
    for name, error in load.outcomes.items():
        if error is None or error.executed is True:
            assert name in executed, (name, error)
        elif error.executed is False:
            assert name not in executed, (name, error)
    for kind in ("stubborn", "endless"):  # those that ran were told how they ended, and why
        ended = [error for name, error in load.outcomes.items() if name.startswith(kind) and name in executed]
        assert {error.status for error in ended if error is not None} == {RpcStatus.CALL_FAILED}
        assert {error.cancel_reason for error in ended if error is not None} == {rpc_async.CancelReason.SHUTDOWN}
