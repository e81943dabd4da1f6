"""Which sessions give way when all together hold too much."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rpc_async.core.ledger import RELIEF, Ledger


def test_the_largest_give_way_first_and_no_more_of_them_than_are_needed() -> None:
    ledger: Ledger[str] = Ledger(100)
    assert not ledger.weigh("small", 10)
    assert not ledger.weigh("large", 40)
    assert not ledger.weigh("larger", 50)
    assert not ledger.enough  # it is not too much yet, and it is more than is left when somebody has given way
    assert ledger.weigh("small", 11)
    assert ledger.largest() == ["larger"]
    ledger.weigh("larger", 0)
    assert ledger.enough
    assert ledger.largest() == []
    assert ledger.total == 51


@given(st.integers(1, 1000), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 500)), max_size=30))
def test_what_gives_way_is_enough(limit: int, weights: list[tuple[int, int]]) -> None:
    ledger: Ledger[int] = Ledger(limit)
    held: dict[int, int] = {}
    for holder, weight in weights:
        held[holder] = weight
        assert ledger.weigh(holder, weight) == (sum(held.values()) > limit)
        assert ledger.total == sum(held.values())
    giving_way = ledger.largest()
    kept = [weight for holder, weight in held.items() if holder not in giving_way]
    assert sum(kept) <= limit - limit // RELIEF
    if giving_way:
        assert sum(kept) + held[giving_way[-1]] > limit - limit // RELIEF
        assert min(held[holder] for holder in giving_way) >= max(kept, default=0)
    for holder in giving_way:
        ledger.weigh(holder, 0)
    assert ledger.enough
