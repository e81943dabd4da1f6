"""Ordinary gRPC handlers, unmarked: gRPC serves them as ever, and they count as calls.

Each is wrapped in a function of the same kind (coroutine, generator, ...), because gRPC looks at the kind to
decide how to run it. Added are the refusals of S15 and S16; an end for what still runs when the server has shut down;
and an end for a handler that raises what gRPC has no answer to, and would leave the client hanging for: a
`CancelledError` though nobody cancelled its call, another `BaseException`, an exception whose text cannot be had.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import grpc
import grpc.aio

from rpc_async.core.outcome import Fault, fault
from rpc_async.serving.dispatcher import Dispatcher
from rpc_async.serving.native import abort_call
from rpc_async.serving.record import shutdown_fault
from rpc_async.serving.running import failure_text
from rpc_async.status import RpcStatus
from rpc_async.wire.faults import grpc_status_code
from rpc_async.wire.metadata import client_call_id
from rpc_async.wire.trailers import fault_to_trailers

__all__ = ["OrdinaryHandlers"]

_SELF_CANCELLED: Final = "the handler raised CancelledError, though nobody cancelled the call"


class _Entered(NamedTuple):
    """A call that runs."""

    call_id: str
    context: Any
    task: asyncio.Task[Any] | None
    """In which it runs; None, if it runs in a thread."""


class OrdinaryHandlers:
    """Wraps the handlers of one server."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._entered: dict[int, _Entered] = {}
        self._number = 0

    def wrap(self, handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
        """Return the handler with its behaviour wrapped."""
        if handler.request_streaming and handler.response_streaming:
            make, behaviour = grpc.stream_stream_rpc_method_handler, handler.stream_stream
        elif handler.request_streaming:
            make, behaviour = grpc.stream_unary_rpc_method_handler, handler.stream_unary
        elif handler.response_streaming:
            make, behaviour = grpc.unary_stream_rpc_method_handler, handler.unary_stream
        else:
            make, behaviour = grpc.unary_unary_rpc_method_handler, handler.unary_unary
        return make(
            self._counted(behaviour, handler.response_streaming),
            request_deserializer=self._guarded(handler.request_deserializer),
            response_serializer=self._guarded(handler.response_serializer),
        )

    def _guarded(self, function: Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
        """Return a (de)serialiser that raises what gRPC has an answer to, and nothing else."""
        if function is None:
            return None
        call = function

        def guarded(message: Any) -> Any:
            try:
                return call(message)
            except Exception:
                raise
            except BaseException as error:
                if isinstance(error, (KeyboardInterrupt, SystemExit)):
                    self._dispatcher.let_through(error)
                raise RuntimeError(f"a serialiser or deserialiser raised {type(error)}") from error

        return guarded

    async def cut_off(self, timeout: float) -> None:
        """The server has shut down: end the calls that still run, at most `timeout` seconds (S15)."""
        running = tuple(self._entered.values())
        if not running:
            return
        failure = shutdown_fault(executed=True)
        loop = self._dispatcher.loop
        ending: list[asyncio.Future[None]] = [
            loop.create_task(_end(one.context, failure)) for one in running if one.task is not None
        ]
        in_threads = [one.context for one in running if one.task is None]
        if in_threads:  # their contexts are for threads, and all of the pool's may be taken
            done = loop.create_future()
            threading.Thread(
                target=_end_in_thread, args=(in_threads, failure, loop, done), name="rpc_async-shutdown", daemon=True
            ).start()
            ending.append(done)
        await asyncio.sleep(0)  # their ends are on their way
        for one in running:
            if one.task is not None:
                one.task.cancel()
        await asyncio.wait(ending, timeout=timeout)

    def _counted(self, behaviour: Any, response_streaming: bool) -> Callable[[Any, Any], Any]:
        if inspect.iscoroutinefunction(behaviour):
            return self._coroutine(behaviour)
        if inspect.isasyncgenfunction(behaviour):
            return self._async_generator(behaviour)
        return self._generator(behaviour) if response_streaming else self._function(behaviour)

    def _coroutine(self, behaviour: Any) -> Callable[[Any, Any], Any]:
        @functools.wraps(behaviour)
        async def serve(request: Any, context: Any) -> Any:
            await self._admit(context)
            with self._count(context):
                try:
                    return await behaviour(request, context)
                except BaseException as error:
                    await self._end_unanswered(context, error)
                    raise

        return serve

    def _async_generator(self, behaviour: Any) -> Callable[[Any, Any], AsyncIterator[Any]]:
        @functools.wraps(behaviour)
        async def serve(request: Any, context: Any) -> AsyncIterator[Any]:
            await self._admit(context)
            with self._count(context):
                try:
                    async for response in behaviour(request, context):
                        yield response
                except GeneratorExit:
                    raise
                except BaseException as error:
                    await self._end_unanswered(context, error)
                    raise

        return serve

    def _function(self, behaviour: Any) -> Callable[[Any, Any], Any]:
        @functools.wraps(behaviour)
        def serve(request: Any, context: Any) -> Any:
            number = self._enter_in_thread(context)
            if number is None:
                return None
            with self._counted_in_thread(number, context):
                return behaviour(request, context)

        return serve

    def _generator(self, behaviour: Any) -> Callable[[Any, Any], Iterator[Any]]:
        @functools.wraps(behaviour)
        def serve(request: Any, context: Any) -> Iterator[Any]:
            number = self._enter_in_thread(context)
            if number is not None:
                with self._counted_in_thread(number, context):
                    yield from behaviour(request, context)

        return serve

    # -- counting ---------------------------------------------------------------------------------------

    async def _admit(self, context: Any) -> None:
        refusal = self._dispatcher.refusal()
        if refusal is not None:
            await abort_call(context, refusal)

    @contextmanager
    def _count(self, context: Any) -> Iterator[None]:
        number = self._enter(context, asyncio.current_task())
        try:
            yield
        finally:
            self._leave(number)

    def _enter_in_thread(self, context: Any) -> int | None:
        """Count a call in, or refuse it: then nothing is called, though not every version's abort raises."""
        entering = self._enter_from_thread(context)
        entered = asyncio.run_coroutine_threadsafe(entering, self._dispatcher.loop).result()
        if isinstance(entered, Fault):
            _abort_in_thread(context, entered)
            return None
        return entered

    @contextmanager
    def _counted_in_thread(self, number: int, context: Any) -> Iterator[None]:
        try:
            yield
        except GeneratorExit:
            raise
        except BaseException as error:
            failure = _unanswered(error)
            if failure is not None:
                _abort_in_thread(context, failure, error)
            raise
        finally:
            self._dispatcher.mailbox.post(self._leave, number)

    async def _enter_from_thread(self, context: Any) -> Fault | int:
        return self._dispatcher.refusal() or self._enter(context, None)

    def _enter(self, context: Any, task: asyncio.Task[Any] | None) -> int:
        call_id = client_call_id(context.invocation_metadata() or ()) or ""
        self._dispatcher.enter()
        self._dispatcher.table.ordinary.add(call_id)
        self._number += 1
        self._entered[self._number] = _Entered(call_id, context, task)
        return self._number

    def _leave(self, number: int) -> None:
        entered = self._entered.pop(number)
        self._dispatcher.leave()
        self._dispatcher.table.ordinary.discard(entered.call_id)

    # -- ending -----------------------------------------------------------------------------------------

    async def _end_unanswered(self, context: Any, error: BaseException) -> None:
        """End the call of a handler that raised what gRPC does not answer."""
        failure = _unanswered(error)
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is None or task.cancelling():
                return
        if failure is None:
            return
        try:
            await abort_call(context, failure)
        finally:
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise error


def _unanswered(error: BaseException) -> Fault | None:
    """Return the failure of a call whose handler raised this; None for what gRPC itself answers."""
    if isinstance(error, asyncio.CancelledError):
        return fault(RpcStatus.CALL_FAILED, _SELF_CANCELLED, executed=True)
    text, whole = failure_text(error)
    return None if isinstance(error, Exception) and whole else fault(RpcStatus.CALL_FAILED, text, executed=True)


async def _end(context: Any, failure: Fault) -> None:
    with contextlib.suppress(Exception):  # it has ended, or its client is gone
        await abort_call(context, failure)


def _end_in_thread(
    contexts: list[Any], failure: Fault, loop: asyncio.AbstractEventLoop, done: asyncio.Future[None]
) -> None:
    for context in contexts:
        with contextlib.suppress(Exception):  # as in `_end`
            _abort_in_thread(context, failure)
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
        loop.call_soon_threadsafe(done.set_result, None)


def _abort_in_thread(context: Any, failure: Fault, error: BaseException | None = None) -> None:
    try:
        context.abort(grpc_status_code(failure.grpc_code), *fault_to_trailers(failure))
    finally:
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise error
