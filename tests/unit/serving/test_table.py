"""`serving/table.py`: everything in it has a bound."""

from __future__ import annotations

from typing import Any, cast

from rpc_async.core.outcome import Progress
from rpc_async.core.server_call import ServerCallMachine
from rpc_async.serving.table import EARLY_CANCEL_LIFE, MAX_EARLY_CANCELS, MAX_ENDED, CallTable
from rpc_async.status import CancelReason


class Clock:
    """A loop's clock, set by hand."""

    now = 100.0

    def time(self) -> float:
        return self.now


class Record:
    """What the table sees of a call."""

    def __init__(self, call_id: str, *, noted: bool = True) -> None:
        self.call_id = call_id
        self.machine = ServerCallMachine()
        if noted:
            self.machine.progress(Progress(0.5))
        self.asked_for = False
        self.ended_at = 0.0
        self.events: list[object] = []

    def ask_cancel(self) -> None:
        self.events.append("asked")

    def orphan(self, reason: CancelReason) -> None:
        self.events.append(reason)


def make() -> tuple[CallTable, Any]:
    return CallTable(linger=30.0), cast("Any", Clock())


def record(call_id: str, **options: bool) -> Any:
    return Record(call_id, **options)


def test_a_call_is_found_while_it_runs_and_for_a_while_after() -> None:
    table, clock = make()
    call: Any = record("a")
    assert table.add(call, clock)
    assert not table.add(record("a"), clock)
    assert [table.find("a", clock.time())] == [call]
    assert call.asked_for
    table.remove(call, clock)
    assert table.running() == []
    assert table.find("a", clock.time() + 29) is call
    assert table.find("a", clock.time() + 31) is None
    assert table.find("a", clock.time()) is None  # and it is gone for good


def test_a_call_that_nobody_asked_about_is_not_kept() -> None:
    table, clock = make()
    call = record("a", noted=False)
    table.add(call, clock)
    table.remove(call, clock)
    assert table.find("a", clock.time()) is None


def test_so_many_ended_calls_are_kept_and_no_more() -> None:
    table, clock = make()
    for number in range(MAX_ENDED + 10):
        call = record(str(number))
        table.add(call, clock)
        table.remove(call, clock)
    assert table.find("9", clock.time()) is None
    assert table.find("10", clock.time()) is not None


def test_C5_a_cancel_that_came_too_early_meets_its_call() -> None:
    table, clock = make()
    table.keep_cancel("asked", False, clock.time())
    table.keep_cancel("aborted", True, clock.time())
    table.keep_cancel("aborted", False, clock.time())  # an abort outranks a request
    table.keep_cancel("late", False, clock.time() - EARLY_CANCEL_LIFE - 1)
    calls = {name: record(name) for name in ("asked", "aborted", "late", "other")}
    for call in calls.values():
        table.add(call, clock)
    assert calls["asked"].events == ["asked"]
    assert calls["aborted"].events == [CancelReason.CLIENT_ABORTED]
    assert calls["late"].events == calls["other"].events == []


def test_so_many_early_cancels_are_kept_and_no_more() -> None:
    table, clock = make()
    for number in range(MAX_EARLY_CANCELS + 1):
        table.keep_cancel(str(number), False, clock.time())
    first, last = record("0"), record(str(MAX_EARLY_CANCELS))
    table.add(first, clock)
    table.add(last, clock)
    assert (first.events, last.events) == ([], ["asked"])
