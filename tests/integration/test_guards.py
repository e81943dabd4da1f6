"""Whatever user code raises ends its own call, and no other; what is to end the process ends it, once the call has."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import grpc
import pytest

import rpc_async
from rpc_async import RpcStatus, begin, manager
from rpc_async.demo.v1 import demo_pb2
from tests.harness import (
    PATIENCE,
    EchoCall,
    Parked,
    Servicer,
    SocketWire,
    Wire,
    outcome,
    pair,
    request,
    response,
    until,
)


class Own(BaseException):
    """What is no Exception, as test frameworks have them."""


ERRORS = {"value": ValueError, "cancelled": asyncio.CancelledError, "exit": GeneratorExit, "own": Own}


class Raising:
    """Serves a method with what raises as the request says."""

    def _raise(self, payload: bytes) -> None:
        if payload != b"good":
            raise ERRORS[payload.decode()]

    @manager(inline=True)
    def inline(self, request: bytes, call: Any) -> None:
        self._raise(request)
        call.complete(request)

    @manager
    async def task(self, request: bytes, call: Any) -> None:
        self._raise(request)
        call.complete(request)

    @manager
    def thread(self, request: bytes, call: Any) -> None:
        self._raise(request)
        call.complete(request)

    @manager(inline=True)
    def echo(self, request: bytes, call: Any) -> None:
        call.complete(request)

    def deserialize(self, payload: bytes) -> bytes:
        self._raise(payload)
        return payload

    def serialize(self, reply: bytes) -> bytes:
        self._raise(reply)
        return reply

    async def ordinary(self, request: bytes, context: Any) -> bytes:
        return request


def registered(raising: Raising) -> grpc.GenericRpcHandler:
    """Register it."""
    make: Any = grpc.unary_unary_rpc_method_handler
    methods = {
        "inline": make(raising.inline),
        "task": make(raising.task),
        "thread": make(raising.thread),
        "deserializer": make(raising.echo, request_deserializer=raising.deserialize),
        "serializer": make(raising.echo, response_serializer=raising.serialize),
        "ordinary-deserializer": make(raising.ordinary, request_deserializer=raising.deserialize),
        "ordinary-serializer": make(raising.ordinary, response_serializer=raising.serialize),
    }
    return grpc.method_handlers_generic_handler("t.T", methods)


MANAGERS = ("inline", "task", "thread")
WHERE = (*MANAGERS, "deserializer", "serializer", "ordinary-deserializer", "ordinary-serializer")


@pytest.mark.parametrize("where", WHERE)
async def test_S7_whatever_is_raised_ends_its_call_and_no_other(socket_wire: SocketWire, where: str) -> None:
    async with pair(Parked(), socket_wire) as both:
        both.server.add_generic_rpc_handlers((registered(Raising()),))
        method = both.channel.unary_unary(f"/t.T/{where}")
        for name in ERRORS:
            before, bad, after = begin(method, b"good"), begin(method, name.encode()), begin(method, b"good")
            error = await outcome(bad)
            expected = RpcStatus.BAD_STUB_DATA if where in ("deserializer", "serializer") else RpcStatus.CALL_FAILED
            assert error.status == expected, (name, error)
            assert (await outcome(before), await outcome(after)) == (b"good", b"good")
        await until(lambda: not both.server.running_calls)


async def test_S12_a_target_that_raises_loses_its_notification_only(wire: Wire) -> None:
    servicer = Parked()
    told: list[object] = []

    def bad(_: object) -> None:
        told.append("bad")
        raise Own

    async with pair(servicer, wire) as both:
        calls = [begin(both.stub.Echo, request()) for _ in range(3)]
        handles = [await servicer.next() for _ in calls]
        handles[0].on_cancel(bad)
        handles[1].on_cancel(told.append)
        for call in calls:
            call.request_cancel()
        await until(lambda: len(told) == 2)
        for handle in handles:
            await asyncio.wait_for(handle.wait_cancelled(), PATIENCE)
            handle.complete(response(b"all the same"))
        assert [(await outcome(call)).payload for call in calls] == [b"all the same"] * 3


ENDING = """
import asyncio, sys
import grpc, grpc.aio
import rpc_async

