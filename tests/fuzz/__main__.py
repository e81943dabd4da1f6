"""`python -m tests.fuzz --minutes 10`: run every target in turn, until the time is over or one fails."""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz import drivers, machines
from tests.fuzz.frames import client_messages, server_messages


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="to run the same again")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    with (
        asyncio.Runner() as runner,
        drivers.HostileClients(runner) as clients,
        drivers.HostileServers(runner) as servers,
    ):
        fuzz(
            [
                Target("readers", 2000, machines.ANYTHING, lambda one, _: machines.check_readers(one)),
                Target("server session", 500, machines.SERVER_HEARS, machines.check_server),
                Target("client session", 500, machines.CLIENT_HEARS, machines.check_client),
                Target("acknowledgements", 500, machines.ACKS, machines.check_acks),
                Target("hostile clients", 100, client_messages(), lambda one, _: clients.run(one)),
                Target("hostile servers", 50, server_messages(), lambda one, _: servers.run(one)),
            ],
            arguments.seed,
            arguments.minutes * 60,
        )


class Target(NamedTuple):
    """What is run, how often in each turn, and with what."""

    name: str
    examples: int
    strategy: st.SearchStrategy[Any]
    check: Callable[[Any, st.DataObject], None]

    def run(self, turn: int) -> None:
        """Run the examples of a turn."""

        @seed(turn)
        @settings(
            max_examples=self.examples,
            deadline=None,
            database=None,
            print_blob=True,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much),
        )
        @given(one=self.strategy, data=st.data())
        def run(one: Any, data: st.DataObject) -> None:
            self.check(one, data)

        run()


def fuzz(targets: list[Target], first: int, seconds: float) -> None:
    """Run the targets in turn."""
    end = time.monotonic() + seconds
    turn = first
    while time.monotonic() < end:
        for target in targets:
            try:
                target.run(turn)
            except BaseException:
                print(f"{target.name} failed in the turn of --seed {turn}", flush=True)
                raise
        turn += 1
        done = turn - first
        print(", ".join(f"{target.name} {done * target.examples:,}" for target in targets), flush=True)


if __name__ == "__main__":
    main()
