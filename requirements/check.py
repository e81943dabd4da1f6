"""Is a lock closed, and is it what is installed? Run by the Python of the environment that it is for.

    .venv/bin/python requirements/check.py requirements/dev.txt

A lock that leaves out what one of its packages requires makes an installer look for it in the index, which holds
something else another day. `pip check` does not look at extras; this does: what each locked package requires, with the
extras that are asked of it, on each Python that we support, must be in the lock, in a version that satisfies it; and
what is locked for this Python must be installed, in that version.
"""

from __future__ import annotations

import importlib.metadata as metadata
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from pip._vendor.packaging.markers import default_environment  # each environment has pip, and it has this
from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name

__all__ = ["faults_of", "read_lock"]

PYTHONS = ("3.11", "3.12", "3.13")
_ENTRY = re.compile(r"^([A-Za-z0-9][^#\s].*?)\s*\\?$", re.MULTILINE)


def read_lock(text: str) -> list[Requirement]:
    """Return what a lock names, each with its extras, its version and its marker."""
    return [Requirement(entry) for entry in _ENTRY.findall(text)]


def faults_of(lock: Iterable[Requirement]) -> Iterator[str]:
    """Say what is wrong with a lock in this environment; nothing, if it is closed and installed."""
    entries = list(lock)
    for entry in entries:
        pins = [pin.version for pin in entry.specifier if pin.operator == "=="]
        if len(pins) != 1:
            yield f"{entry}: not held to one version"
        elif entry.marker is None or entry.marker.evaluate():
            yield from _installed(entry, pins[0])
            for python in PYTHONS:
                yield from _closed(entry, entries, {**default_environment(), "python_version": python,
                                                    "python_full_version": f"{python}.0"})  # fmt: skip


def _installed(entry: Requirement, version: str) -> Iterator[str]:
    try:
        found = metadata.version(entry.name)
    except metadata.PackageNotFoundError:
        yield f"{entry.name}: locked at {version}, and not installed"
    else:
        if found != version:
            yield f"{entry.name}: locked at {version}, and installed is {found}"


def _closed(entry: Requirement, entries: list[Requirement], environment: dict[str, str]) -> Iterator[str]:
    try:
        needed = [Requirement(text) for text in metadata.requires(entry.name) or ()]
    except metadata.PackageNotFoundError:
        return
    for need in needed:
        if need.marker is not None and not any(
            need.marker.evaluate({**environment, "extra": extra}) for extra in ("", *entry.extras)
        ):
            continue
        named = [one for one in entries if canonicalize_name(one.name) == canonicalize_name(need.name)]
        fitting = [
            one
            for one in named
            if (one.marker is None or one.marker.evaluate(environment)) and need.extras <= one.extras
            and all(need.specifier.contains(pin.version, prereleases=True) for pin in one.specifier)
        ]  # fmt: skip
        if not fitting:
            python = environment["python_version"]
            yield f"{entry.name} needs {need} on Python {python}; the lock has {', '.join(map(str, named)) or 'none'}"


if __name__ == "__main__":
    faults = [f"{name}: {fault}" for name in sys.argv[1:] for fault in faults_of(read_lock(Path(name).read_text()))]
    print("\n".join(faults), file=sys.stderr, end="\n" if faults else "")
    sys.exit(bool(faults))
