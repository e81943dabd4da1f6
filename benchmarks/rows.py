"""The rows of `make bench` that two trees can be compared by: all that have a rate, but for the baselines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from benchmarks.cases import Case
from benchmarks.large import LARGE
from benchmarks.unary import UNARY

__all__ = ["ROWS"]

ROWS: Final[Mapping[str, Case]] = {
    str(case): case for case in (*UNARY, *LARGE) if case.client.wire in ("session", "native")
}
"""By their names: "session, inline manager, 100 in flight"."""
