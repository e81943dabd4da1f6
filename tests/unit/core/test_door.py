"""Which wire calls take, and what each way of failing to open a session means."""

from __future__ import annotations

import pytest

from rpc_async.core.door import AWAY, Door, Refusal, Verdict, Wire

AUTO, ONLY = False, True
NEW, RESUMING = False, True


@pytest.mark.parametrize(
    ("why", "auto", "only", "brief"),
    [
        (Refusal.NOT_CONNECTED, Verdict.WAIT, Verdict.WAIT, None),
        (Refusal.LOST, Verdict.GO_NATIVELY, Verdict.WAIT, True),
        (Refusal.BUSY, Verdict.GO_NATIVELY, Verdict.WAIT, True),
        (Refusal.SILENT, Verdict.GO_NATIVELY, Verdict.WAIT, False),
        (Refusal.REFUSED, Verdict.GO_NATIVELY, Verdict.FAIL, False),
        (Refusal.NOT_OURS, Verdict.GO_NATIVELY, Verdict.FAIL, False),
    ],
)
def test_what_the_failing_of_a_new_session_means(
    why: Refusal, auto: Verdict, only: Verdict, brief: bool | None
) -> None:
    door = Door(only=AUTO)
    assert door.failed(why, "the text", resuming=NEW, now=0.0) is auto
    if brief is None:
        assert door.wire is Wire.UNDECIDED
    else:
        assert (door.wire, door.brief) == (Wire.NATIVE, brief)
        assert "the text" in door.reason
        door.try_again()
        assert (door.wire, door.brief) == (Wire.UNDECIDED, False)
    door = Door(only=ONLY)
    assert door.failed(why, "the text", resuming=NEW, now=0.0) is only
    assert door.wire is Wire.UNDECIDED


@pytest.mark.parametrize("only", [AUTO, ONLY])
@pytest.mark.parametrize(
    ("why", "verdict"),
    [
        (Refusal.NOT_CONNECTED, Verdict.WAIT),
        (Refusal.LOST, Verdict.WAIT),
        (Refusal.SILENT, Verdict.WAIT),
        (Refusal.BUSY, Verdict.WAIT),
        (Refusal.REFUSED, Verdict.LOSE),
        (Refusal.NOT_OURS, Verdict.LOSE),
    ],
)
def test_what_the_failing_of_a_resumption_means(why: Refusal, verdict: Verdict, only: bool) -> None:
    door = Door(only=only)
    door.opened()
    assert door.wire is Wire.SESSION
    assert door.failed(why, "", resuming=RESUMING, now=0.0) is verdict
    assert door.wire is (Wire.UNDECIDED if verdict is Verdict.LOSE else Wire.SESSION), (
        "it never goes natively from here"
    )


def test_a_session_is_lost_when_others_have_answered_in_the_servers_place_for_long_enough() -> None:
    door = Door(only=AUTO)
    door.opened()
    assert door.failed(Refusal.BUSY, "", resuming=RESUMING, now=10.0) is Verdict.WAIT
    assert door.failed(Refusal.BUSY, "", resuming=RESUMING, now=10.0 + AWAY / 2) is Verdict.WAIT
    assert door.failed(Refusal.LOST, "", resuming=RESUMING, now=10.0 + AWAY) is Verdict.WAIT, "nobody answered"
    assert door.failed(Refusal.BUSY, "", resuming=RESUMING, now=20.0) is Verdict.WAIT, "the time begins anew"
    door.opened()
    assert door.failed(Refusal.BUSY, "", resuming=RESUMING, now=30.0) is Verdict.WAIT
    assert door.failed(Refusal.BUSY, "", resuming=RESUMING, now=30.0 + AWAY) is Verdict.LOSE


def test_a_door_to_a_session_is_not_tried_again() -> None:
    door = Door(only=AUTO)
    door.opened()
    door.try_again()
    assert door.wire is Wire.SESSION
