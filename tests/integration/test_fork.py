"""A process that was forked after gRPC was used is told so at once: nothing in it hangs or crashes; its parent goes on.

Each test runs a program of its own, as a fork of pytest's process would not do.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT = 50
"""Seconds for one program."""

HEAD = """
import asyncio, os, signal, sys, time, traceback, warnings
warnings.simplefilter("ignore")
import rpc_async
from rpc_async import begin
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc

target, wire = sys.argv[1:]
request = demo_pb2.EchoRequest(payload=b"well")


def refused(act):
    began = time.monotonic()
    try:
        act()
    except rpc_async.ForkedProcess as error:
        assert isinstance(error, rpc_async.UsageError)
        assert "spawn" in str(error)
        assert time.monotonic() - began < 1
        return
    raise AssertionError(f"{act} was not refused")


def in_a_child(act, leave=os._exit):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            act()
            code = 0
        except BaseException:
            traceback.print_exc()
        sys.stderr.flush()
        leave(code)
    end = time.monotonic() + 10
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            assert os.waitstatus_to_exitcode(status) == 0, (act.__name__, os.waitstatus_to_exitcode(status))
            return
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError(f"{act.__name__} hangs")
"""

SERVER = """
import asyncio
import rpc_async
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc


class Demo(demo_pb2_grpc.DemoServicer):
    @rpc_async.manager(inline=True)
    def Echo(self, request, call):
        if request.payload != b"wait":
            call.complete(demo_pb2.EchoResponse(payload=request.payload))
        else:
            kept.append(call)

    @rpc_async.manager(inline=True)
    def Upload(self, call):
        kept.append(call)

    @rpc_async.manager(inline=True)
    def Download(self, request, call):
        kept.append(call)


async def main():
    server = rpc_async.server()
    demo_pb2_grpc.add_DemoServicer_to_server(Demo(), server)
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


kept = []
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    """Run a server in a process of its own."""
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment()) as server:
        assert server.stdout is not None
        try:
            yield f"127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.kill()


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1", "PYTHONASYNCIODEBUG": ""}


def run(folder: Path, target: str, wire: str, body: str) -> str:
    """Run a program to its good end, and return what it has printed."""
    program = folder / "program.py"
    program.write_text(HEAD + textwrap.dedent(body))
    command = [sys.executable, str(program), target, wire]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT, cwd=folder, env=environment(), check=False
    )
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Fatal" not in done.stderr
    return done.stdout


pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
wires = pytest.mark.parametrize("wire", ["native", "session"])


@wires
def test_what_a_child_opens_is_refused_at_once(tmp_path: Path, target: str, wire: str) -> None:
    run(tmp_path, target, wire, """
        def opens():
            channel = rpc_async.connect(target, transport=wire)
            refused(channel.__enter__)

            async def main():
                async with rpc_async.connect(target, transport=wire):
                    raise AssertionError

            async def serve():
                rpc_async.server().add_insecure_port("127.0.0.1:0")

            async def start():
                await rpc_async.server().start()

            async def lazily():
                demo_pb2_grpc.DemoStub(rpc_async.connect(target, transport=wire)).Echo(request)

            for one in (main, serve, start, lazily):
                refused(lambda: asyncio.run(one()))

        def twice():
            in_a_child(opens)
            opens()

        with rpc_async.connect(target, transport=wire) as channel:
            echo = demo_pb2_grpc.DemoStub(channel).Echo
            for _ in range(3):
                assert begin(echo, request).result(5).payload == b"well"
                in_a_child(opens)
                in_a_child(twice)
                assert begin(echo, request).result(5).payload == b"well"
    """)  # fmt: skip


@wires
def test_what_a_child_inherits_is_closed_and_never_hangs(tmp_path: Path, target: str, wire: str) -> None:
    run(tmp_path, target, wire, """
        def uses():
            assert waiting.status() == rpc_async.RpcStatus.CALL_FAILED
            assert settled.status() == rpc_async.RpcStatus.OK
            assert settled.result().payload == b"well"
            assert waiting.wait() and waiting.done()
            for call in (waiting, upload, download):
                try:
                    call.result()
                except rpc_async.CallFailed as error:
                    assert "forked" in str(error), error
                else:
                    raise AssertionError("it has a reply")
                assert call.cancel() is False

            async def collect():
                await waiting

            try:
                asyncio.run(collect())
            except rpc_async.CallFailed:
                pass
            for act in (lambda: upload.put(demo_pb2.UploadRequest()), download.get):
                try:
                    act()
                except rpc_async.CallFailed:
                    continue
                raise AssertionError("a pipe goes on")
            assert not told
            refused(lambda: begin(stub.Echo, request))
            refused(lambda: stub.Echo(request))
            refused(lambda: begin(stub.Upload))
            channel.__exit__(None, None, None)
            asyncio.run(channel.close())
            repr(waiting), repr(channel)

        told = []
        with rpc_async.connect(target, transport=wire) as channel:
            stub = demo_pb2_grpc.DemoStub(channel)
            settled = begin(stub.Echo, request)
            settled.result(5)
            waiting = begin(stub.Echo, demo_pb2.EchoRequest(payload=b"wait"), notify=told.append)
            waiting.add_done_callback(told.append)
            upload, download = begin(stub.Upload), begin(stub.Download, demo_pb2.DownloadRequest())
            for _ in range(3):
                in_a_child(uses)
                in_a_child(uses, sys.exit)
            assert waiting.status() == rpc_async.RpcStatus.ASYNC_CALL_PENDING
            assert begin(stub.Echo, request).result(5).payload == b"well"
            waiting.cancel()
        assert len(told) == 2
    """)  # fmt: skip


