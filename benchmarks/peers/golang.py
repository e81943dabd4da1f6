"""grpc-go's program, which is built from `go/` where Go is here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

__all__ = ["build", "compiler", "program"]

_SOURCE = Path(__file__).parent / "go"
_PROGRAM = _SOURCE / "build" / "echo"
_USUAL = "/usr/local/go/bin/go"
"""Where Go's own archive is unpacked to, often without being on the path."""
_BUILD_SECONDS = 300.0


def compiler() -> str | None:
    """Return the go command, or None where there is none."""
    return shutil.which("go") or shutil.which(_USUAL)


def program() -> Path | None:
    """Return the program, if it was built from the sources as they are."""
    if not _PROGRAM.exists():
        return None
    sources = [path for path in _SOURCE.iterdir() if path.is_file()]
    return _PROGRAM if _PROGRAM.stat().st_mtime >= max(path.stat().st_mtime for path in sources) else None


def build(*, only_again: bool = False) -> Path | None:
    """Return the program, and build it if need be; None where it cannot be built. Go tells why on stderr.

    Args:
        only_again: Do not build it where it never was, which may take a minute.
    """
    go = compiler()
    if program() is None and go is not None and (_PROGRAM.exists() or not only_again):
        try:
            command = [go, "build", "-o", str(_PROGRAM), "."]
            done = subprocess.run(command, cwd=_SOURCE, check=False, timeout=_BUILD_SECONDS)
        except subprocess.TimeoutExpired:
            return None
        if done.returncode == 0:
            _PROGRAM.touch()  # Go leaves a program alone that comes out the same
    return program()
