"""S4, S8 to S11, S13 and S14 of the server's machine, against random schedules and an independent model."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rpc_async.core.outcome import Progress
from rpc_async.core.server_call import ServerCallMachine, ServerState, ServerStep
from rpc_async.status import CancelReason, RpcStatus

ORPHANING = [reason for reason in CancelReason if reason is not CancelReason.CLIENT_REQUESTED]


class ServerMachine(RuleBasedStateMachine):
    """The client hears exactly one thing, and the handle dies exactly once."""

    def __init__(self) -> None:
        super().__init__()
        self.call = ServerCallMachine()
        self.ended = False
        self.gone: CancelReason | None = None
        self.asked = False
        self.heard = 0

    def seen(self, step: ServerStep) -> None:
        assert step.state is self.call.state
        self.heard += step.deliver + step.release

    @rule()
    def end(self) -> None:
        step = self.call.end()
        if self.ended:
            assert step.verdict is RpcStatus.INVALID_ASYNC_HANDLE  # S4
            assert step == ServerStep(ServerState.SETTLED, step.verdict)
        elif self.gone:
            assert step.verdict is RpcStatus.CALL_CANCELLED  # S11
            assert not step.deliver
        else:
            assert step.verdict is RpcStatus.OK  # S1, and S9 where it was asked to stop
            assert step.deliver
        self.ended = True
        self.seen(step)

    @rule()
    def ask(self) -> None:
        step = self.call.ask()
        assert step.changed == (not (self.ended or self.gone or self.asked))
        assert not (step.deliver or step.release)  # S8: a question settles nothing
        self.asked |= not (self.ended or self.gone)
        self.seen(step)

    @rule(reason=st.sampled_from(ORPHANING))
    def orphan(self, reason: CancelReason) -> None:
        step = self.call.orphan(reason)
        assert step.release == (not (self.ended or self.gone))
        if not self.ended and self.gone is None:
            self.gone = reason
        self.seen(step)

    @rule(fraction=st.floats(0, 1))
    def progress(self, fraction: float) -> None:
        before, report = self.call.last_progress, Progress(fraction)
        assert self.call.progress(report) is not self.ended
        assert self.call.last_progress is (before if self.ended else report)

    @rule()
    def look(self) -> None:
        before = self.call.state, self.call.cancel_reason
        assert self.call.test_cancel() == (self.ended or self.asked or self.gone is not None)  # S10
        assert (self.call.state, self.call.cancel_reason) == before  # S8

    @invariant()
    def the_client_hears_one_thing(self) -> None:
        assert self.heard == (1 if self.ended or self.gone else 0)

    @invariant()
    def the_reason_is_known(self) -> None:
        expected = self.gone or (CancelReason.CLIENT_REQUESTED if self.asked else None)
        assert self.call.cancel_reason is expected  # S13: the first orphaning outranks a request


TestServerMachine = ServerMachine.TestCase
