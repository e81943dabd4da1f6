"""`@manager`: marks a servicer's method as the manager routine of an asynchronous call."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from enum import Enum, auto
from typing import Any, Final, NamedTuple, Protocol, TypeVar, overload

from rpc_async.errors import InvalidArgument
from rpc_async.serving.call import ServerCall
from rpc_async.serving.pipe import ServerPullCall, ServerPushCall, ServerPushPullCall

__all__ = ["Mark", "RoutineKind", "manager", "mark_of"]

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


class Mark(NamedTuple):
    """What `@manager` says of a routine."""

    kind: RoutineKind
    takes_request: bool
    """It is called as `(self, request, call)`; else as `(self, call)`, since its requests come through a pipe."""
    strict_pipes: bool


_Sent = TypeVar("_Sent")
_Pulled = TypeVar("_Pulled")
_Returned = Coroutine[Any, Any, None] | None


class _Marker(Protocol):
    """What `@manager(...)` is: it marks as `@manager` does."""

    @overload
    def __call__(
        self, routine: Callable[[Any, Any, ServerCall[_Reply]], _Returned], /
    ) -> Callable[..., Awaitable[_Reply]]: ...
    @overload
    def __call__(
        self, routine: Callable[[Any, ServerPullCall[_Pulled, _Reply]], _Returned], /
    ) -> Callable[..., Awaitable[_Reply]]: ...
    @overload
    def __call__(
        self, routine: Callable[[Any, Any, ServerPushCall[_Sent]], _Returned], /
    ) -> Callable[..., AsyncIterator[_Sent]]: ...
    @overload
    def __call__(
        self, routine: Callable[[Any, ServerPushPullCall[_Sent, _Pulled]], _Returned], /
    ) -> Callable[..., AsyncIterator[_Sent]]: ...


@overload
def manager(routine: Callable[[Any, Any, ServerCall[_Reply]], _Returned], /) -> Callable[..., Awaitable[_Reply]]: ...
@overload
def manager(
    routine: Callable[[Any, ServerPullCall[_Pulled, _Reply]], _Returned], /
) -> Callable[..., Awaitable[_Reply]]: ...
@overload
def manager(
    routine: Callable[[Any, Any, ServerPushCall[_Sent]], _Returned], /
) -> Callable[..., AsyncIterator[_Sent]]: ...
@overload
def manager(
    routine: Callable[[Any, ServerPushPullCall[_Sent, _Pulled]], _Returned], /
) -> Callable[..., AsyncIterator[_Sent]]: ...
@overload
def manager(*, inline: bool = False, strict_pipes: bool = False) -> _Marker: ...
def manager(routine: Any = None, /, *, inline: bool = False, strict_pipes: bool = False) -> Any:
    """Mark a servicer's method as a manager routine, as `[async]` does in an ACF.

    The routine is called as `(self, request, call)`, where `call` is a `ServerCall`, and returns None. Its
    return does not complete the call: `call.complete(reply)` does, now or later, from any thread (S1, S2).

    A streaming method's routine gets a handle with pipes: `(self, request, call)` with a `ServerPushCall` where the
    server streams; `(self, call)` with a `ServerPullCall` where the client does, with a `ServerPushPullCall` where both
    do.

    The declared type is that of the generated servicer's method, so that type checkers accept the override
    and compare the replies' types. (They cannot compare the requests' types: a method's parameter names
    would be lost, and with them the override.)

    Args:
        routine: `async def` runs as a task on the server's loop; `def` runs in the server's thread pool.
        inline: Run a plain `def` on the dispatch thread itself: no task and no thread switch is paid (S2,
            "opportunistically asynchronous"). It must not block; it completes now or keeps the handle.
        strict_pipes: For a method with a pipe each way: use them in the documented order, and push the end of the one
            that goes out (P5). By default chunks may cross, as in gRPC, and `complete()` is the end.

    Raises:
        InvalidArgument: The routine is not a function with these parameters, or is `async def` and inline.
    """
    if routine is None:
        return lambda function: _mark(function, inline, strict_pipes)
    return _mark(routine, inline, strict_pipes)


def _mark(routine: Callable[..., Any], inline: bool, strict_pipes: bool) -> Callable[..., Any]:
    name = getattr(routine, "__qualname__", repr(routine))
    if not inspect.isfunction(routine):
        raise InvalidArgument(f"@manager marks methods written with def or async def; {name} is none")
    if inspect.isasyncgenfunction(routine) or inspect.isgeneratorfunction(routine):
        raise InvalidArgument(f"@manager {name}: a manager routine cannot be a generator; it completes its call")
    parameters = list(inspect.signature(routine).parameters)
    if len(parameters) not in (2, 3):
        raise InvalidArgument(
            f"@manager {name}: the parameters must be (self, request, call), or (self, call) where the client streams, "
            f"not {parameters}"
        )
    coroutine = inspect.iscoroutinefunction(routine)
    if coroutine and inline:
        raise InvalidArgument(f"@manager(inline=True) {name}: an inline routine must be a plain def")
    kind = RoutineKind.TASK if coroutine else RoutineKind.INLINE if inline else RoutineKind.THREAD
    setattr(routine, _MARK, Mark(kind, len(parameters) == 3, strict_pipes))
    return routine


def mark_of(method: Any) -> Mark | None:
    """Return how a bound method is served as a manager routine, or None if it was not marked."""
    return getattr(method, _MARK, None)
