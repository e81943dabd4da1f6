"""The structure itself; what it holds after which function is in tests/conformance/table.yaml."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import rpc_async
from rpc_async import dce

FUNCTIONS = (
    dce.RpcAsyncGetCallStatus,
    dce.RpcAsyncCompleteCall,
    lambda state: dce.RpcAsyncCancelCall(state, True),
    lambda state: dce.RpcAsyncAbortCall(state, 5),
)


def test_H3_it_has_the_documented_fields_and_no_others() -> None:
    state: Any = dce.RPC_ASYNC_STATE()
    with pytest.raises(AttributeError):
        state.UserInformation = 1
    with pytest.raises(AttributeError):
        state.u.hevent = threading.Event()
    with pytest.raises(AttributeError):
        state.u.IOC.dwCompletionkey = 1


@pytest.mark.parametrize("no_state", [None, 0, "state", object(), bytearray(dce.SIZEOF_RPC_ASYNC_STATE)])
def test_H1_what_is_no_state_is_refused_by_every_function(no_state: Any) -> None:
    for function in FUNCTIONS:
        status = function(no_state)
        assert (status[0] if isinstance(status, tuple) else status) == dce.RPC_S_INVALID_ASYNC_HANDLE
    assert dce.RpcAsyncCompleteCall(no_state, None) == dce.RPC_S_INVALID_ASYNC_HANDLE
    with pytest.raises(rpc_async.InvalidAsyncHandle, match="no call was begun"):
        dce.begin(no_state, no_state, no_state)


def test_H1_initialising_leaves_what_is_the_users() -> None:
    state, event = dce.RPC_ASYNC_STATE(), threading.Event()
    state.UserInfo = "mine"
    state.NotificationType = dce.RpcNotificationTypeEvent
    state.u.hEvent = event
    state.Flags = dce.RPC_C_NOTIFY_ON_SEND_COMPLETE
    assert dce.RpcAsyncInitializeHandle(state, dce.SIZEOF_RPC_ASYNC_STATE) == dce.RPC_S_OK
    assert (state.UserInfo, state.NotificationType, state.u.hEvent, state.Flags) == ("mine", 1, event, 0)


def test_two_states_share_nothing() -> None:
    one, other = dce.RPC_ASYNC_STATE(), dce.RPC_ASYNC_STATE()
    one.u.IOC.dwCompletionKey = 5
    one.Reserved[0] = 5
    assert (other.u.IOC.dwCompletionKey, other.Reserved) == (0, [0, 0, 0, 0])


def test_what_a_state_says_of_itself() -> None:
    assert repr(dce.RPC_ASYNC_STATE()) == "<RPC_ASYNC_STATE (client), no call>"
