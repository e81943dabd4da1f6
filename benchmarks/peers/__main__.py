"""`make bench-peers`: the same echo of 100 bytes by other means, in turn with raw grpc.aio and with the library.

Each peer's server is a process of its own, and so is each peer's client, which is written in its own idiom. A peer
that is not installed is named, with the command that installs it.
"""

from __future__ import annotations

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import argparse
import sys
from collections.abc import Mapping, Sequence

from benchmarks.cases import RAW, SESSION, SESSION_INLINE, WARM_UP, Case, Client, open_clients, remote_client
from benchmarks.children import Children
from benchmarks.cli import finish, parser
from benchmarks.load import PAYLOAD
from benchmarks.peers.known import PEERS
from benchmarks.report import Progress, Section, deliver, facts, new_console, show
from benchmarks.unary import HEADINGS, measure_rounds, row

IN_FLIGHT = 100
OURS = (RAW, SESSION, SESSION_INLINE)
FULL = 20, 0.25
QUICK = 3, 0.25
"""Rounds, and seconds of a slice."""


async def measure(commands: Mapping[str, Sequence[str]], rounds: int, seconds: float, progress: Progress) -> Section:
    """Measure the peers by their programs, beside raw grpc.aio and the library."""
    async with Children() as children, open_clients(OURS) as clients:
        for name, command in commands.items():
            progress(f"starting {name}")
            client = Client(name, "peer", name)
            clients[client] = await remote_client(children, *command)
            await clients[client](IN_FLIGHT, WARM_UP)
        cases = [Case(client, IN_FLIGHT) for client in clients]
        samples = await measure_rounds(cases, clients, rounds, seconds, progress)
    rows = [row(case, samples, judged=False) for case in cases]
    rows.sort(key=lambda line: -line.data["calls_per_second"]["median"])
    title = f"peers: echo of {len(PAYLOAD)} bytes by other means, medians of {rounds} rounds of {seconds:g} s"
    missing = [f"not here: {peer.name}: {peer.install}" for peer in PEERS if peer.name not in commands]
    return Section("peers", title, HEADINGS, rows, "\n".join(missing))


async def run(arguments: argparse.Namespace) -> bool:
    """Measure, print, write."""
    console, progress = new_console(), Progress()
    progress("looking for the peers ...")
    found = ((peer.name, peer.command()) for peer in PEERS)
    commands = {name: command for name, command in found if command is not None}
    section = await measure(commands, *(QUICK if arguments.quick else FULL), progress)
    progress("")
    show(console, section)
    return deliver(console, [section], facts(quick=arguments.quick), arguments.json, arguments.svg)


if __name__ == "__main__":
    sys.exit(finish(run(parser("python -m benchmarks.peers", __doc__).parse_args())))
