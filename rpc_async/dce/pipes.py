"""Pipes in the documented form: what is pushed and pulled through a state, on either side. P1 to P6."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import rpc_async
from rpc_async import (
    AsyncEvent,
    PullCall,
    PushCall,
    PushPullCall,
    RpcStatus,
    ServerCall,
    ServerPullCall,
    ServerPushCall,
    ServerPushPullCall,
)
from rpc_async.dce.names import RPC_C_NOTIFY_ON_SEND_COMPLETE
from rpc_async.dce.notification import target_of
from rpc_async.dce.state import RPC_ASYNC_STATE, call_of, status_of

__all__ = ["pipe_events", "pull", "push"]

_PUSHING: Final = (PushCall, PushPullCall, ServerPushCall, ServerPushPullCall)
_PULLING: Final = (PullCall, PushPullCall, ServerPullCall, ServerPushPullCall)


def push(pAsync: object, chunk: object) -> int:
    """Push a chunk into the call's pipe, in place of a pipe's `push(state, buf, ecount)`. Source: asynchronous pipes.

    On either side. The chunk may be changed as soon as this returns (P1). After a failure of the call nothing more is
    owed: the state has no call any more (P6).

    Args:
        pAsync: The state.
        chunk: A message; None: the null push, which is the end of the pipe and pushed once (P3).

    Returns:
        RPC_S_OK: It is pushed.
        RPC_S_ASYNC_CALL_PENDING: The pipe is full, since the other side is behind: nothing was pushed. There is room
            once RpcSendComplete is notified, if the state's Flags ask for it (P4).
        RPC_X_PIPE_CLOSED: The end was pushed before, or the call is complete without what is pushed now (P3).
        RPC_X_WRONG_PIPE_ORDER: On the server: the pipe that comes in was not pulled to its end (P5).
        RPC_X_BAD_STUB_DATA: It is of another type than the method's; nothing was pushed.
        RPC_S_OUT_OF_MEMORY: It is over the size limit; nothing was pushed.
        RPC_S_INVALID_ARG: On the server: the NotificationType's branch of the union does not hold what it must.
        RPC_S_INVALID_ASYNC_HANDLE: It is no state, has no call, or what the runtime set in it was changed.
        RPC_S_INVALID_ASYNC_CALL: The call has no pipe to push into.
        Any other: The call has failed so.
    """
    status, _ = _use_pipe(pAsync, _PUSHING, lambda call: call.push(chunk))
    return status


def pull(pAsync: object) -> tuple[int, Any]:
    """Pull a chunk out of the call's pipe, in place of a pipe's `pull(state, buf, esize, &ecount)`.

    On either side. After a failure of the call nothing more is owed: the state has no call any more (P6).
    Source: asynchronous pipes.

    Args:
        pAsync: The state.

    Returns:
        The status, and the chunk, which is None unless RPC_S_OK.

        RPC_S_OK: The chunk is there; None is the end of the pipe (P2).
        RPC_S_ASYNC_CALL_PENDING: There is nothing to pull: wait for RpcReceiveComplete (P2).
        RPC_X_PIPE_EMPTY: The end was pulled before.
        RPC_X_WRONG_PIPE_ORDER: On the client: the end of the pipe that goes in was not pushed (P5).
        RPC_S_INVALID_ARG: On the server: the NotificationType's branch of the union does not hold what it must.
        RPC_S_INVALID_ASYNC_HANDLE: It is no state, has no call, or what the runtime set in it was changed.
        RPC_S_INVALID_ASYNC_CALL: The call has no pipe to pull from.
        Any other: The call has failed so.
    """
    return _use_pipe(pAsync, _PULLING, lambda call: call.pull())


def _use_pipe(state: object, kinds: tuple[type, ...], use: Callable[[Any], Any]) -> tuple[int, Any]:
    call = call_of(state)
    if isinstance(call, RpcStatus):
        return call, None
    if not isinstance(call, kinds):
        return RpcStatus.INVALID_ASYNC_CALL, None
    assert isinstance(state, RPC_ASYNC_STATE)
    try:
        _listen(state, call)
        return RpcStatus.OK, use(call)
    except rpc_async.UsageError as error:
        return error.status, None
    except rpc_async.CallError as error:  # P6
        with state._guard:
            if state._call is call:
                state.bind(None)
        if isinstance(call, ServerCall):
            status_of(lambda: call.abort(RpcStatus.CALL_CANCELLED).status)  # nobody waits for it, and nobody owes it
        return error.status, None


def _listen(state: RPC_ASYNC_STATE, call: Any) -> None:
    """Have a server's state told of its pipes from its first use of one, if its NotificationType says so."""
    with state._guard:
        if not state._of_server or state._listening or not state.NotificationType:
            return
        target, key = target_of(state.NotificationType, state.u, lambda told: RPC_ASYNC_STATE.for_call(told.call), True)
        call.notify(target, key, pipe_events(state))
        state._listening = True


def pipe_events(state: RPC_ASYNC_STATE) -> tuple[AsyncEvent, ...]:
    """Return what is notified of a call's pipes, as its state's Flags say."""
    if state.Flags & RPC_C_NOTIFY_ON_SEND_COMPLETE:
        return AsyncEvent.RECEIVE_COMPLETE, AsyncEvent.SEND_COMPLETE
    return (AsyncEvent.RECEIVE_COMPLETE,)
