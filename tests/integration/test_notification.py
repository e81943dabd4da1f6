"""C8, C9, C10 and S12: who asks to be told is told once, by every kind of target, on both sides."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import threading
from collections import Counter
from functools import partial
from typing import Any

import pytest

import rpc_async
from rpc_async import (
    Apc,
    AsyncEvent,
    CancelReason,
    Completion,
    CompletionQueue,
    Notifications,
    Post,
    RpcStatus,
    alertable_wait,
    begin,
)
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
from tests.harness import (
    PATIENCE,
    EchoCall,
    Parked,
    Servicer,
    SocketWire,
    Wire,
    logged,
    outcome,
    pair,
    request,
    response,
    serve,
    until,
)

PROGRESS = (AsyncEvent.PROGRESS,)
ENDINGS = ("reply", "fault", "abort", "deadline", "closed")


class Inline(Servicer):
    """Answers at once."""

    @rpc_async.manager(inline=True)
    def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
        call.complete(response(request.payload))


def has_come(call: rpc_async.AsyncCall[Any], fraction: float) -> bool:
    """Tell whether a call's progress has come so far."""
    return call.last_progress is not None and call.last_progress.fraction >= fraction


def report(server_call: EchoCall) -> None:
    """Report progress, a hundred times."""
    for step in range(100):
        server_call.progress(step / 100)


class Collected:
    """What a callable was told, from any thread."""

    def __init__(self) -> None:
        self.told: list[Completion] = []
        self.threads: list[int] = []

    def __call__(self, completion: Completion) -> None:
        self.told.append(completion)
        self.threads.append(threading.get_ident())


# -- the client's side ----------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["begun with it", "named while pending", "named after the end"])
async def test_C9_every_kind_of_target_is_told_once(wire: Wire, when: str) -> None:
    servicer = Parked()
    event, thread_event, queue = asyncio.Event(), threading.Event(), CompletionQueue()
    called, in_apc, posted = Collected(), Collected(), Collected()
    targets: list[Any] = [event, thread_event, queue, called, Apc(in_apc), Post(asyncio.get_running_loop(), posted)]
    keys = [object() for _ in targets]
    async with pair(servicer, wire) as both:
        if when == "begun with it":
            calls = [
                begin(both.stub.Echo, request(), notify=target, key=key)
                for target, key in zip(targets, keys, strict=True)
            ]
        else:
            calls = [begin(both.stub.Echo, request())] * len(targets)
        if when == "named while pending":
            for call, target, key in zip(calls, targets, keys, strict=True):
                call.notify(target, key)
        for _ in set(calls):
            (await servicer.next()).complete(response(b"reply"))
        for call in calls:
            assert (await call).payload == b"reply"
        if when == "named after the end":
            for call, target, key in zip(calls, targets, keys, strict=True):
                call.notify(target, key=key)
        await asyncio.wait_for(event.wait(), PATIENCE)
        await until(thread_event.is_set)
        from_queue = await asyncio.wait_for(queue.aget(), PATIENCE)
        await until(lambda: called.told and posted.told)
        assert not in_apc.told
        assert alertable_wait(0) == 1
        for told, number in ((from_queue, 2), (called.told[0], 3), (in_apc.told[0], 4), (posted.told[0], 5)):
            assert told.event is AsyncEvent.CALL_COMPLETE
            assert told.call is calls[number]
            assert told.key is keys[number], "verbatim"
    assert len(queue) == 0
    assert alertable_wait(0) == 0
    assert [len(one.told) for one in (called, in_apc, posted)] == [1, 1, 1]
    assert {*called.threads, *in_apc.threads, *posted.threads} == {threading.get_ident()}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_C8_however_a_call_ends_its_end_is_told_once(wire: Wire, ending: str) -> None:
    servicer, queue = Parked(), CompletionQueue()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request(), timeout=0.1 if ending == "deadline" else None, notify=queue, key=ending)
        server_call = await servicer.next()
        match ending:
            case "reply":
                server_call.complete(response())
            case "fault":
                server_call.abort(4711)
            case "abort":
                call.cancel()
            case "closed":
                await both.channel.close()
        told = await asyncio.wait_for(queue.aget(), PATIENCE)
        assert (told.event, told.call, told.key) == (AsyncEvent.CALL_COMPLETE, call, ending)
        assert call.done(), "the outcome is there when the notification is"
        call.cancel()
        if not server_call.test_cancel():
            server_call.abort(1)
        await outcome(call)
        await until(lambda: both.server.running_calls == 0 or server_call.complete(response()) is not None)
    assert len(queue) == 0


