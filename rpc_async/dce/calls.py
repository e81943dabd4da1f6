"""Making a call on a state, and what both sides then do with it: look, complete, cancel, abort.

Each function returns the documented status and raises nothing for a documented failure; `begin` raises, as a client
stub does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypedDict, TypeVar, Unpack, overload

import grpc
import grpc.aio
from google.protobuf.message import Message

import rpc_async
from rpc_async import (
    AsyncCall,
    InvalidArgument,
    InvalidAsyncCall,
    InvalidAsyncHandle,
    RpcStatus,
    ServerCall,
)
from rpc_async.dce.names import RPC_C_NOTIFY_ON_SEND_COMPLETE, RpcCallComplete
from rpc_async.dce.notification import target_of
from rpc_async.dce.pipes import pipe_events
from rpc_async.dce.state import RPC_ASYNC_STATE, call_of, status_of

__all__ = [
    "RpcAsyncAbortCall",
    "RpcAsyncCancelCall",
    "RpcAsyncCompleteCall",
    "RpcAsyncGetCallHandle",
    "RpcAsyncGetCallStatus",
    "begin",
]

RequestT = TypeVar("RequestT")
ReplyT = TypeVar("ReplyT")

_NO_REPLY: Final = object()


class BeginOptions(TypedDict, total=False):
    """What `begin` takes beside the method and its request, as `rpc_async.begin` does."""

    timeout: float | None
    """Seconds until the call's deadline; None: no deadline."""
    metadata: Iterable[tuple[str, str | bytes]] | None
    """gRPC's metadata, as pairs."""
    credentials: grpc.CallCredentials | None
    """gRPC's call credentials."""
    wait_for_ready: bool | None
    """As in gRPC: wait for a connection, in place of failing where there is none."""
    compression: grpc.Compression | None
    """gRPC's compression for what the client sends."""


@overload
def begin(
    pAsync: RPC_ASYNC_STATE,
    method: (grpc.aio.UnaryUnaryMultiCallable[RequestT, ReplyT] | grpc.aio.UnaryStreamMultiCallable[RequestT, ReplyT]),
    request: RequestT,
    **options: Unpack[BeginOptions],
) -> None: ...
@overload
def begin(
    pAsync: RPC_ASYNC_STATE,
    method: (
        grpc.aio.StreamUnaryMultiCallable[RequestT, ReplyT] | grpc.aio.StreamStreamMultiCallable[RequestT, ReplyT]
    ),
    **options: Unpack[BeginOptions],
) -> None: ...
def begin(pAsync: RPC_ASYNC_STATE, method: Any, *request: Any, **options: Any) -> None:
    """Make a call on a state, in place of a client stub's `Method(pAsync, hBinding, request)`.

    Source: Making the asynchronous call; C4, C8. The options are those of `rpc_async.begin`. When it raises, no call
    was begun, no notification will come, and nothing is owed.

    Args:
        pAsync: An initialised state on which no call is outstanding.
        method: A method of a generated stub on a `Channel`: the channel is the binding. A streaming method has pipes,
            which are used with `push` and `pull`, in the documented order.
        request: The request, where the method takes one.
        options: See `BeginOptions`.

    Raises:
        InvalidAsyncHandle: It is no state, was never initialised, or what the runtime set in it was changed.
        InvalidAsyncCall: A call is outstanding on the state, or it is a server's.
        InvalidArgument: Flags other than `RPC_C_NOTIFY_ON_SEND_COMPLETE`, a NotificationType that is none, or a branch
            of the union that does not hold what it must.
        CannotSupport: An APC in a thread other than this one.
        UsageError: As from `rpc_async.begin`.
    """
    if not isinstance(pAsync, RPC_ASYNC_STATE):
        raise InvalidAsyncHandle(f"{pAsync!r} is no RPC_ASYNC_STATE; no call was begun")
    with pAsync._guard:
        if not pAsync.intact():
            raise InvalidAsyncHandle(
                f"{pAsync!r} was not initialised, or its Size, Signature, Lock or StubInfo was changed: call "
                "RpcAsyncInitializeHandle; no call was begun (H3)"
            )
        if pAsync._call is not None or pAsync._of_server:
            raise InvalidAsyncCall(
                f"{pAsync!r}: a state carries one call at a time, and a server's none; complete its call first; no "
                "call was begun (C4)"
            )
        if pAsync.Flags not in (0, RPC_C_NOTIFY_ON_SEND_COMPLETE):
            raise InvalidArgument(f"Flags {pAsync.Flags!r}: 0 or RPC_C_NOTIFY_ON_SEND_COMPLETE; no call was begun")
        if not isinstance(method, grpc.aio.UnaryUnaryMultiCallable):
            options.update(strict_pipes=True, events=pipe_events(pAsync))
        notify, key = target_of(pAsync.NotificationType, pAsync.u, lambda _: pAsync, "events" in options)
        pAsync.bind(rpc_async.begin(method, *request, notify=notify, key=key, **options))
        pAsync.Event = RpcCallComplete


