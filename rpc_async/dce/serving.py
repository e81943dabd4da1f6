"""The server's side of the façade: its manager routines, and how they see a cancel."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar, overload

import rpc_async
from rpc_async import RpcStatus, ServerCall, ServerPullCall, ServerPushCall, ServerPushPullCall
from rpc_async.dce.names import (
    RpcNotificationCallCancel,
    RpcNotificationClientDisconnect,
    RpcNotificationTypeEvent,
)
from rpc_async.dce.notification import target_of
from rpc_async.dce.state import RPC_ASYNC_NOTIFICATION_INFO, RPC_ASYNC_STATE

__all__ = [
    "RpcServerSubscribeForNotification",
    "RpcServerTestCancel",
    "RpcServerUnsubscribeForNotification",
    "manager",
]

_Reply = TypeVar("_Reply")


_Sent = TypeVar("_Sent")
_Pulled = TypeVar("_Pulled")
_State = RPC_ASYNC_STATE
_Returned = Coroutine[Any, Any, None] | None


class _Marker(Protocol):
    """What `@manager(...)` is: it marks as `@manager` does."""

    @overload
    def __call__(
        self, routine: Callable[[Any, _State, ServerCall[_Reply], Any], _Returned], /
    ) -> Callable[..., Awaitable[_Reply]]: ...
    @overload
    def __call__(
        self, routine: Callable[[Any, _State, ServerPullCall[_Pulled, _Reply]], _Returned], /
    ) -> Callable[..., Awaitable[_Reply]]: ...
    @overload
    def __call__(
        self, routine: Callable[[Any, _State, ServerPushCall[_Sent], Any], _Returned], /
    ) -> Callable[..., AsyncIterator[_Sent]]: ...
    @overload
    def __call__(
        self, routine: Callable[[Any, _State, ServerPushPullCall[_Sent, _Pulled]], _Returned], /
    ) -> Callable[..., AsyncIterator[_Sent]]: ...


@overload
def manager(
    routine: Callable[[Any, _State, ServerCall[_Reply], Any], _Returned], /
) -> Callable[..., Awaitable[_Reply]]: ...
@overload
def manager(
    routine: Callable[[Any, _State, ServerPullCall[_Pulled, _Reply]], _Returned], /
) -> Callable[..., Awaitable[_Reply]]: ...
@overload
def manager(
    routine: Callable[[Any, _State, ServerPushCall[_Sent], Any], _Returned], /
) -> Callable[..., AsyncIterator[_Sent]]: ...
@overload
def manager(
    routine: Callable[[Any, _State, ServerPushPullCall[_Sent, _Pulled]], _Returned], /
) -> Callable[..., AsyncIterator[_Sent]]: ...
@overload
def manager(*, inline: bool = False) -> _Marker: ...
def manager(routine: Any = None, /, *, inline: bool = False) -> Any:
    """Mark a servicer's method as `[async]`: it gets the parameters of a documented server routine.

    It is called as `(self, pAsync, hBinding, request)`: the state, which the runtime made for this call; the call's
    own handle, which is what `RpcAsyncGetCallHandle(pAsync)` gives; and the request, but where the client streams:
    there it comes through the pipe. Else it is as with `rpc_async.manager`.

    Pipes are used with `push` and `pull`. Where there is one each way, that which comes in is pulled to its end first,
    and the end of the other is pushed before the call is completed. To be told of them, the routine sets the state's
    NotificationType, its branch and its Flags before it first uses a pipe.

    Source: RPC_ASYNC_STATE ("on the server the runtime creates the handle"); S1, S2, P5.

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
    if not inspect.isfunction(routine) or len(inspect.signature(routine).parameters) not in (3, 4):
        raise rpc_async.InvalidArgument(
            f"@manager {name}: a method of (self, pAsync, hBinding, request), or, where the client streams, of "
            "(self, pAsync, hBinding)"
        )
    if inspect.isgeneratorfunction(routine) or inspect.isasyncgenfunction(routine):
        raise rpc_async.InvalidArgument(f"@manager {name}: a routine cannot be a generator; it completes its call")
    strict = len(inspect.signature(routine).parameters) == 3  # what streams one way has no order to keep
    return rpc_async.manager(inline=inline, strict_pipes=strict)(_documented(routine))


