"""`wire/trailers.py`: whatever a fault is, its trailers keep to the limit, and its number arrives."""

from __future__ import annotations

from dataclasses import replace

import pytest
from google.rpc import status_pb2
from hypothesis import example, given
from hypothesis import strategies as st

from rpc_async.core.outcome import Detail, Fault, fault
from rpc_async.status import NEVER_AN_OUTCOME, U32_MAX
from rpc_async.wire.faults import fault_from_failure
from rpc_async.wire.trailers import LEAST_MAX_TRAILERS, Trailers, fault_to_trailers, trailers_size

statuses = st.integers(1, U32_MAX).filter(lambda status: status not in NEVER_AN_OUTCOME)
pieces = st.sampled_from(["x", "%", "é", "漢", "🙂", "\n", "\ud800"])
texts = st.builds(lambda piece, count: piece * count, pieces, st.integers(0, 30_000)) | st.text(max_size=3000)
chains = st.lists(st.builds(Detail, st.just("t/a.B"), st.binary(max_size=9000)), max_size=4).map(tuple)
metadata = st.lists(
    st.tuples(st.just("k"), st.builds(lambda count: "v" * count, st.integers(0, 12_000)))
    | st.tuples(st.just("k-bin"), st.binary(max_size=9000)),
    max_size=3,
).map(tuple)


def read(sent: Fault, trailers: Trailers) -> Fault:
    return fault_from_failure(sent.grpc_code, trailers.message, trailers.metadata)


@given(status=statuses, text=texts, chain=chains, trailing=metadata, limit=st.integers(LEAST_MAX_TRAILERS, 20_000))
@example(status=77, text="x" * 6000, chain=(), trailing=(), limit=8000)
@example(status=77, text="%" * 20_000, chain=(), trailing=(("k", "v" * 12_000),), limit=2048)
def test_C15_a_fault_keeps_to_the_limit_and_its_number_arrives(
    status: int,
    text: str,
    chain: tuple[Detail, ...],
    trailing: tuple[tuple[str, str | bytes], ...],
    limit: int,
) -> None:
    sent = fault(status, text, executed=True, details=chain)
    trailers = fault_to_trailers(sent, trailing, limit)
    assert trailers_size(*trailers) <= limit
    came = read(sent, trailers)
    assert (came.status, came.executed, came.cancel_reason) == (status, True, None)
    # What is missing is said to be, and nothing else is.
    clean = text.replace("\ud800", "?")
    assert ("text" in came.shed) == (came.message != clean)
    assert ("details" in came.shed) == (came.details != chain)
    assert ("trailing_metadata" in came.shed) == (trailers.metadata[:-1] != trailing)
    # In this order: details before the text, and both before what is not the fault's own.
    if "text" in came.shed:
        assert not came.details
        assert clean.startswith(came.message.removesuffix("..."))
    assert came.details == chain[: len(came.details)]


def test_C15_the_whole_text_arrives_as_long_as_it_fits_once() -> None:
    for size in range(0, 7200, 100):
        trailers = fault_to_trailers(fault(77, "x" * size))
        came = fault_from_failure(10, *trailers)
        assert (came.message, came.shed) == ("x" * size, ())
        copy = status_pb2.Status.FromString(dict(trailers.metadata)["grpc-status-details-bin"]).message  # type: ignore[arg-type]
        assert copy == "x" * size or ((size > 3000 and copy.endswith("...")) or not copy)


def test_C15_the_text_of_a_fault_is_cut_for_all_clients_alike() -> None:
    trailers = fault_to_trailers(fault(77, "x" * 20_000))
    copy = status_pb2.Status.FromString(dict(trailers.metadata)["grpc-status-details-bin"]).message  # type: ignore[arg-type]
    assert trailers.message.endswith("x...")
    assert len(trailers.message) > 6500
    assert copy.endswith("x...")
    assert len(copy) > 150


def test_C15_details_are_shed_from_the_end() -> None:
    chain = tuple(Detail("t/a.B", bytes([n]) * 2000) for n in range(5))
    came = fault_from_failure(10, *fault_to_trailers(fault(77, "why", details=chain)))
    assert came.details == chain[:2]
    assert came.shed == ("details",)
    assert came.message == "why"


@pytest.mark.parametrize("size", [10, 20_000])
def test_C15_a_grpc_code_without_a_number_says_too_what_was_shed(size: int) -> None:
    sent = replace(fault(5, "x" * size), grpc_only=True)
    came = fault_from_failure(7, *fault_to_trailers(sent))
    assert came.status == 5
    assert came.shed == (("text",) if size > 8000 else ())
    assert not came.details


def test_C15_a_higher_limit_carries_more() -> None:
    sent = fault(77, "x" * 9000, details=(Detail("t/a.B", b"d" * 9000),))
    assert read(sent, fault_to_trailers(sent, (("k", "v"),), 64_000)) == sent
