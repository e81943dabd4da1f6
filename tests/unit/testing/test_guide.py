"""The examples of `docs/testing.md` run as they stand."""

from __future__ import annotations

import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

TEXT = (Path(__file__).parents[3] / "docs" / "testing.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
NAMES = re.findall(r"^(?:async )?def (test_\w+)", TEXT, re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_an_example(name: str) -> None:
    names: dict[str, Any] = {}
    for block in BLOCKS:
        exec(compile(block, "docs/testing.md", "exec"), names)
    result = names[name]()
    if inspect.iscoroutine(result):
        asyncio.run(result)


def test_all_examples_are_found() -> None:
    assert len(NAMES) == len(BLOCKS) - 1 == 6
