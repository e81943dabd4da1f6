"""`core/outcome.py`."""

from __future__ import annotations

import pytest

from rpc_async.core.outcome import Fault, fault, not_executed
from rpc_async.status import GRPC_CODE_OF, CancelReason, GrpcCode, RpcStatus


@pytest.mark.parametrize(("status", "code"), GRPC_CODE_OF.items())
def test_a_status_has_the_grpc_code_of_the_table(status: int, code: GrpcCode) -> None:
    assert fault(status, "").grpc_code == code


@pytest.mark.parametrize("status", [1, 42, 2**32 - 1])
def test_an_applications_own_code_is_aborted(status: int) -> None:
    assert fault(status, "").grpc_code == GrpcCode.ABORTED


def test_C12_a_deadline_is_deadline_exceeded() -> None:
    failure = fault(RpcStatus.CALL_CANCELLED, "", cancel_reason=CancelReason.DEADLINE)
    assert failure.grpc_code == GrpcCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    ("status", "executed"), [(1722, False), (1723, False), (1727, False), (1745, False), (1726, None), (5, None)]
)
def test_C14_what_a_status_says_about_execution(status: int, executed: bool | None) -> None:
    assert fault(status, "").executed is executed
    assert fault(status, "", executed=True).executed is True


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (Fault(RpcStatus.CALL_FAILED, "", 14), RpcStatus.SERVER_UNAVAILABLE),
        (Fault(RpcStatus.CALL_FAILED, "", 2), RpcStatus.CALL_FAILED_DNE),
        (Fault(RpcStatus.ACCESS_DENIED, "", 7), RpcStatus.ACCESS_DENIED),
    ],
)
def test_C14_what_was_not_sent_says_so_by_its_number(failure: Fault, status: int) -> None:
    told = not_executed(failure)
    assert (told.status, told.executed) == (status, False)