@wires
def test_a_child_leaves_the_blocks_that_it_inherited(tmp_path: Path, target: str, wire: str) -> None:
    run(tmp_path, target, wire, """
        def in_the_child():
            return os.getpid() != parent

        parent, child = os.getpid(), None
        with rpc_async.connect(target, transport=wire) as channel:
            assert begin(demo_pb2_grpc.DemoStub(channel).Echo, request).result(5).payload == b"well"
            child = os.fork()
        if not in_the_child():
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            child = None

        async def main():
            global child
            async with rpc_async.connect(target, transport=wire) as channel:
                await demo_pb2_grpc.DemoStub(channel).Echo(request)
                if not in_the_child():
                    child = os.fork()
            return 7

        if not in_the_child():
            assert asyncio.run(main()) == 7
            if not in_the_child():
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
                print("the parent's end")
    """)  # fmt: skip


@wires
def test_a_server_that_a_child_inherits_has_stopped(tmp_path: Path, target: str, wire: str) -> None:
    printed = run(tmp_path, target, wire, """
        class Demo(demo_pb2_grpc.DemoServicer):
            @rpc_async.manager(inline=True)
            def Echo(self, request, call):
                kept.append(call)
                if request.payload != b"wait":
                    kept.pop().complete(demo_pb2.EchoResponse(payload=request.payload))

        kept = []

        async def main():
            server = rpc_async.server()
            demo_pb2_grpc.add_DemoServicer_to_server(Demo(), server)
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            async with rpc_async.connect(f"127.0.0.1:{port}", transport=wire) as channel:
                echo = demo_pb2_grpc.DemoStub(channel).Echo
                await echo(request)
                waiting = echo(demo_pb2.EchoRequest(payload=b"wait"))
                while not kept:
                    await asyncio.sleep(0.01)
                child = os.fork()
                if child == 0:
                    code = 1
                    try:
                        await server.stop()
                        assert await server.wait_for_termination() is False
                        refused(lambda: server.add_insecure_port("127.0.0.1:0"))
                        refused(lambda: kept[0].complete(demo_pb2.EchoResponse()))
                        refused(lambda: kept[0].abort(5))
                        assert kept[0].test_cancel()
                        code = 0
                    finally:
                        os._exit(code)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
                assert (await echo(request)).payload == b"well"
                kept[0].complete(demo_pb2.EchoResponse(payload=b"at last"))
                assert (await waiting).payload == b"at last"
            await server.stop(None)
            print("the parent's end")

        asyncio.run(main())
    """)  # fmt: skip
    assert "the parent's end" in printed


@wires
def test_a_process_may_fork_before_it_uses_anything(tmp_path: Path, target: str, wire: str) -> None:
    run(tmp_path, target, wire, """
        def calls():
            with channel:
                assert begin(demo_pb2_grpc.DemoStub(channel).Echo, request).result(5).payload == b"well"

        channel = rpc_async.connect(target, transport=wire)
        in_a_child(calls)
        calls()
    """)  # fmt: skip


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes_that_are_started_anew_work(tmp_path: Path, target: str, method: str) -> None:
    run(tmp_path, target, "auto", f"""
        import multiprocessing

        def calls():
            with rpc_async.connect(target, transport=wire) as channel:
                assert begin(demo_pb2_grpc.DemoStub(channel).Echo, request).result(5).payload == b"well"

        if __name__ == "__main__":
            context = multiprocessing.get_context({method!r})
            with rpc_async.connect(target, transport=wire) as channel:
                begin(demo_pb2_grpc.DemoStub(channel).Echo, request).result(5)
                processes = [context.Process(target=calls) for _ in range(2)]
                for process in processes:
                    process.start()
                for process in processes:
                    process.join(20)
                    assert process.exitcode == 0
                begin(demo_pb2_grpc.DemoStub(channel).Echo, request).result(5)
    """)  # fmt: skip
