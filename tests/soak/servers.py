"""A server in a process of its own, that can be killed, stopped, and asked: `python -m tests.soak.servers`.

Prints the port that it serves on, and answers lines with JSON.
"""

from __future__ import annotations

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import argparse
import asyncio
import ctypes
import gc
import json
import logging
import resource
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rpc_async
from benchmarks.children import Child, Children, lines_from_run
from benchmarks.servers import resident_bytes
from rpc_async.core.session import Session
from rpc_async.demo.v1 import demo_pb2_grpc
from rpc_async.serving import session
from rpc_async.serving.server import Server
from tests.soak.work import Ledger, Work

__all__ = ["ChildProcess", "ServerProcess", "keeps_nothing", "peak_bytes", "raise_file_limit", "start_server", "tables"]


class ChildProcess:
    """The parent's end of a process that faults happen to."""

    def __init__(self, child: Child) -> None:
        self._child = child

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self._child.pid, number)

    async def ask(self, question: str = "") -> Any:
        """Write a line, if there is one, and return the JSON that comes back."""
        return await self._child.ask(question)


class ServerProcess(ChildProcess):
    """The parent's end of a server."""

    def __init__(self, child: Child, target: str) -> None:
        super().__init__(child)
        self.target = target

    async def look(self) -> dict[str, int]:
        """Ask how full its tables are, what it has done, and how much memory it has."""
        answer: dict[str, int] = await self.ask("look")
        return answer

    async def executed(self) -> Ledger:
        """Ask what it has executed."""
        with tempfile.NamedTemporaryFile() as file:
            await self.ask(f"ledger {file.name}")
            return Ledger(file.read())

    async def finish(self, size: int) -> int:
        """Have it complete the calls that it has parked. Returns how many clients were there still."""
        answer: int = await self.ask(f"finish {size}")
        return answer


async def start_server(children: Children, *arguments: str) -> ServerProcess:
    """Start one."""
    child = await children.python("tests.soak.servers", *arguments)
    return ServerProcess(child, f"127.0.0.1:{await child.line()}")


def raise_file_limit() -> None:
    """Have as many files open as the machine lets us."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def tables(server: Server) -> dict[str, int]:
    """Return how full a server's tables are."""
    sessions = server._sessions
    return {
        "running": server.running_calls,
        "listed": len(server._dispatcher.table.running()),
        "sessions": len(sessions),
        "cut": len(sessions._cut),
    }


def keeps_nothing(server: Server) -> bool:
    """Tell whether the tables are empty."""
    return not any(tables(server).values())


def peak_bytes() -> int:
    """Return how much memory this process really had at the most (VmHWM, which begins anew with each program)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def give_back() -> None:
    """Have the allocator give the system back what is free, where it can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


class _Resumes:
    """Counts how often a session of this process was resumed."""

    count = 0

    @classmethod
    def install(cls) -> None:
        resumed = Session.resumed

        def counting(self: Session, received: int) -> None:
            resumed(self, received)
            cls.count += 1

        setattr(Session, "resumed", counting)  # noqa: B010 (type checkers do not let a method be replaced)


async def _serve(arguments: argparse.Namespace) -> None:
    work = Work()
    options = [(name, int(value)) for name, _, value in (option.partition("=") for option in arguments.option)]
    server = rpc_async.server(linger=arguments.linger, options=options)
    demo_pb2_grpc.add_DemoServicer_to_server(work, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    loop = asyncio.get_running_loop()

    def answer(line: str) -> None:
        verb, _, rest = line.partition(" ")
        if verb == "look":
            gc.collect()
            give_back()
            said: Any = {
                **tables(server),
                "parked": len(work.parked),
                "executed": work.executed.total(),
                "resumed": _Resumes.count,
                "resident": resident_bytes(),
                "peak": peak_bytes(),
            }
        elif verb == "ledger":
            said = Path(rest).write_bytes(work.executed.counts)
        else:
            said = work.finish(int(rest))
        print(json.dumps(said), flush=True)

    lines_from_run(lambda line: loop.call_soon_threadsafe(answer, line))
    print(port, flush=True)
    await server.wait_for_termination()


def main(arguments: Sequence[str]) -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--linger", type=float, default=30.0)
    parser.add_argument("--full", type=int, help="bytes, in place of serving/session.py's FULL, and a quarter more")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=NUMBER", help="gRPC's channel argument")
    parsed = parser.parse_args(arguments)
    if parsed.full is not None:
        session.__dict__.update(FULL=parsed.full, OVERFULL=parsed.full + parsed.full // 4)
    logging.getLogger("rpc_async").setLevel(logging.CRITICAL)
    raise_file_limit()
    _Resumes.install()
    asyncio.run(_serve(parsed))


if __name__ == "__main__":
    main(sys.argv[1:])
