"""The programs in docs/porting.md run as they stand, and each client with each server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
LONG_MS = 20_000
"""How long the call takes that is to be cancelled: far longer than a test is willing to wait."""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    blocks = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", (ROOT / "docs" / "porting.md").read_text(), re.DOTALL)
    assert [name for name, _ in blocks] == ["server_dce.py", "server_own.py", "client_dce.py", "client_own.py"]
    for name, code in blocks:
        (tmp_path / name).write_text(code)
    return tmp_path


@contextmanager
def serving(program: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [sys.executable, str(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as server:
        assert server.stdout is not None
        try:
            yield "127.0.0.1:" + server.stdout.readline().split()[-1], server
        finally:
            server.terminate()


def shown_by(program: Path, *arguments: str) -> list[str]:
    command = [sys.executable, str(program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, env=ENVIRONMENT)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize("server_form", ["dce", "own"])
def test_each_client_runs_with_each_server(programs: Path, server_form: str) -> None:
    with serving(programs / f"server_{server_form}.py") as (target, server):
        for arguments, last in (
            ([target, "200"], "reply 1, stopped early: False"),
            ([target, str(LONG_MS), "-c"], "reply 1, stopped early: True"),
        ):
            cancelled = ["RpcAsyncCancelCall returned 0x0"] if "-c" in arguments else []
            assert shown_by(programs / "client_dce.py", *arguments) == [
                "RpcAsyncGetCallStatus returned 0x3e5",
                *cancelled,
                "RpcAsyncCompleteCall returned 0x0",
                last,
            ]
            assert shown_by(programs / "client_own.py", *arguments) == ["status 997", last]
        assert server.stdout is not None
        said: list[str] = []
        while sum("returned" in line for line in said) < 4:
            said.append(server.stdout.readline())
    assert sum("AsyncFunc" in line and "cancel" in line for line in said) == 2, said
    assert sum(bool(re.search("returned (0x0|OK)$", line)) for line in said) == 4, said


def test_what_it_names_is_there() -> None:
    from rpc_async import dce

    text = (ROOT / "docs" / "porting.md").read_text()
    names = set(re.findall(r"\bdce\.(\w+)", text)) - {"v1"}
    assert names <= {*dce.__all__}
    for path in re.findall(r"\]\((\S+?\.md)\)", text):
        assert (ROOT / "docs" / path).is_file(), path
