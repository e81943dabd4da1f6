"""The opening of one stream of a session: what is said first, what answers it, and what its failing means.

No frame of a call leaves before the answer. So a stream that was not opened has executed nothing, whatever its end was.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any, Final

import grpc
import grpc.aio

from rpc_async.calling.bare import bare_writer
from rpc_async.core.door import Refusal
from rpc_async.core.frames import ProtocolError
from rpc_async.core.outcome import Fault, fault
from rpc_async.status import RpcStatus
from rpc_async.wire.faults import fault_from_failure
from rpc_async.wire.session import Opened, read_response

__all__ = ["NotOpened", "Stream", "answer_to", "why_not_opened"]

Stream = grpc.aio.StreamStreamCall[bytes, bytes]

_LOGGER: Final = logging.getLogger("rpc_async.calling")

LOOKS: Final = 4
"""How often it is looked whether there is a connection, in the time that the server may take: only that counts."""

_CORE: Final = "Internal error from Core"
"""What grpc.aio says, with the code INTERNAL, of a stream that was cut in the middle of a write."""
_CUT: Final = re.compile(
    r"Stream removed|[Ss]ocket|[Cc]onnection (reset|closed|attempt)|GOAWAY|[Bb]roken pipe|[Kk]eepalive|ping timeout"
    r"|[Tt]ransport|recvmsg|sendmsg|Cancelling all calls"
)
"""What gRPC says of a connection that was lost."""
_AWAY: Final = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.ABORTED}
"""What a server says that takes no more at the moment, and what gRPC makes of a proxy's 502, 503 and 504."""


class NotOpened(Exception):
    """A stream could not be opened."""

    def __init__(self, why: Refusal, failure: Fault) -> None:
        super().__init__(failure.message)
        self.why: Final = why
        self.failure: Final = failure
        """What it means for a call, which surely was not executed."""


async def answer_to(channel: grpc.aio.Channel, stream: Stream, message: bytes, patience: float) -> tuple[Opened, int]:
    """Send a stream's opening, and return what the server answers: that it is opened, and the acknowledgement.

    Args:
        channel: What the stream goes by.
        stream: The stream.
        message: The opening.
        patience: Seconds that the server may take once there is a connection.

    Raises:
        NotOpened: It is not opened.
    """
    exchange = asyncio.ensure_future(_exchange(stream, message))
    try:
        looks = 0
        while looks < LOOKS:
            await asyncio.wait((exchange,), timeout=patience / LOOKS)
            if exchange.done():
                return _read(await exchange)
            looks = looks + 1 if channel.get_state() is grpc.ChannelConnectivity.READY else 0
        text = f"the server did not answer the opening of a session within {patience:g} s; nothing was executed"
        raise NotOpened(Refusal.SILENT, fault(RpcStatus.SERVER_UNAVAILABLE, text, executed=False))
    finally:
        exchange.cancel()


async def _exchange(stream: Any, message: bytes) -> bytes:
    """Write the opening and read the answer. Raises NotOpened."""
    sent = getattr(stream, "_metadata_sent", None)
    try:
        if sent is None:
            await stream.write(message)
        else:  # `write` would put INTERNAL in the place of what the server says where it has said no already
            await sent.wait()
            await bare_writer(stream)(message)
        data = await stream.read()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
    except Exception as error:  # gRPC has several for a stream that has ended; its status says why
        _LOGGER.debug("a stream of a session was not opened: %r", error)
    else:
        if isinstance(data, bytes):
            return data
    raise why_not_opened(await stream.code(), await stream.details() or "")


def _read(data: bytes) -> tuple[Opened, int]:
    try:
        opened, ack, frames = read_response(data)
        if opened is None or frames:
            raise ProtocolError("the answer to an Open is something else")
    except ProtocolError as error:
        text = f"the server broke the session's protocol: {error}; nothing was executed"
        raise NotOpened(Refusal.NOT_OURS, fault(RpcStatus.INTERNAL_ERROR, text, executed=False)) from error
    return opened, ack


def why_not_opened(code: grpc.StatusCode, text: str) -> NotOpened:
    """Return what the end of a stream that was not opened means (C14)."""
    failure = fault_from_failure(code.value[0], text, (), unreached=True)  # whatever it met, it was not opened
    if code is grpc.StatusCode.UNAVAILABLE and failure.executed is False:
        return NotOpened(Refusal.NOT_CONNECTED, failure)
    if text == _CORE or (code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN) and _CUT.search(text)):
        text = f"the connection was lost before a session was open on it, and nothing was executed: {text}"
        return NotOpened(Refusal.LOST, fault(RpcStatus.SERVER_UNAVAILABLE, text, executed=False))
    if code is grpc.StatusCode.UNIMPLEMENTED:
        text = "the server does not offer sessions"
        return NotOpened(Refusal.REFUSED, fault(RpcStatus.CANNOT_SUPPORT, text, executed=False))
    why = Refusal.BUSY if code in _AWAY else Refusal.REFUSED
    text = f"the session was refused, and nothing was executed: {code.name}: {text}"
    return NotOpened(why, Fault(failure.status, text, failure.grpc_code, failure.cancel_reason, False))
