"""`serving/manager.py`: what can be marked, and what cannot."""

from __future__ import annotations

from typing import Any

import pytest

import rpc_async
from rpc_async.serving.manager import Mark, RoutineKind, manager, mark_of


class Servicer:
    """One of each kind."""

    @manager
    async def task(self, request: Any, call: Any) -> None: ...

    @manager
    def thread(self, request: Any, call: Any) -> None: ...

    @manager(inline=True)
    def inline(self, request: Any, call: Any) -> None: ...

    @manager(inline=False)
    def also_thread(self, request: Any, call: Any) -> None: ...

    def unmarked(self, request: Any, context: Any) -> None: ...


def test_where_a_routine_runs() -> None:
    servicer = Servicer()
    assert mark_of(servicer.task) == Mark(RoutineKind.TASK, True, False)
    assert mark_of(servicer.thread) == Mark(RoutineKind.THREAD, True, False)
    assert mark_of(servicer.inline) == Mark(RoutineKind.INLINE, True, False)
    assert mark_of(servicer.also_thread) == Mark(RoutineKind.THREAD, True, False)
    assert mark_of(servicer.unmarked) is None


def too_few(self: Any) -> None: ...


async def coroutine(self: Any, request: Any, call: Any) -> None: ...


async def generator(self: Any, request: Any, call: Any) -> Any:
    yield


def plain_generator(self: Any, request: Any, call: Any) -> Any:
    yield


@pytest.mark.parametrize(
    ("routine", "inline", "what"),
    [
        (too_few, False, "parameters"),
        (coroutine, True, "plain def"),
        (generator, False, "generator"),
        (plain_generator, False, "generator"),
        (object(), False, "def or async def"),
    ],
)
def test_what_cannot_be_marked_is_refused_at_once(routine: Any, inline: bool, what: str) -> None:
    mark: Any = manager
    with pytest.raises(rpc_async.InvalidArgument, match=what):
        mark(inline=inline)(routine)


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize("value", [0, -1, 1.5, NAN, INFINITY, True, "1", b"1", (), object()], ids=repr)
@pytest.mark.parametrize("name", ["max_calls", "max_workers"])
def test_counts_that_are_none(name: str, value: Any) -> None:
    with pytest.raises(rpc_async.InvalidArgument, match=name):
        rpc_async.server(**{name: value})


@pytest.mark.parametrize("value", [-1, -0.1, -INFINITY, NAN, True, "1", b"1", (), 1j, object()], ids=repr)
@pytest.mark.parametrize("name", ["grace", "linger"])
async def test_seconds_that_are_none(name: str, value: Any) -> None:
    with pytest.raises(rpc_async.InvalidArgument, match=name):
        rpc_async.server(**{name: value})
    if name == "grace":
        with pytest.raises(rpc_async.InvalidArgument, match="grace"):
            await rpc_async.server().stop(value)


@pytest.mark.parametrize("value", [None, 0, 0.0, 1, 2.5, 9e9, 1e300, 10**400, INFINITY], ids=lambda one: repr(one)[:9])
async def test_seconds_that_are_some(value: Any) -> None:
    server = rpc_async.server(grace=value, linger=1 if value is None else value)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with rpc_async.connect(f"127.0.0.1:{port}", transport="session") as channel:
        error = await channel.unary_unary("/t.T/Missing")(b"").code()
    assert error.name == "UNIMPLEMENTED"
    await server.stop()  # nothing runs: there is nothing to wait for


@pytest.mark.parametrize(
    "options",
    [
        {"options": 5},
        {"options": "ab"},
        {"options": {"grpc.max_send_message_length": 5}},
        {"options": [("grpc.max_send_message_length",)]},
        {"options": [(5, 5)]},
        {"options": [("grpc.max_send_message_length", "5")]},
        {"options": [("grpc.max_receive_message_length", -2)]},
        {"options": [("grpc.max_receive_message_length", 2**31)]},
        {"interceptors": 5},
        {"interceptors": [object()]},
        {"compression": "gzip"},
        {"compression": 2},
    ],
    ids=repr,
)
def test_what_is_not_of_its_kind(options: Any) -> None:
    with pytest.raises(rpc_async.InvalidArgument, match=next(iter(options))):
        rpc_async.server(**options)
