"""What a NotificationType and its branch of the union must hold."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import rpc_async
from rpc_async import dce


def test_C9_a_window_needs_a_loop_and_a_procedure() -> None:
    loop = asyncio.new_event_loop()
    wrong: Any
    for wrong in (None, 5):
        with pytest.raises(rpc_async.InvalidArgument, match="procedure"):
            dce.MessageWindow(loop, wrong)
        with pytest.raises(rpc_async.InvalidArgument):
            dce.MessageWindow(wrong, lambda window, message, wparam, state: None)
    loop.close()


def test_C10_a_window_that_is_closed_takes_no_messages() -> None:
    posted: list[Any] = []
    window = dce.MessageWindow(posted.append, lambda window, message, wparam, state: None)
    window.close()
    with pytest.raises(rpc_async.InvalidAsyncCall, match="closed"):
        window.post.bind()(rpc_async.Completion(rpc_async.AsyncEvent.CALL_COMPLETE, None, None))
    assert not posted
