"""Truly asynchronous calls over gRPC.

The client holds a completion handle (`AsyncCall`), which it polls, waits for, or is told by. The server's manager
routine holds one too (`ServerCall`), may return long before the work is done, and completes the call explicitly,
from any thread. A cancel is a question, and what the server then does is the answer; or the client aborts, and is
free at once.
"""

from rpc_async import _environment as _environment  # before gRPC is loaded
from rpc_async._version import __version__
from rpc_async.calling.call import AsyncCall
from rpc_async.calling.cancel_request import CancelRequest
from rpc_async.calling.channel import Channel, connect
from rpc_async.calling.method import begin
from rpc_async.calling.pipe import PullCall, PushCall, PushPullCall
from rpc_async.core.outcome import Detail, Fault, Progress
from rpc_async.errors import (
    AsyncCallPending,
    BadStubData,
    CallAborted,
    CallCancelled,
    CallError,
    CallFailed,
    CannotSupport,
    DeadlineExceeded,
    ForkedProcess,
    InvalidArgument,
    InvalidAsyncCall,
    InvalidAsyncHandle,
    InvalidBinding,
    PayloadTooLarge,
    PipeClosed,
    PipeDisciplineError,
    PipeEmpty,
    QueueClosed,
    RpcAsyncError,
    ServerTooBusy,
    ServerUnavailable,
    UsageError,
    WrongPipeOrder,
)
from rpc_async.notification.apc import Apc, alertable_wait
from rpc_async.notification.completion import Completion
from rpc_async.notification.post import Post
from rpc_async.notification.queue import CompletionQueue
from rpc_async.notification.targets import Target
from rpc_async.serving.call import Aborted, ServerCall, current_call
from rpc_async.serving.interruptible import Interruptible
from rpc_async.serving.manager import manager
from rpc_async.serving.pipe import ServerPullCall, ServerPushCall, ServerPushPullCall
from rpc_async.serving.server import Server, server
from rpc_async.status import AsyncEvent, CancelReason, Notifications, RpcStatus

__all__ = [
    "Aborted",
    "Apc",
    "AsyncCall",
    "AsyncCallPending",
    "AsyncEvent",
    "BadStubData",
    "CallAborted",
    "CallCancelled",
    "CallError",
    "CallFailed",
    "CancelReason",
    "CancelRequest",
    "CannotSupport",
    "Channel",
    "Completion",
    "CompletionQueue",
    "DeadlineExceeded",
    "Detail",
    "Fault",
    "ForkedProcess",
    "Interruptible",
    "InvalidArgument",
    "InvalidAsyncCall",
    "InvalidAsyncHandle",
    "InvalidBinding",
    "Notifications",
    "PayloadTooLarge",
    "PipeClosed",
    "PipeDisciplineError",
    "PipeEmpty",
    "Post",
    "Progress",
    "PullCall",
    "PushCall",
    "PushPullCall",
    "QueueClosed",
    "RpcAsyncError",
    "RpcStatus",
    "Server",
    "ServerCall",
    "ServerPullCall",
    "ServerPushCall",
    "ServerPushPullCall",
    "ServerTooBusy",
    "ServerUnavailable",
    "Target",
    "UsageError",
    "WrongPipeOrder",
    "__version__",
    "alertable_wait",
    "begin",
    "connect",
    "current_call",
    "manager",
    "server",
]
