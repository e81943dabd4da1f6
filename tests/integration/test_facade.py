"""The façade: what its conformance cases cannot say. S10, S12, C4, C8, C9, C10, H3, and blocking calls."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import rpc_async
from rpc_async import RpcStatus, ServerCall, dce
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
from tests.harness import PATIENCE, Seen, Servicer, SocketWire, Wire, pair, request, response, serve, until


class Parked(Servicer):
    """Keeps the state and the binding handle of every call for the test."""

    def __init__(self) -> None:
        self.arrived: asyncio.Queue[tuple[dce.RPC_ASYNC_STATE, ServerCall[demo_pb2.EchoResponse]]] = asyncio.Queue()

    @dce.manager(inline=True)
    def Echo(
        self, state: dce.RPC_ASYNC_STATE, binding: ServerCall[demo_pb2.EchoResponse], request: demo_pb2.EchoRequest
    ) -> None:
        self.arrived.put_nowait((state, binding))

    async def next(self) -> tuple[dce.RPC_ASYNC_STATE, ServerCall[demo_pb2.EchoResponse]]:
        return await asyncio.wait_for(self.arrived.get(), PATIENCE)


def initialized() -> dce.RPC_ASYNC_STATE:
    state = dce.RPC_ASYNC_STATE()
    assert dce.RpcAsyncInitializeHandle(state, dce.SIZEOF_RPC_ASYNC_STATE) == dce.RPC_S_OK
    return state


async def completed(state: dce.RPC_ASYNC_STATE) -> tuple[int, Any]:
    await until(lambda: dce.RpcAsyncGetCallStatus(state) != dce.RPC_S_ASYNC_CALL_PENDING)
    return dce.RpcAsyncCompleteCall(state)


# -- completing -----------------------------------------------------------------------------------------


async def test_C3_C4_a_reply_buffer_is_filled_only_when_the_call_succeeded(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        state, buffer = initialized(), response(b"as it was")
        dce.begin(state, both.stub.Echo, request())
        server_state, _ = await servicer.next()
        assert dce.RpcAsyncCompleteCall(state, buffer) == 997
        assert dce.RpcAsyncAbortCall(server_state, 4711) == dce.RPC_S_OK
        await until(lambda: dce.RpcAsyncGetCallStatus(state) == 4711)
        assert dce.RpcAsyncCompleteCall(state, buffer) == 4711
        assert buffer.payload == b"as it was"

        dce.begin(state, both.stub.Echo, request())
        server_state, _ = await servicer.next()
        assert dce.RpcAsyncCompleteCall(server_state, response(b"reply")) == dce.RPC_S_OK
        await until(lambda: dce.RpcAsyncGetCallStatus(state) == dce.RPC_S_OK)
        assert dce.RpcAsyncCompleteCall(state, buffer) == dce.RPC_S_OK
        assert buffer.payload == b"reply"


async def test_C4_a_buffer_of_another_type_is_final_too(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        state = initialized()
        dce.begin(state, both.stub.Echo, request())
        dce.RpcAsyncCompleteCall((await servicer.next())[0], response(b"reply"))
        await until(lambda: dce.RpcAsyncGetCallStatus(state) == dce.RPC_S_OK)
        assert dce.RpcAsyncCompleteCall(state, request()) == dce.RPC_X_BAD_STUB_DATA
        assert dce.RpcAsyncCompleteCall(state) == (dce.RPC_S_INVALID_ASYNC_HANDLE, None)


async def test_S5_a_server_that_gives_no_reply_settles_the_call(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        state = initialized()
        dce.begin(state, both.stub.Echo, request())
        server_state, _ = await servicer.next()
        assert dce.RpcAsyncCompleteCall(server_state) == (dce.RPC_X_BAD_STUB_DATA, None)
        assert await completed(state) == (dce.RPC_X_BAD_STUB_DATA, None)


async def test_C4_of_many_threads_that_complete_at_once_one_gets_the_reply(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        for _ in range(50):
            state = initialized()
            dce.begin(state, both.stub.Echo, request())
            server_state, _ = await servicer.next()
            barrier = threading.Barrier(4)

            def complete(function: Callable[[], Any], barrier: threading.Barrier = barrier) -> Any:
                barrier.wait()
                return function()

            def on_server(server_state: Any = server_state) -> Any:
                return dce.RpcAsyncCompleteCall(server_state, response(b"reply"))

            sent = await asyncio.gather(*(asyncio.to_thread(complete, on_server) for _ in range(4)))
            assert sorted(sent) == [0, 1914, 1914, 1914]
            call = dce.RpcAsyncGetCallHandle(state)
            assert isinstance(call, rpc_async.AsyncCall)
            await asyncio.wait_for(call, PATIENCE)

            def on_client(state: Any = state) -> Any:
                return dce.RpcAsyncCompleteCall(state)[0]

            got = await asyncio.gather(*(asyncio.to_thread(complete, on_client) for _ in range(4)))
            assert sorted(got) == [0, 1914, 1914, 1914]


async def test_C4_of_many_threads_that_begin_at_once_one_does(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        state = initialized()
        barrier = threading.Barrier(4)

        def begin() -> int:
            barrier.wait()
            try:
                dce.begin(state, both.stub.Echo, request())
            except rpc_async.InvalidAsyncCall as error:
                return error.status
            return 0

        assert sorted(await asyncio.gather(*(asyncio.to_thread(begin) for _ in range(4)))) == [0, 1915, 1915, 1915]
        dce.RpcAsyncCompleteCall((await servicer.next())[0], response())
        assert (await completed(state))[0] == 0
        assert servicer.arrived.empty()


# -- the server -----------------------------------------------------------------------------------------


async def test_S10_what_RpcServerTestCancel_returns(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        state = initialized()
        dce.begin(state, both.stub.Echo, request())
        server_state, binding = await servicer.next()
        assert dce.RpcAsyncGetCallHandle(server_state) is binding
        assert dce.RpcServerTestCancel(binding) == dce.RPC_S_CALL_IN_PROGRESS
        assert dce.RpcServerTestCancel() == dce.RPC_S_NO_CALL_ACTIVE
        for no_handle in (server_state, dce.RpcAsyncGetCallHandle(state), 7, both.channel):
            assert dce.RpcServerTestCancel(no_handle) == dce.RPC_S_INVALID_BINDING
        assert dce.RpcAsyncCancelCall(state, False) == dce.RPC_S_OK
        await until(lambda: dce.RpcServerTestCancel(binding) == dce.RPC_S_OK)
        assert dce.RpcAsyncCompleteCall(server_state, response()) == dce.RPC_S_OK
        assert dce.RpcServerTestCancel(binding) == dce.RPC_S_INVALID_BINDING
        assert (await completed(state))[0] == dce.RPC_S_OK


async def test_S14_a_state_that_nobody_holds_is_forgotten(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        state = initialized()
        dce.begin(state, both.stub.Echo, request())
        server_state, binding = await servicer.next()
        assert dce.RPC_ASYNC_STATE.for_call(binding) is server_state
        gone = weakref.ref(server_state)
        del server_state
        gc.collect()
        assert gone() is None
        assert dce.RpcAsyncGetCallStatus(state) == 997  # the binding handle is enough to complete it
        server_state = dce.RPC_ASYNC_STATE.for_call(binding)
        assert server_state.RuntimeInfo is binding
        del server_state, binding
        gc.collect()
        assert await completed(state) == (dce.RPC_S_CALL_FAILED, None)


def fill(branch: Any, **fields: Any) -> None:
    for name, value in fields.items():
        setattr(branch, name, value)


def info(**branches: Any) -> dce.RPC_ASYNC_NOTIFICATION_INFO:
    made = dce.RPC_ASYNC_NOTIFICATION_INFO()
    fill(made, **branches)
    return made


BOTH = dce.RpcNotificationClientDisconnect | dce.RpcNotificationCallCancel


async def test_S12_a_routine_is_told_of_a_cancel_once_with_the_calls_state(wire: Wire) -> None:
    servicer = Parked()
    told: list[tuple[Any, ...]] = []
    async with pair(servicer, wire) as both:
        state = initialized()
        dce.begin(state, both.stub.Echo, request())
        server_state, binding = await servicer.next()
        subscribe = dce.RpcServerSubscribeForNotification
        routine = info(NotificationRoutine=lambda *arguments: told.append(arguments))
        assert subscribe(binding, BOTH, dce.RpcNotificationTypeCallback, routine) == dce.RPC_S_OK
        assert subscribe(binding, 1, dce.RpcNotificationTypeCallback, routine) == dce.RPC_S_INVALID_ASYNC_CALL
        dce.RpcAsyncCancelCall(state, False)
        await until(lambda: told)
        assert told == [(server_state, None, dce.RpcClientCancel)]
        assert server_state.Event == dce.RpcClientCancel
        unsubscribe = dce.RpcServerUnsubscribeForNotification
        assert unsubscribe(binding, dce.RpcNotificationCallCancel) == (dce.RPC_S_OK, 1)
        assert unsubscribe(binding, dce.RpcNotificationClientDisconnect) == (dce.RPC_S_OK, 0)
        assert dce.RpcAsyncCompleteCall(server_state, response()) == dce.RPC_S_OK
        assert (await completed(state))[0] == dce.RPC_S_OK
        assert subscribe(binding, 1, dce.RpcNotificationTypeCallback, routine) == dce.RPC_S_INVALID_BINDING
        assert len(told) == 1


async def test_S12_an_event_is_told_of_one_kind(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        state, event = initialized(), threading.Event()
        dce.begin(state, both.stub.Echo, request())
        server_state, binding = await servicer.next()
        subscribe = dce.RpcServerSubscribeForNotification
        assert subscribe(binding, BOTH, dce.RpcNotificationTypeEvent, info(hEvent=event)) == dce.RPC_S_INVALID_ARG
        kind = dce.RpcNotificationCallCancel
        assert subscribe(binding, kind, dce.RpcNotificationTypeEvent, info(hEvent=event)) == dce.RPC_S_OK
        dce.RpcAsyncCancelCall(state, True)
        assert await asyncio.to_thread(event.wait, PATIENCE)
        assert dce.RpcAsyncCompleteCall(server_state, response()) == dce.RPC_S_CALL_CANCELLED


async def test_S12_what_cannot_be_subscribed(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        state = initialized()
        dce.begin(state, both.stub.Echo, request())
        server_state, binding = await servicer.next()
        closed = rpc_async.CompletionQueue()
        closed.close()
        callback, kind = dce.RpcNotificationTypeCallback, dce.RpcNotificationCallCancel
        for arguments, status in (
            ((binding, 4, callback, info(NotificationRoutine=print)), dce.RPC_S_CANNOT_SUPPORT),
            ((binding, 0, callback, info(NotificationRoutine=print)), dce.RPC_S_CANNOT_SUPPORT),
            ((binding, kind, dce.RpcNotificationTypeNone, info()), dce.RPC_S_INVALID_ARG),
            ((binding, kind, 6, info()), dce.RPC_S_INVALID_ARG),
            ((binding, kind, callback, info()), dce.RPC_S_INVALID_ARG),
            ((None, kind, callback, info(NotificationRoutine=print)), dce.RPC_S_NO_CALL_ACTIVE),
            ((server_state, kind, callback, info(NotificationRoutine=print)), dce.RPC_S_INVALID_BINDING),
        ):
            assert dce.RpcServerSubscribeForNotification(*arguments) == status, arguments
        queue = info()
        queue.IOC.hIOPort = closed
        assert dce.RpcServerSubscribeForNotification(binding, kind, dce.RpcNotificationTypeIoc, queue) == 1702
        unsubscribe = dce.RpcServerUnsubscribeForNotification
        assert unsubscribe(binding, BOTH) == (dce.RPC_S_CANNOT_SUPPORT, 0)
        assert unsubscribe(None, 1) == (dce.RPC_S_NO_CALL_ACTIVE, 0)
        assert unsubscribe(7, 1) == (dce.RPC_S_INVALID_BINDING, 0)
        dce.RpcAsyncCompleteCall(server_state, response())
        assert (await completed(state))[0] == dce.RPC_S_OK


# -- notification ---------------------------------------------------------------------------------------


async def test_C9_an_event(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        events: tuple[Any, ...] = (threading.Event(), asyncio.Event())
        for event in events:
            state = initialized()
            state.NotificationType = dce.RpcNotificationTypeEvent
            state.u.hEvent = event
            dce.begin(state, both.stub.Echo, request())
            assert not event.is_set()
            dce.RpcAsyncCompleteCall((await servicer.next())[0], response())
            await until(event.is_set)
            assert state.Event == dce.RpcCallComplete
            assert dce.RpcAsyncCompleteCall(state)[0] == dce.RPC_S_OK


async def test_C8_C9_a_routine_is_called_once_and_may_complete_the_call_there(wire: Wire) -> None:
    servicer = Parked()
    told: list[tuple[Any, ...]] = []

    def routine(state: dce.RPC_ASYNC_STATE, context: None, event: dce.RPC_ASYNC_EVENT) -> None:
        told.append((state, context, event, dce.RpcAsyncCompleteCall(state)[0]))

    async with pair(servicer, wire) as both:
        state = initialized()
        state.NotificationType = dce.RpcNotificationTypeCallback
        state.u.NotificationRoutine = routine
        for _ in range(2):  # the state is used again as it is
            dce.begin(state, both.stub.Echo, request())
            server_state, _ = await servicer.next()
            dce.RpcAsyncCancelCall(state, False)
            dce.RpcAsyncCancelCall(state, True)
            dce.RpcAsyncCancelCall(state, True)
            await until(lambda: told)
            dce.RpcAsyncCompleteCall(server_state, response())
            await until(lambda: both.server.running_calls == 0)
            assert told == [(state, None, dce.RpcCallComplete, dce.RPC_S_CALL_CANCELLED)]
            told.clear()


async def test_C9_a_routine_sees_its_call_on_the_state_however_soon_it_is_called(wire: Wire) -> None:
    told: list[int] = []

    class Quick(Servicer):
        @dce.manager(inline=True)
        def Echo(self, state: dce.RPC_ASYNC_STATE, binding: ServerCall[Any], request: demo_pb2.EchoRequest) -> None:
            dce.RpcAsyncCompleteCall(state, response())

    async with pair(Quick(), wire) as both:

        def begin_many() -> None:
            for _ in range(200):
                state = initialized()
                state.NotificationType = dce.RpcNotificationTypeCallback
                state.u.NotificationRoutine = lambda state, context, event: told.append(
                    dce.RpcAsyncCompleteCall(state)[0]
                )
                dce.begin(state, both.stub.Echo, request())

        await asyncio.to_thread(begin_many)
        await until(lambda: len(told) == 200)
        assert set(told) == {0}


async def test_C8_none_when_beginning_raised(wire: Wire) -> None:
    servicer = Parked()
    told: list[object] = []
    async with pair(servicer, wire) as both:
        state = initialized()
        state.NotificationType = dce.RpcNotificationTypeCallback
        state.u.NotificationRoutine = lambda *arguments: told.append(arguments)
        wrong: Any = response()
        with pytest.raises(rpc_async.BadStubData):
            dce.begin(state, both.stub.Echo, wrong)
        assert dce.RpcAsyncGetCallStatus(state) == dce.RPC_S_INVALID_BINDING
        assert dce.RpcAsyncCancelCall(state, True) == dce.RPC_S_INVALID_ASYNC_HANDLE
        dce.begin(state, both.stub.Echo, request())
        dce.RpcAsyncCompleteCall((await servicer.next())[0], response())
        await until(lambda: told)
        assert len(told) == 1


async def test_C9_a_completion_port_hands_back_what_the_state_held_verbatim(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        with rpc_async.CompletionQueue() as port:
            state, overlapped = initialized(), object()
            state.NotificationType = dce.RpcNotificationTypeIoc
            state.u.IOC.hIOPort = port
            state.u.IOC.dwNumberOfBytesTransferred = 42
            state.u.IOC.dwCompletionKey = "key"
            state.u.IOC.lpOverlapped = overlapped
            dce.begin(state, both.stub.Echo, request())
            state.u.IOC.dwCompletionKey = "changed too late"
            dce.RpcAsyncCompleteCall((await servicer.next())[0], response())
            got = await asyncio.to_thread(port.get, PATIENCE)
            assert got.key == dce.CompletionPacket(42, "key", overlapped)
            assert got.event == dce.RpcCallComplete
            assert got.call is dce.RpcAsyncGetCallHandle(state)
            assert dce.RpcAsyncCompleteCall(state)[0] == dce.RPC_S_OK


async def test_C10_a_port_that_is_closed_loses_the_notification_and_not_the_call(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        port, state = rpc_async.CompletionQueue(), initialized()
        state.NotificationType = dce.RpcNotificationTypeIoc
        state.u.IOC.hIOPort = port
        dce.begin(state, both.stub.Echo, request())
        server_state, _ = await servicer.next()
        port.close()
        dce.RpcAsyncCompleteCall(server_state, response(b"kept"))
        status, reply = await completed(state)
        assert (status, reply.payload) == (0, b"kept")
        await until(lambda: caplog.records)
        assert "not lost" in caplog.records[0].getMessage()
        with pytest.raises(rpc_async.QueueClosed):
            dce.begin(state, both.stub.Echo, request())
        assert dce.RpcAsyncGetCallStatus(state) == dce.RPC_S_INVALID_BINDING


async def test_C9_an_apc_runs_in_the_thread_that_made_the_call_while_it_waits_alertably(
    socket_wire: SocketWire,
) -> None:
    servicer = Parked()
    ran: list[tuple[Any, ...]] = []
    async with serve(servicer) as (_, target):

        def client() -> int:
            with rpc_async.connect(target, transport=socket_wire) as channel:
                state = initialized()
                state.NotificationType = dce.RpcNotificationTypeApc
                state.u.APC.NotificationRoutine = lambda *arguments: ran.append((threading.get_ident(), *arguments))
                state.u.APC.hThread = threading.current_thread()
                dce.begin(state, demo_pb2_grpc.DemoStub(channel).Echo, request())
                call = dce.RpcAsyncGetCallHandle(state)
                assert isinstance(call, rpc_async.AsyncCall)
                assert call.wait(PATIENCE)
                assert not ran  # this thread did not wait alertably
                assert rpc_async.alertable_wait(PATIENCE) == 1
                assert ran == [(threading.get_ident(), state, None, dce.RpcCallComplete)]
                return dce.RpcAsyncCompleteCall(state)[0]

        task = asyncio.ensure_future(asyncio.to_thread(client))
        dce.RpcAsyncCompleteCall((await servicer.next())[0], response())
        assert await task == dce.RPC_S_OK


async def test_C9_a_window_is_posted_the_message_in_its_own_loop(wire: Wire) -> None:
    servicer = Parked()
    got: Seen[tuple[Any, ...]] = Seen()
    foreign = asyncio.new_event_loop()
    thread = threading.Thread(target=foreign.run_forever)
    thread.start()
    window = dce.MessageWindow(foreign, lambda *message: got.set((threading.current_thread(), *message)))
    async with pair(servicer, wire) as both:
        state = initialized()
        state.NotificationType = dce.RpcNotificationTypeHwnd
        state.u.HWND.hWnd = window
        state.u.HWND.Msg = 0x400
        dce.begin(state, both.stub.Echo, request())
        dce.RpcAsyncCompleteCall((await servicer.next())[0], response())
        assert await got.get() == (thread, window, 0x400, 0, state)
        assert dce.RpcAsyncCompleteCall(state)[0] == dce.RPC_S_OK
    window.close()
    foreign.call_soon_threadsafe(foreign.stop)
    thread.join()
    foreign.close()


async def test_H3_a_branch_that_does_not_hold_what_it_must_begins_nothing(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        other = threading.Thread(target=print)
        wrong: tuple[tuple[int, str | None, dict[str, Any], type[Exception]], ...] = (
            (1, None, {}, rpc_async.InvalidArgument),
            (1, None, {"hEvent": 5}, rpc_async.InvalidArgument),
            (2, None, {}, rpc_async.InvalidArgument),
            (2, "APC", {"NotificationRoutine": print, "hThread": other}, rpc_async.CannotSupport),
            (3, None, {}, rpc_async.InvalidArgument),
            (4, None, {}, rpc_async.InvalidArgument),
            (5, None, {"NotificationRoutine": "print"}, rpc_async.InvalidArgument),
            (6, None, {}, rpc_async.InvalidArgument),
        )
        for kind, branch, fields, error in wrong:
            state = initialized()
            state.NotificationType = kind
            fill(state.u if branch is None else getattr(state.u, branch), **fields)
            with pytest.raises(error, match="nothing was begun"):
                dce.begin(state, both.stub.Echo, request())
            assert dce.RpcAsyncGetCallStatus(state) == dce.RPC_S_INVALID_BINDING
        assert both.server.running_calls == 0


# -- blocking calls -------------------------------------------------------------------------------------


class Blocking:
    """A thread in a blocking call."""

    def __init__(self, stub: Any, before: Callable[[], object] = lambda: None, **options: Any) -> None:
        self._began = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(stub, before, options))
        self.outcome: Any = None
        self.thread.start()

    def _run(self, stub: Any, before: Callable[[], object], options: Any) -> None:
        before()
        try:
            self.outcome = dce.call(stub.Echo, request(), **options)
        except rpc_async.RpcAsyncError as error:
            self.outcome = error

    async def ended(self) -> Any:
        await asyncio.to_thread(self.thread.join, PATIENCE)
        assert not self.thread.is_alive()
        assert dce.RpcCancelThread(self.thread) == dce.RPC_S_NO_CALL_ACTIVE
        return self.outcome


async def test_a_blocking_call_gives_its_reply_or_raises_its_failure(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        blocking = Blocking(both.stub)
        dce.RpcAsyncCompleteCall((await servicer.next())[0], response(b"reply"))
        assert (await blocking.ended()).payload == b"reply"
        blocking = Blocking(both.stub)
        dce.RpcAsyncAbortCall((await servicer.next())[0], 4711)
        assert (await blocking.ended()).status == 4711
        with pytest.raises(rpc_async.InvalidAsyncCall, match="wait for itself"):
            dce.call(both.stub.Echo, request())


@pytest.mark.parametrize("ex", [False, True])
async def test_C5_a_cancelled_thread_waits_for_the_servers_answer(wire: Wire, ex: bool) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        blocking = Blocking(both.stub, lambda: dce.RpcMgmtSetCancelTimeout(-1))
        server_state, binding = await servicer.next()
        if ex:
            assert dce.RpcCancelThreadEx(blocking.thread, -1) == dce.RPC_S_OK
        else:
            assert dce.RpcCancelThread(blocking.thread.ident or 0) == dce.RPC_S_OK
        await until(lambda: dce.RpcServerTestCancel(binding) == dce.RPC_S_OK)
        assert blocking.thread.is_alive()
        dce.RpcAsyncCompleteCall(server_state, response(b"an answer"))
        assert (await blocking.ended()).payload == b"an answer"


@pytest.mark.parametrize("seconds", [0, 1])
@pytest.mark.parametrize("ex", [False, True])
async def test_C6_a_cancel_timeout_that_lapses_abandons_the_call(wire: Wire, ex: bool, seconds: int) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        blocking = Blocking(both.stub, lambda: dce.RpcMgmtSetCancelTimeout(seconds))
        server_state, binding = await servicer.next()
        if ex:
            assert dce.RpcCancelThreadEx(blocking.thread, seconds) == dce.RPC_S_OK
            assert dce.RpcCancelThreadEx(blocking.thread, seconds + 100) in (0, dce.RPC_S_NO_CALL_ACTIVE)
        else:
            assert dce.RpcCancelThread(blocking.thread) == dce.RPC_S_OK
        error = await blocking.ended()
        assert type(error) is (rpc_async.CallCancelled if ex else rpc_async.CallFailed)
        assert error.status == (dce.RPC_S_CALL_CANCELLED if ex else dce.RPC_S_CALL_FAILED)
        assert error.executed is None
        await until(lambda: binding.cancel_reason is rpc_async.CancelReason.CLIENT_ABORTED)
        assert dce.RpcAsyncCompleteCall(server_state, response()) == dce.RPC_S_CALL_CANCELLED


async def test_each_thread_has_its_own_cancel_timeout_and_the_earliest_counts(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        assert dce.RpcMgmtSetCancelTimeout(0) == dce.RPC_S_OK  # this thread's, and nobody else's
        try:
            blocking = Blocking(both.stub)
            server_state, binding = await servicer.next()
            assert dce.RpcCancelThread(blocking.thread) == dce.RPC_S_OK
            await until(lambda: dce.RpcServerTestCancel(binding) == dce.RPC_S_OK)
            assert blocking.thread.is_alive()
            assert dce.RpcCancelThreadEx(blocking.thread, 100) == dce.RPC_S_OK
            assert dce.RpcCancelThreadEx(blocking.thread, 0) == dce.RPC_S_OK
            assert (await blocking.ended()).status == dce.RPC_S_CALL_CANCELLED
            await until(lambda: binding.cancel_reason is rpc_async.CancelReason.CLIENT_ABORTED)
            dce.RpcAsyncCompleteCall(server_state, response())
        finally:
            assert dce.RpcMgmtSetCancelTimeout(dce.RPC_C_CANCEL_INFINITE_TIMEOUT) == dce.RPC_S_OK
    await until(lambda: not any(isinstance(thread, threading.Timer) for thread in threading.enumerate()), "timers end")


async def test_C12_a_channels_call_timeout_is_for_blocking_calls_and_the_lower_one_counts(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        set_option, inquire = dce.RpcBindingSetOption, dce.RpcBindingInqOption
        assert inquire(both.channel, dce.RPC_C_OPT_CALL_TIMEOUT) == (dce.RPC_S_OK, 0)
        assert set_option(both.channel, dce.RPC_C_OPT_CALL_TIMEOUT, 100) == dce.RPC_S_OK
        assert inquire(both.channel, dce.RPC_C_OPT_CALL_TIMEOUT) == (dce.RPC_S_OK, 100)
        state = initialized()
        dce.begin(state, both.stub.Echo, request())
        call = dce.RpcAsyncGetCallHandle(state)
        assert isinstance(call, rpc_async.AsyncCall)
        assert call.time_remaining() is None  # asynchronous calls ignore it
        async_state, _ = await servicer.next()

        for option, timeout, least, most in (
            (20_000, None, 0, 20),
            (20_000, 40, 0, 20),
            (dce.INFINITE, 40, 20, 40),
            (40_000, 20, 0, 20),
        ):
            assert set_option(both.channel, dce.RPC_C_OPT_CALL_TIMEOUT, option) == dce.RPC_S_OK
            blocking = Blocking(both.stub, timeout=timeout)
            server_state, binding = await servicer.next()
            remaining = binding.time_remaining()
            assert remaining is not None
            assert least < remaining <= most + 1  # gRPC rounds up
            dce.RpcAsyncCompleteCall(server_state, response())
            assert await blocking.ended() == response()
        assert set_option(both.channel, dce.RPC_C_OPT_CALL_TIMEOUT, 0) == dce.RPC_S_OK
        blocking = Blocking(both.stub)
        server_state, binding = await servicer.next()
        assert binding.time_remaining() is None
        dce.RpcAsyncCompleteCall(server_state, response())
        await blocking.ended()

        dce.RpcAsyncCompleteCall(async_state, response())
        assert (await completed(state))[0] == dce.RPC_S_OK

        assert set_option(both.channel, dce.RPC_C_OPT_CALL_TIMEOUT, 100) == dce.RPC_S_OK
        error = await Blocking(both.stub).ended()
        assert (error.status, error.cancel_reason) == (dce.RPC_S_CALL_CANCELLED, rpc_async.CancelReason.DEADLINE)


async def test_C13_noncausal_is_set_before_the_channel_is_opened() -> None:
    async with serve(Parked()) as (_, target):
        channel = rpc_async.connect(target)
        set_option, option = dce.RpcBindingSetOption, dce.RPC_C_OPT_BINDING_NONCAUSAL
        assert dce.RpcBindingInqOption(channel, option) == (dce.RPC_S_OK, 0)
        assert set_option(channel, option, True) == dce.RPC_S_OK
        assert dce.RpcBindingInqOption(channel, option) == (dce.RPC_S_OK, 1)
        async with channel:
            assert not channel.causal
            assert set_option(channel, option, 0) == dce.RPC_S_CANNOT_SUPPORT
            assert set_option(channel, option, 1) == dce.RPC_S_OK  # as it is
            assert dce.RpcBindingInqOption(channel, option) == (dce.RPC_S_OK, 1)
        assert set_option(channel, option, 0) == dce.RPC_S_CANNOT_SUPPORT


# -- the decorator --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["task", "thread", "inline"])
async def test_S17_a_routine_gets_the_documented_parameters_wherever_it_runs(wire: Wire, kind: str) -> None:
    seen: Seen[tuple[Any, ...]] = Seen()

    class Own(Servicer):
        if kind == "task":

            @dce.manager
            async def Echo(self, state: dce.RPC_ASYNC_STATE, binding: ServerCall[Any], request: Any) -> None:
                """Answer."""
                seen.set((request.payload, state.RuntimeInfo is binding, dce.RpcServerTestCancel()))
                dce.RpcAsyncCompleteCall(state, response(request.payload))

        else:

            @dce.manager(inline=kind == "inline")
            def Echo(self, state: dce.RPC_ASYNC_STATE, binding: ServerCall[Any], request: Any) -> None:
                """Answer."""
                seen.set((request.payload, state.RuntimeInfo is binding, dce.RpcServerTestCancel()))
                dce.RpcAsyncCompleteCall(state, response(request.payload))

    assert Own.Echo.__doc__ == "Answer."
    async with pair(Own(), wire) as both:
        assert (await both.stub.Echo(request(b"x"))).payload == b"x"
        assert await seen.get() == (b"x", True, RpcStatus.CALL_IN_PROGRESS)


# -- pipes ----------------------------------------------------------------------------------------------


class ParkedPipes(Servicer):
    """Keeps the state of every call of `Chat`, which the routine has set up to be told of its pipes."""

    def __init__(self, set_up: Callable[[dce.RPC_ASYNC_STATE], object]) -> None:
        self.set_up = set_up
        self.arrived: asyncio.Queue[tuple[dce.RPC_ASYNC_STATE, Any]] = asyncio.Queue()

    @dce.manager(inline=True)
    def Chat(
        self,
        state: dce.RPC_ASYNC_STATE,
        binding: rpc_async.ServerPushPullCall[demo_pb2.ChatResponse, demo_pb2.ChatRequest],
    ) -> None:
        self.set_up(state)
        self.arrived.put_nowait((state, binding))


async def test_P2_P4_both_sides_are_told_of_their_pipes_and_of_what(wire: Wire) -> None:
    told: list[tuple[dce.RPC_ASYNC_STATE, int]] = []

    def set_up(state: dce.RPC_ASYNC_STATE) -> None:
        state.NotificationType = dce.RpcNotificationTypeCallback
        state.u.NotificationRoutine = lambda state, context, event: told.append((state, event))
        state.Flags = dce.RPC_C_NOTIFY_ON_SEND_COMPLETE

    servicer = ParkedPipes(set_up)
    async with pair(servicer, wire) as both:
        state, event = initialized(), threading.Event()
        state.NotificationType = dce.RpcNotificationTypeEvent
        state.u.hEvent = event
        state.Flags = dce.RPC_C_NOTIFY_ON_SEND_COMPLETE
        dce.begin(state, both.stub.Chat)
        server_state, _ = await asyncio.wait_for(servicer.arrived.get(), PATIENCE)
        assert dce.pull(server_state) == (dce.RPC_S_ASYNC_CALL_PENDING, None)
        assert dce.push(state, demo_pb2.ChatRequest(text="hello")) == dce.RPC_S_OK
        await until(lambda: (server_state, dce.RpcReceiveComplete) in told)
        assert server_state.Event == dce.RpcReceiveComplete
        assert dce.pull(server_state) == (dce.RPC_S_OK, demo_pb2.ChatRequest(text="hello"))
        await until(event.is_set)
        assert state.Event == dce.RpcSendComplete
        event.clear()
        assert dce.push(state, None) == dce.RPC_S_OK
        await until(lambda: dce.pull(server_state) == (dce.RPC_S_OK, None))
        await until(event.is_set)
        event.clear()
        assert dce.pull(state) == (dce.RPC_S_ASYNC_CALL_PENDING, None)
        assert dce.push(server_state, demo_pb2.ChatResponse(text="bye")) == dce.RPC_S_OK
        await until(lambda: (server_state, dce.RpcSendComplete) in told)
        await until(event.is_set)
        assert state.Event == dce.RpcReceiveComplete
        event.clear()
        assert dce.pull(state) == (dce.RPC_S_OK, demo_pb2.ChatResponse(text="bye"))
        assert dce.push(server_state, None) == dce.RPC_S_OK
        assert dce.RpcAsyncCompleteCall(server_state) == (dce.RPC_S_OK, None)
        await until(lambda: dce.pull(state) == (dce.RPC_S_OK, None))
        await until(lambda: state.Event == dce.RpcCallComplete)
        assert dce.RpcAsyncCompleteCall(state) == (dce.RPC_S_OK, None)


async def test_P4_without_the_flag_nobody_is_told_of_what_was_sent(wire: Wire) -> None:
    servicer = ParkedPipes(lambda state: None)
    told: list[int] = []
    async with pair(servicer, wire) as both:
        state = initialized()
        state.NotificationType = dce.RpcNotificationTypeCallback
        state.u.NotificationRoutine = lambda state, context, event: told.append(event)
        dce.begin(state, both.stub.Chat)
        server_state, _ = await asyncio.wait_for(servicer.arrived.get(), PATIENCE)
        dce.push(state, demo_pb2.ChatRequest())
        dce.push(state, None)
        assert dce.pull(state) == (dce.RPC_S_ASYNC_CALL_PENDING, None)
        await until(lambda: dce.pull(server_state) == (dce.RPC_S_OK, demo_pb2.ChatRequest()))
        await until(lambda: dce.pull(server_state) == (dce.RPC_S_OK, None))
        dce.push(server_state, None)
        dce.RpcAsyncCompleteCall(server_state)
        await until(lambda: dce.RpcCallComplete in told)
        assert told == [dce.RpcReceiveComplete, dce.RpcCallComplete]


async def test_C9_an_asyncio_event_for_pipes_is_set_on_its_own_loop(wire: Wire) -> None:
    servicer = ParkedPipes(lambda state: None)
    async with pair(servicer, wire) as both:
        state, event = initialized(), asyncio.Event()
        state.NotificationType = dce.RpcNotificationTypeEvent
        state.u.hEvent = event
        with pytest.raises(rpc_async.InvalidArgument, match="a threading"):
            await asyncio.to_thread(dce.begin, state, both.stub.Chat)
        dce.begin(state, both.stub.Chat)
        server_state, _ = await asyncio.wait_for(servicer.arrived.get(), PATIENCE)
        dce.RpcAsyncAbortCall(server_state, 4711)
        await asyncio.wait_for(event.wait(), PATIENCE)
        assert dce.RpcAsyncCompleteCall(state) == (4711, None)


async def test_P6_a_server_state_whose_notification_is_wrong_says_so_at_its_first_use_of_a_pipe(wire: Wire) -> None:
    def set_up(state: dce.RPC_ASYNC_STATE) -> None:
        state.NotificationType = dce.RpcNotificationTypeEvent

    servicer = ParkedPipes(set_up)
    async with pair(servicer, wire) as both:
        state = initialized()
        dce.begin(state, both.stub.Chat)
        server_state, _ = await asyncio.wait_for(servicer.arrived.get(), PATIENCE)
        assert dce.pull(server_state) == (dce.RPC_S_INVALID_ARG, None)
        server_state.u.hEvent = threading.Event()
        assert dce.pull(server_state) == (dce.RPC_S_ASYNC_CALL_PENDING, None)
        assert dce.RpcAsyncCancelCall(state, True) == dce.RPC_S_OK
        assert dce.pull(state) == (dce.RPC_S_CALL_CANCELLED, None)
        assert dce.RpcAsyncGetCallStatus(state) == dce.RPC_S_INVALID_BINDING
