"""The sender's rule through the real drivers, over a network in memory that holds little or much and is cut at random.

Whatever the order of calls, sizes, aborts and cuts: every call settles. That no writer is forgotten is looked at when
the channel closes, as in every test (`tests/rest.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import rpc_async
from rpc_async import testing
from rpc_async.core.frames import MAX_PAYLOAD
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
from rpc_async.testing import rpc
from rpc_async.wire import session as wire_session
from tests.harness import PATIENCE, EchoCall, Servicer, Wire, logged, outcome, pair

ROOMS: Final = (1, rpc.ROOM, 64 * 1024 * 1024)
"""Bytes that the network holds each way: next to nothing, as it does, and all there can be."""
SIZES: Final = (0, 100, MAX_PAYLOAD + 1, 4 * MAX_PAYLOAD, 20 * MAX_PAYLOAD)


class Call(NamedTuple):
    """A call of this many bytes each way; completed in a task, or from a thread."""

    up: int
    down: int
    thread: bool = False


class Abort(NamedTuple):
    """One of the calls is aborted."""

    which: int


class Ask(NamedTuple):
    """The server is asked to stop one of the calls."""

    which: int


class Cut(NamedTuple):
    """The connection is cut."""


class Turns(NamedTuple):
    """The loop turns so often."""

    number: int


Act = Call | Abort | Ask | Cut | Turns
ACTS: Final = st.lists(
    st.one_of(
        st.builds(Call, st.sampled_from(SIZES), st.sampled_from(SIZES), st.booleans()),
        st.builds(Abort, st.integers(0, 9)),
        st.builds(Ask, st.integers(0, 9)),
        st.just(Cut()),
        st.builds(Turns, st.integers(1, 30)),
    ),
    max_size=12,
)


class Sized(Servicer):
    """Answers with as many bytes as the request's first eight say, from a thread if the ninth is not 0."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool

    @rpc_async.manager
    async def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
        reply = demo_pb2.EchoResponse(payload=bytes(int.from_bytes(request.payload[:8])))
        if request.payload[8]:
            self._pool.submit(call.complete, reply)
        else:
            call.complete(reply)


async def play(acts: list[Act], causal: bool) -> None:
    """Do it all, and see every call settle."""
    asyncio.get_running_loop().set_debug(False)
    with ThreadPoolExecutor(1) as pool:
        servicer = Sized(pool)
        async with testing.pair(
            lambda server: demo_pb2_grpc.add_DemoServicer_to_server(servicer, server), causal=causal
        ) as both:
            echo = demo_pb2_grpc.DemoStub(both.channel).Echo
            begun: list[tuple[Call, rpc_async.AsyncCall[demo_pb2.EchoResponse]]] = []
            for act in acts:
                if isinstance(act, Call):
                    payload = act.down.to_bytes(8) + bytes([act.thread]) + bytes(act.up)
                    request = demo_pb2.EchoRequest(payload=payload)
                    begun.append((act, rpc_async.begin(echo, request, wait_for_ready=True)))
                elif isinstance(act, Abort) and begun:
                    begun[act.which % len(begun)][1].cancel()
                elif isinstance(act, Ask) and begun:
                    begun[act.which % len(begun)][1].request_cancel()
                elif isinstance(act, Cut):
                    both.cut()
                elif isinstance(act, Turns):
                    for _ in range(act.number):
                        await asyncio.sleep(0)
            for act, call in begun:
                if not await settled(call):
                    assert len(call.complete().payload) == act.down


async def settled(call: rpc_async.AsyncCall[Any]) -> bool:
    """Wait until a call has settled. Returns whether it was aborted."""
    waiting: Awaitable[Any] = call
    try:
        await asyncio.wait_for(waiting, PATIENCE)
    except rpc_async.CallCancelled:
        return True
    return False


@pytest.mark.parametrize("room", ROOMS)
@settings(max_examples=300)
@given(acts=ACTS, causal=st.booleans())
@example(acts=[Call(20 * MAX_PAYLOAD, 0)], causal=True)
@example(acts=[Call(20 * MAX_PAYLOAD, 0), Call(0, 0)], causal=False)
@example(acts=[Call(0, 20 * MAX_PAYLOAD, thread=True), Cut()], causal=True)
@example(acts=[Call(20 * MAX_PAYLOAD, 0), Turns(9), Abort(0), Call(0, 0)], causal=True)
def test_whatever_comes_in_whatever_order_every_call_settles(room: int, acts: list[Act], causal: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rpc, "ROOM", room)
        asyncio.run(play(acts, causal))


@pytest.mark.parametrize("wire", ["memory", "session"])
@pytest.mark.parametrize("encoder", ["calling.conversation.encode_request", "serving.session.encode_response"])
async def test_C8_a_writer_that_fails_as_it_never_should_leaves_no_call_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wire: Wire, encoder: str
) -> None:
    name = encoder.rpartition(".")[2]
    encode: Callable[[Any, int], bytes] = getattr(wire_session, name)
    left = [1]

    def encode_or_fail(frames: Any, ack: int) -> bytes:
        if frames and left:
            raise MemoryError(left.pop())
        return encode(frames, ack)

    with ThreadPoolExecutor(1) as pool:
        async with pair(Sized(pool), wire) as both:
            ask = demo_pb2.EchoRequest(payload=bytes(9))
            assert (await both.stub.Echo(ask)).payload == b""
            monkeypatch.setattr(f"rpc_async.{encoder}", encode_or_fail)
            for call in [rpc_async.begin(both.stub.Echo, ask) for _ in range(3)]:
                assert isinstance(await outcome(call), rpc_async.CallFailed)
            assert (await outcome(rpc_async.begin(both.stub.Echo, ask, wait_for_ready=True))).payload == b""
    assert [record for record in logged(caplog) if record.exc_info and record.exc_info[0] is MemoryError]
