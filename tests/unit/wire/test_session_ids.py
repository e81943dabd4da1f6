"""Session ids and call ids: secrets that cannot be guessed, and that nothing gives away."""

from __future__ import annotations

import pytest

from rpc_async.core.session import MAX_CALLS
from rpc_async.wire.session import CallIds, new_session_id


def test_a_session_id_has_256_random_bits() -> None:
    ids = {new_session_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(one) == 32 for one in ids)


@pytest.mark.parametrize("number", [1, 2**32, MAX_CALLS])
def test_a_call_id_opens_its_own_call_only(number: int) -> None:
    session_id = new_session_id()
    ids, others = CallIds(session_id), CallIds(new_session_id())
    call_id = ids.of(number)
    tag, _, seal = call_id.split("-")
    assert len(call_id) <= 128
    assert len(bytes.fromhex(seal)) * 8 == 128
    assert ids.number(call_id) == number
    assert others.number(call_id) is None
    assert ids.number(call_id.replace(seal, ids.of(number - 1).split("-")[2])) is None
    assert ids.number(call_id.replace(seal, seal.upper())) in (None, number)
    assert CallIds.tag_of(call_id) == tag == ids.tag
    for part in (call_id, repr(ids), ids.tag):
        assert session_id.hex() not in part
    assert seal not in repr(ids)


@pytest.mark.parametrize("nonsense", ["", "--", "a-b-c", "é-1-2", "0" * 16 + "-é-2", "-".join(["f" * 16, "0x1", "f"])])
def test_what_is_no_call_id(nonsense: str) -> None:
    ids = CallIds(new_session_id())
    assert CallIds.tag_of(nonsense) != ids.tag
    assert ids.number(nonsense) is None
    assert ids.number(f"{ids.tag}-{nonsense.replace('-', '')}-{'0' * 32}") is None
