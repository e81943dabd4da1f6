"""`told.py`: who is told of a call, in which order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from rpc_async import AsyncCall, AsyncEvent, CannotSupport, CompletionQueue, Post
from rpc_async.core.outcome import Progress, Reply
from tests.harness import Nowhere, until

PROGRESS = (AsyncEvent.PROGRESS,)


@pytest.mark.parametrize("where", ["here", "in a thread"])
async def test_C8_the_end_is_told_after_the_progress_in_whose_middle_the_call_settles(where: str) -> None:
    call: AsyncCall[Any] = AsyncCall(Nowhere(), "/a.B/C", None)
    queue = CompletionQueue()

    def abort_first(function: Callable[[], object]) -> None:
        if where == "here":
            call.cancel()
        else:
            thread = threading.Thread(target=call.cancel)
            thread.start()
            thread.join()

    call.notify(Post(abort_first, print), events=PROGRESS)
    call.notify(queue, events=PROGRESS)
    call.report(Progress(0.5))
    assert call.done()
    await until(lambda: len(queue) == 2)
    assert [one.event for one in queue.get_many()] == [AsyncEvent.PROGRESS, AsyncEvent.CALL_COMPLETE]


async def test_targets_are_told_in_the_order_in_which_they_were_named() -> None:
    call: AsyncCall[Any] = AsyncCall(Nowhere(), "/a.B/C", None)
    queue = CompletionQueue()
    for key in range(2000):
        call.notify(queue, key)
    call.settle(Reply(b"reply"))
    assert [one.key for one in queue.get_many()] == list(range(2000))


async def test_what_a_call_cannot_tell_is_refused() -> None:
    call: AsyncCall[Any] = AsyncCall(Nowhere(), "/a.B/C", None)
    queue = CompletionQueue()
    with pytest.raises(CannotSupport, match="CLIENT_CANCEL"):
        call.notify(queue, events=(AsyncEvent.PROGRESS, AsyncEvent.CLIENT_CANCEL))
    call.notify(queue, events=(AsyncEvent.CALL_COMPLETE,))  # which is told anyway
    call.report(Progress(0.5))
    call.settle(Reply(b"reply"))
    await asyncio.sleep(0)
    assert [one.event for one in queue.get_many()] == [AsyncEvent.CALL_COMPLETE]
