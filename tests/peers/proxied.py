"""nginx in front of two servers, all of them children of the test, on free ports, with files of their own only."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness import PATIENCE
from tests.peers.counting import executed
from tests.peers.programs import ROOT, nginx

__all__ = ["DEFAULTS", "Proxied", "documented", "proxied"]

_FRONT, *_BACK = 50050, 50051, 50052
"""The ports in configurations, which stand for free ones."""

DEFAULTS = """
upstream rpc_async {
    server 127.0.0.1:50051;
    server 127.0.0.1:50052;
}
server {
    listen 127.0.0.1:50050 http2;
    location / { grpc_pass grpc://rpc_async; }
}
"""
"""What one would write who has read of gRPC in nginx' documentation, and not of this library."""

_WHOLE = """
daemon off;
{user}
worker_processes 1;
pid {folder}/pid;
error_log {folder}/errors info;
events {{ worker_connections 1024; }}
http {{
    access_log {folder}/ended;
    {paths}
    {block}
}}
"""
_PATHS = ("client_body_temp", "proxy_temp", "fastcgi_temp", "uwsgi_temp", "scgi_temp")


def documented() -> str:
    """Return the configuration that docs/proxies.md has."""
    blocks: list[str] = re.findall(
        r"^```nginx\n(.*?)^```$", (ROOT / "docs" / "proxies.md").read_text(), re.MULTILINE | re.DOTALL
    )
    (block,) = blocks
    return block


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


class Proxied:
    """The three processes."""

    def __init__(self, folder: Path, block: str) -> None:
        self._folder = folder
        self._file = folder / "executed"
        self._file.touch()
        ports = {port: _free_port() for port in (_FRONT, *_BACK)}
        self.target = f"127.0.0.1:{ports[_FRONT]}"
        """Where nginx listens."""
        self._front = ports[_FRONT]
        self._back = [ports[port] for port in _BACK]
        self._servers: list[subprocess.Popen[str]] = []
        self._nginx: subprocess.Popen[bytes] | None = None
        for port, free in ports.items():
            block = block.replace(f":{port}", f":{free}")
        self._config = folder / "nginx.conf"
        paths = " ".join(f"{name}_path {folder}/{name};" for name in _PATHS)
        user = "user root;" if os.geteuid() == 0 else ""
        self._config.write_text(_WHOLE.format(folder=folder, paths=paths, block=block, user=user))

    @property
    def executed(self) -> list[str]:
        """Which calls were executed, by either server."""
        return executed(self._file)

    def errors(self) -> str:
        """Return nginx' error log."""
        return (self._folder / "errors").read_text()

    def streams_ended(self) -> int:
        """Return how many streams of sessions have ended, as nginx' log of requests has it."""
        return (self._folder / "ended").read_text().count("/rpc_async.v1.AsyncCalls/Session")

    def let_go(self) -> None:
        """Let the calls of `EchoFromThread` end."""
        for server in self._servers:
            server.send_signal(signal.SIGUSR1)

    def start_servers(self) -> None:
        """Start both, on the same ports each time."""
        for port in self._back:
            command = [sys.executable, "-m", "tests.peers.counting", str(self._file), str(port)]
            server = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            self._servers.append(server)
        for server in self._servers:
            assert server.stderr is not None
            assert "listening" in server.stderr.readline()

    def kill_servers(self) -> None:
        """Kill both, at once."""
        for server in self._servers:
            server.kill()
        for server in self._servers:
            server.communicate()
        self._servers.clear()

    def start_nginx(self) -> None:
        """Start nginx, and wait until it listens."""
        program = nginx()
        assert program is not None
        self._nginx = subprocess.Popen(
            [program, "-p", self._folder, "-c", self._config, "-e", self._folder / "errors"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self._wait_for_nginx()

    def reload_nginx(self) -> None:
        """Have it start new workers, and wait until one has taken over."""
        assert self._nginx is not None
        before = self._workers()
        self._nginx.send_signal(signal.SIGHUP)
        end = time.monotonic() + PATIENCE
        while self._workers() <= before:
            assert time.monotonic() < end, "no new worker"
            time.sleep(0.01)
        self._wait_for_nginx()

    def kill_nginx(self) -> None:
        """Kill it with its workers."""
        if self._nginx is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._nginx.pid, signal.SIGKILL)
            self._nginx.wait()
            self._nginx = None

    def _workers(self) -> set[str]:
        assert self._nginx is not None
        return set(Path(f"/proc/{self._nginx.pid}/task/{self._nginx.pid}/children").read_text().split())

    def _wait_for_nginx(self) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._front), timeout=1).close()
            except OSError:
                assert time.monotonic() < end, "nginx does not listen"
                assert self._nginx is not None
                assert self._nginx.poll() is None, f"nginx has ended: {self.errors()}"
                time.sleep(0.01)
            else:
                return


@contextmanager
def proxied(folder: Path, block: str) -> Iterator[Proxied]:
    """Start all of it, and kill it at the end."""
    all_of_it = Proxied(folder, block)
    try:
        all_of_it.start_servers()
        all_of_it.start_nginx()
        yield all_of_it
    finally:
        all_of_it.kill_nginx()
        all_of_it.kill_servers()