KIND, WIRE, ERROR = sys.argv[1:]

class Servicer:
    @rpc_async.manager(inline=True)
    def inline(self, request, call):
        raise {"SystemExit": SystemExit(7), "KeyboardInterrupt": KeyboardInterrupt()}[ERROR]

    @rpc_async.manager
    async def task(self, request, call):
        Servicer.inline(self, request, call)

    @rpc_async.manager
    def thread(self, request, call):
        Servicer.inline(self, request, call)

    async def ordinary(self, request, context):
        Servicer.inline(self, request, context)

    def sync(self, request, context):
        Servicer.inline(self, request, context)

    def deserialize(self, payload):
        Servicer.inline(self, payload, None)

    @rpc_async.manager(inline=True)
    def deserializer(self, request, call):
        raise AssertionError

async def main():
    server = rpc_async.server()
    one = Servicer()
    handler = grpc.unary_unary_rpc_method_handler(
        getattr(one, KIND), request_deserializer=one.deserialize if KIND == "deserializer" else None
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", {"M": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()

asyncio.run(main())
"""


@pytest.mark.parametrize("error", ["SystemExit", "KeyboardInterrupt"])
@pytest.mark.parametrize("kind", [*MANAGERS, "deserializer", "ordinary", "sync"])
async def test_S7_what_is_to_end_the_process_ends_it_once_the_client_was_told(
    socket_wire: SocketWire, kind: str, error: str
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", ENDING, kind, socket_wire, error],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        port = await asyncio.to_thread(process.stdout.readline)
        async with rpc_async.connect(f"127.0.0.1:{port.strip()}", transport=socket_wire) as channel:
            failed = await outcome(begin(channel.unary_unary("/t.T/M"), b"x"))
            expected = RpcStatus.BAD_STUB_DATA if kind == "deserializer" else RpcStatus.CALL_FAILED
            assert (failed.status, failed.code()) != (RpcStatus.CALL_FAILED, grpc.StatusCode.UNAVAILABLE), "not told"
            assert failed.status == expected
        _, said = await asyncio.to_thread(process.communicate, timeout=PATIENCE)
        assert process.returncode == (7 if error == "SystemExit" else -2), said
    finally:
        process.kill()
        process.wait()


class TextlessError(Exception):
    """An exception whose text cannot be had."""

    def __str__(self) -> str:
        raise Own


@pytest.mark.parametrize("error", [TextlessError(), ValueError("\udcff")], ids=["no text", "no UTF-8"])
@pytest.mark.parametrize("disclose", [False, True])
async def test_S7_a_text_that_cannot_be_sent_is_no_reason_to_hang(wire: Wire, error: Exception, disclose: bool) -> None:
    class Failing(Servicer):
        @manager(inline=True)
        def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
            raise error

    async with pair(Failing(), wire, disclose_errors=disclose) as both:
        failed = await outcome(begin(both.stub.Echo, request()))
        assert failed.status == RpcStatus.CALL_FAILED
        assert (type(error).__name__ in failed.details()) is disclose


@pytest.mark.parametrize(
    "arguments",
    [
        ("5",),
        (5.0,),
        (None,),
        (True,),
        (5, 5),
        (5, b"text"),
        (5, None),
        (5, "\udcff"),
        (5, "text", 5),
        (5, "text", ["detail"]),
        (5, "text", "detail"),
    ],
    ids=repr,
)
async def test_S6_what_cannot_be_sent_is_refused_and_changes_nothing(wire: Wire, arguments: Any) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        handle: Any = await servicer.next()
        with pytest.raises(rpc_async.InvalidArgument):
            handle.abort(*arguments)
        if len(arguments) > 1:
            with pytest.raises(rpc_async.InvalidArgument):
                handle.progress(0.5, arguments[1], *[(one,) for one in arguments[2:]])
        for fraction in ("0.5", None, 1j, b"1"):
            with pytest.raises(rpc_async.InvalidArgument):
                handle.progress(fraction)
        assert not handle.settled
        handle.complete(response(b"all the same"))
        assert (await call).payload == b"all the same"
