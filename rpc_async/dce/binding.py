"""Options of a binding, which is a channel here."""

from __future__ import annotations

import threading
import weakref
from typing import Any, Final

from rpc_async import CannotSupport, Channel, RpcStatus
from rpc_async.dce.names import INFINITE, RPC_C_OPT_BINDING_NONCAUSAL, RPC_C_OPT_CALL_TIMEOUT

__all__ = ["RpcBindingInqOption", "RpcBindingSetOption", "call_timeout"]

_CALL_TIMEOUTS: Final[weakref.WeakKeyDictionary[Channel, int]] = weakref.WeakKeyDictionary()
_LOCK: Final = threading.Lock()
"""Guards the dictionary, which a destructor of another channel may be changing."""


def RpcBindingSetOption(hBinding: object, option: int, optionValue: Any) -> RpcStatus:
    """Set an option of a channel. Source: RpcBindingSetOption, binding option constants; C13, C12.

    Args:
        hBinding: A `Channel`.
        option: `RPC_C_OPT_BINDING_NONCAUSAL` (before the channel is opened): calls need not be dispatched in the order
            in which they were begun. `RPC_C_OPT_CALL_TIMEOUT`: how long a *blocking* call that begins after this may
            take; asynchronous calls ignore it. Other than documented, the server is told of the time-out.
        optionValue: For the former true or false; for the latter milliseconds, 0 or `INFINITE` for no time-out.

    Returns:
        RPC_S_OK: It is set.
        RPC_S_INVALID_ARG: The value cannot be that of the option; nothing was changed.
        RPC_S_INVALID_BINDING: It is no channel of this library.
        RPC_S_CANNOT_SUPPORT: There is no such option here, or the channel was opened with another order.
    """
    if not isinstance(hBinding, Channel):
        return RpcStatus.INVALID_BINDING
    if not isinstance(optionValue, int) or not 0 <= optionValue <= INFINITE:
        return RpcStatus.INVALID_ARG
    if option == RPC_C_OPT_BINDING_NONCAUSAL:
        try:
            hBinding.causal = not optionValue
        except CannotSupport as error:
            return error.status
    elif option == RPC_C_OPT_CALL_TIMEOUT:
        with _LOCK:
            _CALL_TIMEOUTS[hBinding] = int(optionValue)
    else:
        return RpcStatus.CANNOT_SUPPORT
    return RpcStatus.OK


def RpcBindingInqOption(hBinding: object, option: int) -> tuple[RpcStatus, int]:
    """Return an option of a channel. Source: RpcBindingInqOption.

    Args:
        hBinding: A `Channel`.
        option: As for `RpcBindingSetOption`.

    Returns:
        The status, and the option's value, which is 0 unless RPC_S_OK.

        RPC_S_OK: The value is the option's.
        RPC_S_INVALID_BINDING: It is no channel of this library.
        RPC_S_CANNOT_SUPPORT: There is no such option here.
    """
    if not isinstance(hBinding, Channel):
        return RpcStatus.INVALID_BINDING, 0
    if option == RPC_C_OPT_BINDING_NONCAUSAL:
        return RpcStatus.OK, int(not hBinding.causal)
    if option == RPC_C_OPT_CALL_TIMEOUT:
        with _LOCK:
            return RpcStatus.OK, _CALL_TIMEOUTS.get(hBinding, 0)
    return RpcStatus.CANNOT_SUPPORT, 0


def call_timeout(channel: Channel) -> float | None:
    """Return the seconds that a blocking call on a channel may take; None: for ever."""
    with _LOCK:
        milliseconds = _CALL_TIMEOUTS.get(channel, 0)
    return None if milliseconds in (0, INFINITE) else milliseconds / 1000
