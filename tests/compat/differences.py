"""The table of intended differences, and its place in docs/grpc.md.

`python -m tests.compat.differences` writes the table into the document.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from tests.compat.lab import Mix, Seen

ROOT: Final = Path(__file__).parents[2]
DOCUMENT: Final = ROOT / "docs" / "grpc.md"
BEGIN: Final = "<!-- intended differences: begin -->"
END: Final = "<!-- intended differences: end -->"


class Difference(NamedTuple):
    """One, in one case, in some mixes."""

    row: str
    case: str
    mixes: str
    seen: Seen


@functools.cache
def rows() -> tuple[dict[str, Any], ...]:
    """Return the table."""
    return tuple(yaml.safe_load((Path(__file__).parent / "differences.yaml").read_text()))


def differences() -> Iterator[Difference]:
    """Return every difference in every case."""
    for row in rows():
        for case, mixes in row.get("cases", {}).items():
            for mix, seen in mixes.items():
                yield Difference(row["name"], case, mix, seen)


def holds(mixes: str, mix: Mix) -> bool:
    """Tell whether one of the patterns names a mix."""
    return any(fnmatchcase(str(mix), pattern.strip()) for pattern in mixes.split(","))


def differences_of(case: str, mix: Mix) -> list[Difference]:
    """Return what a case sees otherwise in a mix."""
    return [one for one in differences() if one.case == case and holds(one.mixes, mix)]


def table() -> str:
    """Return the table as the document has it."""
    lines = ["| what | grpc.aio | here | why | seen in |", "|---|---|---|---|---|"]
    for row in rows():
        tests = [test for some in row.get("grpc_tests", {}).values() for test in some]
        cases = "<br>".join([f"`{case}`" for case in row.get("cases", {})] + [f"gRPC's own `{test}`" for test in tests])
        cells = (row["name"], row["grpc"], row["here"], row["why"], cases)
        lines.append("| " + " | ".join(re.sub(r"\s+", " ", cell).strip().replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(lines)


def written() -> str:
    """Return the document with the table in it."""
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    DOCUMENT.write_text(written())
