"""A lock that leaves something out makes the first command depend on what the index holds that day."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEV = ROOT / "requirements/dev.txt"


def check(lock: Path) -> tuple[int, str]:
    command = (sys.executable, str(ROOT / "requirements/check.py"), str(lock))
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.returncode, done.stderr


def test_the_lock_is_closed_and_is_what_is_installed() -> None:
    assert check(DEV) == (0, "")


@pytest.mark.parametrize(
    ("written", "instead", "told"),
    [
        ("coverage[toml]==", "coverage==", "pytest-cov needs coverage[toml]"),
        ("pluggy==", "another==", "pytest needs pluggy"),
        ("pytest==", "pytest==0.", "installed is"),
        ("pytest-cov==", "pytest-cov>=", "not held to one version"),
    ],
)
def test_what_is_left_out_of_a_lock_is_found(tmp_path: Path, written: str, instead: str, told: str) -> None:
    text = DEV.read_text()
    assert text.count(f"\n{written}") == 1
    lock = tmp_path / "lock.txt"
    lock.write_text(text.replace(f"\n{written}", f"\n{instead}"))
    code, errors = check(lock)
    assert code == 1
    assert told in errors


def test_every_environment_installs_its_lock_and_nothing_else() -> None:
    installs = [line for line in (ROOT / "Makefile").read_text().splitlines() if "--require-hashes" in line]
    locks = sorted(path.name for path in (ROOT / "requirements").glob("*.txt"))
    assert len(installs) == len(locks) == 4
    for line in installs:
        assert "--no-deps" in line
