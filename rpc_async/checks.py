"""What users may give: a value that is not of its kind is refused where it is given, and not where it is used first."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from rpc_async.errors import InvalidArgument

__all__ = [
    "checked_code",
    "checked_compression",
    "checked_count",
    "checked_messages",
    "checked_options",
    "checked_seconds",
    "checked_text",
    "checked_timeout",
    "more_than_0",
]

_LONGEST: Final = 1e9
"""Seconds, some 30 years: no timer of any event loop overflows, and what is longer may as well be this."""


def checked_seconds(name: str, seconds: Any, *, optional: bool = True) -> float | None:
    """Return a number of seconds, infinity included. Raises InvalidArgument."""
    if seconds is None and optional:
        return None
    number = _seconds(name, seconds, "a number of seconds, 0 or more")
    if number < 0:
        raise InvalidArgument(f"{name} {seconds!r}: a number of seconds, 0 or more")
    return number


def more_than_0(name: str, seconds: Any) -> float:
    """Return a number of seconds, infinity included. Raises InvalidArgument."""
    number = _seconds(name, seconds, "a number of seconds, more than 0")
    if number <= 0:
        raise InvalidArgument(f"{name} {seconds!r}: a number of seconds, more than 0")
    return number


def checked_timeout(seconds: Any, name: str = "timeout") -> float:
    """Return the seconds after which something is given up: 0 or less is at once. Raises InvalidArgument.

    What is longer than 1e9 seconds, infinity too, is as long as that: gRPC takes a deadline beyond the year 2262 for
    one that has passed.
    """
    return _seconds(name, seconds, "a number of seconds, or None for none; no call was begun, or waited for")


def _is_number(value: Any) -> bool:
    return type(value) is float or (isinstance(value, numbers.Real) and not isinstance(value, bool))


def _seconds(name: str, seconds: Any, what: str) -> float:
    if not _is_number(seconds):
        raise InvalidArgument(f"{name} {seconds!r}: {what}")
    try:
        number = float(seconds)
    except OverflowError:
        number = math.inf if seconds > 0 else -math.inf
    if math.isnan(number):
        raise InvalidArgument(f"{name} {seconds!r}: {what}")
    return max(min(number, _LONGEST), -_LONGEST)


def checked_count(name: str, count: Any) -> int | None:
    """Return a whole number from 1. Raises InvalidArgument."""
    if count is None:
        return None
    if isinstance(count, bool) or not isinstance(count, numbers.Integral) or count < 1:
        raise InvalidArgument(f"{name} {count!r}: a whole number, at least 1, or None")
    return int(count)


def checked_options(options: Any) -> tuple[tuple[str, Any], ...]:
    """Return gRPC's channel arguments as pairs. Raises InvalidArgument."""
    given: Any = options or ()
    try:
        pairs: tuple[Any, ...] = tuple(given)
    except TypeError:
        raise InvalidArgument(f"options {options!r}: pairs of a name and a value") from None
    if isinstance(given, (str, bytes, Mapping)):
        raise InvalidArgument(f"options {options!r}: pairs of a name and a value")
    for pair in pairs:
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[0], (str, bytes))):
            raise InvalidArgument(f"options: {pair!r} is no pair of a name and a value")
    named = tuple((name if isinstance(name, str) else name.decode(errors="replace"), value) for name, value in pairs)
    for name, value in named:
        if name in ("grpc.max_send_message_length", "grpc.max_receive_message_length") and not (
            isinstance(value, int) and -1 <= value < 2**31
        ):
            raise InvalidArgument(f"options: {name} is {value!r}, and must be a number of bytes, or -1 for no limit")
    return named


def checked_compression(compression: Any) -> grpc.Compression | None:
    """Return it. Raises InvalidArgument."""
    if compression is not None and not isinstance(compression, grpc.Compression):
        raise InvalidArgument(f"compression {compression!r}: a grpc.Compression, or None")
    return compression


def checked_code(code: Any) -> int | grpc.StatusCode:
    """Return what a call is aborted with, if it is a number or one of gRPC's codes. Raises InvalidArgument."""
    if isinstance(code, bool) or not isinstance(code, (int, grpc.StatusCode)):
        raise InvalidArgument(f"code {code!r}: a number, an RpcStatus or a grpc.StatusCode; nothing changed (S6)")
    return code


def checked_text(name: str, text: Any) -> str:
    """Return a text that can be sent. Raises InvalidArgument."""
    if not isinstance(text, str):
        raise InvalidArgument(f"{name} {text!r}: must be text; nothing changed")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(f"{name} {text!r}: has characters that UTF-8 does not; nothing changed") from None
    return text


def checked_messages(name: str, messages: Any) -> Sequence[Message]:
    """Return messages as a sequence. Raises InvalidArgument."""
    try:
        given = tuple(messages)
    except TypeError:
        raise InvalidArgument(f"{name} {messages!r}: protobuf messages; nothing changed") from None
    for one in given:
        if not isinstance(one, Message):
            raise InvalidArgument(f"{name}: {one!r} is no protobuf message; nothing changed")
    return given
