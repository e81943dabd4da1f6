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


def test_a_server_is_made_on_its_loop() -> None:
    with pytest.raises(rpc_async.InvalidBinding, match="coroutine"):
        rpc_async.server()


@pytest.mark.parametrize("options", [{"max_calls": 0}, {"grace": -1}, {"linger": -1}])
async def test_limits_that_are_none(options: Any) -> None:
    with pytest.raises(rpc_async.InvalidArgument):
        rpc_async.server(**options)
