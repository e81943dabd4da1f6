"""docs/grpc.md and the tests agree: every row has tests that are there, and no difference is stale."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rpc_async.calling.call import AsyncCall
from rpc_async.calling.method import UnaryMethod
from tests.compat.differences import DOCUMENT, differences, differences_of, holds, rows, written
from tests.compat.lab import CASES, MIXES, Mix, play
from tests.compat.test_compat import MODULES

HERE = Path(__file__).parent


class Row(NamedTuple):
    """A row of the document."""

    what: str
    wire: str
    tests: tuple[str, ...]


def documented() -> list[Row]:
    """Return the rows."""
    found = re.findall(
        r"^\| (.+?) \| (session|native|per call) \| .+ \| (.+) \|$", DOCUMENT.read_text(), flags=re.MULTILINE
    )
    return [Row(what, wire, tuple(re.findall(r"`(\S+?::\w+)`", tests))) for what, wire, tests in found]


ROWS = documented()
CASES_OF_ROWS = sorted(
    {(row.wire, test.partition("::")[2]) for row in ROWS for test in row.tests if "test_" not in test}
)


def test_there_are_rows_and_each_has_tests_that_are_there() -> None:
    assert len(ROWS) == DOCUMENT.read_text().partition("| what gRPC does ")[2].partition("\n\n")[0].count("\n") - 1
    for row in ROWS:
        assert row.tests, row.what
        for test in row.tests:
            file, _, name = test.partition("::")
            assert re.search(rf"^async def {name}\(", (HERE / file).read_text(), flags=re.MULTILINE), test
            assert file.startswith("test_") or name in CASES, test


def test_every_file_of_cases_is_played() -> None:
    files = {path.stem for path in HERE.glob("*.py") if "@case(" in path.read_text()} - {"lab", "test_rows"}
    assert files == {module.__name__.rpartition(".")[2] for module in MODULES}


def test_the_document_shows_the_table_of_differences() -> None:
    assert DOCUMENT.read_text() == written(), "run: python -m tests.compat.differences"


def test_every_difference_is_of_a_case_and_in_a_mix_that_is_played() -> None:
    # That it is needed still, test_a_case_sees_the_same finds out: it asserts that the oracle sees another thing.
    for one in differences():
        assert one.case in CASES, one
        of_any_grpc = replace(CASES[one.case], since=(1, 76))
        assert any(one in differences_of(one.case, mix) for mix in MIXES if of_any_grpc.plays(mix)), one
        assert one.seen, one
    assert len({row["name"] for row in rows()}) == len(rows())


def test_at_most_twelve_of_grpcs_own_tests_differ_in_any_mix() -> None:
    for mix in MIXES:
        found = [
            test
            for row in rows()
            for mixes, tests in row.get("grpc_tests", {}).items()
            if holds(mixes, mix)
            for test in tests
        ]
        assert len(found) == len(set(found)) <= 12, mix


@pytest.mark.parametrize(("wire", "name"), CASES_OF_ROWS)
async def test_a_row_says_which_wire_its_calls_take(wire: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[AsyncCall[Any]] = []
    original = UnaryMethod.__call__

    def begin(method: Any, *args: Any, **kwargs: Any) -> Any:
        call: AsyncCall[Any] = original(method, *args, **kwargs)
        begun.append(call)
        return call

    monkeypatch.setattr(UnaryMethod, "__call__", begin)
    await play(CASES[name], Mix("auto", "ours"))
    wires = {call.transport for call in begun if call.transport_reason}
    if wire == "session":
        assert wires <= {"session"}
    else:
        assert "native" in wires or not wires
