"""What is no binding, and what is no option of one."""

from __future__ import annotations

from typing import Any

import rpc_async
from rpc_async import dce
from rpc_async.demo.v1 import demo_pb2_grpc


def test_what_is_no_binding_and_no_option() -> None:
    channel = rpc_async.connect("localhost:1")
    wrong: Any
    for wrong in (None, 7, demo_pb2_grpc.DemoStub(channel)):
        assert dce.RpcBindingSetOption(wrong, dce.RPC_C_OPT_CALL_TIMEOUT, 1) == dce.RPC_S_INVALID_BINDING
        assert dce.RpcBindingInqOption(wrong, dce.RPC_C_OPT_CALL_TIMEOUT) == (dce.RPC_S_INVALID_BINDING, 0)
    for wrong in (-1, 2**32, 0.5, None):
        assert dce.RpcBindingSetOption(channel, dce.RPC_C_OPT_CALL_TIMEOUT, wrong) == dce.RPC_S_INVALID_ARG
    assert dce.RpcBindingSetOption(channel, 13, 1) == dce.RPC_S_CANNOT_SUPPORT
    assert dce.RpcBindingInqOption(channel, 13) == (dce.RPC_S_CANNOT_SUPPORT, 0)
