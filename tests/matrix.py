"""`python -m tests.matrix`: the wheel with its oldest and its newest dependencies, on each Python that is here.

The wheel is built once. For each Python and either end of its dependencies there is an environment, into which these
and the wheel are installed, and a part of the tests that is quick and touches all of the library is run against what
was installed: there is no other `rpc_async` where they run. What pytest needs is what the lock says.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
UV = Path(sys.executable).parent / "uv"
TOOLS = ("hypothesis", "pytest", "pytest-asyncio", "pytest-timeout", "pyyaml")
"""What the tests need; the rest of the lock is for other work."""
TESTED = ("benchmarks", "client", "protos", "pyproject.toml", "server", "tests")
"""What is copied to where the tests run."""
TESTS = (
    "tests/conformance",
    "tests/unit/calling",
    "tests/unit/notification",
    "tests/unit/serving",
    "tests/unit/wire",
    "tests/integration",
)
LEFT_OUT = (
    "bulk", "closing", "facade", "faults", "fuzz", "hostile", "idle", "keepalive", "large", "porting", "programs",
    "protocol_doc", "quiet", "races", "readme", "sender", "stopping",
)  # fmt: skip
"""In the names of files: what takes long, and what is about the documents."""
SECONDS = 600.0
"""For one environment, installing included."""

_ENDS = {"oldest": "lowest-direct", "newest": "highest"}


@dataclass(frozen=True, slots=True)
class Place:
    """One environment."""

    python: str
    interpreter: Path
    end: str
    folder: Path

    def __str__(self) -> str:
        return f"Python {self.python} with its {self.end} dependencies"


class Failed(Exception):
    """A step of an environment failed; the text is what it printed."""


def interpreter(python: str) -> Path | None:
    """Find a Python of that version: on the path, or where pyenv or uv keep those that are not."""
    homes = [Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"]
    homes.append(Path(os.environ.get("UV_PYTHON_INSTALL_DIR", Path.home() / ".local" / "share" / "uv" / "python")))
    kept = [path for home in homes for path in sorted(home.glob(f"*{python}*/bin/python{python}"))]
    on_path = shutil.which(f"python{python}")  # pyenv has one there for each version that it keeps, which may not run
    ask = "import sys, venv, ensurepip; print(sys.executable, *sys.version_info[:2], sep='\\n')"
    for candidate in [*filter(None, (on_path,)), sys.executable, *map(str, kept)]:
        done = subprocess.run([candidate, "-c", ask], check=False, capture_output=True, text=True)
        if done.returncode == 0:
            found, *version = done.stdout.split("\n")[:3]
            if ".".join(version) == python:
                return Path(found)
    return None


def floors() -> dict[str, str]:
    """Return the oldest version of each of the library's own dependencies, as pyproject.toml has it."""
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    matches = [re.match(r"([\w-]+)>=([\d.]+)", dependency) for dependency in dependencies]
    return {match[1]: match[2] for match in matches if match}


def locked(names: Sequence[str]) -> list[str]:
    """Return each of these packages as the lock has it."""
    text = (ROOT / "requirements" / "dev.txt").read_text()
    return [re.findall(rf"^({re.escape(name)}==\S+)", text, re.MULTILINE)[0] for name in names]


def run(place: Place, what: str, *command: str | Path, ends: float) -> str:
    """Run a step in an environment; return what it prints."""
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    try:
        done = subprocess.run(
            command, cwd=place.folder / "run", env=variables, check=False, text=True, timeout=ends - time.monotonic(),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        said = error.output if isinstance(error.output, str) else (error.output or b"").decode(errors="replace")
        raise Failed(f"{what}: not done after {SECONDS:.0f} s\n{said}") from None
    if done.returncode:
        raise Failed(f"{what}: ended with {done.returncode}\n{done.stdout}")
    return done.stdout


def check(place: Place, wheel: Path) -> str:
    """Make the environment and run the tests in it. Returns pytest's own summary. Raises Failed."""
    ends = time.monotonic() + SECONDS
    copied = place.folder / "run"
    copied.mkdir(parents=True)
    for name in TESTED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source, copied / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules", "build")
            )
        else:
            shutil.copy(source, copied)
    venv = place.folder / "venv"
    python = venv / "bin" / "python"
    install = (UV, "pip", "install", "--quiet", "--python", python)
    run(place, "venv", place.interpreter, "-m", "venv", venv, ends=ends)
    dependencies = ("--resolution", _ENDS[place.end], "--requirement", "pyproject.toml", "--extra", "demo")
    run(place, "install", *install, *dependencies, ends=ends)
    run(place, "install the wheel", *install, "--no-deps", wheel, ends=ends)
    versions = installed(place, python, ends)
    run(place, "install pytest", *install, *locked(TOOLS), ends=ends)
    run(place, "pip check", python, "-m", "pip", "--disable-pip-version-check", "check", ends=ends)
    if installed(place, python, ends) != versions:
        raise Failed("what the tests need has changed what is tested")
    if place.end == "oldest" and not all(
        SpecifierSet(f"=={floor}").contains(versions[name]) for name, floor in floors().items()
    ):
        raise Failed(f"{versions} are not {floors()}")
    where = run(place, "import", python, "-c", "import rpc_async; print(rpc_async.__file__)", ends=ends)
    if str(venv) not in where:
        raise Failed(f"the tests would see {where}")
    tests = [str(file.relative_to(copied)) for file in sorted(chosen(copied))]
    output = run(
        place, "tests", python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *tests, ends=ends
    )
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    (summary,) = re.findall(r"^\d+ passed.*$", output, re.MULTILINE)
    return f"{summary}  ({told})"


def installed(place: Place, python: Path, ends: float) -> dict[str, str]:
    """Return the versions of the library's own dependencies that are installed."""
    ask = "import importlib.metadata as metadata, sys; print(*map(metadata.version, sys.argv[1:]))"
    names = list(floors())
    return dict(zip(names, run(place, "versions", python, "-c", ask, *names, ends=ends).split(), strict=True))


def chosen(folder: Path) -> Iterator[Path]:
    """Return the files of tests that are run."""
    for tests in TESTS:
        for file in (folder / tests).rglob("test_*.py"):
            if not any(part in file.name for part in LEFT_OUT):
                yield file


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--jobs", default=2, show_default=True, type=click.IntRange(1), help="Environments at the same time.")
@click.option("--python", "pythons", multiple=True, type=click.Choice(PYTHONS), help="Only this one; may be repeated.")
def main(jobs: int, pythons: tuple[str, ...]) -> None:
    """Build the wheel, and try it in every environment."""
    with tempfile.TemporaryDirectory() as name:
        temporary = Path(name)
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", name, str(ROOT)]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        (wheel,) = temporary.glob("*.whl")
        found = {python: interpreter(python) for python in pythons or PYTHONS}
        places = [
            Place(python, path, end, temporary / f"{python}-{end}")
            for python, path in found.items()
            if path is not None
            for end in _ENDS
        ]
        absent = [python for python, path in found.items() if path is None]
        if absent:
            print(f"not here: Python {', '.join(absent)}", flush=True)
        failed = not places
        with ThreadPoolExecutor(jobs) as pool:
            for place, future in [(place, pool.submit(check, place, wheel)) for place in places]:
                try:
                    print(f"{place}: {future.result()}", flush=True)
                except Failed as error:
                    failed = True
                    print(f"{place}: FAILED\n{error}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main(prog_name="python -m tests.matrix")
