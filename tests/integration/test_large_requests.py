"""Large requests and replies over sockets: each is answered, whatever its size, alone and among others.

With cuts, and for longer, it is the scenario `large` of `make soak`, which `test_faults.py` has in its short form.
"""

from __future__ import annotations

import asyncio
import itertools

import pytest

import rpc_async
from benchmarks.children import Children
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
from tests.harness import PATIENCE, EchoCall, Servicer, pair
from tests.soak.large import KIB, MIB, MOST
from tests.soak.servers import start_server
from tests.soak.work import Order

SMALL = 20
"""Calls that large ones are among."""


class Sized(Servicer):
    """Answers a request with as many bytes as the number in its first eight says."""

    @rpc_async.manager
    async def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
        size = int.from_bytes(request.payload[:8])
        call.complete(demo_pb2.EchoResponse(payload=request.payload[:8] + bytes(size)))


def sized(up: int, down: int) -> demo_pb2.EchoRequest:
    return demo_pb2.EchoRequest(payload=down.to_bytes(8) + bytes(up))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("order", list(itertools.permutations((300, 1, 1100))))
async def test_C8_requests_of_any_size_one_after_another(causal: bool, order: tuple[int, ...]) -> None:
    async with pair(Sized(), "session") as both:
        async with rpc_async.connect(both.target, transport="session", causal=causal) as channel:
            echo = type(both.stub)(channel).Echo
            for size in (size * KIB for size in order):
                for up, down in ((size, 0), (0, size), (size, size)):
                    reply = await asyncio.wait_for(rpc_async.begin(echo, sized(up, down)), PATIENCE)
                    assert len(reply.payload) == 8 + down


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("among", [False, True])
async def test_C8_requests_of_60_KiB_to_63_MiB_to_a_server_in_another_process(causal: bool, among: bool) -> None:
    async with Children() as children:
        server = await start_server(children)
        async with rpc_async.connect(server.target, transport="session", causal=causal) as channel:
            echo = demo_pb2_grpc.DemoStub(channel).Echo
            for size in (60 * KIB, 64 * KIB, 65 * KIB, 520 * KIB, 1100 * KIB, 7 * MIB, MOST):
                for up, down in ((size, 0), (0, size), (size, size)):
                    begun = [(0, 0)] * SMALL + [(up, down)] + [(0, 0)] * SMALL if among else [(up, down)]
                    orders = [(Order(number, size=two), one) for number, (one, two) in enumerate(begun)]
                    calls = [rpc_async.begin(echo, order.request(padding)) for order, padding in orders]
                    for (order, _), call in zip(orders, calls, strict=True):
                        assert order.answered_by(await asyncio.wait_for(call, PATIENCE))
