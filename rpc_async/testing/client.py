"""The client's end: a `grpc.aio.Channel` over memory, and its calls, which behave as gRPC's own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

import grpc
import grpc.aio

from rpc_async.errors import CannotSupport
from rpc_async.testing.network import Network
from rpc_async.testing.rpc import Metadata, Rpc
from rpc_async.wire.metadata import check_metadata

__all__ = ["MemoryChannel"]

_LOGGER: Final = logging.getLogger("rpc_async.testing")

CallT = TypeVar("CallT", bound="_Call")
Function = Callable[[Any], Any] | None


class MemoryChannel(grpc.aio.Channel):
    """One connection to a server in memory.

    gRPC's credentials and compression mean nothing here, and are not looked at.
    """

    def __init__(self, network: Network, max_reply: int) -> None:
        """Make it, for replies of `max_reply` bytes at the most.

        Raises:
            CannotSupport: Another event loop runs here than the server's.
        """
        if asyncio.get_running_loop() is not network.loop:
            raise CannotSupport(
                "a channel of an in-process pair lives on the pair's event loop: open it there with `async with`, and "
                "use the handles of its calls from any thread"
            )
        self._network = network
        self._max_reply = max_reply
        self._peer = network.connect()
        self._rpcs: set[Rpc] = set()
        self._state = grpc.ChannelConnectivity.IDLE
        self._changed: asyncio.Future[None] = network.loop.create_future()
        network.watchers.add(self._look_again)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Cancel all calls, those that have not ended in `grace` seconds, and take no more."""
        self._change(grpc.ChannelConnectivity.SHUTDOWN)
        if grace and self._rpcs:
            await asyncio.wait([asyncio.ensure_future(rpc.ended()) for rpc in self._rpcs], timeout=grace)
        self._network.disconnect(self._peer)
        self._network.watchers.discard(self._look_again)
        for rpc in tuple(self._rpcs):
            rpc.cancel("Channel closed!")

    # -- the state --------------------------------------------------------------------------------------

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Return the state, as gRPC names it: IDLE until a call begins or somebody tries to connect."""
        if try_to_connect:
            self._look()
        return self._state

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until the state is another."""
        while self._state is last_observed_state:
            await asyncio.shield(self._changed)

    async def channel_ready(self) -> None:
        """Wait until the server is there."""
        while self.get_state(try_to_connect=True) is not grpc.ChannelConnectivity.READY:
            await self.wait_for_state_change(self._state)

    def _look(self) -> None:
        if self._state is not grpc.ChannelConnectivity.SHUTDOWN:
            ready = self._network.reachable
            self._change(grpc.ChannelConnectivity.READY if ready else grpc.ChannelConnectivity.TRANSIENT_FAILURE)

    def _look_again(self) -> None:
        if self._state is not grpc.ChannelConnectivity.IDLE:
            self._look()

    def _change(self, state: grpc.ChannelConnectivity) -> None:
        if state is not self._state:
            self._state = state
            self._changed.set_result(None)
            self._changed = self._network.loop.create_future()

    # -- methods ----------------------------------------------------------------------------------------

    def unary_unary(self, method: str, *functions: Any, **named: Any) -> Any:
        """Return a unary method. Generated stubs do this."""
        return _Method(self, method, _UnaryUnaryCall, *functions, **named)

    def unary_stream(self, method: str, *functions: Any, **named: Any) -> Any:
        """Return a server-streaming method. Generated stubs do this."""
        return _Method(self, method, _UnaryStreamCall, *functions, **named)

    def stream_unary(self, method: str, *functions: Any, **named: Any) -> Any:
        """Return a client-streaming method. Generated stubs do this."""
        return _Method(self, method, _StreamUnaryCall, *functions, **named)

    def stream_stream(self, method: str, *functions: Any, **named: Any) -> Any:
        """Return a bidirectionally streaming method. Generated stubs do this."""
        return _Method(self, method, _StreamStreamCall, *functions, **named)

    def begin(self, method: str, metadata: Metadata, timeout: float | None, wait_for_ready: bool) -> Rpc:
        """Begin a call.

        Raises:
            grpc.aio.UsageError: The channel is closed.
        """
        if self._state is grpc.ChannelConnectivity.SHUTDOWN:
            raise grpc.aio.UsageError("Channel is closed.")
        self._look()
        if not self._network.is_open(self._peer):  # it was cut
            self._peer = self._network.connect()
        rpc = Rpc(
            self._network.loop,
            method,
            metadata,
            peer=self._peer,
            timeout=timeout,
            wait_for_ready=wait_for_ready,
            max_request=self._network.max_request,
            max_reply=self._max_reply,
        )
        self._rpcs.add(rpc)
        rpc.call_at_end(lambda: self._rpcs.discard(rpc))
        self._network.begin(rpc)
        return rpc


