"""The kinds of notification, as the targets that `rpc_async` tells. Source: RPC_ASYNC_NOTIFICATION_INFO; C9."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from rpc_async import Apc, AsyncEvent, CannotSupport, Completion, CompletionQueue, InvalidArgument, Post, Target
from rpc_async.dce.names import RPC_NOTIFICATION_TYPES
from rpc_async.dce.state import RPC_ASYNC_NOTIFICATION_INFO, RPC_ASYNC_STATE

__all__ = ["CompletionPacket", "MessageWindow", "target_of"]

StateOf = Callable[[Completion], RPC_ASYNC_STATE]
WindowProcedure = Callable[["MessageWindow", int, int, RPC_ASYNC_STATE], object]


class CompletionPacket(NamedTuple):
    """What was in `u.IOC` when the call was made: the `key` of the `Completion` that comes out of the queue."""

    dwNumberOfBytesTransferred: int
    dwCompletionKey: Any
    lpOverlapped: Any


class _Message(NamedTuple):
    """What a window is posted."""

    Msg: int
    state_of: StateOf


class MessageWindow:
    """What `u.HWND.hWnd` is: a foreign event loop, and a procedure that is called there with each message.

    Source: PostMessage as RPC_ASYNC_STATE describes it: wParam is 0, and lParam the state.
    """

    def __init__(
        self,
        where: asyncio.AbstractEventLoop | Callable[[Callable[[], object]], object] | Any,
        procedure: WindowProcedure,
    ) -> None:
        """Make one.

        Args:
            where: As for `rpc_async.Post`: an asyncio loop, a Tk widget, or something that posts a function.
            procedure: Called as `(hWnd, Msg, wParam, lParam)`. It must not block; what it raises is logged.

        Raises:
            InvalidArgument: As from `rpc_async.Post`.
            CannotSupport: As from `rpc_async.Post`.
        """
        if not callable(procedure):
            raise InvalidArgument(f"MessageWindow(..., {procedure!r}): the procedure must be something to call")
        self._procedure = procedure
        self.post: Final = Post(where, self._dispatch)
        """The runtime's: what a call tells."""

    def close(self) -> None:
        """Take no more messages: calls that settle later are not told of here, which is logged (C10)."""
        self.post.close()

    def _dispatch(self, completion: Completion) -> None:
        message = completion.key
        assert isinstance(message, _Message)
        state = message.state_of(completion)
        _note(state, completion)
        self._procedure(self, message.Msg, 0, state)


def target_of(
    kind: int, info: RPC_ASYNC_NOTIFICATION_INFO, state_of: StateOf, pipes: bool = False
) -> tuple[Target | None, object]:
    """Return the target, and the key, that a NotificationType and its branch of the union stand for.

    Args:
        kind: The NotificationType.
        info: The union, whose branch is copied.
        state_of: Gives the state that a notification is about.
        pipes: There are notifications of several kinds, so that an event's receiver must be able to tell which.

    Raises:
        InvalidArgument: The kind is none, or the branch does not hold what it must.
        CannotSupport: An APC in a thread other than this one.
    """
    match kind:
        case RPC_NOTIFICATION_TYPES.RpcNotificationTypeNone:
            return None, None
        case RPC_NOTIFICATION_TYPES.RpcNotificationTypeEvent:
            event = _checked("u.hEvent", info.hEvent, (threading.Event, asyncio.Event))
            return _that_says_which(event, state_of) if pipes else event, None
        case RPC_NOTIFICATION_TYPES.RpcNotificationTypeApc:
            if info.APC.hThread not in (None, 0, threading.current_thread(), threading.get_ident()):
                raise CannotSupport("u.APC.hThread: None, or the thread that runs here; nothing was begun")
            return Apc(_routine("u.APC.NotificationRoutine", info.APC.NotificationRoutine, state_of)), None
        case RPC_NOTIFICATION_TYPES.RpcNotificationTypeIoc:
            ioc = info.IOC
            packet = CompletionPacket(ioc.dwNumberOfBytesTransferred, ioc.dwCompletionKey, ioc.lpOverlapped)
            return _checked("u.IOC.hIOPort", ioc.hIOPort, (CompletionQueue,)), packet
        case RPC_NOTIFICATION_TYPES.RpcNotificationTypeHwnd:
            window = info.HWND.hWnd
            return _checked("u.HWND.hWnd", window, (MessageWindow,)).post, _Message(info.HWND.Msg, state_of)
        case RPC_NOTIFICATION_TYPES.RpcNotificationTypeCallback:
            return _routine("u.NotificationRoutine", info.NotificationRoutine, state_of), None
        case _:
            raise InvalidArgument(f"NotificationType {kind!r}: one of RPC_NOTIFICATION_TYPES; nothing was begun")


def _checked(field: str, value: Any, types: tuple[type, ...]) -> Any:
    if not isinstance(value, types):
        names = " or ".join(f"{one.__module__}.{one.__name__}" for one in types)
        raise InvalidArgument(f"{field} is {value!r}, and must be a {names}; nothing was begun")
    return value


def _that_says_which(event: threading.Event | asyncio.Event, state_of: StateOf) -> Target:
    """Return a target that writes into the state what happened, and then sets the event."""

    def told(completion: Completion) -> None:
        _note(state_of(completion), completion)
        event.set()

    if isinstance(event, threading.Event):
        return told
    try:
        return Post(asyncio.get_running_loop(), told)
    except RuntimeError:
        raise InvalidArgument(
            "u.hEvent: an asyncio.Event is given where its event loop runs; in a thread, give a threading.Event; "
            "nothing was begun"
        ) from None


def _routine(field: str, routine: Any, state_of: StateOf) -> Callable[[Completion], None]:
    if not callable(routine):
        raise InvalidArgument(f"{field} is {routine!r}, and must be something to call; nothing was begun")

    def told(completion: Completion) -> None:
        state = state_of(completion)
        routine(state, None, _note(state, completion))

    return told


def _note(state: RPC_ASYNC_STATE, completion: Completion) -> AsyncEvent:
    """Keep what a notification is about where its receiver reads it, once its call is the state's."""
    with state._guard:
        state.Event = completion.event
    return completion.event