async def test_C8_a_call_that_is_refused_or_never_arrives_is_told_too(socket_wire: SocketWire) -> None:
    servicer, queue = Parked(), CompletionQueue()
    async with pair(servicer, socket_wire, max_calls=1) as both:
        running = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        call = begin(both.stub.Echo, request(), notify=queue)
        assert (await asyncio.wait_for(queue.aget(), PATIENCE)).call is call
        assert call.status() is RpcStatus.SERVER_TOO_BUSY
        server_call.complete(response())
        await running
    async with rpc_async.connect(both.target, transport=socket_wire) as channel:
        call = begin(demo_pb2_grpc.DemoStub(channel).Echo, request(), notify=queue)
        assert (await asyncio.wait_for(queue.aget(), PATIENCE)).call is call
        assert call.status() is RpcStatus.SERVER_UNAVAILABLE
    assert len(queue) == 0


async def test_C8_none_is_told_of_a_call_whose_beginning_raised(wire: Wire) -> None:
    queue, closed, got = CompletionQueue(), CompletionQueue(), list[Completion]()
    closed.close()
    bad: Any
    async with pair(Parked(), wire) as both:
        for bad in (
            {"notify": queue, "timeout": float("nan")},
            {"notify": got.append, "metadata": (("Upper", "x"),)},
            {"notify": "nobody"},
            {"notify": closed},
            {"notify": queue, "events": (AsyncEvent.SEND_COMPLETE,)},
        ):
            with pytest.raises(rpc_async.UsageError):
                begin(both.stub.Echo, request(), **bad)
        wrong: Any = demo_pb2.EchoResponse()
        with pytest.raises(rpc_async.BadStubData):
            begin(both.stub.Echo, wrong, notify=queue)
        with pytest.raises(rpc_async.InvalidArgument, match="event loop"):
            await asyncio.to_thread(begin, both.stub.Echo, request(), notify=asyncio.Event())
        assert both.server.running_calls == 0
        await both.channel.close()
        with pytest.raises(rpc_async.InvalidBinding):
            begin(both.stub.Echo, request(), notify=queue)
    assert len(queue) == 0
    assert not got


async def test_C9_one_queue_takes_the_completions_of_100_000_calls_without_falling_behind(wire: Wire) -> None:
    asyncio.get_running_loop().set_debug(False)
    calls, in_flight = (100_000, 1_000) if wire == "session" else (3_000, 100)
    counts: Counter[int] = Counter()
    longest = 0
    async with pair(Inline(), wire) as both:
        with CompletionQueue() as queue:
            for key in range(in_flight):
                begin(both.stub.Echo, request(b"%d" % key), notify=queue, key=key)
            begun = in_flight
            while begun - counts.total():
                longest = max(longest, len(queue))
                for completion in await asyncio.wait_for(queue.aget_many(), PATIENCE):
                    assert completion.call.complete().payload == b"%d" % completion.key
                    counts[completion.key] += 1
                    if begun < calls:
                        begin(both.stub.Echo, request(b"%d" % begun), notify=queue, key=begun)
                        begun += 1
            assert len(queue) == 0
    assert len(counts) == calls
    assert set(counts.values()) == {1}
    assert longest <= in_flight


