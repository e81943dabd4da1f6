"""`serving/server.py`: the gRPC server inside is made when it is needed, and not before."""

from __future__ import annotations

import subprocess
import sys

import pytest

import rpc_async
from rpc_async.demo.v1 import demo_pb2_grpc
from tests.harness import PATIENCE, Parked, request, response

MADE_AND_DROPPED = """
import asyncio, gc, rpc_async
from rpc_async.demo.v1 import demo_pb2_grpc
from tests.harness import Parked
async def main():
    server = rpc_async.server()
    demo_pb2_grpc.add_DemoServicer_to_server(Parked(), server)
    del server
    gc.collect()
asyncio.run(main())
asyncio.run(main())
"""


def test_a_server_that_is_made_and_dropped_leaves_nothing_behind() -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", MADE_AND_DROPPED], timeout=PATIENCE, check=True)


async def test_a_server_that_was_never_started_can_be_stopped_and_that_is_final() -> None:
    server = rpc_async.server()
    demo_pb2_grpc.add_DemoServicer_to_server(Parked(), server)
    assert await server.wait_for_termination(0.001) is True
    await server.stop()
    assert await server.wait_for_termination() is False
    assert server._inner is None
    with pytest.raises(rpc_async.InvalidBinding, match="make another"):
        await server.start()
    with pytest.raises(rpc_async.InvalidBinding, match="make another"):
        server.add_insecure_port("127.0.0.1:0")


OUTSIDE_A_LOOP = """
import asyncio, warnings
import rpc_async
from rpc_async.demo.v1 import demo_pb2_grpc
from tests.harness import Parked, request, response

servicer = Parked()
made = rpc_async.server()  # where no loop runs
demo_pb2_grpc.add_DemoServicer_to_server(servicer, made)

async def serve(server, servicer, port):
    port = port or server.add_insecure_port("127.0.0.1:0")
    await server.start()
    for transport in ("native", "session"):
        async with rpc_async.connect(f"127.0.0.1:{port}", transport=transport) as channel:
            call = demo_pb2_grpc.DemoStub(channel).Echo(request())
            (await servicer.next()).complete(response(b"served"))
            assert (await call).payload == b"served"
    await server.stop(None)
    assert await server.wait_for_termination() is False

asyncio.run(serve(made, servicer, None))

servicer = Parked()
ported = rpc_async.server()
demo_pb2_grpc.add_DemoServicer_to_server(servicer, ported)
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
port = ported.add_insecure_port("127.0.0.1:0")  # on the thread's current loop, as gRPC does
loop.run_until_complete(serve(ported, servicer, port))

elsewhere = rpc_async.server()
elsewhere.add_insecure_port("127.0.0.1:0")
try:
    asyncio.run(elsewhere.start())
except rpc_async.InvalidBinding as error:
    assert "another event loop" in str(error), error
else:
    raise AssertionError("started on another loop")
loop.run_until_complete(elsewhere.start())
loop.run_until_complete(elsewhere.stop(None))
loop.close()
print("served")
"""


def test_a_server_can_be_made_and_given_ports_where_no_loop_runs() -> None:
    command = [sys.executable, "-W", "error", "-c", OUTSIDE_A_LOOP]
    done = subprocess.run(command, timeout=PATIENCE, check=True, capture_output=True, text=True)
    assert done.stdout == "served\n"
    assert "Error" not in done.stderr


async def test_what_is_registered_after_the_port_is_served_too() -> None:
    servicer = Parked()
    server = rpc_async.server()
    port = server.add_insecure_port("127.0.0.1:0")
    demo_pb2_grpc.add_DemoServicer_to_server(servicer, server)
    await server.start()
    async with rpc_async.connect(f"127.0.0.1:{port}", transport="native") as channel:
        call = demo_pb2_grpc.DemoStub(channel).Echo(request())
        (await servicer.next()).complete(response(b"served"))
        assert (await call).payload == b"served"
    await server.stop(None)
