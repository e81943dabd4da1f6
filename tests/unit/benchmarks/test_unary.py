"""The rounds, and what is made of their samples."""

from __future__ import annotations

from benchmarks.cases import GO, NATIVE, RAW, SESSION_INLINE, Case
from benchmarks.load import Sample
from benchmarks.unary import SCALING, TARGETS, UNARY, measure_rounds, row, section


def samples(*rates: float) -> list[Sample]:
    return [Sample(rate, 1.0, 2.0) for rate in rates]


async def test_cases_with_as_many_in_flight_are_neighbours_and_every_other_round_goes_backwards() -> None:
    order: list[tuple[str, int]] = []

    def measure(name: str) -> object:
        async def one(in_flight: int, seconds: float) -> Sample:
            order.append((name, in_flight))
            return Sample(1.0, 1.0, 1.0)

        return one

    clients = {RAW: measure("raw"), NATIVE: measure("native")}
    cases = [Case(RAW, 1), Case(RAW, 100), Case(NATIVE, 1), Case(NATIVE, 100), Case(GO, 100)]
    found = await measure_rounds(cases, clients, 2, 0.0, lambda text: None)  # type: ignore[arg-type]
    forth = [("raw", 1), ("native", 1), ("raw", 100), ("native", 100)]
    assert order == [*forth, *reversed(forth)]
    assert {case: len(values) for case, values in found.items()} == dict.fromkeys(cases[:4], 2)  # Go is not here


def test_a_row_is_compared_with_raw_in_the_same_rounds() -> None:
    case = Case(SESSION_INLINE, 1000)
    measured = {
        case: samples(90.0, 18.0, 80.0),
        Case(RAW, 1000): samples(5.0, 1.0, 4.0),
        Case(GO, 1000): samples(60.0, 10.0, 50.0),
    }
    found = row(case, measured, judged=True)
    assert found.data["ratio_to_raw"] == {"median": 18.0, "low": 18.0, "high": 20.0}
    assert [str(verdict) for verdict in found.verdicts] == [">= 16 x raw: met", ">= 2 x grpc-go: MISSED, 1.6"]
    assert found.cells == ("session, inline manager", "1,000", "80", "18-90", "18.00", "18.00-20.00", "1.00", "2.00")
    assert row(case, measured, judged=False).verdicts == ()


def test_a_row_without_a_baseline_says_so() -> None:
    case = Case(SESSION_INLINE, 100)
    found = row(case, {case: samples(1.0)}, judged=True)
    assert found.data["ratio_to_raw"] is None
    assert [verdict.met for verdict in found.verdicts] == [None, None]


def test_a_section_names_go_where_it_is_missing() -> None:
    measured = {Case(RAW, 100): samples(1.0)}
    assert "grpc-go" in section("unary", UNARY, measured, 1, 0.1).note
    assert section("scaling", SCALING, measured, 1, 0.1).note == ""


def test_every_target_is_measured() -> None:
    assert TARGETS.keys() <= set(UNARY)
