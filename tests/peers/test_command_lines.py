"""grpcurl and grpc-health-probe against the demo server: what its operator would type."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from rpc_async.demo.v1 import demo_pb2
from tests.peers.programs import GRPCURL, HEALTH_PROBE, running

SECONDS = 30.0
DEMO = demo_pb2.DESCRIPTOR.services_by_name["Demo"].full_name


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    """Run the demo server on a free port."""
    with running([sys.executable, "-m", "server", "--port", "0"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on "), line
        yield line.removeprefix("listening on ").strip()


def run(*command: Any) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(
        [*map(str, command)],
        check=False, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL, capture_output=True,
    )  # fmt: skip


def grpcurl(target: str, *arguments: str) -> str:
    """Run grpcurl, which must succeed; return what it prints."""
    *flags, last = arguments
    done = run(GRPCURL, "-plaintext", "-max-time", "20", *flags, target, *last.split())
    assert done.returncode == 0, done
    return done.stdout


def replies(text: str) -> list[dict[str, Any]]:
    """Read the JSON values that grpcurl prints one after another."""
    decoder, found = json.JSONDecoder(), []
    while text := text.lstrip():
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:]
    return found


def test_what_the_server_has(target: str) -> None:
    services = set(grpcurl(target, "list").split())
    assert services >= {DEMO, "rpc_async.v1.AsyncCalls", "grpc.health.v1.Health"}
    methods = set(grpcurl(target, f"list {DEMO}").split())
    assert methods == {f"{DEMO}.{method.name}" for method in demo_pb2.DESCRIPTOR.services_by_name["Demo"].methods}
    described = grpcurl(target, f"describe {DEMO}")
    chat = "rpc Chat ( stream .rpc_async.demo.v1.ChatRequest ) returns ( stream .rpc_async.demo.v1.ChatResponse );"
    assert chat in described


def test_a_unary_call(target: str) -> None:
    shown = grpcurl(target, "-d", '{"delay_ms": 200}', f"{DEMO}/AsyncFunc")
    assert replies(shown) == [{"reply": 1, "delay_ms": "200", "steps_done": 100}]


def test_a_manager_that_completes_elsewhere(target: str) -> None:
    (reply,) = replies(grpcurl(target, "-d", '{"payload": "aGVsbG8="}', f"{DEMO}/EchoFromThread"))
    assert reply == {"payload": "aGVsbG8=", "completed_by": "worker"}


def test_a_fault_and_its_number(target: str) -> None:
    done = run(
        GRPCURL, "-plaintext", "-format-error", "-d", '{"code": 4711, "message": "no more paper"}', target,
        f"{DEMO}/Fail",
    )  # fmt: skip
    assert done.returncode != 0
    (error,) = replies(done.stderr)
    assert error["message"] == "no more paper"
    (details,) = error["details"]
    assert details["@type"].endswith("google.rpc.ErrorInfo")
    assert (details["domain"], details["metadata"]["status"]) == ("rpc_async", "4711")


@pytest.mark.parametrize("chunks", [0, 1, 5])
def test_streams(target: str, chunks: int) -> None:
    down = replies(grpcurl(target, "-d", f'{{"chunks": {chunks}, "chunk_size": 3}}', f"{DEMO}/Download"))
    assert len(down) == chunks
    chat = "".join(f'{{"text": "{number}"}}' for number in range(chunks))
    assert replies(grpcurl(target, "-d", chat, f"{DEMO}/Chat")) == [{"text": str(number)} for number in range(chunks)]
    (up,) = replies(grpcurl(target, "-d", '{"payload": "aGVsbG8="}' * chunks, f"{DEMO}/Upload"))
    assert (int(up.get("chunks", 0)), int(up.get("size", 0))) == (chunks, 5 * chunks)


def test_a_deadline(target: str) -> None:
    done = run(GRPCURL, "-plaintext", "-max-time", "0.3", "-d", '{"delay_ms": 20000}', target, f"{DEMO}/AsyncFunc")
    assert done.returncode == 64 + 4, done
    assert "DeadlineExceeded" in done.stderr


@pytest.mark.parametrize("service", ["", DEMO])
def test_health(target: str, service: str) -> None:
    done = run(HEALTH_PROBE, f"-addr={target}", f"-service={service}")
    assert done.returncode == 0, done
    assert "SERVING" in done.stderr + done.stdout


def test_a_service_that_is_not_there_is_not_healthy(target: str) -> None:
    assert run(HEALTH_PROBE, f"-addr={target}", "-service=no.such.Service").returncode == 3


def test_a_server_that_is_not_there_is_not_healthy() -> None:
    assert run(HEALTH_PROBE, "-addr=127.0.0.1:1", "-connect-timeout=2s").returncode == 2
