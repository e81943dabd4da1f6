"""What `AsyncCall.request_cancel` returns: the question to the server, and whether it got there."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from rpc_async.latch import Latch
from rpc_async.mailbox import Mailbox
from rpc_async.status import RpcStatus

__all__ = ["CancelRequest"]


class CancelRequest(Latch):
    """A non-abortive cancel on its way (C5). Need not be looked at: the verdict is the call's own outcome.

    Await it, or use `result()` in a thread, to learn whether the server was told:

    - OK: it was. What it then does settles the call.
    - CANNOT_SUPPORT: the server, or the handler that serves the call, cannot be asked: `cancel()` aborts.
    - NO_CALL_ACTIVE: the call settled first; nobody was asked (C7).
    - Another status: the server could not be told, for that reason.
    """

    __slots__ = ("_status",)

    def __init__(self, mailbox: Mailbox) -> None:
        super().__init__(mailbox)
        self._status: RpcStatus | None = None

    @property
    def status(self) -> RpcStatus:
        """ASYNC_CALL_PENDING until it is known whether the server was told, then the result."""
        return RpcStatus.ASYNC_CALL_PENDING if self._status is None else self._status

    def result(self, timeout: float | None = None) -> RpcStatus:
        """Block this thread until it is known whether the server was told.

        Args:
            timeout: Seconds; None waits for ever.

        Raises:
            TimeoutError: It was not known in time.
        """
        if not self.wait(timeout):
            raise TimeoutError(f"{self!r}: not known after {timeout} s whether the server was told")
        return self.status

    def __await__(self) -> Generator[Any, None, RpcStatus]:
        return self._wait_here(lambda: self.status)

    def __repr__(self) -> str:
        return f"<CancelRequest {self.status.name}>"

    def _happened(self) -> bool:
        return self._status is not None

    def answer(self, status: RpcStatus) -> None:
        """It is known now; the first answer stays."""
        with self._mailbox.lock:
            if self._status is not None:
                return
            self._status = status
        self._release()
