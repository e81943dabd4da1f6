"""`calling/native.py`: what the integration tests cannot provoke."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import grpc.aio

from rpc_async.calling.call import AsyncCall
from rpc_async.calling.io_loop import IoLoop
from rpc_async.calling.native import PLAIN, NativeDriver
from rpc_async.status import RpcStatus
from tests.harness import outcome


class Late:
    """A gRPC call that says it is done, and whose reply is not there yet."""

    def __init__(self) -> None:
        self.reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def __await__(self) -> Generator[Any, None, bytes]:
        return self.reply.__await__()


async def test_a_grpc_call_whose_outcome_is_not_there_when_it_is_done_is_waited_for() -> None:
    async with grpc.aio.insecure_channel("localhost:1") as channel:
        driver = NativeDriver(IoLoop.running(), channel)
        call: AsyncCall[bytes] = AsyncCall(driver, "/t.T/M", None)
        native: Any = Late()
        driver._collect(call, native, bytes.upper)
        await asyncio.sleep(0)
        assert call.status() is RpcStatus.ASYNC_CALL_PENDING
        native.reply.set_result(b"late")
        assert await outcome(call) == b"LATE"
        await driver.close(None)


async def test_C8_a_call_that_comes_too_late_for_its_channel_is_settled_and_does_not_touch_it() -> None:
    async with grpc.aio.insecure_channel("localhost:1") as channel:
        driver = NativeDriver(IoLoop.running(), channel)
        driver.abort_all()
        call: AsyncCall[bytes] = AsyncCall(driver, "/t.T/M", None)
        assert driver.begin(call, b"", PLAIN)
        assert call.status() is RpcStatus.CALL_CANCELLED
        assert call.native is None
        await driver.close()


async def test_a_failure_that_nobody_foresaw_settles_the_call() -> None:
    async with grpc.aio.insecure_channel("localhost:1") as channel:
        driver = NativeDriver(IoLoop.running(), channel)
        call: AsyncCall[bytes] = AsyncCall(driver, "/t.T/M", None)
        native: Any = Late()
        native.reply.set_exception(OSError("strange"))
        driver._collect(call, native, bytes.upper)
        error = await outcome(call)
        assert error.status == RpcStatus.INTERNAL_ERROR
        assert "strange" in error.details()
        await driver.close(None)
