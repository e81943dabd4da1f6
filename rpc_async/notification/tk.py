"""A way into Tk's event loop from any thread."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from rpc_async.errors import CannotSupport, InvalidAsyncCall

__all__ = ["TkPoster"]

_LOGGER: Final = logging.getLogger("rpc_async")

MAX_WAITING: Final = 131_072
"""Functions that wait for a Tk loop which does not come round; one more is refused."""
_READABLE: Final = 2
"""`tkinter.READABLE`; the library does not import tkinter."""


class TkPoster:
    """Has functions called by a Tk loop. Made, and closed, on Tk's own thread.

    `after` and `event_generate` are no way in: called from another thread, they wait until Tk's loop has come round.
    A socket is one, and Tk's loop waits for it as for its display.
    """

    __slots__ = ("_closed", "_functions", "_read", "_tk", "_wakened", "_write")

    def __init__(self, tk: Any) -> None:
        """Make one for a Tk interpreter, which is any widget's `tk`."""
        if not hasattr(tk, "createfilehandler"):
            raise CannotSupport(
                "this Tk cannot wait for a socket: have the calls notify a CompletionQueue, and look into it from "
                "`after` with get_many(timeout=0)"
            )
        self._tk = tk
        self._functions: deque[Callable[[], object]] = deque()
        self._wakened = False
        self._closed = False
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        tk.createfilehandler(self._read, _READABLE, self._readable)

    def __call__(self, function: Callable[[], object]) -> None:
        """Have the function called soon, from any thread. Raises InvalidAsyncCall if it will not be."""
        if self._closed or len(self._functions) >= MAX_WAITING:
            why = "was closed" if self._closed else f"does not come round, and {MAX_WAITING} wait for it"
            raise InvalidAsyncCall(f"the way into Tk's loop {why}")
        self._functions.append(function)
        if not self._wakened:  # looked at after the append, as in `Mailbox`
            self._wakened = True
            with contextlib.suppress(OSError):  # closed this moment, which runs what is there
                self._write.send(b"\0")

    def close(self) -> None:
        """Take nothing more, and call now what waits."""
        if not self._closed:
            self._closed = True
            self._tk.deletefilehandler(self._read)
            self._read.close()
            self._write.close()
            self._run()

    def _readable(self, file: object, mask: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._read.recv(64)
        self._wakened = False
        self._run()

    def _run(self) -> None:
        with contextlib.ExitStack() as stack:  # whatever one of them raises, all are called
            for function in reversed([self._functions.popleft() for _ in range(len(self._functions))]):
                stack.callback(function)
