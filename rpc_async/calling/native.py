"""The native wire, client's side: each call is a gRPC call of its own.

gRPC's cancel is the abortive cancel. What gRPC lacks goes through the service `AsyncCalls`, by call id.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from typing import Any, Final, Literal, NamedTuple, TypeVar

import grpc
import grpc.aio

from rpc_async.calling.call import AsyncCall
from rpc_async.calling.cancel_request import CancelRequest
from rpc_async.calling.io_loop import IoLoop
from rpc_async.calling.pipe import PipeCall
from rpc_async.core.outcome import Fault, Outcome, Reply, fault
from rpc_async.core.server_call import ServerState
from rpc_async.mailbox import let_through
from rpc_async.status import CancelReason, RpcStatus
from rpc_async.wire.calls import AsyncCallsClient
from rpc_async.wire.faults import fault_from_failure
from rpc_async.wire.metadata import CALL_ID_KEY

__all__ = ["PLAIN", "CallOptions", "NativeDriver", "read_reply"]

_LOGGER: Final = logging.getLogger("rpc_async.calling")

FIRST_RETRY: Final = 0.01
"""Seconds: how soon a question about a call is asked again that the server does not know (yet)."""
LAST_RETRY: Final = 1.0
"""Seconds: the longest wait between two such questions."""
ASK_TIMEOUT: Final = 10.0
"""Seconds for one question."""

FLUSH_TIMEOUT: Final = 0.5
"""Seconds that closing a channel takes at the most to make sure that the server knows of its last aborts."""

_CLOSED: Final = "the channel was closed before the call settled; the server may go on with it"

T = TypeVar("T")
Invoke = Callable[..., Any]
"""Makes gRPC's call."""
Functions = tuple[Callable[[Any], bytes] | None, Callable[[bytes], Any] | None]


class CallOptions(NamedTuple):
    """What gRPC takes with a call."""

    metadata: tuple[tuple[str, str | bytes], ...]
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


PLAIN: Final = CallOptions((), None, None, None)
"""None of it."""


class RandomId:
    """The id of one call."""

    __slots__ = ("_id",)

    def __init__(self) -> None:
        self._id = secrets.token_hex(16)

    def of(self, number: int) -> str:
        """Return it."""
        return self._id


