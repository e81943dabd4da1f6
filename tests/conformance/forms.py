"""The two forms of the same verbs: the idiomatic one and the façade. Each verb returns a status number."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import grpc.aio
from google.protobuf.message import Message

import rpc_async
from rpc_async import RpcStatus, ServerCall, dce
from rpc_async.demo.v1 import demo_pb2
from tests.harness import Servicer

Kind = Literal["task", "thread", "inline"]
Routine = Callable[[Any, demo_pb2.EchoRequest], None]
"""What a manager routine does with its handle and the request."""
PipeRoutine = Callable[[Any], None]
"""What one of a streaming method does with its handle."""


class Form(ABC):
    """One form. A `handle` is what the form's own users hold."""

    name: str

    @abstractmethod
    def servicer(self, kind: Kind, routine: Routine, pipe_routine: PipeRoutine) -> Servicer:
        """Make a servicer whose `Echo` is a manager routine of this kind, and whose streaming methods are inline."""

    # -- the client -------------------------------------------------------------------------------------

    @abstractmethod
    def begin(
        self, handle: Any, method: Any, *request: Message, target: Any = None, key: Any = None, **options: Any
    ) -> tuple[int, Any]:
        """Begin a call, on an earlier handle where the form has that. Returns the status and the handle.

        Args:
            handle: The earlier handle, or None.
            method: The stub's.
            request: The request, where the method takes one.
            target: What is told: a `threading.Event`, a `CompletionQueue`, or a function of an event. None: nothing.
            key: What comes out of the queue with the notification.
            options: As for `rpc_async.begin`.
        """

    @abstractmethod
    def status(self, handle: Any) -> int: ...

    @abstractmethod
    def complete(self, handle: Any) -> tuple[int, Any]: ...

    @abstractmethod
    def cancel(self, handle: Any, abort: bool) -> int: ...

    @abstractmethod
    def call(self, handle: Any) -> rpc_async.AsyncCall[Any]:
        """Return the idiomatic handle of an outstanding call, for what only it can tell."""

    @abstractmethod
    def push(self, handle: Any, chunk: Any) -> int: ...

    @abstractmethod
    def pull(self, handle: Any) -> tuple[int, Any]: ...

    # -- the server -------------------------------------------------------------------------------------

    @abstractmethod
    def server_push(self, handle: Any, chunk: Any) -> int: ...

    @abstractmethod
    def server_pull(self, handle: Any) -> tuple[int, Any]: ...

    @abstractmethod
    def server_complete(self, handle: Any, reply: Any) -> int: ...

    @abstractmethod
    def server_abort(self, handle: Any, code: int) -> int: ...

    @abstractmethod
    def test_cancel(self, handle: Any) -> int: ...

    @abstractmethod
    def subscribe(self, handle: Any, mask: int, routine: Callable[[int], object]) -> int: ...

    @abstractmethod
    def unsubscribe(self, handle: Any, mask: int) -> tuple[int, int]: ...

    @abstractmethod
    def server_call(self, handle: Any) -> ServerCall[Any]: ...


PIPE_EVENTS = (rpc_async.AsyncEvent.SEND_COMPLETE, rpc_async.AsyncEvent.RECEIVE_COMPLETE)


def status_of(function: Callable[[], Any]) -> tuple[int, Any]:
    """Call it, and return OK and what it returned, or the status of what it raised and None."""
    try:
        return RpcStatus.OK, function()
    except (rpc_async.UsageError, rpc_async.CallError) as error:
        return error.status, None


def _of_event(routine: Callable[[int], object]) -> Callable[[rpc_async.Completion], object]:
    return lambda completion: routine(completion.event)


