"""From bytes to requests and from replies to bytes, for one method."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Final

from rpc_async.errors import BadStubData, PayloadTooLarge
from rpc_async.wire.descriptors import reply_type
from rpc_async.wire.raw import raw_bytes

__all__ = ["Codec", "MessageCodec"]

_FINAL: Final = "it was not sent, and the client gets an error (S5)"


class Codec:
    """Reads and writes a method's messages with the functions that the generated code registered."""

    __slots__ = ("_deserialize", "_max_payload", "_reply_type", "_serialize", "method")

    def __init__(
        self,
        method: str,
        deserialize: Callable[[bytes], Any] | None,
        serialize: Callable[[Any], bytes] | None,
        max_payload: int,
    ) -> None:
        self.method: Final[str] = method
        self._deserialize = deserialize
        self._serialize = serialize
        self._reply_type = None if serialize is None else reply_type(method)  # None: the user brings bytes
        self._max_payload = max_payload

    def decode(self, payload: bytes) -> Any:
        """Read a request.

        Raises:
            BadStubData: It does not parse.
        """
        if self._deserialize is None:
            return payload
        try:
            return self._deserialize(payload)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # whatever the user's function raises, it ends this call and no other
            raise BadStubData(f"{self.method}: the request ({len(payload)} bytes) does not parse: {error}") from error

    def encode(self, reply: Any, what: str = "reply", then: str = _FINAL) -> Any:
        """Freeze a reply (S3): what is returned shares nothing with the message.

        Args:
            reply: The reply, or a chunk of a pipe.
            what: What it is, for an error's text.
            then: What becomes of it then.

        Raises:
            BadStubData: It is of the wrong type, or cannot be serialised.
            PayloadTooLarge: It is over the size limit.
        """
        if type(reply) is not self._reply_type and not self._accepts(reply):
            assert self._reply_type is not None
            raise BadStubData(
                f"{self.method}: the {what} is a {type(reply).__name__}, and must be a {self._reply_type.__name__}: "
                f"{then}"
            )
        try:
            if self._serialize is None:  # gRPC's server takes text, too
                payload = raw_bytes(reply.encode() if isinstance(reply, str) else reply)
            else:
                payload = self._serialize(reply)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # as above
            raise BadStubData(f"{self.method}: the {what} cannot be serialised: {then}: {error}") from error
        if len(payload) > self._max_payload:
            raise PayloadTooLarge(
                f"{self.method}: the {what} takes {len(payload)} bytes and may take {self._max_payload}: {then}"
            )
        return payload

    def _accepts(self, reply: Any) -> bool:
        return self._reply_type is None or isinstance(reply, self._reply_type)


class MessageCodec(Codec):
    """For a server with interceptors, which must see messages: gRPC reads and writes the bytes itself."""

    __slots__ = ()

    def decode(self, payload: Any) -> Any:
        return payload

    def encode(self, reply: Any, what: str = "reply", then: str = _FINAL) -> Any:
        super().encode(reply, what, then)
        return copy.deepcopy(reply)
