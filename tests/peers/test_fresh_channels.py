"""The first call of a default channel, to servers that know nothing of sessions: none may fail while it finds that out.

`pytest tests/peers/test_fresh_channels.py --fresh-channels 1000` takes more of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

import rpc_async
from tests.harness import outcome
from tests.peers import interop_pb2 as pb
from tests.peers import interop_pb2_grpc
from tests.peers.plain import KINDS, serving

AT_ONCE = 20
"""Channels that are opened together in the second half."""


@pytest.fixture(scope="module", params=KINDS)
def target(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run a server of each kind."""
    with serving(request.param) as target:
        yield target


async def first_call(target: str) -> str | None:
    """Open a channel, make one call, close it. Returns how the call failed."""
    async with rpc_async.connect(target) as channel:
        reply = await outcome(rpc_async.begin(interop_pb2_grpc.TestServiceStub(channel).EmptyCall, pb.Empty()))
    return None if reply == pb.Empty() else repr(reply)


async def test_no_first_call_fails(target: str, fresh_channels: int) -> None:
    alone = [await first_call(target) for _ in range(fresh_channels // 2)]
    together: list[str | None] = []
    while len(alone) + len(together) < fresh_channels:
        together += await asyncio.gather(*(first_call(target) for _ in range(AT_ONCE)))
    failures = [failure for failure in alone + together if failure is not None]
    assert not failures, f"{len(failures)} of {len(alone + together)}"
