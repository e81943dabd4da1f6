"""S12: a server call's machine and its notices together, against random schedules and an independent model."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rpc_async.core.notices import Gate, Notice, has_happened
from rpc_async.core.server_call import ServerCallMachine, ServerState
from rpc_async.status import CancelReason, Notifications, RpcStatus

KINDS = [Notifications.CLIENT_DISCONNECT, Notifications.CALL_CANCEL]
ORPHANING = [reason for reason in CancelReason if reason is not CancelReason.CLIENT_REQUESTED]


class NoticesMachine(RuleBasedStateMachine):
    """Whatever comes in whatever order, each kind is told at most once, to whoever wants it, and never too late."""

    def __init__(self) -> None:
        super().__init__()
        self.call = ServerCallMachine()
        self.notices = {kind: Notice() for kind in KINDS}
        self.subscribed = dict.fromkeys(KINDS, False)
        self.told = dict.fromkeys(KINDS, 0)
        self.happened = dict.fromkeys(KINDS, False)
        self.gate, self.reports, self.seen, self.on_its_way = Gate(), 0, 0, 0

    def changed(self, reason: CancelReason, changed: bool) -> None:
        if changed:
            kind = KINDS[reason is not CancelReason.CLIENT_DISCONNECTED]
            self.happened[kind] = True
        for kind in KINDS:  # the driver's hook looks at everything after any change
            if has_happened(kind, self.call.cancels) and self.call.state is not ServerState.SETTLED:
                step = self.notices[kind].happen()
                assert step.deliver == (self.subscribed[kind] and not self.told[kind])
                self.told[kind] += step.deliver

    @rule()
    def ask(self) -> None:
        self.changed(CancelReason.CLIENT_REQUESTED, self.call.ask().changed)

    @rule(reason=st.sampled_from(ORPHANING))
    def orphan(self, reason: CancelReason) -> None:
        self.changed(reason, self.call.orphan(reason).changed)

    @rule()
    def end(self) -> None:
        self.call.end()

    @rule(kind=st.sampled_from(KINDS))
    def subscribe(self, kind: Notifications) -> None:
        if self.call.state is ServerState.SETTLED:
            return
        free = not self.subscribed[kind] and not self.told[kind]
        assert self.notices[kind].may_subscribe() == free
        step = self.notices[kind].subscribe(happened=has_happened(kind, self.call.cancels))
        assert step.verdict is (RpcStatus.OK if free else RpcStatus.INVALID_ASYNC_CALL)
        assert step.deliver == (free and self.happened[kind])
        self.subscribed[kind] |= free
        self.told[kind] += step.deliver

    @rule(kind=st.sampled_from(KINDS))
    def unsubscribe(self, kind: Notifications) -> None:
        assert self.notices[kind].unsubscribe().queued == self.told[kind]
        self.subscribed[kind] = False

    @rule()
    def report(self) -> None:
        self.reports += 1
        self.on_its_way += self.gate.news()

    @rule()
    def take(self) -> None:
        if self.on_its_way:
            self.on_its_way -= 1
            self.gate.taken()
            self.seen = self.reports

    @invariant()
    def at_most_once(self) -> None:
        assert all(count <= 1 for count in self.told.values())
        for kind in KINDS:
            assert has_happened(kind, self.call.cancels) == self.happened[kind]
            if self.subscribed[kind] and self.happened[kind] and self.call.state is not ServerState.SETTLED:
                assert self.told[kind] == 1

    @invariant()
    def nothing_new_is_missed_and_nothing_piles_up(self) -> None:
        assert self.on_its_way <= 1
        assert self.on_its_way == (self.seen < self.reports)


TestNoticesMachine = NoticesMachine.TestCase
