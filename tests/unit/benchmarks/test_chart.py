"""What the chart shows; how it looks is for eyes."""

from __future__ import annotations

from typing import Any

from benchmarks.chart import Bar, Line, bars, bound, lines


def row(name: str, in_flight: int, rate: float) -> dict[str, Any]:
    spread = {"median": rate, "low": rate - 1, "high": rate + 1}
    return {"name": name, "wire": "session", "in_flight": in_flight, "calls_per_second": spread}


ROWS = {"rows": [row("one", 100, 5.0), row("one", 1, 2.0), row("two", 100, 7.0)]}


def test_bars_are_the_cases_with_100_in_flight() -> None:
    assert bars(ROWS) == [Bar("one", "session", 5.0, 4.0, 6.0), Bar("two", "session", 7.0, 6.0, 8.0)]


def test_a_line_goes_through_one_clients_cases_in_order() -> None:
    assert lines(ROWS) == [Line("one", "session", (1, 100), (2.0, 5.0)), Line("two", "session", (100,), (7.0,))]


def test_one_bar_that_dwarfs_the_others_is_cut_off() -> None:
    def of(*highs: float) -> list[Bar]:
        return [Bar("", "raw", high, high, high) for high in highs]

    assert bound(of(10.0, 100.0, 20.0)) == 20.0
    assert bound(of(10.0, 50.0, 20.0)) == 50.0
    assert bound(of(10.0)) == 10.0
