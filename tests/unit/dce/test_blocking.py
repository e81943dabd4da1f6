"""What a thread is told that cannot cancel."""

from __future__ import annotations

import threading
from typing import Any

from rpc_async import dce


def test_what_is_no_cancel_timeout_and_no_thread() -> None:
    wrong: Any
    for wrong in (-2, 2**31, 0.5, None):
        assert dce.RpcMgmtSetCancelTimeout(wrong) == dce.RPC_S_INVALID_TIMEOUT == 1709
        assert dce.RpcCancelThreadEx(threading.current_thread(), wrong) == dce.RPC_S_INVALID_TIMEOUT
    for wrong in (None, "thread", threading.Thread(target=print)):
        assert dce.RpcCancelThread(wrong) == dce.RPC_S_INVALID_ARG
    assert dce.RpcCancelThread(threading.current_thread()) == dce.RPC_S_NO_CALL_ACTIVE
