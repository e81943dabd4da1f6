"""What may be given as `notify=`, and what takes a notification for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, TypeAlias

from rpc_async.errors import InvalidArgument, InvalidAsyncCall, QueueClosed
from rpc_async.mailbox import Mailbox
from rpc_async.notification.apc import Apc
from rpc_async.notification.completion import Completion, take
from rpc_async.notification.post import Post
from rpc_async.notification.queue import CompletionQueue
from rpc_async.notification.sinks import Sink, call_routine

__all__ = ["Target", "bind"]

Target: TypeAlias = asyncio.Event | threading.Event | CompletionQueue | Apc | Post | Callable[[Completion], Any]
"""What may be told (C9).

- A `CompletionQueue`: many calls, one queue.
- A `threading.Event`, which is set at once.
- An `asyncio.Event`, which is set on its own loop: the one that it was waited for on, or else the one that runs where
  it is given.
- An `Apc`: a routine that runs in the thread that gives it, while that thread waits alertably.
- A `Post`: a routine that runs in a foreign loop.
- Any other callable: called soon with a `Completion`, on the event loop of the call's channel or server. It must not
  block; what it raises is logged.

A routine runs in the context (`contextvars`) in which it was named, as asyncio's own callbacks do.
"""


def bind(target: Target, mailbox: Mailbox) -> Sink:
    """Return what takes notifications for a target, from any thread.

    Args:
        target: The user's.
        mailbox: The way into the loop that plain callables are called on.

    Raises:
        InvalidArgument: It is not a target, or an `asyncio.Event` of no known loop.
        QueueClosed: It is a queue that is closed.
    """
    if isinstance(target, CompletionQueue):
        if target.closed:
            raise QueueClosed(f"notify={target!r}: it is closed, and would be told nothing")
        return target.put
    if isinstance(target, (Apc, Post)):
        return target.bind()
    if isinstance(target, asyncio.Event):
        return _asyncio_event(target)
    if isinstance(target, threading.Event):
        return _threading_event(target)
    if callable(target):
        return _callable(target, mailbox)
    raise InvalidArgument(
        f"notify={target!r}: an asyncio.Event, a threading.Event, a CompletionQueue, an Apc, a Post, or something to "
        "call with a Completion"
    )


def _threading_event(event: threading.Event) -> Sink:
    def put(completion: Completion) -> None:
        take(completion)
        event.set()

    return put


def _asyncio_event(event: asyncio.Event) -> Sink:
    loop: asyncio.AbstractEventLoop | None = getattr(event, "_loop", None)  # known once somebody has had to wait
    if loop is None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise InvalidArgument(
                f"notify={event!r}: an asyncio.Event is given where its event loop runs; in a thread, give a "
                "threading.Event, or Post(loop, lambda completion: event.set())"
            ) from None
    known = loop

    def set_event(completion: Completion) -> None:
        take(completion)
        event.set()

    def put(completion: Completion) -> None:
        if asyncio._get_running_loop() is known:
            set_event(completion)
            return
        try:
            known.call_soon_threadsafe(set_event, completion)
        except RuntimeError:
            raise InvalidAsyncCall("the event loop of its asyncio.Event is closed") from None

    return put


def _callable(routine: Callable[[Completion], Any], mailbox: Mailbox) -> Sink:
    context = copy_context()

    def put(completion: Completion) -> None:
        if not mailbox.post(call_routine, context, routine, completion):
            call_routine(context, routine, completion)  # the loop is closed: there is nobody else to do it

    return put
