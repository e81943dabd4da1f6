"""Runs a handler as gRPC's server runs it, for a call that is none of gRPC's.

gRPC looks at the kind of a handler's function to decide how to run it, and so does this: coroutines and async
generators on the loop, whatever else there is in the thread pool.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Executor
from typing import Any, Final

import grpc.aio

from rpc_async.serving.handler_context import HandlerContext, InvalidMetadataError, SyncHandlerContext, as_bytes
from rpc_async.status import GrpcCode

__all__ = ["failure_text", "run_handler"]

_LOGGER: Final = logging.getLogger("rpc_async.serving")

Handler = Any  # grpc.RpcMethodHandler, whose type arguments exist in its stubs only


async def run_handler(
    finding: Awaitable[Handler | None],
    context: HandlerContext,
    pool: Executor,
    take: Callable[[Handler], Handler | None] | None = None,
) -> None:
    """Find a call's handler, through the interceptors, run it to its end, and have its context send the outcome.

    Args:
        finding: Finds it; None: there is none.
        context: The call's.
        pool: Where handlers run that are no coroutines.
        take: Is given the handler, and returns the one to run; None: it sees to the call itself.

    Raises:
        CancelledError: The handler was cancelled, or says so: nothing was sent.
        KeyboardInterrupt, SystemExit: Out of the handler or an interceptor: the call has failed.
    """
    try:
        try:
            handler = await finding
            if handler is None:
                context.finish(int(GrpcCode.UNIMPLEMENTED), "Method not found!")
            elif take is None or (handler := take(handler)) is not None:
                await _serve(handler, context, pool)
        except grpc.aio.AbortError as error:
            if error is not context.abortion:
                raise AssertionError("Abort error has been replaced!") from error
    except asyncio.CancelledError:
        raise
    except InvalidMetadataError as error:
        context.finish(int(GrpcCode.INTERNAL), str(error))
    except BaseException as error:
        # gRPC would leave the client of a handler that raises no Exception waiting for ever.
        _LOGGER.exception("%s: the handler raised, and the call fails", context.call.method)
        context.finish(context.number or int(GrpcCode.UNKNOWN), failure_text(error)[0])
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise


def failure_text(error: BaseException) -> tuple[str, bool]:
    """Return what a client is told of an exception out of an ordinary handler, in gRPC's words.

    And whether it is just what gRPC itself would tell: it answers no exception whose text cannot be had or sent.
    """
    try:
        text = str(error)
    except BaseException:  # it is the user's: whatever it raises, the call must fail and not hang
        return f"Unexpected {type(error)}: (its text cannot be had)", False
    told = f"Unexpected {type(error)}: {text}"
    shown = told.encode("utf-8", "backslashreplace").decode()
    return shown, shown == told


async def _serve(handler: Handler, context: HandlerContext, pool: Executor) -> None:
    behaviour: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    pulls, pushes = handler.request_streaming, handler.response_streaming
    on_loop = _runs_on_loop(behaviour)
    request: Any
    if pulls:
        context.deserialize = handler.request_deserializer
        requests = _Requests(context)
        request = requests if on_loop else _in_thread(requests, context.call.loop)
    else:
        payload = await context.receive()
        if payload is None:
            raise asyncio.CancelledError  # the client was gone before it had said anything
        request = handler.request_deserializer(payload) if handler.request_deserializer else payload
        if pushes:
            context.deserialize = handler.request_deserializer
    if pushes:
        context.serialize = handler.response_serializer
        await _stream(behaviour, request, context, pool)
        context.check()
    else:
        if on_loop:
            context.begin()
            reply = await behaviour(request, context)
        else:
            sync = SyncHandlerContext(context)
            reply = await context.call.loop.run_in_executor(pool, _call, context, behaviour, request, sync)
            for callback in sync.callbacks:
                callback()
        context.check()
        if context.number == 0:
            await context.put(as_bytes(handler.response_serializer, reply))
    context.finish()


def _runs_on_loop(behaviour: Any) -> bool:
    return (
        inspect.isawaitable(behaviour)
        or inspect.iscoroutinefunction(behaviour)
        or inspect.isasyncgenfunction(behaviour)
    )


def _call(context: HandlerContext, behaviour: Any, request: Any, sync: SyncHandlerContext) -> Any:
    context.begin()
    return behaviour(request, sync)


async def _stream(behaviour: Any, request: Any, context: HandlerContext, pool: Executor) -> None:
    context.begin()
    if inspect.iscoroutinefunction(behaviour):
        await behaviour(request, context)
        return
    if inspect.isasyncgenfunction(behaviour):
        replies = behaviour(request, context)
    else:
        replies = _from_thread(behaviour(request, SyncHandlerContext(context)), context.call.loop, pool)
    async for reply in replies:
        context.check()
        await context.write(reply)


class _Requests(AsyncIterator[Any]):
    """The requests of a call."""

    def __init__(self, context: HandlerContext) -> None:
        self._context = context

    async def __anext__(self) -> Any:
        request = await self._context.read()
        if request is grpc.aio.EOF:
            raise StopAsyncIteration
        return request


_END: Final = object()


def _in_thread(requests: AsyncIterator[Any], loop: asyncio.AbstractEventLoop) -> Iterator[Any]:
    """Iterate over requests in a thread."""

    async def following() -> Any:
        return await anext(requests, _END)

    while (request := asyncio.run_coroutine_threadsafe(following(), loop).result()) is not _END:
        yield request


async def _from_thread(replies: Any, loop: asyncio.AbstractEventLoop, pool: Executor) -> AsyncIterator[Any]:
    """Iterate over what is iterated over in threads."""
    iterator = iter(replies)
    while (reply := await loop.run_in_executor(pool, next, iterator, _END)) is not _END:
        yield reply
