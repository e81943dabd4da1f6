"""Plays a case: steps and what each must give.

A step is a mapping. Its first key is the verb, and the verb's value names the call that it is about. `is` is the status
that it must return, by name or number (OK where there is none); `gives` is the reply's payload. What a value depends on
the form for is a mapping of forms. A list of steps may hold lists of steps.
"""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import yaml

import rpc_async
from rpc_async import RpcStatus, dce
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
from tests.conformance.forms import FORMS, Form, Kind
from tests.harness import PATIENCE, TICK, Parked, Wire, pair, request, response, serve, until

HERE = Path(__file__).parent
TRANSPORTS: tuple[Wire, ...] = get_args(Wire)
"""Every way that calls travel."""


@dataclass(frozen=True)
class Case:
    """What one entry of a file says."""

    name: str
    steps: list[dict[str, Any]]
    forms: tuple[str, ...]
    routine: Kind
    server: dict[str, Any]
    transports: tuple[str, ...]
    local: bool
    """No server is needed."""
    nowhere: bool
    """The client's server is not there."""


def cases() -> Iterator[Case]:
    """Read all cases."""
    for file in sorted(HERE.glob("*.yaml")):
        for entry in yaml.safe_load(file.read_text()):
            yield Case(
                name=entry["name"],
                steps=list(_flat(entry["steps"])),
                forms=tuple(entry.get("forms", FORMS)),
                routine=entry.get("routine", "inline"),
                server=entry.get("server", {}),
                transports=tuple(entry.get("transports", TRANSPORTS)),
                local=entry.get("local", False),
                nowhere=entry.get("nowhere", False),
            )


def _flat(steps: list[Any]) -> Iterator[dict[str, Any]]:
    for step in steps:
        if isinstance(step, list):
            yield from _flat(step)
        else:
            yield step


def status_number(value: Any) -> int:
    """Return a status that a file names by its name or its number."""
    return RpcStatus[value] if isinstance(value, str) else int(value)


