"""The life of a server, and the services that gRPC has ready."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from rpc_async.demo.v1 import demo_pb2
from tests.compat.ends import Waiting
from tests.compat.lab import ALL_KINDS, Lab, Seen, attempt, case, echo, method, outcome, raised, unary


@case()
async def stop_cancels_what_runs(lab: Lab) -> Seen:
    waiting = Waiting()
    served = await lab.serve(waiting.handlers())
    call = method(lab.connect(served.target), "Wait")(b"")
    await waiting.begun.wait()
    await served.server.stop(None)
    await waiting.cancelled.wait()
    return {"code": (await call.code()).name}


@case(managers=True)
async def stop_with_grace_lets_calls_end(lab: Lab) -> Seen:
    begun, go = asyncio.Event(), asyncio.Event()

    async def wait(request: bytes, context: Any) -> bytes:
        begun.set()
        await go.wait()
        return b"in time"

    served = await lab.serve({"Wait": unary(wait)})
    channel = lab.connect(served.target)
    call = method(channel, "Wait")(b"")
    await begun.wait()
    stopping = asyncio.ensure_future(served.server.stop(10.0))
    asyncio.get_running_loop().call_later(0.1, go.set)
    reply = await outcome(call)
    await stopping
    late = method(channel, "Wait")(b"")
    return {"reply": reply, "after": (await late.code()).name}


@case()
async def a_call_that_comes_as_its_server_stops(lab: Lab) -> Seen:
    looked_up = asyncio.Event()

    class Handlers(grpc.GenericRpcHandler):
        def service(self, handler_call_details: Any) -> Any:
            if handler_call_details.method != "/other.Service/Any":
                return None
            looked_up.set()  # its request has not been read yet
            return unary(echo)

    served = await lab.serve({}, register=lambda server: server.add_generic_rpc_handlers([Handlers()]))
    other: Any = lab.connect(served.target).unary_unary("/other.Service/Any")
    call = other(b"in time")
    await looked_up.wait()
    await served.server.stop(5.0)
    return {"call": str(await outcome(call)).partition(":")[0]}


@case()
async def stop_with_grace_that_runs_out(lab: Lab) -> Seen:
    waiting = Waiting()
    served = await lab.serve(waiting.handlers())
    call = method(lab.connect(served.target), "Wait")(b"")
    await waiting.begun.wait()
    await served.server.stop(0.1)
    return {"code": (await call.code()).name, "told": await waiting.cancelled.wait()}


@case()
async def stop_twice_and_wait_for_the_end(lab: Lab) -> Seen:
    served = await lab.serve(ALL_KINDS)
    server = served.server
    seen: Seen = {"before": await server.wait_for_termination(0.05)}
    waiting = asyncio.ensure_future(server.wait_for_termination())
    await server.stop(None)
    await server.stop(None)
    return {**seen, "after": await waiting, "once more": await server.wait_for_termination(0.05)}


@case()
async def a_server_that_was_never_started(lab: Lab) -> Seen:
    server = lab.server()
    port = server.add_insecure_port("127.0.0.1:0")
    return {"port": port > 0, "stop": await outcome(server.stop(None))}


@case()
async def ports_that_cannot_be_had(lab: Lab) -> Seen:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = lab.server(options=[("grpc.so_reuseport", 0)])
        seen = {
            "taken": await attempt(lambda: server.add_insecure_port(f"127.0.0.1:{port}")),
            "no address": await attempt(lambda: server.add_insecure_port("no.such.host.invalid:1")),
        }
        await server.stop(None)
    return seen


@case()
async def a_server_made_before_its_loop_runs(lab: Lab) -> Seen:
    def make_and_run() -> Any:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            server = lab.server()
            server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("compat.Compat", ALL_KINDS)])
            port = server.add_insecure_port("127.0.0.1:0")
            return loop.run_until_complete(run(server, port))
        except Exception as error:
            return raised(error)
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    async def run(server: grpc.aio.Server, port: int) -> Any:
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            reply = await method(channel, "Echo")(b"x")
        await server.stop(None)
        return reply

    return {"reply": await asyncio.to_thread(make_and_run)}


@case(since=(1, 85))  # gRPC 1.76 takes one more for each that it has refused
async def more_calls_than_a_server_takes(lab: Lab) -> Seen:
    waiting = Waiting()
    served = await lab.serve({**waiting.handlers(), **ALL_KINDS}, max_calls=1)
    channel = lab.connect(served.target)
    first = method(channel, "Wait")(b"")
    while not waiting.begun.is_set():
        begun = asyncio.ensure_future(waiting.begun.wait())
        await asyncio.wait([begun, asyncio.ensure_future(first.code())], return_when=asyncio.FIRST_COMPLETED)
        if not begun.done():  # gRPC's server counts a call a little longer than it lasts: that for a session, here
            begun.cancel()
            first = method(channel, "Wait")(b"")
    refused = method(channel, "Echo")(b"x")
    seen = {"code": (await refused.code()).name, "text": "Concurrent RPC limit exceeded" in await refused.details()}
    first.cancel()
    await waiting.cancelled.wait()
    return seen


@case()
async def handlers_added_later(lab: Lab) -> Seen:
    served = await lab.serve({})
    call = method(lab.connect(served.target), "Echo")
    before = await outcome(call(b"x"))
    served.server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("compat.Compat", ALL_KINDS)])
    return {"before": before, "after": await outcome(call(b"x"))}


@case()
async def the_health_service(lab: Lab) -> Seen:
    servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]
    served = await lab.serve({}, register=lambda server: health_pb2_grpc.add_HealthServicer_to_server(servicer, server))
    stub: Any = health_pb2_grpc.HealthStub(lab.connect(served.target))
    await servicer.set("known", health_pb2.HealthCheckResponse.NOT_SERVING)
    whole = await stub.Check(health_pb2.HealthCheckRequest())
    known = await stub.Check(health_pb2.HealthCheckRequest(service="known"))
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="known"))
    first = await watch.read()
    await servicer.set("known", health_pb2.HealthCheckResponse.SERVING)
    second = await watch.read()
    unknown = await outcome(stub.Check(health_pb2.HealthCheckRequest(service="unknown")))
    watch.cancel()
    return {
        "check": [whole.status, known.status],
        "watch": [first.status, second.status],
        "unknown": str(unknown).split(":")[0],
    }


@case()
async def the_reflection_service(lab: Lab) -> Seen:
    name = demo_pb2.DESCRIPTOR.services_by_name["Demo"].full_name
    served = await lab.serve(
        {}, register=lambda server: reflection.enable_server_reflection((name, reflection.SERVICE_NAME), server)
    )
    channel: Any = lab.connect(served.target)
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=name),
    ]
    listed, described = [reply async for reply in stub.ServerReflectionInfo(iter(requests))]
    return {
        "services": sorted(service.name for service in listed.list_services_response.service),
        "files": len(described.file_descriptor_response.file_descriptor_proto),
    }


@case()
async def grpc_initialised_by_hand(lab: Lab) -> Seen:
    grpc.aio.init_grpc_aio()
    try:
        channel = await lab.channel(ALL_KINDS)
        first = await method(channel, "Echo")(b"one")
    finally:
        grpc.aio.shutdown_grpc_aio()
    return {"first": first, "then": await method(channel, "Echo")(b"two")}
