"""`RPC_ASYNC_STATE`: the structure that a call is made with, and what the runtime remembers of it.

The documented fields are plain attributes, for everyone to read. What the runtime needs to be sure of is kept apart
from them, so that a field which user code may not change and did change is noticed (H3).
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from rpc_async import AsyncCall, RpcStatus, ServerCall, UsageError
from rpc_async.dce.names import RPC_NOTIFICATION_TYPES, RpcCallComplete

__all__ = [
    "RPC_ASYNC_NOTIFICATION_INFO",
    "RPC_ASYNC_STATE",
    "SIZEOF_RPC_ASYNC_STATE",
    "RpcAsyncInitializeHandle",
    "call_of",
    "status_of",
]

SIZEOF_RPC_ASYNC_STATE: Final = 112
"""What `sizeof(RPC_ASYNC_STATE)` is on 64-bit Windows."""
RPC_ASYNC_SIGNATURE: Final = 0x43595341
"""The letters ASYC."""


@dataclass(slots=True)
class ApcBranch:
    """The branch of `RpcNotificationTypeApc`."""

    NotificationRoutine: Any = None
    """Called as `(state, context, event)`; the context is None."""
    hThread: Any = None
    """The thread that it is called in; None: the one that makes the call."""


@dataclass(slots=True)
class IocBranch:
    """The branch of `RpcNotificationTypeIoc`: all but the port is handed back verbatim with the packet."""

    hIOPort: Any = None
    """A `CompletionQueue`."""
    dwNumberOfBytesTransferred: int = 0
    """Yours."""
    dwCompletionKey: Any = 0
    """Yours."""
    lpOverlapped: Any = None
    """Yours."""


@dataclass(slots=True)
class HwndBranch:
    """The branch of `RpcNotificationTypeHwnd`."""

    hWnd: Any = None
    """What posts into the foreign loop."""
    Msg: int = 0
    """The message's number."""


@dataclass(slots=True)
class RPC_ASYNC_NOTIFICATION_INFO:
    """The union `u`: the user sets the one branch that goes with the NotificationType."""

    hEvent: Any = None
    """The branch of `RpcNotificationTypeEvent`: a `threading.Event` or an `asyncio.Event`."""
    APC: ApcBranch = field(default_factory=ApcBranch)
    IOC: IocBranch = field(default_factory=IocBranch)
    HWND: HwndBranch = field(default_factory=HwndBranch)
    NotificationRoutine: Any = None
    """The branch of `RpcNotificationTypeCallback`: called as `(state, context, event)`; the context is None."""