async def test_C9_several_threads_and_loops_collect_from_one_queue(wire: Wire) -> None:
    calls, keys = 600, list[int]()
    async with pair(Inline(), wire) as both:
        queue = CompletionQueue()

        def in_a_thread() -> None:
            for completion in queue:
                completion.call.complete()
                keys.append(completion.key)

        async def on_a_loop() -> None:
            async for completion in queue:
                await completion.call
                keys.append(completion.key)

        collecting = [asyncio.ensure_future(asyncio.to_thread(in_a_thread)) for _ in range(2)]
        collecting += [asyncio.ensure_future(asyncio.to_thread(asyncio.run, on_a_loop()))]
        collecting += [asyncio.ensure_future(on_a_loop()) for _ in range(2)]

        def begin_some(first: int) -> None:
            for key in range(first, first + calls // 3):
                begin(both.stub.Echo, request(), notify=queue, key=key)

        await asyncio.gather(*(asyncio.to_thread(begin_some, first) for first in range(0, calls, calls // 3)))
        await until(lambda: len(keys) == calls)
        queue.close()
        await asyncio.wait_for(asyncio.gather(*collecting), PATIENCE)
    assert sorted(keys) == list(range(calls))


def test_C9_an_apc_runs_in_the_thread_that_made_the_call(socket_wire: SocketWire) -> None:
    ready, end = threading.Event(), threading.Event()
    targets: list[str] = []

    async def run_server() -> None:
        async with serve(Inline()) as (_, target):
            targets.append(target)
            ready.set()
            await asyncio.to_thread(end.wait)

    server = threading.Thread(target=asyncio.run, args=(run_server(),))
    server.start()
    ready.wait()
    ran: list[tuple[object, int, bytes]] = []

    def routine(completion: Completion) -> None:
        ran.append((completion.key, threading.get_ident(), completion.call.complete().payload))

    with rpc_async.connect(targets[0], transport=socket_wire) as channel:
        stub = demo_pb2_grpc.DemoStub(channel)
        calls = [begin(stub.Echo, request(b"%d" % key), notify=Apc(routine), key=key) for key in range(10)]
        for call in calls:
            call.wait(PATIENCE)  # not alertable
        assert not ran
        count = 0
        while count < 10:
            count += alertable_wait(PATIENCE)
        assert count == 10
        assert sorted(ran) == [(key, threading.get_ident(), b"%d" % key) for key in range(10)]

        def begin_and_end() -> None:
            begin(stub.Echo, request(), notify=Apc(routine)).wait(PATIENCE)

        thread = threading.Thread(target=begin_and_end)
        thread.start()
        thread.join()
        assert alertable_wait(0) == 0, "a thread that ended takes its APCs with it"
        assert begin(stub.Echo, request(b"more")).result(PATIENCE).payload == b"more"
    end.set()
    server.join()
    assert len(ran) == 10


async def test_C10_what_is_closed_dead_or_raises_loses_notifications_and_no_call(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    servicer = Parked()
    queue, dead = CompletionQueue(), asyncio.new_event_loop()

    class Dead(threading.Event):
        def set(self) -> None:
            raise OSError("dead")

    def raises(_: Completion) -> None:
        raise OSError("no")

    def cannot_post(_: object) -> None:
        raise OSError("no")

    targets: list[Any] = [queue, Post(dead, print), Dead(), raises, Post(cannot_post, print)]
    async with pair(servicer, wire) as both:
        calls = [begin(both.stub.Echo, request(), notify=target, key=number) for number, target in enumerate(targets)]
        queue.close()
        dead.close()
        for _ in calls:
            (await servicer.next()).complete(response(b"reply"))
        for call in calls:
            assert (await asyncio.wait_for(call, PATIENCE)).payload == b"reply"
        await until(lambda: len(logged(caplog)) == len(calls))
        messages = [record.getMessage() for record in logged(caplog)]
        about = [record.args[0] for record in logged(caplog) if isinstance(record.args, tuple)]
        assert Counter(map(id, about)) == Counter(map(id, calls)), "each is logged once, with its call"
        assert all(repr(call) in "".join(messages) and call.call_id not in "".join(messages) for call in calls)
        with pytest.raises(rpc_async.QueueClosed):
            calls[0].notify(queue)


async def test_C9_progress_is_told_if_it_is_asked_for_and_the_latest_wins(wire: Wire) -> None:
    servicer = Parked()
    plain, queue, called, event = CompletionQueue(), CompletionQueue(), Collected(), asyncio.Event()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request(), notify=queue, key="k", events=PROGRESS)
        call.notify(plain)
        call.notify(called, events=PROGRESS)
        server_call = await servicer.next()
        server_call.progress(0.25)
        told = await asyncio.wait_for(queue.aget(), PATIENCE)
        assert (told.event, told.call, told.key) == (AsyncEvent.PROGRESS, call, "k")
        assert type(told) is Completion
        assert call.last_progress == rpc_async.Progress(0.25)
        for step in range(50):
            server_call.progress(0.5 + step / 100)
            await until(partial(has_come, call, 0.5 + step / 100))
        assert len(queue) == 1, "one stands for all"
        call.notify(event, events=PROGRESS)  # there is a report already
        await asyncio.wait_for(event.wait(), PATIENCE)
        server_call.complete(response())
        await call
        await until(lambda: called.told[-1].event is AsyncEvent.CALL_COMPLETE)
        assert [one.event for one in await queue.aget_many()] == [AsyncEvent.PROGRESS, AsyncEvent.CALL_COMPLETE]
        assert [one.event for one in called.told[:-1]] == [AsyncEvent.PROGRESS] * (len(called.told) - 1)
        assert len(called.told) > 1
        assert [one.event for one in await plain.aget_many()] == [AsyncEvent.CALL_COMPLETE]
        call.notify(queue, events=PROGRESS)  # after the end: its end, and nothing else
        assert [one.event for one in await queue.aget_many()] == [AsyncEvent.CALL_COMPLETE]
    assert not len(queue) + len(plain)


async def test_C9_a_progress_target_that_was_settled_elsewhere_is_told_the_end_last(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        for _ in range(30):
            queue = CompletionQueue()
            call = begin(both.stub.Echo, request(), notify=queue, events=PROGRESS)
            server_call = await servicer.next()
            await asyncio.gather(asyncio.to_thread(report, server_call), asyncio.to_thread(call.cancel))
            told = [await asyncio.wait_for(queue.aget(), PATIENCE)]
            while told[-1].event is not AsyncEvent.CALL_COMPLETE:
                told.append(await asyncio.wait_for(queue.aget(), PATIENCE))
            await asyncio.sleep(0)
            assert len(queue) == 0
            assert len(told) <= 101
            server_call.complete(response())


@pytest.mark.filterwarnings("ignore:.*was dropped and not closed:ResourceWarning")
def test_C8_a_call_that_is_aborted_after_its_loop_was_closed_is_told_too() -> None:
    called, queue = Collected(), CompletionQueue()

    async def leave_one_behind() -> rpc_async.AsyncCall[demo_pb2.EchoResponse]:
        channel = rpc_async.connect("127.0.0.1:1", transport="native")
        call = begin(demo_pb2_grpc.DemoStub(channel).Echo, request(), wait_for_ready=True)
        call.notify(called)
        call.notify(queue, events=PROGRESS)
        return call

    call = asyncio.run(leave_one_behind())
    call.cancel()
    assert [one.event for one in called.told] == [AsyncEvent.CALL_COMPLETE]
    assert [one.event for one in queue.get_many(timeout=0)] == [AsyncEvent.CALL_COMPLETE]


# -- the server's side ----------------------------------------------------------------------------------


@pytest.mark.parametrize("after_the_fact", [False, True])
@pytest.mark.parametrize("how", ["asked", "aborted", "deadline", "shutdown"])
async def test_S12_a_cancel_is_told_once_to_every_kind_of_target(wire: Wire, how: str, after_the_fact: bool) -> None:
    servicer = Parked()
    event, thread_event, queue = asyncio.Event(), threading.Event(), CompletionQueue()
    called, in_apc, posted = Collected(), Collected(), Collected()
    targets: list[Any] = [event, thread_event, queue, called, Apc(in_apc), Post(asyncio.get_running_loop(), posted)]
    async with pair(servicer, wire, grace=0.01) as both:
        timeout = 1.0 if how == "deadline" else None
        calls = [begin(both.stub.Echo, request(), timeout=timeout) for _ in targets]
        server_calls = [await servicer.next() for _ in targets]

        def subscribe() -> None:
            for server_call, target in zip(server_calls, targets, strict=True):
                server_call.on_cancel(target, key="cancel")
                server_call.on_disconnect(queue, key="never")

        if not after_the_fact:
            subscribe()
        if how == "shutdown":
            await both.server.stop()
        for call in calls:
            if how == "asked":
                call.request_cancel()
            elif how == "aborted":
                call.cancel()
        for server_call in server_calls:
            await asyncio.wait_for(server_call.wait_cancelled(), PATIENCE)
        if after_the_fact:
            subscribe()
        await asyncio.wait_for(event.wait(), PATIENCE)
        await until(thread_event.is_set)
        told = await asyncio.wait_for(queue.aget(), PATIENCE)
        await until(lambda: called.told and posted.told)
        assert alertable_wait(0) == 1
        for one, number in ((told, 2), (called.told[0], 3), (in_apc.told[0], 4), (posted.told[0], 5)):
            assert one == Completion(AsyncEvent.CLIENT_CANCEL, server_calls[number], "cancel")
        for call, server_call in zip(calls, server_calls, strict=True):
            call.cancel()  # again: at most one of each kind
            assert server_call.unsubscribe(Notifications.CALL_CANCEL) == 1
            assert server_call.unsubscribe(Notifications.CLIENT_DISCONNECT) == 0
            server_call.complete(response())
        for call in calls:
            await outcome(call)
    assert len(queue) == 0
    assert [len(one.told) for one in (called, in_apc, posted)] == [1, 1, 1]


CLIENT_THAT_ASKS_AND_WAITS = """
import asyncio, sys, rpc_async
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
async def main():
    async with rpc_async.connect(sys.argv[1], transport=sys.argv[2]) as channel:
        call = rpc_async.begin(demo_pb2_grpc.DemoStub(channel).Echo, demo_pb2.EchoRequest())
        if len(sys.argv) > 3:
            call.request_cancel()
        await call
asyncio.run(main())
"""


@pytest.mark.parametrize("asked", [False, True])
async def test_S12_a_client_that_is_gone_is_told_as_that(socket_wire: SocketWire, asked: bool) -> None:
    servicer, queue = Parked(), CompletionQueue()
    async with serve(servicer, linger=0.2) as (_, target):
        arguments = [sys.executable, "-c", CLIENT_THAT_ASKS_AND_WAITS, target, socket_wire, *(["ask"] if asked else [])]
        with subprocess.Popen(arguments) as process:
            server_call = await servicer.next()
            server_call.subscribe(Notifications.CLIENT_DISCONNECT | Notifications.CALL_CANCEL, queue, "both")
            if asked:
                assert (await asyncio.wait_for(queue.aget(), PATIENCE)).event is AsyncEvent.CLIENT_CANCEL
            process.send_signal(signal.SIGKILL)
        told = await asyncio.wait_for(queue.aget(), PATIENCE)
        assert told == Completion(AsyncEvent.CLIENT_DISCONNECT, server_call, "both")
        assert server_call.cancel_reason is CancelReason.CLIENT_DISCONNECTED
        assert server_call.unsubscribe(Notifications.CLIENT_DISCONNECT) == 1
        assert server_call.unsubscribe(Notifications.CALL_CANCEL) == asked
        if asked:  # after both facts: the first is known still
            later = CompletionQueue()
            with pytest.raises(rpc_async.InvalidAsyncCall):
                server_call.on_cancel(later)
        assert server_call.complete(response()) is RpcStatus.CALL_CANCELLED
    assert len(queue) == 0


async def test_S12_a_call_that_completes_tells_nothing_and_its_handle_cannot_be_subscribed_to(wire: Wire) -> None:
    servicer, queue = Parked(), CompletionQueue()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        server_call.on_cancel(queue)
        server_call.progress(0.5)  # a change that is none of these
        server_call.complete(response())
        await call
        call.cancel()
        with pytest.raises(rpc_async.InvalidAsyncHandle) as caught:
            server_call.on_disconnect(queue)
        assert caught.value.status == 1914
        assert server_call.unsubscribe(Notifications.CALL_CANCEL) == 0
    assert len(queue) == 0


async def test_S12_the_documented_failures(wire: Wire) -> None:
    servicer, queue = Parked(), CompletionQueue()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        for notifications in (0, 4, 7, 1 << 20):
            with pytest.raises(rpc_async.CannotSupport) as unsupported:
                server_call.subscribe(notifications, queue)
            assert unsupported.value.status == 1764
        for notification in (0, 3, 4):
            with pytest.raises(rpc_async.CannotSupport):
                server_call.unsubscribe(notification)
        with pytest.raises(rpc_async.InvalidArgument) as invalid:
            server_call.subscribe(Notifications.CALL_CANCEL, None)
        assert invalid.value.status == 87
        server_call.on_cancel(queue)
        for mask in (2, 3):
            with pytest.raises(rpc_async.InvalidAsyncCall, match="S12") as taken:
                server_call.subscribe(mask, queue)
            assert taken.value.status == 1915
        assert server_call.unsubscribe(2) == 0
        server_call.subscribe(3, queue)  # nothing of what was refused was subscribed
        await call.request_cancel()
        assert (await asyncio.wait_for(queue.aget(), PATIENCE)).event is AsyncEvent.CLIENT_CANCEL
        server_call.complete(response())
        await call
    assert len(queue) == 0


async def test_S12_unsubscribing_tells_what_is_still_on_its_way(wire: Wire) -> None:
    servicer, queue = Parked(), CompletionQueue()
    async with pair(servicer, wire) as both:
        calls = [begin(both.stub.Echo, request()) for _ in range(2)]
        first, second = [await servicer.next() for _ in calls]
        first.on_cancel(queue)
        second.on_cancel(queue)
        assert second.unsubscribe(Notifications.CALL_CANCEL) == 0
        for call in calls:
            await call.request_cancel()
        for server_call in (first, second):
            await asyncio.wait_for(server_call.wait_cancelled(), PATIENCE)
        assert first.unsubscribe(Notifications.CALL_CANCEL) == 1, "more than were received: it will still come"
        assert queue.get(0).call is first
        assert len(queue) == 0
        for server_call in (first, second):
            server_call.complete(response())
        await asyncio.gather(*calls)


async def test_S12_S14_a_subscription_alone_does_not_keep_a_forgotten_call(wire: Wire) -> None:
    queue = CompletionQueue()

    class Forgets(Servicer):
        @rpc_async.manager(inline=True)
        def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
            call.on_cancel(queue)
            call.on_disconnect(queue)

    async with pair(Forgets(), wire) as both:
        error = await outcome(begin(both.stub.Echo, request()))
        assert type(error) is rpc_async.CallFailed
        assert "nothing holds the call's handle" in error.details()
    assert len(queue) == 0


async def test_S12_a_routine_that_holds_the_handle_keeps_the_call_and_lets_go_of_it_at_the_end(wire: Wire) -> None:
    alive: list[Any] = []

    class Stops(Servicer):
        @rpc_async.manager
        async def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
            call.on_cancel(lambda _: call.complete(response(b"stopped")))
            call.on_disconnect(lambda _: call.complete(response()))
            alive.append(call._record)

    async with pair(Stops(), wire) as both:
        call = begin(both.stub.Echo, request())
        await until(lambda: alive)
        gc.collect()
        assert not call.done()
        await call.request_cancel()
        assert (await asyncio.wait_for(call, PATIENCE)).payload == b"stopped"
        record = alive.pop()
        await until(lambda: record.handle() is None, "its routines are let go of")


async def test_S12_a_target_that_is_closed_loses_the_notification_and_not_the_call(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    servicer, queue = Parked(), CompletionQueue()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        server_call.on_cancel(queue)
        queue.close()
        await call.request_cancel()
        await until(lambda: logged(caplog))
        server_call.complete(response(b"reply"))
        assert (await call).payload == b"reply"
    (record,) = logged(caplog)
    assert "CLIENT_CANCEL was not delivered" in record.getMessage()
