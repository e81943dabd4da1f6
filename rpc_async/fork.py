"""A process that forks after it has used gRPC: the child cannot go on with it, and is told so at once.

gRPC's threads are not there in a forked child, and its locks are as they were at that moment: whatever a child does
with it may hang or crash, with a new channel too. So a child uses gRPC no more: what it opens is refused, what it
inherited is closed, as it sees it, and the calls that were outstanding are its parent's. The parent goes on.
Whoever starts processes by `spawn` or `forkserver`, or forks before anything is opened, meets none of this.

gRPC's own support for forks starts its threads anew in the child; with asyncio, where other threads are inside gRPC,
they crash there. So it is turned off (`_environment.py`), unless gRPC was loaded before this library, or the
environment says otherwise.
"""

from __future__ import annotations

import contextlib
import gc
import os
from typing import Any, Final, Protocol
from weakref import WeakSet

from rpc_async.errors import ForkedProcess

__all__ = ["Inherited", "forked", "refuse_in_child", "use"]


class Inherited(Protocol):
    """What a forked child inherits, and must not use."""

    def after_fork(self) -> None:
        """This is the child: let go of everything, and touch nothing of gRPC's. No other thread is there."""


class _Process:
    used = False
    """gRPC was used in this process."""
    forked = False
    """It was used in the process that this one was forked from."""


_INHERITED: Final[WeakSet[Any]] = WeakSet()


def use(what: object, inherited: Inherited) -> None:
    """Note that gRPC is used from now on, and by whom. Raises ForkedProcess in a child that cannot."""
    refuse_in_child(what)
    _Process.used = True
    _INHERITED.add(inherited)


def forked() -> bool:
    """Tell whether this process was forked from one that had used gRPC."""
    return _Process.forked


def refuse_in_child(what: object) -> None:
    """Raise ForkedProcess in a child that cannot use gRPC."""
    if _Process.forked:
        raise ForkedProcess(
            f"{what!r}: this process was forked from one that had used gRPC, which cannot go on in a forked child: "
            "start processes by multiprocessing's 'spawn' or 'forkserver', or fork before the first channel or server "
            "is opened"
        )


def _after_fork() -> None:
    if not _Process.used:
        return
    _Process.forked = True
    # gRPC's objects must not be destroyed here, which would wait for threads that are not there: a ring is never freed
    # that was taken out of the collector's sight, at the end of the process neither. Nor is what is garbage already.
    ring: list[object] = [*_INHERITED]
    ring.append(ring)
    gc.freeze()
    for inherited in tuple(_INHERITED):
        with contextlib.suppress(Exception):  # nobody can be told here, and the others have their turn
            inherited.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
