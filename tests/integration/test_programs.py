"""The programs, as a user meets them: right exit codes, one clear line for each mistake, no tracebacks."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)


@contextmanager
def server(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the demo server on a free port."""
    command = [sys.executable, "-m", "server", "--port", "0", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("listening on "), line
            yield process, line.removeprefix("listening on ").strip()
        finally:
            process.kill()
            process.communicate()


def one_line(result: subprocess.CompletedProcess[str], code: int) -> str:
    """Check that a program failed as it should, and return its last line."""
    assert result.returncode == code, result
    assert "Traceback" not in result.stderr
    return result.stderr.strip().splitlines()[-1]


def test_a_call_runs_to_its_end() -> None:
    with server() as (_, target):
        result = run("client", "--target", target, "--delay-ms", "200")
    lines = result.stdout.splitlines()
    assert result.returncode == 0
    assert lines[0] == "call 1: ASYNC_CALL_PENDING (997)"
    assert lines[-1] == "call 1: OK (0), reply 1: ran to its end, 100 steps done, delay 200 ms"
    assert len(lines) == len(set(lines)), "no line is shown twice"
    assert "\x1b" not in result.stdout, "plain lines where it is piped"


@pytest.mark.parametrize(("delay", "used", "steps"), [(-5, 20, 0), (0, 100, 0), (99, 100, 0), (100, 100, 0)])
def test_short_delays_are_as_documented(delay: int, used: int, steps: int) -> None:
    with server() as (_, target):
        result = run("client", "--target", target, f"--delay-ms={delay}")
    assert f"{steps} steps done, delay {used} ms" in result.stdout


def test_a_request_gets_the_servers_answer_and_an_abort_is_130() -> None:
    with server() as (_, target):
        asked = run("client", "--target", target, "--delay-ms", "20000", "--cancel-after-ms", "300", "--count", "3")
        assert asked.returncode == 0
        assert asked.stdout.count("stopped early") == 3
        aborted = run("client", "--target", target, "--delay-ms", "20000", "--cancel-after-ms", "300", "--abort")
        assert "CALL_CANCELLED (1818)" in one_line(aborted, 130)


@pytest.mark.parametrize(
    "arguments",
    [
        ("client", "--delay-ms", "x"),
        ("client", "--abort"),
        ("client", "--count", "0"),
        ("client", "--nonsense"),
        ("client", "--target", ""),
        ("client", "--target", "localhost:99999"),
        ("server", "--port", "70000"),
        ("server", "--tls-cert", "only-one"),
        ("server", "--log-level", "loud"),
    ],
)
def test_wrong_usage_is_2(arguments: tuple[str, ...]) -> None:
    assert one_line(run(*arguments), 2).startswith("Error: ")


@pytest.mark.parametrize("target", ["127.0.0.1:1", ":::::", "foo://bar", "no-such-host.invalid:50051"])
def test_a_server_that_is_not_there_is_1(target: str) -> None:
    line = one_line(run("client", "--target", target), 1)
    assert "SERVER_UNAVAILABLE (1722)" in line
    assert "surely not executed" in line


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        line = one_line(run("server", "--port", str(taken.getsockname()[1])), 1)
    assert "in use" in line


def test_a_certificate_that_does_not_load(tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("nonsense")
    assert "does not load" in one_line(run("server", "--tls-cert", str(bad), "--tls-key", str(bad)), 1)
    missing = str(tmp_path / "missing.pem")
    assert "No such file" in one_line(run("server", "--tls-cert", missing, "--tls-key", missing), 1)
    assert "No such file" in one_line(run("client", "--tls-ca", missing), 1)


def test_tls(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    with server("--tls-cert", str(cert), "--tls-key", str(key)) as (_, target):
        good = run("client", "--target", target, "--tls-ca", str(cert), "--delay-ms", "100")
        assert good.returncode == 0, good
        plain = run("client", "--target", target, "--delay-ms", "100")
        assert one_line(plain, 1)


def test_health_and_reflection() -> None:
    with server() as (_, target), grpc.insecure_channel(target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for service in ("", "rpc_async.demo.v1.Demo"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        from google.protobuf.descriptor_pool import DescriptorPool
        from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

        database = ProtoReflectionDescriptorDatabase(channel)
        assert "rpc_async.v1.AsyncCalls" in database.get_services()
        found = DescriptorPool(database).FindServiceByName("rpc_async.demo.v1.Demo")
        method = found.methods_by_name["AsyncFunc"]
        assert method.input_type.full_name == "rpc_async.demo.v1.AsyncFuncRequest"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_server_lets_running_calls_finish(number: signal.Signals) -> None:
    with server() as (process, target), grpc.insecure_channel(target) as channel:
        call = demo_pb2_grpc.DemoStub(channel).AsyncFunc.future(demo_pb2.AsyncFuncRequest(delay_ms=1000))
        assert process.stderr is not None
        while "works for 1000 ms" not in process.stderr.readline():
            pass
        process.send_signal(number)
        assert call.result(PATIENCE).steps_done == 100
        assert process.wait(PATIENCE) == 0
        assert process.stdout is not None
        assert "1 calls are running" in process.stdout.read()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_server_at_once_whatever_runs(number: signal.Signals) -> None:
    with server("--grace", "600") as (process, target), grpc.insecure_channel(target) as channel:
        stub, over = demo_pb2_grpc.DemoStub(channel), threading.Event()
        answered = [threading.Event() for _ in range(8)]

        def load(one: threading.Event) -> None:
            while not over.is_set():
                with contextlib.suppress(grpc.RpcError):  # refused, or gone
                    stub.Echo(demo_pb2.EchoRequest(payload=b"x"))
                    one.set()

        long = [stub.AsyncFunc.future(demo_pb2.AsyncFuncRequest(delay_ms=600_000)) for _ in range(8)]
        threads = [threading.Thread(target=load, args=(one,)) for one in answered]
        for thread in threads:
            thread.start()
        try:
            assert all(one.wait(PATIENCE) for one in answered)
            process.send_signal(number)
            assert process.stdout is not None
            while "stopping: " not in process.stdout.readline():
                pass
            process.send_signal(number)
            assert process.wait(PATIENCE) == -number
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert {call.code() for call in long} == {grpc.StatusCode.UNAVAILABLE}


def test_the_server_is_killed_while_a_call_runs() -> None:
    with server() as (process, target):
        command = [sys.executable, "-m", "client", "--target", target, "--delay-ms", "20000"]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as client:
            assert client.stdout is not None
            while "5%" not in client.stdout.readline():
                pass
            process.kill()
            _, errors = client.communicate(timeout=PATIENCE)
    assert client.returncode == 1
    assert "CALL_FAILED (1726)" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(("presses", "code", "shown"), [(1, 0, "stopped early"), (2, 130, "CALL_CANCELLED (1818)")])
def test_ctrl_c_on_a_terminal(presses: int, code: int, shown: str) -> None:
    """Once asks, twice aborts. The second press comes before the server looks, at its next fifth step."""
    with server() as (_, target):
        parent, child = pty.openpty()
        command = [sys.executable, "-m", "client", "--target", target, "--delay-ms", "60000"]
        with subprocess.Popen(command, cwd=ROOT, stdin=child, stdout=child, stderr=child) as client:
            os.close(child)
            seen = ""
            pressed = 0
            while True:
                try:
                    seen += os.read(parent, 4096).decode(errors="replace")
                except OSError:  # the other end is closed
                    break
                if pressed < presses and "━" in seen and (pressed == 0 or "Ctrl-C again" in seen):
                    client.send_signal(signal.SIGINT)
                    pressed += 1
            assert client.wait(PATIENCE) == code
        os.close(parent)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen)
    assert shown in plain
    assert "Traceback" not in plain


def test_make_demo_shows_everything_and_leaves_nothing_running() -> None:
    result = run("client.demo")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().endswith("all as the rules say")
    assert [line for line in result.stdout.splitlines() if re.match(r"\d\. ", line)].__len__() == 6
    port = re.search(r"listens on 127.0.0.1:(\d+)", result.stdout)
    assert port is not None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(port[1])))