class Player:
    """One case under way."""

    def __init__(self, form: Form) -> None:
        self.form = form
        self.stub: Any = None
        self.server: Any = None
        self.clients: dict[str, Any] = {}
        self.servers: dict[str, Any] = {}
        self.methods: dict[str, str] = {}
        self.events: dict[str, threading.Event] = {}
        self.told: dict[str, list[int]] = {}
        self.queues: dict[str, rpc_async.CompletionQueue] = {}

    async def play(self, steps: list[dict[str, Any]]) -> None:
        """Take the steps, one after the other."""
        for number, step in enumerate(steps, 1):
            verb, about = next(iter(step.items()))
            told = {key: self._here(value) for key, value in list(step.items())[1:]}
            expected, gives = told.pop("is", "OK"), told.pop("gives", None)
            method = getattr(self, "do_" + verb.replace(".", "_"))
            got = method(about, **told)
            if asyncio.iscoroutine(got):
                got = await got
            status: Any
            reply: Any
            status, reply = got if isinstance(got, tuple) else (got, None)
            where = f"step {number}, {step}: got {status}"
            if verb in VALUES:
                assert status == expected, where
            else:
                assert status == status_number(expected), where
            if status == RpcStatus.OK and "gives" in step:
                given = reply if isinstance(reply, str | None) else reply.payload.decode()
                assert given == gives, f"{where}, {reply!r}"

    def _here(self, value: Any) -> Any:
        return value[self.form.name] if isinstance(value, dict) and set(value) <= set(FORMS) else value

    def serve(self, handle: Any, request: demo_pb2.EchoRequest) -> None:
        """What the manager routine does: what its request asks for."""
        asked = json.loads(request.payload)
        match asked["routine"]:
            case "parks":
                self.servers[asked["call"]] = handle
            case "forgets":
                pass
            case "raises":
                raise ValueError("out of the routine")
            case "completes":
                assert self.form.server_complete(handle, response(b"from the routine")) == RpcStatus.OK
            case "tests":
                status = self.form.test_cancel(None)
                assert self.form.server_complete(handle, response(str(int(status)).encode())) == RpcStatus.OK
                self.servers[asked["call"]] = handle

    def serve_pipe(self, handle: Any) -> None:
        """Park a call with pipes."""
        self.servers[str(dict(self.form.server_call(handle).invocation_metadata())["call"])] = handle

    # -- the client -------------------------------------------------------------------------------------

    def do_begin(
        self, call: str, routine: str = "parks", bad: bool = False, notify: str | None = None, **options: Any
    ) -> int:
        message: Any = request(json.dumps({"call": call, "routine": routine}).encode())
        if bad:
            message = response()
        if notify is not None:
            options["target"] = self._target(call, notify)
        status, handle = self.form.begin(self.clients.get(call), self.stub.Echo, message, **options)
        if handle is not None:
            self.clients[call] = handle
        return status

    def do_begin_pipe(self, call: str, method: str, notify: str | None = None) -> int:
        """Begin a call of a streaming method."""
        target = None if notify is None else self._target(call, notify)
        message = (demo_pb2.DownloadRequest(),) if method == "Download" else ()
        status, self.clients[call] = self.form.begin(
            self.clients.get(call), getattr(self.stub, method), *message, target=target, metadata=(("call", call),)
        )
        self.methods[call] = method
        return status

    def do_push(self, call: str, chunk: str | None, change: str | None = None) -> int:
        message = self._chunk(call, chunk)
        status = self.form.push(self.clients[call], message)
        if change is not None:
            message.MergeFrom(self._chunk(call, change))
        return status

    def do_fill(self, call: str) -> int:
        """Push until something else than OK comes of it."""
        for _ in range(1000):
            status = self.form.push(self.clients[call], self._chunk(call, "x" * 65536))
            if status != RpcStatus.OK:
                return status
        raise AssertionError("the pipe holds 64 MiB and more")

    def do_pull(self, call: str) -> tuple[int, Any]:
        return _text(self.form.pull(self.clients[call]))

    async def do_pulled(self, call: str) -> tuple[int, Any]:
        """Pull until it is not pending any more."""
        return await _not_pending(lambda: self.form.pull(self.clients[call]))

    def do_server_push(self, call: str, chunk: str | None) -> int:
        return self.form.server_push(self.servers[call], self._chunk(call, chunk, "Response"))

    def do_server_pull(self, call: str) -> tuple[int, Any]:
        return _text(self.form.server_pull(self.servers[call]))

    async def do_server_pulled(self, call: str) -> tuple[int, Any]:
        """Pull until it is not pending any more."""
        return await _not_pending(lambda: self.form.server_pull(self.servers[call]))

    async def do_server_pulls_until_told(self, call: str, event: str) -> int:
        """Pull, until the client was told of an event."""
        while event not in map(str, self.told[call]):
            status, _ = await _not_pending(lambda: self.form.server_pull(self.servers[call]))
            assert status == RpcStatus.OK
        return RpcStatus.OK

    async def do_was_told(self, call: str, event: str) -> int:
        """Wait until the routine of a call was told of an event, among others."""
        await until(lambda: event in map(str, self.told[call]))
        return RpcStatus.OK

    def _chunk(self, call: str, text: str | None, direction: str = "Request") -> Any:
        if text is None:
            return None
        kind = getattr(demo_pb2, self.methods[call] + direction)
        return kind(text=text) if self.methods[call] == "Chat" else kind(payload=text.encode())

    async def do_server_done(self, call: str, chunks: int) -> int:
        """Complete a call of `Upload`."""
        return self.form.server_complete(self.servers[call], demo_pb2.UploadResponse(chunks=chunks))

    def do_server_end(self, call: str) -> int:
        """Complete a call whose replies are pushed."""
        return self.form.server_complete(self.servers[call], None)

    def do_completed(self, call: str) -> tuple[int, Any]:
        """Complete a call of a streaming method."""
        status, reply = self.form.complete(self.clients[call])
        return status, None if reply is None else f"{reply.chunks} chunks"

    def _target(self, call: str, notify: str) -> Any:
        match notify:
            case "event":
                return self.events.setdefault(call, threading.Event())
            case "routine":
                return self.told.setdefault(call, []).append
            case queue:
                return self.queues[queue]

    async def do_is_set(self, call: str) -> int:
        """Wait until the event of a call is set, and reset it."""
        assert await asyncio.to_thread(self.events[call].wait, PATIENCE)
        self.events[call].clear()
        return RpcStatus.OK

    def do_is_not_set(self, call: str) -> int:
        assert not self.events[call].is_set()
        return RpcStatus.OK

    async def do_told(self, call: str) -> list[str]:
        """What the routine of a call was told, once it was told anything."""
        await until(lambda: self.told[call])
        return [str(event) for event in self.told[call]]

    def do_not_told(self, call: str) -> int:
        assert self.told.get(call, []) == []
        return RpcStatus.OK

    def do_queue(self, queue: str) -> int:
        """Make a completion queue."""
        self.queues[queue] = rpc_async.CompletionQueue()
        return RpcStatus.OK

    async def do_take(self, queue: str) -> list[str]:
        """The next notification of a queue: its event, and its key."""
        event, _, key = await asyncio.to_thread(self.queues[queue].get, PATIENCE)
        return [str(event), key.dwCompletionKey if isinstance(key, dce.CompletionPacket) else key]

    def do_empty(self, queue: str) -> int:
        assert len(self.queues[queue]) == 0
        return RpcStatus.OK

    def do_close(self, queue: str) -> int:
        self.queues[queue].close()
        return RpcStatus.OK

    def do_status(self, call: str) -> int:
        return self.form.status(self.clients[call])

    def do_complete(self, call: str) -> tuple[int, Any]:
        return self.form.complete(self.clients[call])

    def do_cancel(self, call: str, abort: bool) -> int:
        return self.form.cancel(self.clients[call], abort)

    async def do_settles(self, call: str) -> int:
        """Wait until the call has settled, and return OK."""
        await until(lambda: self.do_status(call) != RpcStatus.ASYNC_CALL_PENDING)
        return RpcStatus.OK

    async def do_wait_in_vain(self, call: str) -> int:
        """Wait in each way there is, for a moment."""
        handle = self.form.call(self.clients[call])
        assert not await asyncio.to_thread(handle.wait, 0.005)
        try:
            await asyncio.wait_for(handle, 0.005)
        except TimeoutError:
            return RpcStatus.OK
        raise AssertionError(f"{handle!r} settled")

    def do_executed(self, call: str) -> bool | None:
        """What is known of a failed call's execution."""
        try:
            self.form.call(self.clients[call]).complete()
        except rpc_async.CallError as error:
            return error.executed
        return True

    def do_fault(self, call: str) -> list[str]:
        """The text of a failure, and what its chain of details says."""
        try:
            self.form.call(self.clients[call]).complete()
        except rpc_async.CallError as error:
            chain = [demo_pb2.EchoRequest.FromString(detail.value).payload for detail in error.status_details]
            return [error.details(), *(detail.decode() for detail in chain)]
        raise AssertionError("it did not fail")

    # -- the server -------------------------------------------------------------------------------------

    def do_arrived_in_order(self, calls: list[str]) -> int:
        assert list(self.servers) == calls
        return RpcStatus.OK

    async def do_arrives(self, call: str) -> int:
        """Wait until the manager routine has parked the call."""
        await until(lambda: call in self.servers)
        return RpcStatus.OK

    async def do_server_complete(
        self, call: str, reply: str = "", wrong: bool = False, thread: bool = False, change: str | None = None
    ) -> int:
        message: Any = request() if wrong else response(reply.encode())
        complete = partial(self.form.server_complete, self.servers[call], message)
        status = await asyncio.to_thread(complete) if thread else complete()
        if change is not None:
            message.payload = change.encode()
        return status

    def do_server_abort(self, call: str, code: Any, text: str | None = None, details: list[str] | None = None) -> int:
        if text is None:
            return self.form.server_abort(self.servers[call], status_number(code))
        chain = [request(detail.encode()) for detail in details or ()]
        return self.form.server_call(self.servers[call]).abort(code, text, chain).status

    def do_server_test_cancel(self, call: str | None) -> int:
        return self.form.test_cancel(self.servers[call] if call else None)

    def do_server_reason(self, call: str) -> str | None:
        reason = self.form.server_call(self.servers[call]).cancel_reason
        return None if reason is None else str(reason)

    async def do_server_sees_cancel(self, call: str) -> int:
        """Wait until the call tests as cancelled."""
        await until(lambda: self.do_server_test_cancel(call) == RpcStatus.OK)
        return RpcStatus.OK

    def do_server_subscribe(self, call: str, mask: int, to: str) -> int:
        """Have what is kept under `to` told."""
        return self.form.subscribe(self.servers[call], mask, self.told.setdefault(to, []).append)

    def do_server_unsubscribe(self, call: str, mask: int) -> list[int]:
        """The status, and how many were queued."""
        return [int(value or 0) for value in self.form.unsubscribe(self.servers[call], mask)]

    def do_server_drop(self, call: str) -> int:
        """Let go of the server handle."""
        del self.servers[call]
        gc.collect()
        return RpcStatus.OK

    async def do_server_idle(self, _: Any) -> int:
        await until(lambda: self.server.running_calls == 0)
        return RpcStatus.OK

    def do_server_stop(self, _: Any, grace: float) -> int:
        """Begin to stop the server."""
        self.stopping = asyncio.ensure_future(self.server.stop(grace))
        return RpcStatus.OK

    async def do_server_stopped(self, _: Any) -> int:
        await asyncio.wait_for(self.stopping, PATIENCE)
        return RpcStatus.OK

    # -- the façade's handle ----------------------------------------------------------------------------

    def do_state(self, name: str, fill: int | None = None) -> int:
        """Make a state, filled with a number as memory is that was never set."""
        state = self.clients[name] = dce.RPC_ASYNC_STATE()
        if fill is not None:
            for field in FIELDS:
                setattr(state, field, fill)
        return RpcStatus.OK

    def do_buffer(self, name: str, size: int) -> int:
        """Make something that is no state."""
        self.clients[name] = bytearray(size)
        return RpcStatus.OK

    def do_initialize(self, name: str, size: int | str = 0) -> int:
        """Initialise a state; the size is added to that of the structure, unless it is given as a text."""
        number = int(size) if isinstance(size, str) else dce.SIZEOF_RPC_ASYNC_STATE + size
        return dce.RpcAsyncInitializeHandle(self.clients[name], number)

    def do_set(self, name: str, field: str, to: Any) -> int:
        self.kept = getattr(self.clients[name], field)
        setattr(self.clients[name], field, to)
        return RpcStatus.OK

    def do_restore(self, name: str, field: str) -> int:
        setattr(self.clients[name], field, self.kept)
        return RpcStatus.OK

    def do_look(self, name: str, at: str, index: int | None = None) -> Any:
        value = getattr(self.clients[name], at)
        if index is not None:
            return value[index]
        return value - dce.SIZEOF_RPC_ASYNC_STATE if at == "Size" else value

    def do_has_handle(self, name: str) -> bool:
        return dce.RpcAsyncGetCallHandle(self.clients[name]) is not None

    def do_abort(self, name: str, code: int) -> int:
        """Abort on the client."""
        return dce.RpcAsyncAbortCall(self.clients[name], code)

    def do_server_cancel(self, call: str, abort: bool) -> int:
        """Cancel on the server."""
        return dce.RpcAsyncCancelCall(self.servers[call][0], abort)

    def do_server_initialize(self, call: str) -> int:
        return dce.RpcAsyncInitializeHandle(self.servers[call][0], dce.SIZEOF_RPC_ASYNC_STATE)

    def do_server_status(self, call: str) -> int:
        return dce.RpcAsyncGetCallStatus(self.servers[call][0])

    def do_server_has_handle(self, call: str) -> bool:
        return dce.RpcAsyncGetCallHandle(self.servers[call][0]) is not None


