"""The README's first screen runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import grpc

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0


def test_the_server_and_the_client_run_as_they_stand(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert [name for name, _ in blocks] == ["server.py", "client.py"]
    for name, code in blocks:
        (tmp_path / name).write_text(code)
    with subprocess.Popen([sys.executable, tmp_path / "server.py"]) as server:
        try:
            with grpc.insecure_channel("127.0.0.1:50051") as channel:
                grpc.channel_ready_future(channel).result(PATIENCE)
            began = time.monotonic()
            shown = subprocess.run(
                [sys.executable, tmp_path / "client.py"], capture_output=True, text=True, timeout=PATIENCE, check=False
            )
        finally:
            server.terminate()
    assert shown.returncode == 0, shown.stderr
    assert shown.stderr == ""
    status, reply = shown.stdout.split("\n", 1)
    assert status == "ASYNC_CALL_PENDING"
    assert "reply: 1" in reply
    steps = int(re.search(r"steps_done: (\d+)", reply)[1])  # type: ignore[index]
    assert 0 < steps < 100, "the call was stopped early, and its answer arrived"
    assert time.monotonic() - began < 5


def test_what_the_readme_names_is_there() -> None:
    text = (ROOT / "README.md").read_text()
    for path in re.findall(r"\]\((\S+?\.md)\)", text):
        assert (ROOT / path).is_file(), path
    help_text = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in set(re.findall(r"\bmake (\w+)\b", text)) - {"and"}:
        assert f"make {target} " in help_text, target
