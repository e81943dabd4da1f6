"""`wire/faults.py`: a fault survives the way over the wire, and nothing that a peer sends breaks the reading of one."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import example, given
from hypothesis import strategies as st

from rpc_async.core.outcome import Detail, Fault, fault
from rpc_async.demo.v1 import demo_pb2
from rpc_async.errors import CallError, InvalidArgument, PayloadTooLarge, error_class
from rpc_async.status import NEVER_AN_OUTCOME, STATUS_OF_GRPC_CODE, U32_MAX, CancelReason, RpcStatus
from rpc_async.wire.faults import abort_fault, check_size, fault_from_failure, fault_to_status, grpc_status_code

KEY = "grpc-status-details-bin"


def status_trailer(failure: Fault) -> tuple[str, bytes]:
    """Return the trailing metadata that a fault goes in, whole."""
    return KEY, fault_to_status(failure).SerializeToString()


statuses = st.one_of(st.sampled_from(list(RpcStatus)), st.integers(1, U32_MAX)).filter(
    lambda status: status not in NEVER_AN_OUTCOME
)
details = st.lists(st.builds(Detail, st.text(max_size=30), st.binary(max_size=200)), max_size=4).map(tuple)


@given(
    status=statuses,
    message=st.text(max_size=200),
    reason=st.none() | st.sampled_from(CancelReason),
    executed=st.none() | st.booleans(),
    chain=details,
)
def test_C15_a_fault_survives_the_wire(
    status: int, message: str, reason: CancelReason | None, executed: bool | None, chain: tuple[Detail, ...]
) -> None:
    sent = fault(status, message, cancel_reason=reason, executed=executed, details=chain)
    assert fault_from_failure(sent.grpc_code, sent.message, (("x", "y"), status_trailer(sent))) == sent


@given(code=st.sampled_from([code for code in grpc.StatusCode if code.value[0]]), message=st.text(max_size=50))
def test_S6_a_grpc_code_survives_the_wire(code: grpc.StatusCode, message: str) -> None:
    sent = abort_fault(code, message, [demo_pb2.EchoRequest(payload=b"d")])
    read = fault_from_failure(sent.grpc_code, "the text of a server", (status_trailer(sent),))
    assert grpc_status_code(read.grpc_code) is code
    assert read.details == sent.details
    assert read.status == STATUS_OF_GRPC_CODE.get(code.value[0], RpcStatus.CALL_FAILED)


@given(code=st.integers(0, 30), message=st.text(max_size=50), value=st.binary(max_size=300))
@example(2, "", b"\xff")
def test_whatever_a_peer_sends_is_read_as_some_fault(code: int, message: str, value: bytes) -> None:
    failure = fault_from_failure(code, message, ((KEY, value),))
    assert isinstance(failure, Fault)
    assert issubclass(error_class(failure), CallError)


@pytest.mark.parametrize(
    "number", ["", "x", "-1", "0", "997", "1791", "4294967296", "99999999999", "１７２６", "17.26", "0x10"]
)
def test_a_number_that_is_none_is_read_from_the_code(number: str) -> None:
    status = status_pb2.Status(code=9)
    info = error_details_pb2.ErrorInfo(domain="rpc_async")
    info.metadata["status"] = number
    info.metadata["cancel_reason"] = "nonsense"
    status.details.add().Pack(info)
    read = fault_from_failure(9, "", ((KEY, status.SerializeToString()),))
    assert (read.status, read.grpc_code, read.cancel_reason) == (RpcStatus.CALL_FAILED, 9, None)


def test_a_detail_that_says_it_is_an_error_info_and_is_none_is_kept_as_it_is() -> None:
    status = status_pb2.Status(code=9)
    status.details.add(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff")
    read = fault_from_failure(9, "", ((KEY, status.SerializeToString()),))
    assert read.details == (Detail("type.googleapis.com/google.rpc.ErrorInfo", b"\xff"),)


def test_C15_somebody_elses_error_info_stays_in_the_chain() -> None:
    status = status_pb2.Status(code=9)
    status.details.add().Pack(error_details_pb2.ErrorInfo(domain="theirs"))
    assert len(fault_from_failure(9, "", ((KEY, status.SerializeToString()),)).details) == 1


@pytest.mark.parametrize(
    ("code", "text", "status", "executed"),
    [
        (14, "failed to connect to all addresses; last error: ...", 1722, False),
        (14, "connections to all backends failing; last error: ...", 1722, False),
        (14, "errors resolving nowhere:50", 1722, False),
        (14, "DNS resolution failed for nowhere", 1722, False),
        (14, "the backend says: failed to connect to all addresses", 1726, None),
        (14, "Stream removed (Socket closed)", 1726, None),
        (14, "GOAWAY received; Error code: 2", 1726, None),
        (14, "Connection reset by peer", 1726, None),
        (14, "Received http2 header with status: 502", 1726, None),
        (14, "a server's own words", 1726, None),
        (8, "received metadata size exceeds hard limit (value length 20000 vs. 16384)", 1726, None),
        (8, "Stream removed (received metadata size exceeds hard limit (value length 20000 vs. 16384))", 1726, None),
        (8, "Stream removed (RST_STREAM (Received RST_STREAM with error code 11))", 1726, None),
        (8, "the backend says: SERVER: Received message larger than max (5 vs. 4)", 14, None),
        (12, "unknown service a.B", 1745, False),
        (12, "unknown method C for service a.B", 1745, False),
        (12, "Method not found: a.B/C", 1745, False),
        (12, "The server does not implement the method /a.B/C", 1745, False),
        (12, "not this way", 1745, None),
        (12, "Received http2 header with status: 404", 1745, None),
        (7, "Received RST_STREAM with error code 12", 5, None),
        (13, "Internal error from Core", 1766, None),
        (16, "who are you?", 5, None),
        (8, "CLIENT: Received message larger than max (5 vs. 4)", 14, None),
        (8, "SERVER: Received message larger than max (5 vs. 4)", 14, False),
        (8, "a server's own words", 1723, None),
        (12, "Method not found!", 1745, False),
        (4, "Deadline Exceeded", 1818, None),
        (1, "CANCELLED", 1726, None),
        (1, "Received RST_STREAM with error code 8", 1726, None),
        (1, "the server's own words: CANCELLED", 1818, None),
        (2, "Failed to create channel to '': ...", 1702, False),
        (5, "not here", 1726, None),
    ],
)
def test_C14_plain_failures_are_told_apart(code: int, text: str, status: int, executed: bool | None) -> None:
    read = fault_from_failure(code, text, (), unreached=True)
    assert (read.status, read.executed) == (status, executed)
    assert read.cancel_reason is (CancelReason.DEADLINE if code == 4 else None)
    if status in (1722, 1702):  # the same words from a server, of what it met itself
        assert fault_from_failure(code, text, ()) == Fault(RpcStatus.CALL_FAILED, text, code)


def test_a_fault_that_is_too_large_is_refused() -> None:
    with pytest.raises(PayloadTooLarge):
        check_size(fault(5, "x" * 70_000))
    check_size(fault(5, "x" * 60_000))


def test_what_is_no_character_is_sent_as_a_question_mark() -> None:
    assert fault_to_status(fault(5, "a\ud800b")).message == "a?b"


@pytest.mark.parametrize("code", [0, -1, 2**32, 997, 1791, grpc.StatusCode.OK])
def test_S6_what_cannot_be_an_abort_code(code: int | grpc.StatusCode) -> None:
    with pytest.raises(InvalidArgument):
        abort_fault(code, "", ())
