"""`core/notices.py`: which notification is made, and how often."""

from __future__ import annotations

import pytest

from rpc_async.core.notices import Gate, Notice, NoticeState, event_of, has_happened, kinds_in
from rpc_async.status import AsyncEvent, CancelReason, Notifications, RpcStatus

GONE, CANCEL = Notifications.CLIENT_DISCONNECT, Notifications.CALL_CANCEL


def test_S12_what_happens_while_somebody_wants_to_know_is_told_once() -> None:
    notice = Notice()
    assert notice.may_subscribe()
    assert not notice.subscribe(happened=False).deliver
    assert notice.happen().deliver
    assert not notice.happen().deliver
    assert notice.unsubscribe().queued == 1
    assert notice.unsubscribe().queued == 1
    assert notice.state is NoticeState.SPENT


def test_S12_subscribing_after_the_fact_tells_at_once() -> None:
    notice = Notice()
    assert notice.subscribe(happened=True).deliver
    assert not notice.happen().deliver
    assert notice.unsubscribe().queued == 1


def test_S12_nothing_is_queued_for_whoever_unsubscribed_in_time() -> None:
    notice = Notice()
    notice.subscribe(happened=False)
    assert notice.unsubscribe().queued == 0
    assert not notice.happen().deliver
    assert notice.unsubscribe().queued == 0
    assert notice.subscribe(happened=True).deliver, "and it may subscribe again"


@pytest.mark.parametrize("state", [NoticeState.WANTED, NoticeState.QUEUED, NoticeState.SPENT])
@pytest.mark.parametrize("happened", [False, True])
def test_S12_one_subscription_of_a_kind_and_one_notification(state: NoticeState, happened: bool) -> None:
    notice = Notice()
    notice.state = state
    assert not notice.may_subscribe()
    step = notice.subscribe(happened=happened)
    assert (step.state, step.verdict, step.deliver) == (state, RpcStatus.INVALID_ASYNC_CALL, False)
    assert notice.state is state


@pytest.mark.parametrize("state", NoticeState)
def test_S12_every_event_has_a_step(state: NoticeState) -> None:
    for happened in (False, True):
        notice = Notice()
        notice.state = state
        assert notice.subscribe(happened=happened).state is notice.state
    for event in (Notice.happen, Notice.unsubscribe):
        notice = Notice()
        notice.state = state
        assert event(notice).state is notice.state


def test_the_latest_wins() -> None:
    gate = Gate()
    assert gate.news()
    assert not gate.news(), "the one on its way tells of this too"
    gate.taken()
    assert gate.news()


def test_S12_the_kinds_in_a_mask() -> None:
    assert kinds_in(1) == (GONE,)
    assert kinds_in(2) == (CANCEL,)
    assert kinds_in(3) == (GONE, CANCEL)
    for mask in (0, 4, 5, 7, -1, 1 << 31):
        assert kinds_in(mask) is None, "any other is CANNOT_SUPPORT"
    assert event_of(GONE) is AsyncEvent.CLIENT_DISCONNECT
    assert event_of(CANCEL) is AsyncEvent.CLIENT_CANCEL


@pytest.mark.parametrize("reason", CancelReason)
def test_S12_each_cancel_is_of_one_kind(reason: CancelReason) -> None:
    assert not has_happened(GONE, ())
    assert not has_happened(CANCEL, ())
    assert has_happened(GONE, (reason,)) == (reason is CancelReason.CLIENT_DISCONNECTED)
    assert has_happened(CANCEL, (reason,)) == (reason is not CancelReason.CLIENT_DISCONNECTED)


def test_S12_a_client_that_asked_and_is_gone_is_both() -> None:
    cancels = (CancelReason.CLIENT_REQUESTED, CancelReason.CLIENT_DISCONNECTED)
    assert has_happened(GONE, cancels)
    assert has_happened(CANCEL, cancels)


def test_the_numbers_are_microsofts() -> None:
    assert {event.name: int(event) for event in AsyncEvent} == {
        "CALL_COMPLETE": 0, "SEND_COMPLETE": 1, "RECEIVE_COMPLETE": 2, "CLIENT_DISCONNECT": 3, "CLIENT_CANCEL": 4,
        "PROGRESS": 256,
    }  # fmt: skip
    assert {kind.name: int(kind) for kind in Notifications} == {"CLIENT_DISCONNECT": 1, "CALL_CANCEL": 2}
    assert int(Notifications.NONE) == 0
    assert f"{AsyncEvent.CALL_COMPLETE}" == "CALL_COMPLETE"
