"""`post.py` and `tk.py`: told in a foreign loop; a loop that is closed loses what it is told, and no more."""

from __future__ import annotations

import asyncio
import queue
import threading
import tkinter
from collections.abc import Callable
from typing import Any

import pytest

from rpc_async import AsyncEvent, CannotSupport, Completion, InvalidArgument, Post
from rpc_async.notification import tk as tk_module
from rpc_async.notification.sinks import deliver
from tests.harness import PATIENCE, logged, until

CALLS = 1000


def completion(key: object) -> Completion:
    return Completion(AsyncEvent.CALL_COMPLETE, "the call", key)


class OwnLoop:
    """A loop such as many programs have: a thread that calls what is put into its queue."""

    def __init__(self) -> None:
        self._functions: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._open = True

    def post(self, function: Callable[[], object]) -> None:
        if not self._open:
            raise OSError("this loop has ended")
        self._functions.put(function)

    def run(self) -> None:
        while (function := self._functions.get()) is not None:
            function()

    def end(self) -> None:
        self._open = False
        self._functions.put(None)


def put_from_threads(post: Post) -> None:
    """Put from four threads."""

    def put(first: int) -> None:
        for number in range(first, first + CALLS // 4):
            post.bind()(completion(number))

    threads = [threading.Thread(target=put, args=(first,)) for first in range(0, CALLS, CALLS // 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def test_C9_told_on_an_asyncio_loop() -> None:
    got: list[tuple[Any, int]] = []
    post = Post(asyncio.get_running_loop(), lambda told: got.append((told.key, threading.get_ident())))
    await asyncio.to_thread(put_from_threads, post)
    await until(lambda: len(got) == CALLS)
    assert sorted(key for key, _ in got) == list(range(CALLS))
    assert {where for _, where in got} == {threading.get_ident()}


def test_C9_told_on_a_loop_of_the_users_own() -> None:
    loop, got = OwnLoop(), list[tuple[Any, str]]()
    thread = threading.Thread(target=loop.run, name="foreign")
    thread.start()
    put_from_threads(Post(loop.post, lambda told: got.append((told.key, threading.current_thread().name))))
    loop.end()
    thread.join(PATIENCE)
    assert sorted(key for key, _ in got) == list(range(CALLS))
    assert {where for _, where in got} == {"foreign"}


def test_C9_told_in_tk() -> None:
    tcl = tkinter.Tcl()  # Tk's own event loop, without a display
    got: list[tuple[Any, int]] = []
    post = Post(tcl, lambda told: got.append((told.key, threading.get_ident())))
    putting = threading.Thread(target=put_from_threads, args=(post,))
    putting.start()
    while len(got) < CALLS:
        tcl.tk.dooneevent()  # waits for an event
    putting.join()
    assert sorted(key for key, _ in got) == list(range(CALLS))
    assert {where for _, where in got} == {threading.get_ident()}
    post.bind()(completion("on its way when closed"))
    post.close()
    assert got[-1][0] == "on its way when closed"
    post.close()  # again: nothing


def test_a_tk_that_does_not_come_round_is_sent_so_many_and_no_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tk_module, "MAX_WAITING", 3)
    got: list[object] = []
    post = Post(tkinter.Tcl(), got.append)
    for key in range(4):
        deliver(post.bind(), completion(key))
    assert len(logged(caplog)) == 1
    assert "does not come round" in caplog.text
    post.close()
    assert got == [completion(key) for key in range(3)]


def test_a_tk_that_cannot_wait_for_a_socket() -> None:
    class OfWindows:
        tk = object()

    with pytest.raises(CannotSupport, match="CompletionQueue"):
        Post(OfWindows(), print)


def test_what_the_routine_raises_is_logged_and_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    got: list[object] = []

    def routine(told: Completion) -> None:
        if told.key == "bad":
            raise KeyError
        got.append(told.key)

    post = Post(lambda function: function(), routine)
    for key in ("bad", 1):
        deliver(post.bind(), completion(key))
    assert got == [1]
    assert [record.getMessage() for record in logged(caplog)] == [
        "'the call': the routine that was told of CALL_COMPLETE raised"
    ]


def test_a_loop_that_ended_loses_the_notification_which_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    own = OwnLoop()
    own.end()
    closed = asyncio.new_event_loop()
    closed.close()
    post = Post(lambda function: function(), print)
    post.close()
    for put, why in (
        (Post(own.post, print).bind(), "its target raised"),
        (Post(closed, print).bind(), "is closed"),
        (post.bind(), "the Post was closed"),
    ):
        caplog.clear()
        deliver(put, completion(1))
        assert len(logged(caplog)) == 1
        assert logged(caplog)[0].getMessage().startswith("'the call': CALL_COMPLETE was not delivered: ")
        assert why in caplog.text


def test_what_a_post_is_made_of() -> None:
    bad: Any = 1
    with pytest.raises(InvalidArgument, match="asyncio loop"):
        Post(bad, print)
    with pytest.raises(InvalidArgument, match="routine"):
        Post(lambda function: function(), bad)
