"""The service `AsyncCalls`, in core's types."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import grpc
import grpc.aio

from rpc_async.core.outcome import Detail, Progress
from rpc_async.core.server_call import ServerState
from rpc_async.status import CancelReason
from rpc_async.v1 import calls_pb2, calls_pb2_grpc, types_pb2

__all__ = [
    "REASONS",
    "AsyncCallsClient",
    "info_to_proto",
    "progress_from_proto",
    "progress_to_proto",
    "state_to_proto",
]

_STATES: Final = {
    ServerState.RUNNING: types_pb2.CALL_STATE_RUNNING,
    ServerState.CANCEL_REQUESTED: types_pb2.CALL_STATE_CANCEL_REQUESTED,
    ServerState.ORPHANED: types_pb2.CALL_STATE_ORPHANED,
    ServerState.SETTLED: types_pb2.CALL_STATE_SETTLED,
}
REASONS: Final[dict[CancelReason | None, types_pb2.CancelReason.ValueType]] = {
    None: types_pb2.CANCEL_REASON_UNSPECIFIED,
    CancelReason.CLIENT_REQUESTED: types_pb2.CANCEL_REASON_CLIENT_REQUESTED,
    CancelReason.CLIENT_ABORTED: types_pb2.CANCEL_REASON_CLIENT_ABORTED,
    CancelReason.CLIENT_DISCONNECTED: types_pb2.CANCEL_REASON_CLIENT_DISCONNECTED,
    CancelReason.DEADLINE: types_pb2.CANCEL_REASON_DEADLINE,
    CancelReason.SHUTDOWN: types_pb2.CANCEL_REASON_SHUTDOWN,
}


def state_to_proto(state: ServerState) -> types_pb2.CallState.ValueType:
    """Return the message's word for a state."""
    return _STATES[state]


def info_to_proto(
    state: ServerState, reason: CancelReason | None, progress: Progress | None, status: int
) -> types_pb2.CallInfo:
    """Return what `GetCall` and `WatchCall` tell about a call."""
    info = types_pb2.CallInfo(state=_STATES[state], cancel_reason=REASONS[reason], status=status)
    if progress is not None:
        info.progress.CopyFrom(progress_to_proto(progress))
    return info


def progress_to_proto(progress: Progress) -> types_pb2.Progress:
    """Return the message of a progress report."""
    message = types_pb2.Progress(fraction=progress.fraction, message=progress.message)
    if progress.details is not None:
        message.details.type_url = progress.details.type_url
        message.details.value = progress.details.value
    return message


def progress_from_proto(message: types_pb2.Progress) -> Progress:
    """Read a progress report."""
    details = Detail(message.details.type_url, message.details.value) if message.HasField("details") else None
    return Progress(message.fraction, message.message, details)


_STATES_BACK: Final = {number: state for state, number in _STATES.items()}


class AsyncCallsClient:
    """Asks a server about calls, by call id. Every method may raise `grpc.aio.AioRpcError`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        # Typed stubs want to know which kind of channel they are for; the generated class does not.
        self._stub: calls_pb2_grpc.AsyncCallsAsyncStub = calls_pb2_grpc.AsyncCallsStub(channel)

    async def cancel(
        self,
        call_id: str,
        *,
        abort: bool,
        timeout: float,
        metadata: tuple[tuple[str, str | bytes], ...] = (),
        credentials: grpc.CallCredentials | None = None,
    ) -> ServerState | None:
        """Cancel a call. Returns where it stands then, or None if the server does not know it (yet).

        Args:
            call_id: The call's id.
            abort: Whether its client does not wait for it any more.
            timeout: Seconds.
            metadata: The call's own metadata, by which the server may tell who asks.
            credentials: The call's own credentials, likewise.
        """
        request = calls_pb2.CancelCallRequest(call_id=call_id, abort=abort)
        response = await self._stub.CancelCall(request, timeout=timeout, metadata=metadata, credentials=credentials)
        return _STATES_BACK.get(response.state)

    async def watch(
        self,
        call_id: str,
        *,
        metadata: tuple[tuple[str, str | bytes], ...] = (),
        credentials: grpc.CallCredentials | None = None,
    ) -> AsyncIterator[Progress]:
        """Iterate over a call's progress reports, until it has settled. `metadata`, `credentials`: as in `cancel`."""
        request = calls_pb2.WatchCallRequest(call_id=call_id)
        async for response in self._stub.WatchCall(request, metadata=metadata, credentials=credentials):
            if response.call.HasField("progress"):
                yield progress_from_proto(response.call.progress)
