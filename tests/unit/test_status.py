"""`status.py`: the numbers and the two tables of the semantics."""

from __future__ import annotations

import pytest

from rpc_async.status import GRPC_CODE_OF, NEVER_AN_OUTCOME, STATUS_OF_GRPC_CODE, GrpcCode, RpcStatus, status_name

DOCUMENTED = {
    "OK": 0, "ACCESS_DENIED": 5, "OUT_OF_MEMORY": 14, "INVALID_ARG": 87, "ASYNC_CALL_PENDING": 997,
    "INVALID_BINDING": 1702, "SERVER_UNAVAILABLE": 1722, "SERVER_TOO_BUSY": 1723, "NO_CALL_ACTIVE": 1725,
    "CALL_FAILED": 1726, "CALL_FAILED_DNE": 1727, "PROCNUM_OUT_OF_RANGE": 1745, "CANNOT_SUPPORT": 1764,
    "INTERNAL_ERROR": 1766, "BAD_STUB_DATA": 1783, "CALL_IN_PROGRESS": 1791, "CALL_CANCELLED": 1818,
    "WRONG_PIPE_ORDER": 1831, "INVALID_ASYNC_HANDLE": 1914, "INVALID_ASYNC_CALL": 1915, "PIPE_CLOSED": 1916,
    "PIPE_DISCIPLINE_ERROR": 1917, "PIPE_EMPTY": 1918,
}  # fmt: skip


def test_the_numbers_are_win32s() -> None:
    assert {status.name: int(status) for status in RpcStatus} == DOCUMENTED


def test_every_status_that_can_be_an_outcome_has_a_grpc_code() -> None:
    assert set(GRPC_CODE_OF) - {RpcStatus.OK} == set(RpcStatus) - NEVER_AN_OUTCOME


@pytest.mark.parametrize("code", GrpcCode)
def test_a_grpc_code_is_read_back_as_a_status_that_becomes_it_or_as_call_failed(code: GrpcCode) -> None:
    status = STATUS_OF_GRPC_CODE.get(code, RpcStatus.CALL_FAILED)
    merged = {GrpcCode.UNAUTHENTICATED, GrpcCode.DEADLINE_EXCEEDED}
    if status is not RpcStatus.CALL_FAILED and code not in merged:
        assert GRPC_CODE_OF[status] is code


def test_names() -> None:
    assert status_name(1726) == "CALL_FAILED"
    assert status_name(42) == "application code"
    assert f"{RpcStatus.OK}" == str(RpcStatus.OK) == "OK"
