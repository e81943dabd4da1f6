"""The documented constants: statuses, events, kinds of notification, options.

The statuses are those of the semantics' table, as `RpcStatus`, and what else the functions here may return. Sources:
rpcnterr.h, winerror.h, rpcasync.h and rpcdce.h.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, TypeAlias

from rpc_async import AsyncEvent, Notifications, RpcStatus

RPC_S_OK: Final = RpcStatus.OK
RPC_S_ACCESS_DENIED: Final = RpcStatus.ACCESS_DENIED
RPC_S_OUT_OF_MEMORY: Final = RpcStatus.OUT_OF_MEMORY
RPC_S_INVALID_ARG: Final = RpcStatus.INVALID_ARG
RPC_S_ASYNC_CALL_PENDING: Final = RpcStatus.ASYNC_CALL_PENDING
RPC_S_INVALID_BINDING: Final = RpcStatus.INVALID_BINDING
RPC_S_INVALID_TIMEOUT: Final = 1709
"""From `RpcMgmtSetCancelTimeout` and `RpcCancelThreadEx`: no number of seconds."""
RPC_S_SERVER_UNAVAILABLE: Final = RpcStatus.SERVER_UNAVAILABLE
RPC_S_SERVER_TOO_BUSY: Final = RpcStatus.SERVER_TOO_BUSY
RPC_S_NO_CALL_ACTIVE: Final = RpcStatus.NO_CALL_ACTIVE
RPC_S_CALL_FAILED: Final = RpcStatus.CALL_FAILED
RPC_S_CALL_FAILED_DNE: Final = RpcStatus.CALL_FAILED_DNE
RPC_S_PROCNUM_OUT_OF_RANGE: Final = RpcStatus.PROCNUM_OUT_OF_RANGE
RPC_S_CANNOT_SUPPORT: Final = RpcStatus.CANNOT_SUPPORT
RPC_S_INTERNAL_ERROR: Final = RpcStatus.INTERNAL_ERROR
RPC_X_BAD_STUB_DATA: Final = RpcStatus.BAD_STUB_DATA
RPC_S_CALL_IN_PROGRESS: Final = RpcStatus.CALL_IN_PROGRESS
RPC_S_CALL_CANCELLED: Final = RpcStatus.CALL_CANCELLED
RPC_X_WRONG_PIPE_ORDER: Final = RpcStatus.WRONG_PIPE_ORDER
RPC_S_INVALID_ASYNC_HANDLE: Final = RpcStatus.INVALID_ASYNC_HANDLE
RPC_S_INVALID_ASYNC_CALL: Final = RpcStatus.INVALID_ASYNC_CALL
RPC_X_PIPE_CLOSED: Final = RpcStatus.PIPE_CLOSED
RPC_X_PIPE_DISCIPLINE_ERROR: Final = RpcStatus.PIPE_DISCIPLINE_ERROR
RPC_X_PIPE_EMPTY: Final = RpcStatus.PIPE_EMPTY


class RPC_NOTIFICATION_TYPES(IntEnum):
    """How a client is told that something came of its call; for each there is one branch of the state's union `u`."""

    RpcNotificationTypeNone = 0
    """Not at all: it polls with `RpcAsyncGetCallStatus`. No branch."""
    RpcNotificationTypeEvent = 1
    """An event is set: `u.hEvent`."""
    RpcNotificationTypeApc = 2
    """A routine is called in the thread that made the call, while it waits alertably: `u.APC`."""
    RpcNotificationTypeIoc = 3
    """A packet is put into a completion queue: `u.IOC`."""
    RpcNotificationTypeHwnd = 4
    """A message is posted into a loop that is not the library's: `u.HWND`."""
    RpcNotificationTypeCallback = 5
    """A routine is called: `u.NotificationRoutine`."""


# In C an enumeration's members have names of their own, and these are ours already.
RPC_ASYNC_EVENT: TypeAlias = AsyncEvent
RPC_NOTIFICATIONS: TypeAlias = Notifications

RpcNotificationTypeNone: Final = RPC_NOTIFICATION_TYPES.RpcNotificationTypeNone
RpcNotificationTypeEvent: Final = RPC_NOTIFICATION_TYPES.RpcNotificationTypeEvent
RpcNotificationTypeApc: Final = RPC_NOTIFICATION_TYPES.RpcNotificationTypeApc
RpcNotificationTypeIoc: Final = RPC_NOTIFICATION_TYPES.RpcNotificationTypeIoc
RpcNotificationTypeHwnd: Final = RPC_NOTIFICATION_TYPES.RpcNotificationTypeHwnd
RpcNotificationTypeCallback: Final = RPC_NOTIFICATION_TYPES.RpcNotificationTypeCallback

RpcCallComplete: Final = AsyncEvent.CALL_COMPLETE
RpcSendComplete: Final = AsyncEvent.SEND_COMPLETE
RpcReceiveComplete: Final = AsyncEvent.RECEIVE_COMPLETE
RpcClientDisconnect: Final = AsyncEvent.CLIENT_DISCONNECT
RpcClientCancel: Final = AsyncEvent.CLIENT_CANCEL

RpcNotificationCallNone: Final = Notifications.NONE
RpcNotificationClientDisconnect: Final = Notifications.CLIENT_DISCONNECT
RpcNotificationCallCancel: Final = Notifications.CALL_CANCEL

RPC_C_NOTIFY_ON_SEND_COMPLETE: Final = 1
"""The only flag that a state's Flags may have: notify of each push that is sent."""
RPC_C_CANCEL_INFINITE_TIMEOUT: Final = -1
"""Wait for ever for the server's answer to a cancel."""
RPC_C_OPT_BINDING_NONCAUSAL: Final = 9
"""Calls need not be dispatched in the order in which they were begun."""
RPC_C_OPT_CALL_TIMEOUT: Final = 12
"""How long a blocking call may take, in milliseconds; 0 or `INFINITE`: for ever. Asynchronous calls ignore it."""
INFINITE: Final = 0xFFFF_FFFF
"""No time-out."""
