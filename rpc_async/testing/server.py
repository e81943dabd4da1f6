"""The server's end: a `grpc.aio.Server` over memory, which runs handlers as gRPC's own does."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc
import grpc.aio

from rpc_async.errors import CannotSupport
from rpc_async.serving.handler_context import HandlerContext, SyncHandlerContext
from rpc_async.serving.session import Identity
from rpc_async.status import CancelReason
from rpc_async.testing.network import Network
from rpc_async.testing.rpc import Metadata, Rpc
from rpc_async.wire.metadata import Metadatum, check_metadata

__all__ = ["MemoryServer"]

_LOGGER: Final = logging.getLogger("rpc_async.testing")

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
        rpc = self.rpc
        try:
            await self._serve(context)
            rpc.finish(context.status, context.text, context.trailing)
        except grpc.aio.AbortError:
            rpc.finish(context.status, context.text, context.trailing)
        except asyncio.CancelledError:
            rpc.finish(grpc.StatusCode.CANCELLED, "the handler raised CancelledError", context.trailing)
        except _EndedError:
            return
        except Exception as error:
            _LOGGER.exception("%s: the handler raised, and the call fails", rpc.method)
            code = grpc.StatusCode.UNKNOWN if context.status is grpc.StatusCode.OK else context.status
            rpc.finish(code, f"Unexpected {type(error)}: {error}", context.trailing)
        finally:
            context.ended()

    async def _serve(self, context: _Context) -> None:
        handler = await self._server.find(_Details(self.method, self.metadata))
        if handler is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        context.handler = handler
        behaviour: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        requests = _Requests(context)
        in_thread = not (inspect.iscoroutinefunction(behaviour) or inspect.isasyncgenfunction(behaviour))
        request: Any = requests
        if not handler.request_streaming:
            request = await context.read()
        elif in_thread:
            request = _from_thread(requests, self.loop)
        if in_thread:
            await self._run_in_thread(behaviour, request, context, handler.response_streaming)
        elif inspect.isasyncgenfunction(behaviour):
            async for reply in behaviour(request, context):
                await context.write(reply)
        else:
            reply = await behaviour(request, context)
            if not handler.response_streaming and context.status is grpc.StatusCode.OK:
                await context.write(reply)

    async def _run_in_thread(self, behaviour: Any, request: Any, context: _Context, response_streaming: bool) -> None:
        sync = SyncHandlerContext(context)
        result = await self.loop.run_in_executor(self._server.pool, behaviour, request, sync)
        if not response_streaming:
            if context.status is grpc.StatusCode.OK:
                await context.write(result)
            return
        replies = iter(result)
        while (reply := await self.loop.run_in_executor(self._server.pool, next, replies, None)) is not None:
            await context.write(reply)


class _Context(HandlerContext):
    """The context of such a call."""

    def __init__(self, call: _ServedRpc) -> None:
        super().__init__(call)
        self.handler: Handler = None
        self._rpc = call.rpc

    async def read(self) -> Any:
        message = await self._rpc.requests.get()
        if message is None:
            return grpc.aio.EOF
        deserialize = self.handler.request_deserializer
        return message if deserialize is None else deserialize(message)

    async def write(self, message: Any) -> None:
        if not self._rpc.initial.done():
            self._rpc.initial.set_result(())
        serialize = self.handler.response_serializer
        if not await self._rpc.responses.put(message if serialize is None else serialize(message)):
            raise _EndedError("the call has ended: what was written is lost")

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        if self._rpc.end is not None:
            raise _EndedError("the call has ended: initial metadata cannot be sent any more")
        if self._rpc.initial.done():
            raise grpc.aio.UsageError("Send initial metadata failed: already sent")
        self._rpc.initial.set_result(check_metadata(initial_metadata))

    def introduce(self, initial_metadata: Metadata) -> None:
        self.call.loop.call_soon_threadsafe(self._introduce, initial_metadata)

    def _introduce(self, initial_metadata: Metadata) -> None:
        if not self._rpc.initial.done():
            self._rpc.initial.set_result(initial_metadata)


class _Requests(AsyncIterator[Any]):
    """The requests of a call."""

    def __init__(self, context: _Context) -> None:
        self._context = context

    async def __anext__(self) -> Any:
        request = await self._context.read()
        if request is grpc.aio.EOF:
            raise StopAsyncIteration
        return request


def _from_thread(requests: AsyncIterator[Any], loop: asyncio.AbstractEventLoop) -> Iterator[Any]:
    """Iterate over requests in a thread."""

    async def following() -> Any:
        return await anext(requests, None)

    while (request := asyncio.run_coroutine_threadsafe(following(), loop).result()) is not None:
        yield request
