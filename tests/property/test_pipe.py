"""A pipe under any sequence of events: nothing is lost, doubled or held without bound, and nobody waits for ever.

P1 to P4 and P6 in the machine: what comes out is what went in, in order (P1); the end comes once, behind it (P2, P3);
it holds no more than its bound and one chunk (P4); whoever was told to wait is told when that is over (P2, P4); and
after a failure nothing is held (P6).
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rpc_async.core.pipe import MAX_BYTES, MAX_CHUNKS, Pipe, PipeState
from rpc_async.status import RpcStatus

SIZES = st.sampled_from([0, 1, 1000, MAX_BYTES // 3, MAX_BYTES, 2 * MAX_BYTES])


class PipeMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pipe = Pipe()
        self.expected: list[tuple[int, int]] = []
        self.leaving = 0
        self.pushed = 0
        self.ended = False
        self.largest = 0
        self.pusher_waits = False
        self.puller_waits = False

    def follow(self, step: object) -> None:
        if getattr(step, "send", False):
            self.pusher_waits = False
        if getattr(step, "receive", False):
            self.puller_waits = False

    @rule(size=SIZES)
    def push(self, size: int) -> None:
        step = self.pipe.push((self.pushed, size), size)
        self.follow(step)
        if step.verdict is RpcStatus.OK and self.pipe.state is PipeState.OPEN:
            self.expected.append((self.pushed, size))
            self.largest = max(self.largest, size)
        elif step.verdict is RpcStatus.ASYNC_CALL_PENDING:
            self.pusher_waits = True
        self.pushed += 1

    @rule(count=st.integers(MAX_CHUNKS // 2, MAX_CHUNKS))
    def push_many(self, count: int) -> None:
        for _ in range(count):
            self.push(1)

    @rule()
    def end(self) -> None:
        step = self.pipe.end()
        self.follow(step)
        if step.verdict is RpcStatus.OK and self.pipe.state is not PipeState.DISCARDED:
            assert not self.ended
            self.ended = True

    @rule()
    def pull(self) -> None:
        step = self.pipe.pull()
        if step.chunk is not None:
            assert step.chunk == self.expected.pop(0)
            self.leaving += step.chunk[1]
        else:
            assert not self.expected
            assert (step.verdict is not RpcStatus.OK) or self.ended
            self.puller_waits = self.puller_waits or step.verdict is RpcStatus.ASYNC_CALL_PENDING

    @rule()
    def left(self) -> None:
        self.leaving = 0
        self.follow(self.pipe.left())

    @rule()
    def fail(self) -> None:
        self.follow(self.pipe.fail())

    @precondition(lambda self: self.pushed > 3)
    @rule()
    def break_(self) -> None:
        self.follow(self.pipe.break_())
        if self.pipe.state is not PipeState.DRAINED:
            self.expected.clear()

    @precondition(lambda self: self.pushed > 3)
    @rule()
    def discard(self) -> None:
        self.follow(self.pipe.discard())
        self.expected.clear()

    @invariant()
    def holds_what_it_should(self) -> None:
        assert self.pipe.chunks == len(self.expected)
        assert self.pipe.held == sum(size for _, size in self.expected) + self.leaving
        assert self.pipe.chunks <= MAX_CHUNKS
        assert self.pipe.held < MAX_BYTES + max(self.largest, 1)
        if self.pipe.state in (PipeState.BROKEN, PipeState.DISCARDED, PipeState.DRAINED):
            assert not self.expected

    @invariant()
    def nobody_waits_for_what_is_there(self) -> None:
        if self.puller_waits:
            assert self.pipe.state is PipeState.OPEN
            assert not self.expected
        if self.pusher_waits:
            assert self.pipe.state in (PipeState.OPEN, PipeState.ENDED, PipeState.DRAINED)
            assert self.expected or self.leaving


TestPipeMachine = PipeMachine.TestCase
