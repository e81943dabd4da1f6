"""`python -m client`: makes one or more `AsyncFunc` calls, and shows how they go."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's own log says everything a second time, and unreadably

import click
import grpc

import rpc_async
from client.view import View, make_view
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc

EXIT_FAILURE = 1
EXIT_ABORTED = 130


class Interrupts:
    """Ctrl-C: once asks the server to stop, twice aborts."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._calls: list[rpc_async.AsyncCall[demo_pb2.AsyncFuncResponse]] = []
        self._pressed = 0

    def add(self, call: rpc_async.AsyncCall[demo_pb2.AsyncFuncResponse]) -> None:
        """Have a call cancelled too."""
        self._calls.append(call)

    def press(self) -> None:
        """Ctrl-C was pressed."""
        self._pressed += 1
        if self._pressed == 1:
            self._view.say("asking the server to stop; Ctrl-C again aborts")
            for call in self._calls:
                call.request_cancel()
        else:
            for call in self._calls:
                call.cancel()


async def follow(number: int, call: rpc_async.AsyncCall[demo_pb2.AsyncFuncResponse], view: View) -> int:
    """Show one call until it has settled. Returns the program's exit code for it."""
    view.status(number, call)
    async for progress in call.progress():
        view.progress(number, progress)
    try:
        reply = await call
    except rpc_async.CallError as error:
        view.failure(number, call, error)
        aborted = error.cancel_reason is rpc_async.CancelReason.CLIENT_ABORTED
        return EXIT_ABORTED if aborted else EXIT_FAILURE
    view.reply(number, call, reply)
    return 0


LINGER = 5.0
"""Seconds: how long a person is left waiting for a connection that was lost to come back."""


async def run(
    target: str,
    credentials: grpc.ChannelCredentials | None,
    delay_ms: int,
    cancel_after_ms: int | None,
    abort: bool,
    count: int,
) -> int:
    """Make the calls, all at once. Returns the exit code."""
    try:
        channel = rpc_async.connect(target, credentials=credentials, linger=LINGER)
        channel.get_state()  # opens it: what it cannot be opened for is wrong usage, too
    except rpc_async.InvalidArgument as error:
        raise click.BadParameter(str(error), param_hint="--target") from None
    with make_view(count) as view:
        interrupts = Interrupts(view)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, interrupts.press)
        async with channel:
            stub = demo_pb2_grpc.DemoStub(channel)
            calls = [
                rpc_async.begin(stub.AsyncFunc, demo_pb2.AsyncFuncRequest(delay_ms=delay_ms)) for _ in range(count)
            ]
            for call in calls:
                interrupts.add(call)
                if cancel_after_ms is not None:
                    loop.call_later(cancel_after_ms / 1000, call.cancel if abort else call.request_cancel)
            codes = await asyncio.gather(*(follow(number, call, view) for number, call in enumerate(calls, 1)))
    return max(codes)


def load_credentials(file: str) -> grpc.ChannelCredentials:
    """Read the certificates to trust."""
    try:
        with open(file, "rb") as opened:
            return grpc.ssl_channel_credentials(opened.read())
    except OSError as error:
        raise click.ClickException(f"the certificates in {file} do not load: {error.strerror}") from None


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--target", default="127.0.0.1:50051", show_default=True, help="The server, as gRPC names it.")
@click.option("--tls-ca", metavar="FILE", help="Use TLS, and trust the certificates in this file, as PEM.")
@click.option(
    "--delay-ms",
    default=3000,
    show_default=True,
    type=click.IntRange(-(2**63), 2**63 - 1),
    help="How long the call works. Below 0 means 20, 0 to 99 means 100.",
)
@click.option("--cancel-after-ms", type=click.IntRange(0), help="Cancel after this time: ask, and take the answer.")
@click.option("--abort", is_flag=True, help="With --cancel-after-ms: do not ask, abort.")
@click.option("--count", default=1, show_default=True, type=click.IntRange(1, 10_000), help="So many calls at once.")
def main(target: str, tls_ca: str | None, delay_ms: int, cancel_after_ms: int | None, abort: bool, count: int) -> None:
    """Call AsyncFunc, and show its status, its progress and its reply.

    Ctrl-C asks the server to stop and waits for its answer; Ctrl-C again aborts.

    Exit codes: 0 a reply, 1 a failure, 2 wrong usage, 130 aborted.
    """
    if abort and cancel_after_ms is None:
        raise click.UsageError("--abort goes with --cancel-after-ms")
    credentials = load_credentials(tls_ca) if tls_ca else None
    sys.exit(asyncio.run(run(target, credentials, delay_ms, cancel_after_ms, abort, count)))


if __name__ == "__main__":
    main(prog_name="python -m client")