def RpcAsyncGetCallStatus(pAsync: object) -> int:
    """Tell how the call on a client's state stands; consumes nothing. Source: RpcAsyncGetCallStatus; C2, H2.

    Args:
        pAsync: The state.

    Returns:
        RPC_S_OK: It has settled with a reply.
        RPC_S_ASYNC_CALL_PENDING: It has not settled.
        RPC_S_INVALID_BINDING: There is no call on the state: none was begun, or the last one was completed.
        RPC_S_INVALID_ASYNC_HANDLE: It is no state, or what the runtime set in it was changed.
        RPC_S_INVALID_ASYNC_CALL: It is a server's.
        Any other: It has settled as this failure.
    """
    if not isinstance(pAsync, RPC_ASYNC_STATE):
        return RpcStatus.INVALID_ASYNC_HANDLE
    with pAsync._guard:
        if pAsync.zero():
            return RpcStatus.INVALID_BINDING
        if not pAsync.intact():
            return RpcStatus.INVALID_ASYNC_HANDLE
        call = pAsync._call
        if pAsync._of_server:
            return RpcStatus.INVALID_ASYNC_HANDLE if call is None else RpcStatus.INVALID_ASYNC_CALL
    return call.status() if isinstance(call, AsyncCall) else RpcStatus.INVALID_BINDING


@overload
def RpcAsyncCompleteCall(pAsync: object) -> tuple[int, Any]: ...
@overload
def RpcAsyncCompleteCall(pAsync: object, Reply: object) -> int: ...
def RpcAsyncCompleteCall(pAsync: object, Reply: object = _NO_REPLY) -> int | tuple[int, Any]:
    """Complete a call: on the client collect its outcome, on the server send it. Source: RpcAsyncCompleteCall.

    On the client any return but RPC_S_ASYNC_CALL_PENDING is final: the state has no call any more (C1, C3, C4). On
    the server it is final whatever it returns, and destroys the state (S1 to S5, S11).

    Args:
        pAsync: The state.
        Reply: On the server the reply. On the client a message that is filled in if, and only if, the call succeeded,
            as a buffer is in C; or none, and the reply is returned.

    Returns:
        The status, or where there is no Reply the pair of status and reply, which is None unless RPC_S_OK.

        RPC_S_OK: The call succeeded; on the server: the reply is on its way.
        RPC_S_ASYNC_CALL_PENDING: On the client: it has not settled, and stays outstanding.
        RPC_S_CALL_CANCELLED: It was cancelled; on the server: nobody waited, and the reply was dropped (S11).
        RPC_S_INVALID_ASYNC_HANDLE: It is no state, has no call, or what the runtime set in it was changed.
        RPC_X_BAD_STUB_DATA: The reply is of another type than the method's; on the server the call fails so.
        RPC_S_OUT_OF_MEMORY: On the server: the reply is over the size limit, and the call fails so.
        RPC_X_PIPE_DISCIPLINE_ERROR: A pipe was not drained, or its end not pushed: the call is aborted, or on the
            server fails so (P5).
        Any other: On the client: the call failed so.
    """
    status, reply = _complete(pAsync, None if Reply is _NO_REPLY else Reply)
    return (status, reply) if Reply is _NO_REPLY else status