class NativeDriver:
    """Carries calls over one gRPC channel. Made and used on the channel's loop, where nothing else is said."""

    def __init__(self, io: IoLoop, channel: grpc.aio.Channel, reason: str = "") -> None:
        """Make it. `reason`: why the channel's calls go natively, if all do."""
        self.channel: Final = channel
        self.reason: str = reason
        self.mailbox: Final = io.mailbox
        self._io = io
        self._calls = AsyncCallsClient(channel)
        self._methods: dict[str, Invoke] = {}
        self._outstanding: set[AsyncCall[Any]] = set()
        self._closed = False
        self._last_abort: tuple[AsyncCall[Any] | None, float] = None, -math.inf
        self._tasks: set[asyncio.Task[None]] = set()
        self._watched: set[AsyncCall[Any]] = set()

    @property
    def transport(self) -> Literal["session", "native"]:
        """The wire, as `AsyncCall.transport` tells it."""
        return "native"

    def why(self, call: AsyncCall[Any]) -> str:
        """Return why a call goes this way."""
        return call.reason or self.reason

    # -- a call -----------------------------------------------------------------------------------------

    def begin(
        self,
        call: AsyncCall[Any],
        request: Any,
        options: CallOptions,
        functions: Functions = (None, None),
    ) -> bool:
        """Begin a call, from any thread. False if the loop is closed: then nothing was sent, nor ever will be.

        Args:
            call: The call's handle.
            request: The request: bytes, or a message where gRPC interceptors want to see one.
            options: What goes with the call.
            functions: What gRPC then makes bytes of messages with, and messages of bytes.
        """
        if call.ids is None:
            call.ids = RandomId()
        return self._run(self._begin, call, request, options, functions)

    def _run(self, begin: Callable[..., None], *args: Any) -> bool:
        """Begin a call on the loop, in the context that is here: interceptors see what its caller has set."""
        if self.mailbox.here():
            begin(*args)
            return True
        return self.mailbox.post(copy_context().run, begin, *args)

    def _begin(
        self,
        call: AsyncCall[Any],
        request: Any,
        options: CallOptions,
        functions: Functions,
    ) -> None:
        deserialize = call.deserialize
        invoke = self._methods.get(call.method)
        if invoke is None:
            # Generated code calls its methods registered: gRPC then finds a route once, not for every call.
            invoke = self.channel.unary_unary(call.method, *functions, _registered_method=True)  # type: ignore[call-arg]
            self._methods[call.method] = invoke
        native = self._invoke(call, invoke, (request,), options)
        if native is None:
            return
        if deserialize is None:  # with interceptors, gRPC's call is several
            self._spawn(self._carry(call, native, deserialize))
        else:

            def done(_: Any) -> None:
                self.mailbox.loop.call_soon(self._collect, call, native, deserialize)

            native.add_done_callback(done)

    def begin_pipes(self, call: PipeCall[Any], invoke: Invoke, request: tuple[Any, ...], options: CallOptions) -> bool:
        """Begin a call with pipes, from any thread. False if the loop is closed: then nothing was sent, nor will be.

        Args:
            call: The call's handle.
            invoke: Makes gRPC's call, on the channel's loop.
            request: The request, where it is none of the pipes: bytes, or a message as in `begin`.
            options: What goes with the call.
        """
        call.ids = RandomId()
        return self._run(self._begin_pipes, call, invoke, request, options)

    def _begin_pipes(self, call: PipeCall[Any], invoke: Invoke, request: tuple[Any, ...], options: CallOptions) -> None:
        native = self._invoke(call, invoke, request, options)
        if native is not None:
            deserialize = call.deserialize if call.pipes.pulling is None else None
            self._spawn(self._carry(call, call.carry(native, self._spawn), deserialize))

    def _invoke(self, call: AsyncCall[Any], invoke: Invoke, request: tuple[Any, ...], options: CallOptions) -> Any:
        """Make gRPC's call, on the channel's loop; None if there is none."""
        if call.done():  # aborted before it left
            return None
        if self._closed:  # gRPC may take the process with it where a channel that is closed is used
            call.abort(_CLOSED)
            return None
        if options is not PLAIN:
            call.options = options
        remaining = call.time_remaining()
        if remaining == 0:
            call.expire()
            return None
        try:
            native = invoke(
                *request,
                timeout=remaining,
                metadata=(*options.metadata, (CALL_ID_KEY, call.call_id)),
                credentials=options.credentials,
                wait_for_ready=options.wait_for_ready,
                compression=options.compression,
            )
        except BaseException as error:  # e.g. gRPC's UsageError: the channel is closed
            text = f"gRPC did not take the call: {error}"
            call.settle(fault(RpcStatus.INVALID_BINDING, text, executed=False))
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                let_through(error)
            return None
        call.native = native
        self._outstanding.add(call)
        return native

    def _collect(
        self, call: AsyncCall[Any], native: grpc.aio.UnaryUnaryCall[Any, Any], deserialize: Callable[[bytes], Any]
    ) -> None:
        """Collect the outcome of a gRPC call that is done.

        gRPC's own task for it ended in the step that made it done. So awaiting it now need not wait, and no second
        task for each call has to be paid.
        """
        carrying = self._carry(call, native, deserialize)
        try:
            waited_for: Any = carrying.send(None)
        except StopIteration:
            return
        # It would wait after all, which only a task can. The future it waits for is told that nobody took it up, as
        # a task tells it: else it could not be awaited again.
        waited_for._asyncio_future_blocking = False
        carrying.close()
        self._spawn(self._carry(call, native, deserialize))

    async def _carry(
        self,
        call: AsyncCall[Any],
        native: Awaitable[Any],
        deserialize: Callable[[bytes], Any] | None,
    ) -> None:
        outcome: Outcome
        try:
            outcome = read_reply(await native, deserialize)
        except grpc.aio.AioRpcError as error:
            outcome = _failure(call, error, self._reaches_nobody())
        except asyncio.CancelledError:  # gRPC's call was cancelled here; if by `abort`, it has settled already
            text = "the channel's event loop ended before the call settled"
            outcome = fault(RpcStatus.CALL_CANCELLED, text, cancel_reason=CancelReason.CLIENT_ABORTED)
        except BaseException as error:
            if isinstance(error, GeneratorExit) and deserialize is not None:
                raise  # by `_collect`, or nobody is left to hear of it: no interceptor raised it, there are none
            _LOGGER.exception("%r: gRPC, or an interceptor, failed in an unforeseen way", call)
            outcome = fault(RpcStatus.INTERNAL_ERROR, f"{type(error).__name__}: {error}")
        self._outstanding.discard(call)
        call.settle(outcome)

    def _reaches_nobody(self) -> bool:
        """Tell whether gRPC's channel finds no connection: what is said of that is its own word then (C14)."""
        try:
            return self.channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE
        except grpc.aio.UsageError:  # it is closed
            return False

    def tell_abort(self, call: AsyncCall[Any], failure: Fault) -> None:
        self.mailbox.run(self._cancel, call)

    def _cancel(self, call: AsyncCall[Any]) -> None:
        if call.native is not None:
            call.native.cancel()
            self._last_abort = call, self.mailbox.time()

    async def _flush_aborts(self) -> None:
        """See to it that the server has seen the latest aborts before the connection goes.

        It could not tell them from a lost connection otherwise (S13). What one connection carries arrives in
        order: once the server has answered this, it has seen all that was cancelled before.
        """
        call, when = self._last_abort
        if call is not None and self.mailbox.time() - when < FLUSH_TIMEOUT:
            with contextlib.suppress(grpc.aio.AioRpcError):  # a plain gRPC server; or nobody is there any more
                await self._cancel_call(call, abort=True, timeout=FLUSH_TIMEOUT)

    # -- asking -----------------------------------------------------------------------------------------

    async def _cancel_call(self, call: AsyncCall[Any], *, abort: bool, timeout: float) -> ServerState | None:
        """Make our own call about a call, with what that had itself: the server may want a token of each call.

        It goes through the user's interceptors too, which need not return: so it is bounded here, not by gRPC alone.

        Raises:
            grpc.aio.AioRpcError: It failed.
        """
        options: CallOptions = call.options or PLAIN
        try:
            async with asyncio.timeout(timeout):
                return await self._calls.cancel(
                    call.call_id,
                    abort=abort,
                    timeout=timeout,
                    metadata=options.metadata,
                    credentials=options.credentials,
                )
        except TimeoutError:
            text = f"an interceptor did not let the question through within {timeout:g} s"
        except (grpc.aio.AioRpcError, asyncio.CancelledError):
            raise
        except Exception as error:
            _LOGGER.warning("%r: an interceptor failed with the library's own call about it", call, exc_info=error)
            text = f"an interceptor failed: {error}"
        raise grpc.aio.AioRpcError(
            grpc.StatusCode.DEADLINE_EXCEEDED, grpc.aio.Metadata(), grpc.aio.Metadata(), text, text
        )

    def tell_cancel(self, call: AsyncCall[Any], request: CancelRequest) -> None:
        if not self.mailbox.run(lambda: self._spawn(self._ask(call, request))):
            request.answer(RpcStatus.INVALID_BINDING)

    async def _ask(self, call: AsyncCall[Any], request: CancelRequest) -> None:
        """Ask until the server knows the call: the question may overtake the call, or meet another server."""
        wait = FIRST_RETRY
        while not call.done():
            try:
                state = await self._cancel_call(call, abort=False, timeout=ASK_TIMEOUT)
            except grpc.aio.AioRpcError as error:
                failure = _failure(None, error)
                if not _may_pass(failure):
                    _LOGGER.warning("%r: the server cannot be asked to stop it: %s", call, failure.message)
                    request.answer(_not_asked(failure))
                    return
            else:
                if state is ServerState.SETTLED:
                    break
                if state is not None:
                    request.answer(RpcStatus.OK)
                    return
            await asyncio.sleep(wait)
            wait = min(2 * wait, LAST_RETRY)
        request.answer(RpcStatus.NO_CALL_ACTIVE)

    # -- watching ---------------------------------------------------------------------------------------

    def watch(self, call: AsyncCall[Any]) -> None:
        self.mailbox.run(self._watch_once, call)

    def _watch_once(self, call: AsyncCall[Any]) -> None:
        if call not in self._watched and not call.done():
            self._watched.add(call)
            task = self._spawn(self._watch(call))
            call.add_done_callback(lambda _: task.cancel())
            task.add_done_callback(lambda _: self._watched.discard(call))

    async def _watch(self, call: AsyncCall[Any]) -> None:
        wait = FIRST_RETRY
        while True:
            try:
                options: CallOptions = call.options or PLAIN
                watching = self._calls.watch(call.call_id, metadata=options.metadata, credentials=options.credentials)
                async for progress in watching:
                    call.report(progress)
                return
            except grpc.aio.AioRpcError as error:
                failure = _failure(None, error)
                if not _may_pass(failure) and failure.grpc_code != grpc.StatusCode.NOT_FOUND.value[0]:
                    _LOGGER.info("%r: there are no progress reports: %s", call, failure.message)
                    return
            await asyncio.sleep(wait)
            wait = min(2 * wait, LAST_RETRY)

    # -- metadata ---------------------------------------------------------------------------------------

    async def initial_metadata(self, call: AsyncCall[Any]) -> grpc.aio.Metadata:
        if call.native is not None:
            return await call.native.initial_metadata()
        return grpc.aio.Metadata() if call.metadata is None else call.metadata[0]

    async def trailing_metadata(self, call: AsyncCall[Any]) -> grpc.aio.Metadata:
        if call.native is not None:
            return await call.native.trailing_metadata()
        return grpc.aio.Metadata() if call.metadata is None else call.metadata[1]

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return await self._io.run(coroutine)

    # -- the end ----------------------------------------------------------------------------------------

    @property
    def outstanding(self) -> list[AsyncCall[Any]]:
        """The calls that have not settled."""
        return list(self._outstanding)

    def abort_all(self) -> None:
        """Take no more calls, and abort those that are outstanding."""
        self._closed = True
        for call in tuple(self._outstanding):
            call.abort(_CLOSED)

    async def close(self, grace: float | None = None) -> None:
        """Close the gRPC channel. To be called after `abort_all`. `grace`: seconds for what is gRPC's own alone."""
        try:
            await self._flush_aborts()
        finally:
            for task in tuple(self._tasks):
                task.cancel()
            await self.channel.close(grace)
            if self._tasks:
                await asyncio.wait(tuple(self._tasks))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.mailbox.loop.create_task(coroutine)
        self._tasks.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(self._tasks.discard)
        return task


