"""The faults that the wires must take, in their short form. `make soak` is the long one, of the same scenarios."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator

import pytest

from tests.harness import SocketWire
from tests.soak.counts import Budget, Counts
from tests.soak.kills import no_server, server_killed
from tests.soak.scenarios import SCENARIOS, perform

SEED = random.randrange(1 << 32)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    print(f"seed {SEED}")
    with caplog.at_level(logging.CRITICAL, "rpc_async"):  # what goes wrong here is meant to
        yield


async def short(name: str) -> Counts:
    """Run a scenario in its short form."""
    scenario = SCENARIOS[name]
    counts = await perform(scenario, Budget(least=scenario.short, seed=SEED))
    assert not counts.bad, counts.as_dict()
    assert counts.calls
    return counts


async def test_C14_C8_cuts_at_random_lose_nothing_and_execute_and_settle_nothing_twice() -> None:
    counts = await short("cuts")
    assert counts.resumed


@pytest.mark.slow
async def test_C14_C8_large_messages_among_small_ones_are_carried_over_cuts() -> None:
    counts = await short("large")
    assert counts.resumed
    assert counts.more["in pieces, up"]
    assert counts.more["in pieces, down"]


@pytest.mark.parametrize("anew", [True, False])
async def test_C14_a_server_killed_at_any_moment_is_told_apart(socket_wire: SocketWire, anew: bool) -> None:
    counts = Counts()
    await server_killed(counts, socket_wire, anew=anew)
    assert not counts.bad, counts.as_dict()
    known = {"told CALL_FAILED": 3, "told SERVER_UNAVAILABLE": 1}
    if socket_wire == "session" and anew:
        known["begun anew"] = 3
    elif socket_wire == "session":
        known |= {"told SERVER_UNAVAILABLE": 2, "waited on": 2}
    assert counts.more == known


async def test_C14_no_server_at_all(socket_wire: SocketWire) -> None:
    counts = Counts()
    await no_server(counts, socket_wire)
    assert not counts.bad, counts.as_dict()
    assert counts.more == {"told SERVER_UNAVAILABLE": 1}


async def test_S13_clients_that_were_killed_are_disconnected() -> None:
    assert (await short("killed-clients")).cancelled > 0


async def test_C14_what_was_silent_goes_on_where_it_was() -> None:
    assert (await short("silence")).resumed > 0


async def test_a_side_that_does_not_read_does_not_fill_the_others_memory() -> None:
    counts = await short("slow")
    assert counts.failed, "the server gave up a client that it had too much for"


async def test_a_crowd_of_clients_is_served_and_forgotten() -> None:
    counts = await short("crowd")
    assert counts.replies + counts.refused == counts.calls


async def test_C8_S4_whatever_races_each_call_has_one_outcome() -> None:
    counts = await short("races")
    assert counts.replies
    assert counts.cancelled
    assert counts.failed


async def test_S4_S7_S14_S15_handlers_that_misbehave_leave_no_call_behind() -> None:
    await short("handlers")
