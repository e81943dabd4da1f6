"""Ordinary gRPC handlers, unmarked: gRPC serves them as ever, and they count as calls.

Each is wrapped in a function of the same kind (coroutine, generator, ...), because gRPC looks at the kind to
decide how to run it. Two things are added: the refusals of S15 and S16, and an end for a handler that raises
`CancelledError` though nobody cancelled its call, for which gRPC would leave the client hanging.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import grpc
import grpc.aio

from rpc_async.core.outcome import Fault, fault
from rpc_async.serving.dispatcher import Dispatcher
from rpc_async.serving.native import abort_call
from rpc_async.status import RpcStatus
from rpc_async.wire.faults import grpc_status_code, status_trailer
from rpc_async.wire.metadata import client_call_id

__all__ = ["OrdinaryHandlers"]

_SELF_CANCELLED: Final = "the handler raised CancelledError, though nobody cancelled the call"


class OrdinaryHandlers:
    """Wraps the handlers of one server."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

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
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

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
                except asyncio.CancelledError:
                    await self._end_if_self_cancelled(context)
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
                except asyncio.CancelledError:
                    await self._end_if_self_cancelled(context)
                    raise

        return serve

    def _function(self, behaviour: Any) -> Callable[[Any, Any], Any]:
        @functools.wraps(behaviour)
        def serve(request: Any, context: Any) -> Any:
            with self._count_in_thread(context):
                return behaviour(request, context)

        return serve

    def _generator(self, behaviour: Any) -> Callable[[Any, Any], Iterator[Any]]:
        @functools.wraps(behaviour)
        def serve(request: Any, context: Any) -> Iterator[Any]:
            with self._count_in_thread(context):
                yield from behaviour(request, context)

        return serve

    async def _admit(self, context: Any) -> None:
        refusal = self._dispatcher.refusal()
        if refusal is not None:
            await abort_call(context, refusal)

    @contextmanager
    def _count(self, context: Any) -> Iterator[None]:
        call_id = self._enter(context)
        try:
            yield
        finally:
            self._leave(call_id)

    @contextmanager
    def _count_in_thread(self, context: Any) -> Iterator[None]:
        entering = self._enter_from_thread(context)
        entered = asyncio.run_coroutine_threadsafe(entering, self._dispatcher.loop).result()
        if isinstance(entered, Fault):
            refusal = entered
            context.abort(grpc_status_code(refusal.grpc_code), refusal.message, (status_trailer(refusal),))
        try:
            yield
        finally:
            self._dispatcher.mailbox.post(self._leave, entered)

    async def _enter_from_thread(self, context: Any) -> Fault | str:
        return self._dispatcher.refusal() or self._enter(context)

    def _enter(self, context: Any) -> str:
        call_id = client_call_id(context.invocation_metadata() or ()) or ""
        self._dispatcher.enter()
        self._dispatcher.table.ordinary.add(call_id)
        return call_id

    def _leave(self, call_id: str) -> None:
        self._dispatcher.leave()
        self._dispatcher.table.ordinary.discard(call_id)

    async def _end_if_self_cancelled(self, context: Any) -> None:
        task = asyncio.current_task()
        if task is not None and not task.cancelling():
            await abort_call(context, fault(RpcStatus.CALL_FAILED, _SELF_CANCELLED, executed=True))