def _text(pulled: tuple[int, Any]) -> tuple[int, str | None]:
    status, chunk = pulled
    if chunk is None:
        return status, None
    return status, chunk.text if hasattr(chunk, "text") else chunk.payload.decode()


async def _not_pending(pull: Callable[[], tuple[int, Any]]) -> tuple[int, str | None]:
    end = time.monotonic() + PATIENCE
    while (pulled := _text(pull()))[0] == RpcStatus.ASYNC_CALL_PENDING:
        assert time.monotonic() < end, "there was nothing to pull"
        await asyncio.sleep(TICK)
    return pulled


FIELDS = ("Size", "Signature", "Lock", "Flags", "StubInfo", "UserInfo", "RuntimeInfo", "Event", "NotificationType")
VALUES = frozenset(
    {
        "executed",
        "fault",
        "has_handle",
        "look",
        "server.has_handle",
        "server.reason",
        "server.unsubscribe",
        "take",
        "told",
    }
)
"""The verbs that give a value, and no status."""


async def run(case: Case, form: Form, transport: Wire) -> None:
    """Join a server and a client as the case wants them, and play it."""
    player = Player(form)
    if case.local:
        await player.play(case.steps)
    elif case.nowhere:
        assert transport != "memory"
        async with serve(Parked()) as (_, target):
            pass
        async with rpc_async.connect(target, transport=transport) as channel:
            player.stub = demo_pb2_grpc.DemoStub(channel)
            await player.play(case.steps)
    else:
        async with pair(form.servicer(case.routine, player.serve, player.serve_pipe), transport, **case.server) as both:
            player.server, player.stub = both.server, both.stub
            await player.play(case.steps)
            for left in player.servers.values():
                form.server_complete(left, response())
