"""Both machines joined by a network that delays at random: whatever happens, the two sides agree."""

from __future__ import annotations

from collections import deque

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rpc_async.core.client_call import ClientCall, ClientStep
from rpc_async.core.outcome import Outcome, Reply, fault
from rpc_async.core.server_call import ServerCallMachine, ServerState
from rpc_async.status import CancelReason, RpcStatus


class PairMachine(RuleBasedStateMachine):
    """A client and a server, and messages in flight between them."""

    def __init__(self) -> None:
        super().__init__()
        self.client = ClientCall()
        self.server = ServerCallMachine()
        self.to_server: deque[str] = deque()
        self.to_client: deque[Outcome] = deque()
        self.accepted: RpcStatus | None = None
        self.notified = 0

    def carry(self, step: ClientStep) -> None:
        if step.tell_cancel:
            self.to_server.append("ask")
        if step.tell_abort:
            self.to_server.append("abort")
        self.notified += step.notify

    @rule()
    def client_asks(self) -> None:
        self.carry(self.client.request_cancel())

    @rule()
    def client_aborts(self) -> None:
        reason = CancelReason.CLIENT_ABORTED
        self.carry(self.client.abort(fault(RpcStatus.CALL_CANCELLED, "", cancel_reason=reason)))

    @rule(completes=st.booleans())
    def server_ends(self, completes: bool) -> None:
        step = self.server.end()
        if self.accepted is None:
            self.accepted = step.verdict
        if step.deliver:
            self.to_client.append(Reply("reply") if completes else fault(1726, "it raised"))

    @rule()
    def network_carries_to_the_server(self) -> None:
        if self.to_server:
            if self.to_server.popleft() == "ask":
                self.server.ask()
            elif self.server.orphan(CancelReason.CLIENT_ABORTED).release:
                self.to_client.append(fault(RpcStatus.CALL_CANCELLED, "released"))

    @rule()
    def network_carries_to_the_client(self) -> None:
        if self.to_client:
            self.carry(self.client.answer(self.to_client.popleft()))

    @invariant()
    def nothing_contradicts(self) -> None:
        assert self.notified == (self.client.outcome is not None)
        if isinstance(self.client.outcome, Reply):
            assert self.accepted is RpcStatus.OK
        assert len(self.to_client) <= 1

    def teardown(self) -> None:
        if self.server.state is not ServerState.SETTLED:
            self.server_ends(True)
        while self.to_server or self.to_client:
            self.network_carries_to_the_server()
            self.network_carries_to_the_client()
        assert self.client.outcome is not None, "a call that its server ended has settled"
        assert self.notified == 1


TestPairMachine = PairMachine.TestCase