class Idiomatic(Form):
    """`rpc_async` itself."""

    name = "idiomatic"

    def servicer(self, kind: Kind, routine: Routine, pipe_routine: PipeRoutine) -> Servicer:
        class Own(Servicer):
            @rpc_async.manager(inline=True)
            def Upload(self, call: rpc_async.ServerPullCall[demo_pb2.UploadRequest, demo_pb2.UploadResponse]) -> None:
                pipe_routine(call)

            @rpc_async.manager(inline=True)
            def Download(
                self, request: demo_pb2.DownloadRequest, call: rpc_async.ServerPushCall[demo_pb2.DownloadResponse]
            ) -> None:
                pipe_routine(call)

            @rpc_async.manager(inline=True, strict_pipes=True)
            def Chat(self, call: rpc_async.ServerPushPullCall[demo_pb2.ChatResponse, demo_pb2.ChatRequest]) -> None:
                pipe_routine(call)

            if kind == "task":

                @rpc_async.manager
                async def Echo(self, request: demo_pb2.EchoRequest, call: ServerCall[demo_pb2.EchoResponse]) -> None:
                    await asyncio.sleep(0)
                    routine(call, request)

            else:

                @rpc_async.manager(inline=kind == "inline")
                def Echo(self, request: demo_pb2.EchoRequest, call: ServerCall[demo_pb2.EchoResponse]) -> None:
                    routine(call, request)

        return Own()

    def begin(
        self, handle: Any, method: Any, *request: Message, target: Any = None, key: Any = None, **options: Any
    ) -> tuple[int, Any]:
        notify = _of_event(target) if callable(target) else target
        if not isinstance(method, grpc.aio.UnaryUnaryMultiCallable):
            options.update(strict_pipes=True, events=() if notify is None else PIPE_EVENTS)
        return status_of(lambda: rpc_async.begin(method, *request, notify=notify, key=key, **options))

    def status(self, handle: Any) -> int:
        return int(handle.status())

    def complete(self, handle: Any) -> tuple[int, Any]:
        return status_of(handle.complete)

    def cancel(self, handle: Any, abort: bool) -> int:
        if abort:
            handle.cancel()
        else:
            handle.request_cancel()
        return RpcStatus.OK

    def call(self, handle: Any) -> rpc_async.AsyncCall[Any]:
        call: rpc_async.AsyncCall[Any] = handle
        return call

    def push(self, handle: Any, chunk: Any) -> int:
        return status_of(lambda: handle.push(chunk))[0]

    def pull(self, handle: Any) -> tuple[int, Any]:
        return status_of(handle.pull)

    def server_push(self, handle: Any, chunk: Any) -> int:
        return self.push(handle, chunk)

    def server_pull(self, handle: Any) -> tuple[int, Any]:
        return self.pull(handle)

    def server_complete(self, handle: Any, reply: Any) -> int:
        status, verdict = status_of(lambda: handle.complete(reply))
        return status or int(verdict)

    def server_abort(self, handle: Any, code: int) -> int:
        status, aborted = status_of(lambda: handle.abort(code))
        return status or int(aborted.status)

    def test_cancel(self, handle: Any) -> int:
        call = rpc_async.current_call() if handle is None else handle
        if call is None:
            return RpcStatus.NO_CALL_ACTIVE
        return RpcStatus.OK if call.test_cancel() else RpcStatus.CALL_IN_PROGRESS

    def subscribe(self, handle: Any, mask: int, routine: Callable[[int], object]) -> int:
        return status_of(lambda: handle.subscribe(mask, _of_event(routine)))[0]

    def unsubscribe(self, handle: Any, mask: int) -> tuple[int, int]:
        return status_of(lambda: handle.unsubscribe(mask))

    def server_call(self, handle: Any) -> ServerCall[Any]:
        call: ServerCall[Any] = handle
        return call


