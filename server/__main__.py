"""`python -m server`: serves the demo, with gRPC's health and reflection services beside it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import ssl
import sys
from typing import Any, cast

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's own log says everything a second time, and unreadably

import click
import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

import rpc_async
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
from rpc_async.v1 import calls_pb2
from server.demo import Demo

DEMO = demo_pb2.DESCRIPTOR.services_by_name["Demo"].full_name
ASYNC_CALLS = calls_pb2.DESCRIPTOR.services_by_name["AsyncCalls"].full_name


def load_credentials(cert: str, key: str) -> grpc.ServerCredentials:
    """Read a certificate and its key; gRPC itself would not say what is wrong with them."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
        with open(cert, "rb") as cert_file, open(key, "rb") as key_file:
            return grpc.ssl_server_credentials([(key_file.read(), cert_file.read())])
    except OSError as error:  # ssl.SSLError is one
        reason = error.strerror or getattr(error, "reason", None) or error
        raise click.ClickException(f"the certificate {cert} with the key {key} does not load: {reason}") from None


def address(host: str, port: int) -> str:
    """Return gRPC's way to write a host and a port."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def serve(host: str, port: int, credentials: grpc.ServerCredentials | None, grace: float) -> None:
    """Serve until SIGINT or SIGTERM."""
    # Without SO_REUSEPORT, so that a port in use is an error and not a second server on it.
    server = rpc_async.server(grace=grace, options=(("grpc.so_reuseport", 0),))
    demo_pb2_grpc.add_DemoServicer_to_server(Demo(), server)
    state = cast("Any", health).aio.HealthServicer()  # the module does not say that it has it
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    reflection.enable_server_reflection((DEMO, ASYNC_CALLS, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        if credentials is None:
            bound = server.add_insecure_port(address(host, port))
        else:
            bound = server.add_secure_port(address(host, port), credentials)
    except RuntimeError:
        raise click.ClickException(
            f"cannot listen on {address(host, port)}: the port is in use, or the host is not this machine's"
        ) from None
    await server.start()
    await state.set("", health_pb2.HealthCheckResponse.SERVING)
    await state.set(DEMO, health_pb2.HealthCheckResponse.SERVING)
    print(f"listening on {address(host, bound)}", flush=True)

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.remove_signal_handler(number)
        # A second signal ends the process at once, whatever runs: Python would raise KeyboardInterrupt in the middle of
        # it, and where that is inside gRPC it is logged there and lost.
        signal.signal(number, signal.SIG_DFL)
    print(f"stopping: {server.running_calls} calls are running and have {grace:g} s to finish", flush=True)
    await state.enter_graceful_shutdown()
    await server.stop()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", default=50051, show_default=True, type=click.IntRange(0, 65535), help="0 picks a free one and prints it."
)
@click.option("--tls-cert", metavar="FILE", help="The server's certificate chain, as PEM.")
@click.option("--tls-key", metavar="FILE", help="The certificate's private key, as PEM.")
@click.option(
    "--grace", default=5.0, show_default=True, type=click.FloatRange(0), help="Seconds for running calls at the end."
)
@click.option(
    "--log-level",
    default="info",
    show_default=True,
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
)
def main(host: str, port: int, tls_cert: str | None, tls_key: str | None, grace: float, log_level: str) -> None:
    """Serve the demo calls until Ctrl-C."""
    logging.basicConfig(
        level=log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    if (tls_cert is None) != (tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key go together")
    credentials = load_credentials(tls_cert, tls_key) if tls_cert and tls_key else None
    asyncio.run(serve(host, port, credentials, grace))


if __name__ == "__main__":
    main(prog_name="python -m server")
