"""The tables of the two machines are whole: every state has a step for every event."""

from __future__ import annotations

from itertools import product

import pytest

from rpc_async.core.client_call import ClientCall, ClientState
from rpc_async.core.outcome import Reply, fault
from rpc_async.core.server_call import ServerCallMachine, ServerEvent, ServerState
from rpc_async.status import CancelReason


@pytest.mark.parametrize("state", ClientState)
def test_every_event_has_a_step_on_the_clients_side(state: ClientState) -> None:
    for event in ("request_cancel", "abort", "answer"):
        call = ClientCall()
        call.state = state
        arguments = {"request_cancel": (), "abort": (fault(1818, ""),), "answer": (Reply(None),)}[event]
        assert getattr(call, event)(*arguments).state is call.state


@pytest.mark.parametrize(("state", "event"), list(product(ServerState, ServerEvent)))
def test_every_event_has_a_step_on_the_servers_side(state: ServerState, event: ServerEvent) -> None:
    call = ServerCallMachine()
    call.state = state
    assert call.end(event).state is call.state is ServerState.SETTLED


@pytest.mark.parametrize(("state", "reason"), list(product(ServerState, CancelReason)))
def test_every_cancel_has_a_step_on_the_servers_side(state: ServerState, reason: CancelReason) -> None:
    call = ServerCallMachine()
    call.state = state
    assert call.orphan(reason).state is call.state
    assert call.ask().state is call.state
