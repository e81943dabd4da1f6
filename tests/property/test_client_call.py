"""C1 to C3 and C5 to C8 of the client's machine, against random schedules and an independent model."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rpc_async.core.client_call import ClientCall, ClientState, ClientStep
from rpc_async.core.outcome import Fault, Outcome, Progress, Reply, fault
from rpc_async.status import RpcStatus

outcomes = st.one_of(
    st.builds(Reply, st.integers()), st.builds(fault, st.integers(1, 2000).filter(lambda n: n != 997), st.text())
)
faults = st.builds(fault, st.just(int(RpcStatus.CALL_CANCELLED)), st.text())


class ClientMachine(RuleBasedStateMachine):
    """Whatever comes, and however late, one outcome stays and one notification is made."""

    def __init__(self) -> None:
        super().__init__()
        self.call = ClientCall()
        self.first: Outcome | None = None
        self.asked = 0
        self.notified = 0
        self.told_cancel = 0
        self.told_abort = 0
        self.aborted = False

    def seen(self, step: ClientStep) -> None:
        assert step.state is self.call.state
        self.notified += step.notify
        self.told_cancel += step.tell_cancel
        self.told_abort += step.tell_abort

    @rule()
    def request_cancel(self) -> None:
        if self.first is None:
            self.asked += 1
        self.seen(self.call.request_cancel())

    @rule(outcome=faults)
    def abort(self, outcome: Fault) -> None:
        if self.first is None:
            self.first, self.aborted = outcome, True
        self.seen(self.call.abort(outcome))

    @rule(outcome=outcomes)
    def answer(self, outcome: Outcome) -> None:
        if self.first is None:
            self.first = outcome
        self.seen(self.call.answer(outcome))

    @rule(fraction=st.floats(0, 1))
    def progress(self, fraction: float) -> None:
        before, report = self.call.last_progress, Progress(fraction)
        wanted = self.call.progress(report)
        assert wanted is (self.first is None)
        assert self.call.last_progress is (report if wanted else before)

    @invariant()
    def one_outcome_and_one_notification(self) -> None:
        settled = self.first is not None
        assert self.call.outcome is self.first
        assert self.notified == settled  # C8
        assert self.told_cancel == (1 if self.asked else 0)  # C5: asking again asks no more often
        assert self.told_abort == self.aborted  # C6
        assert (self.call.state is ClientState.SETTLED) == settled

    @invariant()
    def the_status_says_it(self) -> None:
        status = self.call.status()  # C2
        if self.first is None:
            assert status == RpcStatus.ASYNC_CALL_PENDING
        elif isinstance(self.first, Reply):
            assert status == RpcStatus.OK
        else:
            assert status == self.first.status


TestClientMachine = ClientMachine.TestCase
