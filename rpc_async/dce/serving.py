"""The server's side of the façade: its manager routines, and how they see a cancel."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar, overload

import rpc_async
from rpc_async import RpcStatus, ServerCall
from rpc_async.dce.state import RPC_ASYNC_STATE

__all__ = ["RpcServerTestCancel", "manager"]

_Reply = TypeVar("_Reply")


@overload
def manager(
    routine: Callable[[Any, RPC_ASYNC_STATE, ServerCall[_Reply], Any], Coroutine[Any, Any, None]], /
) -> Callable[..., Awaitable[_Reply]]: ...
@overload
def manager(
    routine: Callable[[Any, RPC_ASYNC_STATE, ServerCall[_Reply], Any], None], /
) -> Callable[..., Awaitable[_Reply]]: ...
@overload
def manager(
    *, inline: bool
) -> Callable[[Callable[[Any, RPC_ASYNC_STATE, ServerCall[_Reply], Any], None]], Callable[..., Awaitable[_Reply]]]: ...
def manager(routine: Any = None, /, *, inline: bool = False) -> Any:
    """Mark a servicer's method as `[async]`: it gets the parameters of a documented server routine.

    It is called as `(self, pAsync, hBinding, request)`: the state, which the runtime made for this call; the call's
    own handle, which is what `RpcAsyncGetCallHandle(pAsync)` gives; and the request. Else it is as with
    `rpc_async.manager`. Source: RPC_ASYNC_STATE ("on the server the runtime creates the handle"); S1, S2.

    Args:
        routine: `async def` runs as a task on the server's loop; `def` runs in the server's thread pool.
        inline: Run a plain `def` on the dispatch thread itself, which it must not block.

    Raises:
        InvalidArgument: The routine is not a function with these parameters, or is `async def` and inline.
    """
    if routine is None:
        return lambda function: _mark(function, inline)
    return _mark(routine, inline)


def _mark(routine: Any, inline: bool) -> Any:
    name = getattr(routine, "__qualname__", repr(routine))
    if not inspect.isfunction(routine) or len(inspect.signature(routine).parameters) != 4:
        raise rpc_async.InvalidArgument(f"@manager {name}: a method of (self, pAsync, hBinding, request)")
    if inspect.isgeneratorfunction(routine) or inspect.isasyncgenfunction(routine):
        raise rpc_async.InvalidArgument(f"@manager {name}: a routine cannot be a generator; it completes its call")
    marked: Any
    if inspect.iscoroutinefunction(routine):

        async def in_task(self: Any, request: Any, call: ServerCall[Any]) -> None:
            await routine(self, RPC_ASYNC_STATE.for_call(call), call, request)

        marked = in_task
    else:

        def in_place(self: Any, request: Any, call: ServerCall[Any]) -> None:
            routine(self, RPC_ASYNC_STATE.for_call(call), call, request)

        marked = in_place
    marked.__name__, marked.__qualname__, marked.__doc__ = routine.__name__, name, routine.__doc__
    return rpc_async.manager(inline=True)(marked) if inline else rpc_async.manager(marked)


def RpcServerTestCancel(BindingHandle: object = None) -> RpcStatus:
    """Tell a manager routine whether its call was cancelled. Only looks. Source: RpcServerTestCancel; S8, S10, S17.

    Args:
        BindingHandle: What `RpcAsyncGetCallHandle(pAsync)` gives; None: the call whose routine runs in this task or
            thread.

    Returns:
        RPC_S_OK: It was cancelled; it must be completed or aborted all the same.
        RPC_S_CALL_IN_PROGRESS: It was not.
        RPC_S_NO_CALL_ACTIVE: None was given, and no call runs here.
        RPC_S_INVALID_BINDING: It is no live server handle.
    """
    call = rpc_async.current_call() if BindingHandle is None else BindingHandle
    if not isinstance(call, ServerCall) or call.settled:
        return RpcStatus.NO_CALL_ACTIVE if BindingHandle is None else RpcStatus.INVALID_BINDING
    return RpcStatus.OK if call.test_cancel() else RpcStatus.CALL_IN_PROGRESS
