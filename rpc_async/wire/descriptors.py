"""Which messages a method takes and gives, read from its descriptor."""

from __future__ import annotations

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

__all__ = ["reply_type", "request_type"]


def reply_type(method: str) -> type[Message] | None:
    """Return the message class that a method replies with, or None for a method that is not protobuf's.

    A generated serialiser takes a message of any type (`SerializeToString` belongs to the base class), so
    that a reply of the wrong type would be sent without a word. The descriptor knows better (S5).
    """
    return _message_type(method, "output_type")


def request_type(method: str) -> type[Message] | None:
    """Return the message class that a method takes, as `reply_type`."""
    return _message_type(method, "input_type")


def _message_type(method: str, which: str) -> type[Message] | None:
    try:
        descriptor = descriptor_pool.Default().FindMethodByName(method.lstrip("/").replace("/", "."))
    except KeyError:
        return None
    return message_factory.GetMessageClass(getattr(descriptor, which))
