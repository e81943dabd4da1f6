"""`docs/semantics.md` lists, for every rule, the tests that prove it: all of them, and none that is not there.

`python -m tests.unit.test_docs` writes the tests into the rows that are there.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
RULE = re.compile(r"(?<![A-Za-z0-9])([SCPH]\d+)(?![A-Za-z0-9])")
PROVEN = (
    {f"S{n}" for n in range(1, 18)}
    | {f"C{n}" for n in range(1, 16)}
    | {f"H{n}" for n in range(1, 6)}
    | {f"P{n}" for n in range(1, 7)}
)


def rules_in_tests() -> dict[str, set[str]]:
    """Return rule → tests: from the names of tests and of conformance cases, and the state machines' docstrings."""
    found: dict[str, set[str]] = defaultdict(set)
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        text = file.read_text()
        machine = re.search(r"class (\w+)\(RuleBasedStateMachine\)", text)
        if machine:
            for rule in set(RULE.findall(text)):
                found[rule].add(f"{file.relative_to(ROOT)}::Test{machine[1]}")
        for name in re.findall(r"^(?:async )?def (test_\w+)", text, re.MULTILINE):
            for rule in re.findall(r"(?<=_)([SCPH]\d+)(?=_)", name):
                found[rule].add(f"{file.relative_to(ROOT)}::{name}")
    for file in sorted((ROOT / "tests" / "conformance").glob("*.yaml")):
        for name in re.findall(r"^- name: (\w+)", file.read_text(), re.MULTILINE):
            for rule in re.findall(r"(?:^|(?<=_))([SCPH]\d+)(?=_)", name):
                found[rule].add(f"{file.relative_to(ROOT)}::{name}")
    return found


def rules_in_docs() -> dict[str, set[str]]:
    """Return rule → tests, as the document lists them."""
    text = (ROOT / "docs" / "semantics.md").read_text()
    return {
        row[1]: set(re.findall(r"`(tests/\S+?::\w+)`", row[0]))
        for row in re.finditer(r"^\| ([SCPH]\d+) \|.*$", text, re.MULTILINE)
    }


def test_every_rule_names_its_tests_and_every_test_is_named() -> None:
    documented, proven = rules_in_docs(), rules_in_tests()
    assert {rule for rule, tests in documented.items() if tests} == set(proven)
    for rule, tests in proven.items():
        assert documented[rule] == tests, rule


def test_every_rule_of_this_version_has_a_test() -> None:
    assert set(rules_in_tests()) >= PROVEN


def test_the_changelog_has_the_version_or_an_unreleased_part() -> None:
    assert "## Unreleased" in (ROOT / "CHANGELOG.md").read_text()


def write_rows() -> None:
    """Write the tests of each rule into its row."""
    path, proven = ROOT / "docs" / "semantics.md", rules_in_tests()

    def row(match: re.Match[str]) -> str:
        tests = "<br>".join(f"`{test}`" for test in sorted(proven.get(match[1], ())))
        return f"| {match[1]} | {match[2]} | {tests} |"

    path.write_text(re.sub(r"^\| ([SCPH]\d+) \| (.*?) \|[^|]*\|$", row, path.read_text(), flags=re.MULTILINE))


if __name__ == "__main__":
    write_rows()