def _documented(routine: Any) -> Any:
    """Return a routine with the library's own parameters that calls one with the documented ones."""
    takes_request = len(inspect.signature(routine).parameters) == 4
    made: Any
    if inspect.iscoroutinefunction(routine):
        if takes_request:

            async def task(self: Any, request: Any, call: ServerCall[Any]) -> None:
                await routine(self, RPC_ASYNC_STATE.for_call(call), call, request)

            made = task
        else:

            async def task_of_pipe(self: Any, call: ServerCall[Any]) -> None:
                await routine(self, RPC_ASYNC_STATE.for_call(call), call)

            made = task_of_pipe
    elif takes_request:

        def in_place(self: Any, request: Any, call: ServerCall[Any]) -> None:
            routine(self, RPC_ASYNC_STATE.for_call(call), call, request)

        made = in_place
    else:

        def in_place_of_pipe(self: Any, call: ServerCall[Any]) -> None:
            routine(self, RPC_ASYNC_STATE.for_call(call), call)

        made = in_place_of_pipe
    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(made, name, getattr(routine, name))
    return made


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
    call = _live(BindingHandle)
    if isinstance(call, RpcStatus):
        return call
    return RpcStatus.OK if call.test_cancel() else RpcStatus.CALL_IN_PROGRESS


def RpcServerSubscribeForNotification(
    Binding: object, Notification: int, NotificationType: int, NotificationInfo: RPC_ASYNC_NOTIFICATION_INFO
) -> RpcStatus:
    """Have a manager routine told of a cancel, or of the client's disconnect, in place of its looking.

    At most once a call for each kind; at once if it has happened. What happened is told to routines and windows, and
    by a completion queue; an event does not say. A routine gets the call's state. End the subscription before the call
    is completed. Source: RpcServerSubscribeForNotification; S12.

    Args:
        Binding: What `RpcAsyncGetCallHandle(pAsync)` gives; None: the call whose routine runs in this task or thread.
        Notification: A mask of `RpcNotificationClientDisconnect` and `RpcNotificationCallCancel`; one of them where
            the type is `RpcNotificationTypeEvent`.
        NotificationType: How to tell.
        NotificationInfo: The branch that goes with the type, which is copied.

    Returns:
        RPC_S_OK: Subscribed.
        RPC_S_CANNOT_SUPPORT: Another kind, or none; an APC in a thread other than this one.
        RPC_S_INVALID_ARG: The type is `RpcNotificationTypeNone` or no type, its branch does not hold what it must, or
            both kinds are asked for by one event.
        RPC_S_INVALID_ASYNC_CALL: There is a subscription to this kind, or its one notification was queued.
        RPC_S_NO_CALL_ACTIVE: None was given, and no call runs here.
        RPC_S_INVALID_BINDING: It is no live server handle; or the completion queue is closed.
    """
    call = _live(Binding)
    if isinstance(call, RpcStatus):
        return call
    both = Notification == RpcNotificationClientDisconnect | RpcNotificationCallCancel
    if both and NotificationType == RpcNotificationTypeEvent:
        return RpcStatus.INVALID_ARG
    try:
        target, key = target_of(NotificationType, NotificationInfo, lambda told: RPC_ASYNC_STATE.for_call(told.call))
        call.subscribe(Notification, target, key)
    except rpc_async.InvalidAsyncHandle:  # it was completed meanwhile
        return RpcStatus.INVALID_BINDING
    except rpc_async.UsageError as error:
        return error.status
    return RpcStatus.OK


def RpcServerUnsubscribeForNotification(Binding: object, Notification: int) -> tuple[RpcStatus, int]:
    """End a subscription. Source: RpcServerUnsubscribeForNotification; S12.

    Args:
        Binding: As for `RpcServerSubscribeForNotification`; the call may have been completed.
        Notification: One kind.

    Returns:
        The status, and how many notifications of the kind were queued for the call, 0 or 1: if that is more than have
        been received, one is still coming.

        RPC_S_OK: There is no subscription any more.
        RPC_S_CANNOT_SUPPORT: Not exactly one of the kinds that there are.
        RPC_S_NO_CALL_ACTIVE: None was given, and no call runs here.
        RPC_S_INVALID_BINDING: It is no server handle.
    """
    call = rpc_async.current_call() if Binding is None else Binding
    if not isinstance(call, ServerCall):
        return RpcStatus.NO_CALL_ACTIVE if Binding is None else RpcStatus.INVALID_BINDING, 0
    try:
        return RpcStatus.OK, call.unsubscribe(Notification)
    except rpc_async.CannotSupport as error:
        return error.status, 0


def _live(binding: object) -> ServerCall[Any] | RpcStatus:
    """Return the call that a live server handle is of, or, for None, that runs here; or the status if there is none."""
    call = rpc_async.current_call() if binding is None else binding
    if isinstance(call, ServerCall) and not call.settled:
        return call
    return RpcStatus.NO_CALL_ACTIVE if binding is None else RpcStatus.INVALID_BINDING
