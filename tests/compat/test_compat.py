"""Every case in every mix sees what gRPC's own client and server see, but for what `differences.yaml` says."""

from __future__ import annotations

import pytest

from tests.compat import (
    calls,
    connections,
    contexts,
    ends,
    failures,
    interceptors,
    metadata,
    options,
    security,
    servers,
)
from tests.compat.differences import differences_of
from tests.compat.lab import CASES, MIXES, ORACLE, Case, Mix, Seen, play

MODULES = (calls, connections, contexts, ends, failures, interceptors, metadata, options, security, servers)
"""Importing them registers their cases."""

ORACLES: dict[str, Seen] = {}


async def oracle(one: Case) -> Seen:
    """Play a case with gRPC's own client and server, once a run."""
    if one.name not in ORACLES:
        ORACLES[one.name] = await play(one, ORACLE)
    return ORACLES[one.name]


@pytest.mark.parametrize(
    ("one", "mix"),
    [pytest.param(one, mix, id=f"{one}-{mix}") for one in CASES.values() for mix in MIXES if one.plays(mix)],
)
async def test_a_case_sees_the_same(one: Case, mix: Mix) -> None:
    expected = {**await oracle(one)}
    for difference in differences_of(one.name, mix):
        for key, value in difference.seen.items():
            assert expected[key] != value, f"a difference that is none any more: {key}"
            expected[key] = value
    assert await play(one, mix) == expected
