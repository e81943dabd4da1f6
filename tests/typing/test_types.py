"""A user's typed servicer and client pass, and a user's mistakes do not."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def mypy(file: Path) -> set[int]:
    """Return the lines of a file that mypy complains about."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(file)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode in (0, 1), result.stderr
    return {int(line) for line in re.findall(rf"{re.escape(file.name)}:(\d+): error", result.stdout)}


def pyright(file: Path) -> set[int]:
    """Return the lines of a file that pyright complains about."""
    program = str(Path(sys.executable).parent / "pyright")
    with tempfile.TemporaryDirectory() as away:  # from the project, whose settings leave the wrong sample out
        shutil.copy(file, away)
        command = [program, "--outputjson", "--pythonpath", sys.executable, file.name]
        result = subprocess.run(command, cwd=away, capture_output=True, text=True, check=False)
    report = json.loads(result.stdout)
    assert report["summary"]["filesAnalyzed"] == 1
    return {item["range"]["start"]["line"] + 1 for item in report["generalDiagnostics"] if item["severity"] == "error"}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("checker", [mypy, pyright])
@pytest.mark.parametrize("file", [HERE / "sample.py", HERE / "wrong" / "sample.py"], ids=["right", "wrong"])
def test_the_sample(checker: object, file: Path) -> None:
    text = file.read_text().splitlines()
    marked = {number for number, line in enumerate(text, 1) if line.endswith("# wrong")}
    assert bool(marked) == ("wrong" in file.parts)
    assert "ignore" not in file.read_text().replace("without a single ignore", "")
    assert callable(checker)
    assert checker(file) == marked
