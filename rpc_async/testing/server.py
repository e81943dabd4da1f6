"""The server's end: a `grpc.aio.Server` over memory, which runs handlers as gRPC's own does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc
import grpc.aio

from rpc_async.errors import CannotSupport
from rpc_async.serving.handler_context import HandlerContext
from rpc_async.serving.running import run_handler
from rpc_async.serving.session import Identity
from rpc_async.status import CancelReason
from rpc_async.testing.network import Network
from rpc_async.testing.rpc import Metadata, Rpc
from rpc_async.wire.faults import grpc_status_code
from rpc_async.wire.metadata import Metadatum

__all__ = ["MemoryServer"]

Handler = Any  # grpc.RpcMethodHandler, whose type arguments exist in its stubs only
Find = Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]


class MemoryServer(grpc.aio.Server):
    """Takes the place of gRPC's server inside one of ours."""

    def __init__(
        self, network: Network, pool: ThreadPoolExecutor, interceptors: Sequence[grpc.aio.ServerInterceptor]
    ) -> None:
        """Make it: it is reached by `network`, runs plain functions in `pool`; the first interceptor is outermost."""
        self.pool: Final = pool
        self._network = network
        self._handlers: list[grpc.GenericRpcHandler] = []
        self._calls: dict[Rpc, asyncio.Task[None]] = {}
        self._stopped = asyncio.Event()

        async def found(details: grpc.HandlerCallDetails) -> Handler | None:
            for one in self._handlers:
                handler: Handler | None = one.service(details)
                if handler is not None:
                    return handler
            return None

        self.find: Find = found
        for interceptor in reversed(interceptors):
            self.find = _intercepted(interceptor, self.find)

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Register handlers."""
        self._handlers.extend(generic_rpc_handlers)

    def add_insecure_port(self, address: str) -> int:
        """Refuse: raises CannotSupport."""
        raise CannotSupport(f"{address}: the server of an in-process pair has no ports; connect with `pair.connect()`")

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        """Refuse: raises CannotSupport."""
        return self.add_insecure_port(address)

    async def start(self) -> None:
        """Take calls from now on."""
        self._network.listen(self)

    async def stop(self, grace: float | None) -> None:
        """Take no more calls, and cancel those that still run after `grace` seconds."""
        self._network.listen(None)
        if grace and self._calls:
            await asyncio.wait(tuple(self._calls.values()), timeout=grace)
        for rpc in tuple(self._calls):
            rpc.fail(grpc.StatusCode.UNAVAILABLE, "the server has stopped: Cancelling all calls")
        if self._calls:
            await asyncio.wait(tuple(self._calls.values()))
        self._stopped.set()

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        """Wait until the server has stopped, at most `timeout` seconds. Returns True if it has not."""
        try:
            await asyncio.wait_for(self._stopped.wait(), timeout)
        except TimeoutError:
            return True
        return False

    def accept(self, rpc: Rpc) -> None:
        """Take a call in."""
        task = self._calls[rpc] = self._network.loop.create_task(_ServedRpc(rpc, self).run())
        task.add_done_callback(lambda _: self._calls.pop(rpc))
        rpc.call_at_end(task.cancel)


def _intercepted(interceptor: grpc.aio.ServerInterceptor, find: Find) -> Find:
    async def intercepted(details: grpc.HandlerCallDetails) -> Handler | None:
        return await interceptor.intercept_service(find, details)

    return intercepted


class _Details(grpc.HandlerCallDetails):
    def __init__(self, method: str, metadata: tuple[Metadatum, ...]) -> None:
        self.method = method
        self.invocation_metadata = metadata


class _EndedError(grpc.aio.UsageError):
    """A handler wrote to a call that has ended: nobody reads it."""


class _ServedRpc:
    """One call, as its handler's context sees it."""

    def __init__(self, rpc: Rpc, server: MemoryServer) -> None:
        self.rpc: Final = rpc
        self.loop: Final = rpc.loop
        self.method: Final = rpc.method
        self.metadata: Final = tuple(Metadatum(*pair) for pair in rpc.metadata)
        self.deadline: Final = rpc.deadline
        self.identity: Final = Identity(rpc.peer, None, None, {})
        self._server = server

    @property
    def cause(self) -> CancelReason | None:
        """Why the client does not wait any more: what gRPC knows of it."""
        return CancelReason.CLIENT_ABORTED if self.rpc.end is not None else None

    def orphan(self, reason: CancelReason) -> None:
        """Cancel it, from the server's side."""
        self.rpc.fail(grpc.StatusCode.CANCELLED, f"the server cancelled the call: {reason}")

    async def run(self) -> None:
        """Serve it."""
        context = _Context(self)
        finding = self._server.find(_Details(self.method, self.metadata))
        try:
            await run_handler(finding, context, self._server.pool)
        except asyncio.CancelledError:
            self.rpc.finish(grpc.StatusCode.CANCELLED, "the handler raised CancelledError", context.trailing)
        finally:
            context.ended()


class _Context(HandlerContext):
    """The context of such a call."""

    def __init__(self, call: _ServedRpc) -> None:
        super().__init__(call)
        self._rpc = call.rpc

    async def receive(self) -> bytes | None:
        return await self._rpc.requests.get()

    async def put(self, message: bytes) -> None:
        if not self._rpc.initial.done():
            self._rpc.initial.set_result(())
        if not await self._rpc.responses.put(message):
            raise _EndedError("the call has ended: what was written is lost")

    async def introduce(self, initial_metadata: Metadata) -> None:
        if self._rpc.end is not None:
            raise _EndedError("the call has ended: initial metadata cannot be sent any more")
        if not self._rpc.initial.done():
            self._rpc.initial.set_result(initial_metadata)

    def send_outcome(self, number: int, text: str, trailing: Metadata) -> None:
        self._rpc.finish(grpc_status_code(number), text, trailing)