class RPC_ASYNC_STATE:
    """The asynchronous handle, on both sides. Source: RPC_ASYNC_STATE (rpcasync.h).

    A new one is all zero, as in C, until `RpcAsyncInitializeHandle` has made it a client's handle. A server's is
    made by the runtime: see `manager`. Several threads may use one at the same time, as far as they may a handle.

    Attributes:
        Size: The runtime's.
        Signature: The runtime's.
        Lock: The runtime's.
        Flags: Yours, before the call: 0 or `RPC_C_NOTIFY_ON_SEND_COMPLETE`.
        StubInfo: The runtime's.
        UserInfo: Yours, at any time.
        RuntimeInfo: The runtime's: the call's handle, see `RpcAsyncGetCallHandle`.
        Event: The runtime's: what the latest notification was about.
        NotificationType: Yours, before the call.
        u: Yours, before the call: the branch that goes with the NotificationType.
        Reserved: The runtime's.
    """

    __slots__ = (
        "Event",
        "Flags",
        "Lock",
        "NotificationType",
        "Reserved",
        "RuntimeInfo",
        "Signature",
        "Size",
        "StubInfo",
        "UserInfo",
        "__weakref__",
        "_call",
        "_guard",
        "_listening",
        "_of_server",
        "u",
    )

    def __init__(self) -> None:
        self.Size: int = 0
        self.Signature: int = 0
        self.Lock: int = 0
        self.Flags: int = 0
        self.StubInfo: Any = None
        self.UserInfo: Any = None
        self.RuntimeInfo: Any = None
        self.Event: int = RpcCallComplete
        self.NotificationType: int = RPC_NOTIFICATION_TYPES.RpcNotificationTypeNone
        self.u: RPC_ASYNC_NOTIFICATION_INFO = RPC_ASYNC_NOTIFICATION_INFO()
        self.Reserved: list[int] = [0, 0, 0, 0]
        self._guard: Final = threading.RLock()  # a routine that is told at once may be told inside the call's begin
        self._call: AsyncCall[Any] | ServerCall[Any] | None = None
        self._of_server: bool = False
        self._listening: bool = False

    def __repr__(self) -> str:
        side = "server" if self._of_server else "client"
        return f"<RPC_ASYNC_STATE ({side}) of {self._call!r}>" if self._call else f"<RPC_ASYNC_STATE ({side}), no call>"

    @staticmethod
    def for_call(call: ServerCall[Any]) -> RPC_ASYNC_STATE:
        """Return the state of a server handle: the one there is, or a new one.

        The runtime does this for a routine that is marked with `manager`.
        """
        with _LOCK:
            known = _STATES.get(call)
            state = None if known is None else known()
            if state is None:
                state = RPC_ASYNC_STATE()
                _initialize(state)
                state._of_server = True
                state.bind(call)
                _STATES[call] = weakref.ref(state)
        return state

    # -- the runtime's part -----------------------------------------------------------------------------

    def bind(self, call: AsyncCall[Any] | ServerCall[Any] | None) -> None:
        """The runtime's: the state is now that of this call, or of none."""
        self._call = self.StubInfo = self.RuntimeInfo = call

    def intact(self) -> bool:
        """The runtime's: tell whether it was initialised, and what user code may not change is unchanged (H3)."""
        return (
            self.Size == SIZEOF_RPC_ASYNC_STATE
            and self.Signature == RPC_ASYNC_SIGNATURE
            and self.Lock == 0
            and self.StubInfo is self._call
        )

    def zero(self) -> bool:
        """The runtime's: tell whether it was never initialised, and is as it was made."""
        return not (self.Size or self.Signature or self.Lock or self.StubInfo is not None)


_STATES: Final[weakref.WeakKeyDictionary[ServerCall[Any], weakref.ref[RPC_ASYNC_STATE]]] = weakref.WeakKeyDictionary()
"""The state of each server handle that has one."""
_LOCK: Final = threading.Lock()


def RpcAsyncInitializeHandle(pAsync: object, Size: int) -> RpcStatus:
    """Make a state a client's handle, ready for a call. Source: RpcAsyncInitializeHandle; H1.

    Sets Size, Signature, Lock, Flags, StubInfo, RuntimeInfo and Reserved; leaves UserInfo, Event, NotificationType
    and u as they were. Not needed before the next call on a state whose last one is completed (C4).

    Args:
        pAsync: The state.
        Size: `SIZEOF_RPC_ASYNC_STATE`.

    Returns:
        RPC_S_OK: It is ready.
        RPC_S_INVALID_ARG: The size is another one; nothing was changed.
        RPC_S_INVALID_ASYNC_HANDLE: It is no state.
        RPC_S_INVALID_ASYNC_CALL: A call is outstanding on it, or it is a server's; nothing was changed.
    """
    if Size != SIZEOF_RPC_ASYNC_STATE:
        return RpcStatus.INVALID_ARG
    if not isinstance(pAsync, RPC_ASYNC_STATE):
        return RpcStatus.INVALID_ASYNC_HANDLE
    with pAsync._guard:
        if pAsync._call is not None or pAsync._of_server:
            return RpcStatus.INVALID_ASYNC_CALL
        _initialize(pAsync)
    return RpcStatus.OK


def _initialize(state: RPC_ASYNC_STATE) -> None:
    state.Size = SIZEOF_RPC_ASYNC_STATE
    state.Signature = RPC_ASYNC_SIGNATURE
    state.Lock = 0
    state.Flags = 0
    state.bind(None)
    state.Reserved = [0, 0, 0, 0]


def call_of(state: object) -> AsyncCall[Any] | ServerCall[Any] | RpcStatus:
    """Return the call that a state carries, or the status of a state that carries none."""
    if isinstance(state, RPC_ASYNC_STATE):
        with state._guard:
            if state._call is not None and state.intact():
                return state._call
    return RpcStatus.INVALID_ASYNC_HANDLE


def status_of(function: Callable[[], RpcStatus]) -> RpcStatus:
    """Call it, and return the status that it returned, or that of the misuse that it raised."""
    try:
        return function()
    except UsageError as error:
        return error.status
