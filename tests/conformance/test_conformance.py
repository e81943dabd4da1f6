"""The rules as data: every case of every file, in both forms, over every transport.

What a case proves is in its name. docs/semantics.md names it as a test.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.conformance.forms import FORMS
from tests.conformance.runner import Case, cases, run
from tests.harness import Wire


def _ways() -> list[Any]:
    ways = []
    for case in cases():
        for form in case.forms:
            for transport in case.transports[:1] if case.local else case.transports:
                name = f"{case.name}-{form}" if case.local else f"{case.name}-{form}-{transport}"
                ways.append(pytest.param(case, form, transport, id=name))
    return ways


@pytest.mark.parametrize(("case", "form", "transport"), _ways())
async def test_conformance(case: Case, form: str, transport: Wire) -> None:
    await run(case, FORMS[form], transport)


def test_no_two_cases_have_one_name() -> None:
    names = [case.name for case in cases()]
    assert len(names) == len(set(names))


async def test_a_case_that_expects_something_else_fails() -> None:
    case = next(case for case in cases() if case.name == "H2_row_18_status_without_a_call")
    for wrong in ({"status": "a", "is": "OK"}, {"look": "a", "at": "Lock", "is": 1}):
        with pytest.raises(AssertionError, match="step 4"):
            await run(replace(case, steps=[*case.steps, wrong]), FORMS["facade"], "native")
    wrong_reply = [{"begin": "a", "routine": "completes"}, {"settles": "a"}, {"complete": "a", "gives": "another"}]
    with pytest.raises(AssertionError, match="from the routine"):
        await run(replace(case, steps=wrong_reply, local=False), FORMS["facade"], "native")