def read_reply(message: Any, deserialize: Callable[[bytes], Any] | None) -> Outcome:
    """Return the outcome that a reply is."""
    if deserialize is None:
        return Reply(message)
    try:
        return Reply(deserialize(message))
    except BaseException as error:  # the user's: whatever it is, this call ends with it, and no other
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            let_through(error)
        text = f"the reply ({len(message)} bytes) does not parse: {error}"
        return fault(RpcStatus.BAD_STUB_DATA, text, executed=True)


def _failure(call: AsyncCall[Any] | None, error: grpc.aio.AioRpcError, unreached: bool = False) -> Fault:
    trailing = error.trailing_metadata()
    if call is not None:
        call.metadata = error.initial_metadata(), trailing
        call.debug_text = error.debug_error_string()
    return fault_from_failure(error.code().value[0], error.details() or "", trailing or (), unreached=unreached)


def _may_pass(failure: Fault) -> bool:
    """Tell whether a question that failed so is worth asking again while its call is outstanding."""
    return failure.grpc_code in (
        grpc.StatusCode.UNAVAILABLE.value[0],
        grpc.StatusCode.DEADLINE_EXCEEDED.value[0],
        grpc.StatusCode.RESOURCE_EXHAUSTED.value[0],
    )


def _not_asked(failure: Fault) -> RpcStatus:
    if failure.grpc_code == grpc.StatusCode.UNIMPLEMENTED.value[0]:
        return RpcStatus.CANNOT_SUPPORT
    try:
        return RpcStatus(failure.status)
    except ValueError:
        return RpcStatus.CALL_FAILED
