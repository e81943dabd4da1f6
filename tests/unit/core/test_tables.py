"""The tables of the two machines are whole: every state has a step for every event."""

from __future__ import annotations

from itertools import product

import pytest

from rpc_async.core.client_call import ClientCall, ClientState
from rpc_async.core.outcome import Progress, Reply, fault
from rpc_async.core.server_call import ServerCallMachine, ServerState
from rpc_async.status import CancelReason, RpcStatus


@pytest.mark.parametrize("state", ClientState)
def test_every_event_has_a_step_on_the_clients_side(state: ClientState) -> None:
    for event in ("request_cancel", "abort", "answer"):
        call = ClientCall()
        call.state = state
        arguments = {"request_cancel": (), "abort": (fault(1818, ""),), "answer": (Reply(None),)}[event]
        assert getattr(call, event)(*arguments).state is call.state


@pytest.mark.parametrize("state", ServerState)
def test_every_end_has_a_step_on_the_servers_side(state: ServerState) -> None:
    call = ServerCallMachine()
    call.state = state
    assert call.end().state is call.state is ServerState.SETTLED


@pytest.mark.parametrize(("state", "reason"), list(product(ServerState, CancelReason)))
def test_every_cancel_has_a_step_on_the_servers_side(state: ServerState, reason: CancelReason) -> None:
    call = ServerCallMachine()
    call.state = state
    assert call.orphan(reason).state is call.state
    assert call.ask().state is call.state


def test_C1_C2_a_client_looks_as_often_as_it_likes_and_progress_ends_with_the_call() -> None:
    call = ClientCall()
    assert call.status() == RpcStatus.ASYNC_CALL_PENDING
    assert call.progress(Progress(0.5, "half"))
    assert call.answer(Reply(None)).notify
    assert call.status() == RpcStatus.OK
    assert not call.progress(Progress(0.6, "late"))
    assert call.last_progress == Progress(0.5, "half")
    failed = ClientCall()
    assert failed.abort(fault(1818, "")).notify
    assert failed.status() == RpcStatus.CALL_CANCELLED


def test_S8_S10_S13_a_server_looks_as_often_as_it_likes_and_the_graver_reason_counts() -> None:
    call = ServerCallMachine()
    assert not call.test_cancel()
    assert call.cancel_reason is None
    assert call.progress(Progress(0.5, "half"))
    call.ask()
    assert call.cancel_reason is CancelReason.CLIENT_REQUESTED
    call.orphan(CancelReason.DEADLINE)
    assert call.cancel_reason is CancelReason.DEADLINE
    assert call.test_cancel()
    call.end()
    assert not call.progress(Progress(0.6, "late"))
