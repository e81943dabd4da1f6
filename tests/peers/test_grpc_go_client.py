"""grpc-go's interop client against our server: each case it has that needs nothing of a cloud's."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import grpc
import pytest

import rpc_async
from tests.peers import interop_pb2_grpc
from tests.peers.programs import GRPC_GO_CLIENT, ROOT
from tests.peers.servicer import OAUTH_SCOPE, TOKEN, USER, Managed, Ordinary, add_load_reports

SECONDS = 45.0

CASES = (
    "cancel_after_begin",
    "cancel_after_first_response",
    "channel_soak",
    "client_streaming",
    "custom_metadata",
    "empty_stream",
    "empty_unary",
    "large_unary",
    "orca_oob",
    "orca_per_rpc",
    "pick_first_unary",
    "ping_pong",
    "rpc_soak",
    "server_streaming",
    "special_status_message",
    "status_code_and_message",
    "timeout_on_sleeping_server",
    "unimplemented_method",
    "unimplemented_service",
)
CREDENTIALS = ("jwt_token_creds", "oauth2_auth_token", "per_rpc_creds", "service_account_creds")
CLOUD = {"compute_engine_creds", "compute_engine_channel_credentials", "google_default_credentials"}
"""What asks the services of a cloud who it is."""
ORDINARY_ONLY = {"custom_metadata"}
"""What wants something that a manager routine cannot say: initial metadata of its own."""

SERVICERS: dict[str, type[Ordinary | Managed]] = {"ordinary": Ordinary, "managers": Managed}
EXTRA = {
    case: ["--service_config_json", '{"loadBalancingConfig": [{"test_backend_metrics_load_balancer": {}}]}']
    for case in ("orca_oob", "orca_per_rpc")
} | {case: ["--soak_iterations=30", "--soak_overall_timeout_seconds=40"] for case in ("channel_soak", "rpc_soak")}


@asynccontextmanager
async def serving(servicer: Ordinary | Managed, tls: grpc.ServerCredentials | None = None) -> AsyncIterator[int]:
    """Serve `TestService` on a free port."""
    server = rpc_async.server()
    interop_pb2_grpc.add_TestServiceServicer_to_server(servicer, server)
    add_load_reports(servicer.load, server)
    host = "127.0.0.1:0"
    port = server.add_insecure_port(host) if tls is None else server.add_secure_port(host, tls)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def run(case: str, port: int, *arguments: str) -> None:
    """Run the client's case, and fail as it does."""
    process = await asyncio.create_subprocess_exec(
        GRPC_GO_CLIENT, f"--test_case={case}", f"--server_port={port}", *arguments,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={"GRPC_GO_LOG_SEVERITY_LEVEL": "info"},
    )  # fmt: skip
    try:
        output, _ = await asyncio.wait_for(process.communicate(), SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output.decode()
    assert b" done\n" in output, output.decode()


PAIRS = [
    (kind, case) for kind in SERVICERS for case in CASES if kind == "ordinary" or case not in ORDINARY_ONLY
]  # fmt: skip


@pytest.mark.parametrize(("kind", "case"), PAIRS)
async def test_interop(kind: str, case: str) -> None:
    async with serving(SERVICERS[kind]()) as port:
        await run(case, port, "--server_host=127.0.0.1", *EXTRA.get(case, ()))


class _Tokens(BaseHTTPRequestHandler):
    """Exchanges whatever it is shown for the token that the servicer knows."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        body = json.dumps({"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class calls it
        return


@pytest.fixture
def token_uri() -> Iterator[str]:
    """Give tokens in place of the cloud."""
    with HTTPServer(("127.0.0.1", 0), _Tokens) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/token"
        finally:
            server.shutdown()
            thread.join()


def openssl(*arguments: str | Path) -> None:
    """Run openssl."""
    subprocess.run(("openssl", *arguments), check=True, capture_output=True, cwd=ROOT)


@pytest.mark.parametrize("case", CREDENTIALS)
@pytest.mark.parametrize("kind", SERVICERS)
async def test_interop_with_call_credentials(kind: str, case: str, tmp_path: Path, token_uri: str) -> None:
    cert, key, account = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "account.json"
    openssl(
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
        "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert,
    )  # fmt: skip
    account.write_text(
        json.dumps(
            {
                "type": "service_account",
                "client_email": USER,
                "private_key": key.read_text(),
                "private_key_id": "1",
                "token_uri": token_uri,
            }
        )
    )
    tls = grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())])
    async with serving(SERVICERS[kind](), tls) as port:
        await run(
            case,
            port,
            "--use_tls",
            "--use_test_ca",
            f"--ca_file={cert}",
            f"--service_account_key_file={account}",
            f"--oauth_scope={OAUTH_SCOPE}",
        )


async def test_no_case_is_left_out() -> None:
    """Compare with what the program itself lists."""
    process = await asyncio.create_subprocess_exec(
        GRPC_GO_CLIENT, "--help", stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output, _ = await process.communicate()
    listed = output.decode().partition("Valid options are:")[2].partition("(default")[0]
    cases = {line.split(":")[0].split()[0] for line in listed.splitlines() if ":" in line}
    assert cases
    assert cases <= {*CASES, *CREDENTIALS, *CLOUD}, "a case that is not run"
