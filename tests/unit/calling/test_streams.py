"""What the end of a stream that was not opened means for the calls that wait for it."""

from __future__ import annotations

import grpc
import pytest

from rpc_async.calling.streams import why_not_opened
from rpc_async.status import RpcStatus


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses"),
        (grpc.StatusCode.UNAVAILABLE, "Stream removed (Socket closed)"),
        (grpc.StatusCode.UNAVAILABLE, "recvmsg:Connection reset by peer"),
        (grpc.StatusCode.INTERNAL, "Internal error from Core"),
    ],
)
def test_C14_what_a_lost_connection_had_not_carried_yet_was_surely_not_executed(
    code: grpc.StatusCode, text: str
) -> None:
    failure = why_not_opened(code, text)
    assert failure.status == RpcStatus.SERVER_UNAVAILABLE
    assert failure.executed is False
    assert failure.grpc_code == grpc.StatusCode.UNAVAILABLE.value[0], "a call that is willing to wait goes on waiting"
    assert text in failure.message


def test_what_the_server_says_is_left_as_it_is() -> None:
    failure = why_not_opened(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
    assert failure.status == RpcStatus.ACCESS_DENIED
    assert failure.message == "who are you?"
