"""`@manager`: marks a servicer's method as the manager routine of an asynchronous call."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from enum import Enum, auto
from typing import Any, Final, TypeVar, overload

from rpc_async.errors import InvalidArgument
from rpc_async.serving.call import ServerCall

__all__ = ["RoutineKind", "manager", "routine_kind"]

_Reply = TypeVar("_Reply")

_MARK: Final = "__rpc_async_routine__"


class RoutineKind(Enum):
    """Where a manager routine runs."""

    TASK = auto()
    """`async def`: as a task of its own on the server's loop."""
    THREAD = auto()
    """`def`: in the server's thread pool."""
    INLINE = auto()
    """`def`, marked inline: on the dispatch thread itself, which it must not block."""


@overload
def manager(
    routine: Callable[[Any, Any, ServerCall[_Reply]], Coroutine[Any, Any, None]], /
) -> Callable[..., Awaitable[_Reply]]: ...
@overload
def manager(routine: Callable[[Any, Any, ServerCall[_Reply]], None], /) -> Callable[..., Awaitable[_Reply]]: ...
@overload
def manager(
    *, inline: bool
) -> Callable[[Callable[[Any, Any, ServerCall[_Reply]], None]], Callable[..., Awaitable[_Reply]]]: ...
def manager(routine: Any = None, /, *, inline: bool = False) -> Any:
    """Mark a servicer's method as a manager routine, as `[async]` does in an ACF.

    The routine is called as `(self, request, call)`, where `call` is a `ServerCall`, and returns None. Its
    return does not complete the call: `call.complete(reply)` does, now or later, from any thread (S1, S2).

    The declared type is that of the generated servicer's method, so that type checkers accept the override
    and compare the replies' types. (They cannot compare the requests' types: a method's parameter names
    would be lost, and with them the override.)

    Args:
        routine: `async def` runs as a task on the server's loop; `def` runs in the server's thread pool.
        inline: Run a plain `def` on the dispatch thread itself: no task and no thread switch is paid (S2,
            "opportunistically asynchronous"). It must not block; it completes now or keeps the handle.

    Raises:
        InvalidArgument: The routine is not a function with these parameters, or is `async def` and inline.
    """
    if routine is None:
        return lambda function: _mark(function, inline)
    return _mark(routine, inline)


def _mark(routine: Callable[..., Any], inline: bool) -> Callable[..., Any]:
    name = getattr(routine, "__qualname__", repr(routine))
    if not inspect.isfunction(routine):
        raise InvalidArgument(f"@manager marks methods written with def or async def; {name} is none")
    if inspect.isasyncgenfunction(routine) or inspect.isgeneratorfunction(routine):
        raise InvalidArgument(f"@manager {name}: a manager routine cannot be a generator; it completes its call")
    parameters = list(inspect.signature(routine).parameters)
    if len(parameters) != 3:
        raise InvalidArgument(f"@manager {name}: the parameters must be (self, request, call), not {parameters}")
    coroutine = inspect.iscoroutinefunction(routine)
    if coroutine and inline:
        raise InvalidArgument(f"@manager(inline=True) {name}: an inline routine must be a plain def")
    kind = RoutineKind.TASK if coroutine else RoutineKind.INLINE if inline else RoutineKind.THREAD
    setattr(routine, _MARK, kind)
    return routine


def routine_kind(method: Any) -> RoutineKind | None:
    """Return where a bound method runs as a manager routine, or None if it was not marked."""
    return getattr(method, _MARK, None)