class _Method(Generic[CallT]):
    """A method of a stub."""

    def __init__(
        self,
        channel: MemoryChannel,
        method: str,
        kind: Callable[[Rpc, Any, Function, Function], CallT],
        request_serializer: Function = None,
        response_deserializer: Function = None,
        _registered_method: bool | None = False,
    ) -> None:
        self._channel = channel
        self._method = method
        self._kind = kind
        self._functions = request_serializer, response_deserializer

    def __call__(
        self,
        request: Any = None,
        timeout: float | None = None,
        metadata: Iterable[tuple[str, str | bytes]] | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> CallT:
        rpc = self._channel.begin(self._method, check_metadata(metadata), timeout, wait_for_ready is True)
        return self._kind(rpc, request, *self._functions)


class _Call(grpc.aio.Call):
    """What the four kinds of calls have in common."""

    def __init__(self, rpc: Rpc, serialize: Function, deserialize: Function) -> None:
        self._rpc = rpc
        self._serialize = serialize
        self._deserialize = deserialize

    def __del__(self) -> None:
        rpc = self._rpc
        if rpc.end is None and not rpc.loop.is_closed():  # as gRPC: nobody can look at it any more
            rpc.loop.call_soon_threadsafe(rpc.cancel, "Cancelled upon garbage collection!")

    def _encoded(self, request: Any) -> bytes:
        message: bytes = request if self._serialize is None else self._serialize(request)
        return message

    def _decoded(self, message: bytes) -> Any:
        return message if self._deserialize is None else self._deserialize(message)

    def cancel(self) -> bool:
        return self._rpc.cancel()

    def cancelled(self) -> bool:
        return self._rpc.end is not None and self._rpc.end.code is grpc.StatusCode.CANCELLED

    def done(self) -> bool:
        return self._rpc.end is not None

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._rpc.call_at_end(lambda: callback(self))

    def time_remaining(self) -> float | None:
        return self._rpc.time_remaining()

    async def initial_metadata(self) -> grpc.aio.Metadata:
        return grpc.aio.Metadata(*await asyncio.shield(self._rpc.initial))

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        return grpc.aio.Metadata(*(await self._rpc.ended()).trailing)

    async def code(self) -> grpc.StatusCode:
        return (await self._rpc.ended()).code

    async def details(self) -> str:
        return (await self._rpc.ended()).details

    async def wait_for_connection(self) -> None:
        await asyncio.shield(self._rpc.reached)
        if self._rpc.end is not None:
            await self._rpc.raise_for_end()


class _OneReply(_Call):
    """A call with one reply."""

    _reply: bytes | None = None

    def __await__(self) -> Generator[Any, None, Any]:
        return self._result().__await__()

    async def _result(self) -> Any:
        try:
            await self._rpc.raise_for_end()
        except asyncio.CancelledError:
            self.cancel()  # as gRPC: who cancels the wait cancels the call
            raise
        if self._reply is None:
            self._reply = await self._rpc.responses.get()
        assert self._reply is not None, "a call that ended well has its reply"
        return self._decoded(self._reply)


class _ManyReplies(_Call):
    """A call with a stream of replies."""

    async def read(self) -> Any:
        """Return the next reply, or `grpc.aio.EOF`; raises as grpc.aio does if the call failed."""
        try:
            message = await self._rpc.responses.get()
            if message is None:
                await self._rpc.raise_for_end()
                return grpc.aio.EOF
        except asyncio.CancelledError:
            self.cancel()
            raise
        return self._decoded(message)

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message


class _OneRequest(_Call):
    """A call with one request."""

    def __init__(self, rpc: Rpc, request: Any, serialize: Function, deserialize: Function) -> None:
        super().__init__(rpc, serialize, deserialize)
        putting = rpc.requests.put(self._encoded(request))
        try:
            putting.send(None)  # the first message always has room
        except StopIteration:
            rpc.requests.close()


class _ManyRequests(_Call):
    """A call with a stream of requests, given as an iterable or written one by one."""

    _sending: asyncio.Task[None] | None = None
    _done_writing = False

    def __init__(
        self,
        rpc: Rpc,
        requests: AsyncIterable[Any] | Iterable[Any] | None,
        serialize: Function,
        deserialize: Function,
    ) -> None:
        super().__init__(rpc, serialize, deserialize)
        if requests is not None:
            sending = self._sending = rpc.loop.create_task(_send_all(rpc, requests, self._encoded))
            rpc.call_at_end(sending.cancel)

    async def write(self, request: Any) -> None:
        """Write a request. Waits while the server does not read."""
        if self._sending is not None:
            raise grpc.aio.UsageError("the requests of this call come from an iterable")
        if self._rpc.end is not None or self._done_writing:
            raise asyncio.InvalidStateError("RPC already finished.")
        try:
            if not await self._rpc.requests.put(self._encoded(request)):
                await self._rpc.raise_for_end()
                raise asyncio.InvalidStateError("RPC already finished.")
        except asyncio.CancelledError:
            self.cancel()
            raise

    async def done_writing(self) -> None:
        """Tell the server that there are no more requests."""
        if self._sending is not None:
            raise grpc.aio.UsageError("the requests of this call come from an iterable")
        self._done_writing = True
        self._rpc.requests.close()


async def _send_all(rpc: Rpc, requests: AsyncIterable[Any] | Iterable[Any], encoded: Callable[[Any], bytes]) -> None:
    """Write what an iterable gives. A failure of the iterable's own cancels the call, as in gRPC."""
    try:
        if isinstance(requests, AsyncIterable):
            async for request in requests:
                if not await rpc.requests.put(encoded(request)):
                    return
        else:
            for request in requests:
                if not await rpc.requests.put(encoded(request)):
                    return
        rpc.requests.close()
    except Exception:
        _LOGGER.exception("%s: the iterable of requests raised, and the call is cancelled", rpc.method)
        rpc.cancel()


class _UnaryUnaryCall(_OneReply, _OneRequest, grpc.aio.UnaryUnaryCall[Any, Any]):
    """A unary call."""

    async def wait_for_connection(self) -> None:
        await self._rpc.raise_for_end()  # as gRPC, which makes such a call in one go


class _UnaryStreamCall(_ManyReplies, _OneRequest, grpc.aio.UnaryStreamCall[Any, Any]):
    """A server-streaming call."""


class _StreamUnaryCall(_OneReply, _ManyRequests, grpc.aio.StreamUnaryCall[Any, Any]):
    """A client-streaming call."""


class _StreamStreamCall(_ManyReplies, _ManyRequests, grpc.aio.StreamStreamCall[Any, Any]):
    """A bidirectionally streaming call."""
