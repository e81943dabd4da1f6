"""Large requests and replies over sockets: each is answered, whatever its size, alone and among others."""

from __future__ import annotations

import asyncio
import itertools

import pytest

import rpc_async
from rpc_async.demo.v1 import demo_pb2
from tests.harness import PATIENCE, EchoCall, Servicer, pair

KIB = 1024


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