class Facade(Form):
    """`rpc_async.dce`. A server's handle is the pair of the state and the binding handle, as the routine gets it."""

    name = "facade"

    def servicer(self, kind: Kind, routine: Routine, pipe_routine: PipeRoutine) -> Servicer:
        class Own(Servicer):
            @dce.manager(inline=True)
            def Upload(
                self,
                state: dce.RPC_ASYNC_STATE,
                binding: rpc_async.ServerPullCall[demo_pb2.UploadRequest, demo_pb2.UploadResponse],
            ) -> None:
                pipe_routine((state, binding))

            @dce.manager(inline=True)
            def Download(
                self,
                state: dce.RPC_ASYNC_STATE,
                binding: rpc_async.ServerPushCall[demo_pb2.DownloadResponse],
                request: demo_pb2.DownloadRequest,
            ) -> None:
                pipe_routine((state, binding))

            @dce.manager(inline=True)
            def Chat(
                self,
                state: dce.RPC_ASYNC_STATE,
                binding: rpc_async.ServerPushPullCall[demo_pb2.ChatResponse, demo_pb2.ChatRequest],
            ) -> None:
                pipe_routine((state, binding))

            if kind == "task":

                @dce.manager
                async def Echo(
                    self,
                    state: dce.RPC_ASYNC_STATE,
                    binding: ServerCall[demo_pb2.EchoResponse],
                    request: demo_pb2.EchoRequest,
                ) -> None:
                    await asyncio.sleep(0)
                    routine((state, binding), request)

            else:

                @dce.manager(inline=kind == "inline")
                def Echo(
                    self,
                    state: dce.RPC_ASYNC_STATE,
                    binding: ServerCall[demo_pb2.EchoResponse],
                    request: demo_pb2.EchoRequest,
                ) -> None:
                    routine((state, binding), request)

        return Own()

    def begin(
        self, handle: Any, method: Any, *request: Message, target: Any = None, key: Any = None, **options: Any
    ) -> tuple[int, Any]:
        if handle is None:
            handle = dce.RPC_ASYNC_STATE()
            dce.RpcAsyncInitializeHandle(handle, dce.SIZEOF_RPC_ASYNC_STATE)
        if isinstance(target, threading.Event):
            handle.NotificationType, handle.u.hEvent = dce.RpcNotificationTypeEvent, target
        elif isinstance(target, rpc_async.CompletionQueue):
            handle.NotificationType, handle.u.IOC.hIOPort = dce.RpcNotificationTypeIoc, target
            handle.u.IOC.dwCompletionKey = key
        elif target is not None:
            handle.NotificationType = dce.RpcNotificationTypeCallback
            handle.u.NotificationRoutine = lambda state, context, event: target(event)
        if not isinstance(method, grpc.aio.UnaryUnaryMultiCallable):
            handle.Flags = dce.RPC_C_NOTIFY_ON_SEND_COMPLETE
        status, _ = status_of(lambda: dce.begin(handle, method, *request, **options))
        return status, handle

    def status(self, handle: Any) -> int:
        return dce.RpcAsyncGetCallStatus(handle)

    def complete(self, handle: Any) -> tuple[int, Any]:
        return dce.RpcAsyncCompleteCall(handle)

    def cancel(self, handle: Any, abort: bool) -> int:
        return dce.RpcAsyncCancelCall(handle, abort)

    def call(self, handle: Any) -> rpc_async.AsyncCall[Any]:
        call = dce.RpcAsyncGetCallHandle(handle)
        assert isinstance(call, rpc_async.AsyncCall)
        return call

    def push(self, handle: Any, chunk: Any) -> int:
        return dce.push(handle, chunk)

    def pull(self, handle: Any) -> tuple[int, Any]:
        return dce.pull(handle)

    def server_push(self, handle: Any, chunk: Any) -> int:
        return dce.push(handle[0], chunk)

    def server_pull(self, handle: Any) -> tuple[int, Any]:
        return dce.pull(handle[0])

    def server_complete(self, handle: Any, reply: Any) -> int:
        return dce.RpcAsyncCompleteCall(handle[0], reply)

    def server_abort(self, handle: Any, code: int) -> int:
        return dce.RpcAsyncAbortCall(handle[0], code)

    def test_cancel(self, handle: Any) -> int:
        return dce.RpcServerTestCancel(None if handle is None else handle[1])

    def subscribe(self, handle: Any, mask: int, routine: Callable[[int], object]) -> int:
        info = dce.RPC_ASYNC_NOTIFICATION_INFO()
        info.NotificationRoutine = lambda state, context, event: routine(event)
        return dce.RpcServerSubscribeForNotification(handle[1], mask, dce.RpcNotificationTypeCallback, info)

    def unsubscribe(self, handle: Any, mask: int) -> tuple[int, int]:
        return dce.RpcServerUnsubscribeForNotification(handle[1], mask)

    def server_call(self, handle: Any) -> ServerCall[Any]:
        call: ServerCall[Any] = handle[1]
        return call


FORMS: dict[str, Form] = {form.name: form for form in (Idiomatic(), Facade())}