def _complete(state: object, given: object) -> tuple[int, Any]:
    if not isinstance(state, RPC_ASYNC_STATE):
        return RpcStatus.INVALID_ASYNC_HANDLE, None
    with state._guard:
        call = state._call
        if call is None or not state.intact():
            return RpcStatus.INVALID_ASYNC_HANDLE, None
        outcome: tuple[int, Any] = _collect(call) if isinstance(call, AsyncCall) else (RpcStatus.OK, None)
        status, reply = outcome
        if status == RpcStatus.ASYNC_CALL_PENDING:
            return status, None
        state.bind(None)
    if isinstance(call, ServerCall):
        return status_of(lambda: call.complete(given)), None
    if status != RpcStatus.OK:
        return status, None
    if given is not None:
        if not isinstance(given, Message) or not isinstance(reply, type(given)):
            return RpcStatus.BAD_STUB_DATA, None
        given.CopyFrom(reply)
    return RpcStatus.OK, reply


def _collect(call: AsyncCall[Any]) -> tuple[int, Any]:
    try:
        return RpcStatus.OK, call.complete()
    except rpc_async.CallError as error:
        return error.status, None
    except rpc_async.PipeDisciplineError as error:
        call.cancel()  # it is final, and nobody will use the pipes any more
        return error.status, None
    except rpc_async.UsageError as error:
        return error.status, None


def RpcAsyncCancelCall(pAsync: object, fAbort: bool) -> RpcStatus:
    """Cancel the call on a client's state. Source: RpcAsyncCancelCall; C5, C6, C7, H5.

    It rushes the completion and does not replace it: the notification comes, and the call must be completed.

    Args:
        pAsync: The state.
        fAbort: False asks the server to stop and waits for what it then does, without a time-out. True settles the
            call here and now as RPC_S_CALL_CANCELLED, and tells the server.

    Returns:
        RPC_S_OK: The request was processed, which does not say that the call was cancelled.
        RPC_S_INVALID_ASYNC_HANDLE: It is no state, has no call, or what the runtime set in it was changed.
        RPC_S_INVALID_ASYNC_CALL: It is a server's.
    """
    call = call_of(pAsync)
    if isinstance(call, RpcStatus):
        return call
    if not isinstance(call, AsyncCall):
        return RpcStatus.INVALID_ASYNC_CALL
    if fAbort:
        call.cancel()
    else:
        call.request_cancel()
    return RpcStatus.OK


def RpcAsyncAbortCall(pAsync: object, ExceptionCode: int) -> RpcStatus:
    """Settle the call on a server's state as a fault, and destroy the state. Source: RpcAsyncAbortCall; S6, S4, H5.

    Args:
        pAsync: The state.
        ExceptionCode: Any non-zero 32-bit number, the application's own or a status; the client gets it unchanged.

    Returns:
        RPC_S_OK: The fault is on its way.
        RPC_S_CALL_CANCELLED: Nobody waited for it any more, and it was dropped (S11).
        RPC_S_INVALID_ARG: The code cannot be that of a failure; nothing was changed.
        RPC_S_INVALID_ASYNC_HANDLE: It is no state, has no call, or what the runtime set in it was changed.
        RPC_S_INVALID_ASYNC_CALL: It is a client's.
    """
    call = call_of(pAsync)
    if isinstance(pAsync, RPC_ASYNC_STATE) and pAsync.intact() and not pAsync._of_server:
        return RpcStatus.INVALID_ASYNC_CALL
    if not isinstance(call, ServerCall):
        return RpcStatus.INVALID_ASYNC_HANDLE
    assert isinstance(pAsync, RPC_ASYNC_STATE)
    status = status_of(lambda: call.abort(ExceptionCode).status)
    if status is not RpcStatus.INVALID_ARG:
        with pAsync._guard:
            pAsync.bind(None)
    return status


def RpcAsyncGetCallHandle(pAsync: RPC_ASYNC_STATE) -> AsyncCall[Any] | ServerCall[Any] | None:
    """Return the call's own handle: RuntimeInfo. Source: RpcAsyncGetCallHandle; H4.

    Args:
        pAsync: The state.

    Returns:
        The `ServerCall` on the server, which `RpcServerTestCancel` takes; the `AsyncCall` on the client; None where
        there is no call.
    """
    handle: AsyncCall[Any] | ServerCall[Any] | None = pAsync.RuntimeInfo
    return handle
