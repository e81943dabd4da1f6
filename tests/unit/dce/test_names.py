"""The documented constants have the documented numbers."""

from __future__ import annotations

from rpc_async import dce


def test_every_documented_name_is_there_with_its_number() -> None:
    numbers = {
        "RPC_S_OK": 0, "RPC_S_ACCESS_DENIED": 5, "RPC_S_OUT_OF_MEMORY": 14, "RPC_S_INVALID_ARG": 87,
        "RPC_S_ASYNC_CALL_PENDING": 997, "RPC_S_INVALID_BINDING": 1702, "RPC_S_INVALID_TIMEOUT": 1709,
        "RPC_S_SERVER_UNAVAILABLE": 1722, "RPC_S_SERVER_TOO_BUSY": 1723, "RPC_S_NO_CALL_ACTIVE": 1725,
        "RPC_S_CALL_FAILED": 1726, "RPC_S_CALL_FAILED_DNE": 1727, "RPC_S_PROCNUM_OUT_OF_RANGE": 1745,
        "RPC_S_CANNOT_SUPPORT": 1764, "RPC_S_INTERNAL_ERROR": 1766, "RPC_X_BAD_STUB_DATA": 1783,
        "RPC_S_CALL_IN_PROGRESS": 1791, "RPC_S_CALL_CANCELLED": 1818, "RPC_X_WRONG_PIPE_ORDER": 1831,
        "RPC_S_INVALID_ASYNC_HANDLE": 1914, "RPC_S_INVALID_ASYNC_CALL": 1915, "RPC_X_PIPE_CLOSED": 1916,
        "RPC_X_PIPE_DISCIPLINE_ERROR": 1917, "RPC_X_PIPE_EMPTY": 1918, "RpcNotificationTypeNone": 0,
        "RpcNotificationTypeEvent": 1, "RpcNotificationTypeApc": 2, "RpcNotificationTypeIoc": 3,
        "RpcNotificationTypeHwnd": 4, "RpcNotificationTypeCallback": 5, "RpcCallComplete": 0, "RpcSendComplete": 1,
        "RpcReceiveComplete": 2, "RpcClientDisconnect": 3, "RpcClientCancel": 4, "RpcNotificationCallNone": 0,
        "RpcNotificationClientDisconnect": 1, "RpcNotificationCallCancel": 2, "RPC_C_NOTIFY_ON_SEND_COMPLETE": 1,
        "RPC_C_CANCEL_INFINITE_TIMEOUT": -1, "RPC_C_OPT_BINDING_NONCAUSAL": 9, "RPC_C_OPT_CALL_TIMEOUT": 12,
    }  # fmt: skip
    assert {name: getattr(dce, name) for name in numbers} == numbers
    assert {*numbers} <= {*dce.__all__}
    named = {name for name in dir(dce) if name.startswith(("Rpc", "RPC_"))}
    assert named <= {*dce.__all__}
