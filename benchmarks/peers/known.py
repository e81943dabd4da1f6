"""The peers: how each is started, how to tell that it is here, and how to get it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.children import PEERS_PYTHON
from benchmarks.peers import golang

__all__ = ["PEERS", "Peer"]

_DEBIAN_PYTHON = "/usr/bin/python3"
"""The Python that Debian's packages of Python modules are for."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One other way to do the same echo."""

    name: str
    command: Callable[[], list[str] | None]
    """Finds the program that serves with the argument `server`, and measures with `client` and a target."""
    install: str


def _module(module: str, *needs: str) -> Callable[[], list[str] | None]:
    """Return what finds a peer in the peers' own environment; it may need programs besides."""

    def command() -> list[str] | None:
        if not PEERS_PYTHON.exists() or not all(map(shutil.which, needs)):
            return None
        return [str(PEERS_PYTHON), "-m", f"benchmarks.peers.{module}"]

    return command


def _go() -> list[str] | None:
    program = golang.build()
    return None if program is None else [str(program)]


def _ice() -> list[str] | None:
    for python in (str(PEERS_PYTHON), _DEBIAN_PYTHON):
        try:
            found = subprocess.run([python, "-c", "import Ice"], check=False, capture_output=True).returncode == 0
        except OSError:
            continue
        if found:
            return [python, "-m", "benchmarks.peers.ice_echo"]
    return None


PEERS = (
    Peer("grpc-go", _go, "apt-get install golang  (1.21 or newer, which fetches the one that it needs)"),
    Peer("grpclib", _module("grpclib_echo"), "make bench-peers"),
    Peer("RPyC, async_", _module("rpyc_echo"), "make bench-peers"),
    Peer("NATS request/reply, nats-py", _module("nats_echo", "nats-server"), "apt-get install nats-server"),
    Peer("Ice, AMI and AMD", _ice, "apt-get install python3-zeroc-ice"),
    Peer("asyncio TCP frames, no RPC", lambda: [sys.executable, "-m", "benchmarks.peers.tcp_echo"], "nothing"),
)
