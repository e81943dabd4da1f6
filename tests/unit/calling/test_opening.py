"""What the end of a stream that was not opened means for the calls that wait for it."""

from __future__ import annotations

import grpc
import pytest

from rpc_async.calling.opening import why_not_opened
from rpc_async.core.door import Refusal
from rpc_async.status import RpcStatus

UNAVAILABLE, INTERNAL = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL


@pytest.mark.parametrize(
    ("code", "text", "why"),
    [
        (UNAVAILABLE, "failed to connect to all addresses; last error: refused", Refusal.NOT_CONNECTED),
        (UNAVAILABLE, "DNS resolution failed for nowhere:1", Refusal.NOT_CONNECTED),
        (UNAVAILABLE, "Stream removed (Socket closed)", Refusal.LOST),
        (UNAVAILABLE, "recvmsg:Connection reset by peer", Refusal.LOST),
        (INTERNAL, "Internal error from Core", Refusal.LOST),
    ],
)
def test_C14_what_a_lost_connection_had_not_carried_yet_was_surely_not_executed(
    code: grpc.StatusCode, text: str, why: Refusal
) -> None:
    error = why_not_opened(code, text)
    assert error.why is why
    failure = error.failure
    assert failure.status == RpcStatus.SERVER_UNAVAILABLE
    assert failure.executed is False
    assert failure.grpc_code == UNAVAILABLE.value[0], "a call that is willing to wait goes on waiting"
    assert text in failure.message


@pytest.mark.parametrize(
    ("code", "text", "why", "status"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, "who are you?", Refusal.REFUSED, RpcStatus.ACCESS_DENIED),
        (grpc.StatusCode.UNIMPLEMENTED, "Method not found!", Refusal.REFUSED, RpcStatus.CANNOT_SUPPORT),
        (INTERNAL, "Received RST_STREAM with error code 2", Refusal.REFUSED, RpcStatus.INTERNAL_ERROR),
        (UNAVAILABLE, "Received http2 header with status: 502", Refusal.BUSY, None),
        (UNAVAILABLE, "the server takes no more sessions", Refusal.BUSY, None),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "later", Refusal.BUSY, RpcStatus.SERVER_TOO_BUSY),
    ],
)
def test_C14_what_somebody_answered_was_surely_not_executed(
    code: grpc.StatusCode, text: str, why: Refusal, status: RpcStatus | None
) -> None:
    error = why_not_opened(code, text)
    assert (error.why, error.failure.executed) == (why, False)
    assert error.failure.status == status or status is None
    assert code is grpc.StatusCode.UNIMPLEMENTED or text in error.failure.message
