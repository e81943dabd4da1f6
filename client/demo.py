"""`make demo`: starts a server on a free port and shows, one by one, what an asynchronous call is.

Ends with 0 only if everything came out as the rules say. Leaves nothing running.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import rpc_async
from client.view import describe, name_of
from rpc_async import CallAborted, RpcStatus, begin
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
from rpc_async.v1 import calls_pb2, calls_pb2_grpc, types_pb2

APPLICATION_CODE = 0xC0FFEE
LONG_MS = 10_000
PATIENCE = 10.0
"""Seconds until something that must come is given up."""


class DemoFailed(Exception):
    """Something did not come out as the rules say."""


def check(condition: bool, what: str) -> None:
    """Fail the demo unless a rule held."""
    if not condition:
        raise DemoFailed(what)


def say(text: str) -> None:
    """Show a line of a step."""
    print(f"   {text}", flush=True)


@contextmanager
def running_server() -> Iterator[str]:
    """Start `python -m server` on a free port, yield its target, and end it."""
    command = [sys.executable, "-m", "server", "--port", "0", "--log-level", "warning"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            check(line.startswith("listening on "), f"the server did not start: {line!r}")
            yield line.removeprefix("listening on ").strip()
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


class Tour:
    """The steps, each a rule or two."""

    def __init__(self, channel: rpc_async.Channel) -> None:
        self._demo: demo_pb2_grpc.DemoAsyncStub = demo_pb2_grpc.DemoStub(channel)
        self._calls: calls_pb2_grpc.AsyncCallsAsyncStub = calls_pb2_grpc.AsyncCallsStub(channel)

    def steps(self) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        """Return the steps, with what they show."""
        return [
            ("a call is polled from ASYNC_CALL_PENDING to OK", self.poll),
            ("complete() before the reply is there consumes nothing", self.complete_too_early),
            ("a non-abortive cancel is a question: the server's answer still arrives", self.ask),
            ("an abortive cancel frees the client at once, and the server notices", self.abort),
            ("a call is completed from another thread, after its manager routine returned", self.other_thread),
            ("an application's own abort code arrives unchanged", self.application_code),
        ]

    async def poll(self) -> None:
        call = begin(self._demo.AsyncFunc, demo_pb2.AsyncFuncRequest(delay_ms=500))
        check(call.status() == RpcStatus.ASYNC_CALL_PENDING, "the status begins as ASYNC_CALL_PENDING (C2)")
        say(f"status {name_of(call.status())}")
        polls = 1
        while call.status() == RpcStatus.ASYNC_CALL_PENDING:
            polls += 1
            await asyncio.sleep(0.05)
        say(f"status {name_of(call.status())} after {polls} polls; {describe(call.complete())}")
        check(call.status() == RpcStatus.OK, "the status ends as OK (C2)")
        check(call.complete().steps_done == 100, "the call ran to its end")

    async def complete_too_early(self) -> None:
        call = begin(self._demo.AsyncFunc, demo_pb2.AsyncFuncRequest(delay_ms=200))
        try:
            call.complete()
        except rpc_async.AsyncCallPending as error:
            say(f"{type(error).__name__}: {error}")
        else:
            raise DemoFailed("complete() before the reply raises AsyncCallPending (C1)")
        reply = await call
        say(f"then {name_of(call.status())}; {describe(reply)}")
        check(reply.reply == 1, "the call was outstanding still, and completed (C1)")

    async def ask(self) -> None:
        call = begin(self._demo.AsyncFunc, demo_pb2.AsyncFuncRequest(delay_ms=LONG_MS))
        async for progress in call.progress():
            say(f"progress {progress.fraction:.0%}: now the client asks the server to stop")
            break
        told = await call.request_cancel()
        say(f"the server was told: {name_of(told)}; the status is {name_of(call.status())}")
        reply = await asyncio.wait_for(call, PATIENCE)
        say(f"{name_of(call.status())}; {describe(reply)}")
        check(reply.stopped_early and reply.reply == 1, "the server's final answer arrives after a cancel (S9, C5)")

    async def abort(self) -> None:
        call = begin(self._demo.AsyncFunc, demo_pb2.AsyncFuncRequest(delay_ms=LONG_MS))
        async for _ in call.progress():
            break
        call.cancel()
        say(f"right after cancel() the status is {name_of(call.status())}")
        check(call.status() == RpcStatus.CALL_CANCELLED, "an abort settles the client's side at once (C6)")
        end = time.monotonic() + PATIENCE
        while True:
            info = (await self._calls.GetCall(calls_pb2.GetCallRequest(call_id=call.call_id))).call
            if info.cancel_reason and info.state == types_pb2.CALL_STATE_SETTLED:
                break
            check(time.monotonic() < end, "the server notices an abort")
            await asyncio.sleep(0.05)
        say(f"the server says: {types_pb2.CancelReason.Name(info.cancel_reason)}, and its manager has stopped")
        check(info.cancel_reason == types_pb2.CANCEL_REASON_CLIENT_ABORTED, "the server knows the reason (S13)")

    async def other_thread(self) -> None:
        call = begin(self._demo.EchoFromThread, demo_pb2.EchoFromThreadRequest(payload=b"hello"))
        reply = await asyncio.wait_for(call, PATIENCE)
        say(f"{name_of(call.status())}; {reply.payload.decode()!r}, completed by the thread {reply.completed_by!r}")
        check(reply.completed_by == "worker", "another thread completed the call (S2)")

    async def application_code(self) -> None:
        call = begin(self._demo.Fail, demo_pb2.FailRequest(code=APPLICATION_CODE, message="out of coffee"))
        try:
            await asyncio.wait_for(call, PATIENCE)
        except CallAborted as error:
            say(str(error))
            check(error.status == APPLICATION_CODE, "the code arrives unchanged (S6)")
            check(error.details() == "out of coffee", "the text arrives unchanged (C15)")
        else:
            raise DemoFailed("an abort reaches the client as a fault (S6)")


async def show(target: str) -> None:
    """Go through the steps."""
    async with rpc_async.connect(target) as channel:
        for number, (title, step) in enumerate(Tour(channel).steps(), 1):
            print(f"{number}. {title}", flush=True)
            await step()


def main() -> int:
    """Run the demo. Returns the exit code."""
    try:
        with running_server() as target:
            print(f"a server listens on {target}", flush=True)
            asyncio.run(show(target))
    except DemoFailed as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    except rpc_async.RpcAsyncError as error:
        print(f"FAILED: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print("all as the rules say")
    return 0


if __name__ == "__main__":
    sys.exit(main())
