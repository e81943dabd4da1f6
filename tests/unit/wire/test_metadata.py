"""`wire/metadata.py`."""

from __future__ import annotations

from typing import Any

import pytest

from rpc_async.errors import InvalidArgument
from rpc_async.wire.metadata import check_metadata, client_call_id


def test_good_metadata_is_passed_on() -> None:
    pairs: list[tuple[str, str | bytes]] = [("x-a.b_c", "text"), ("x-bin", b"\x00"), ("x-raw", b"ascii")]
    assert check_metadata(iter(pairs)) == tuple(pairs)
    assert check_metadata(None) == ()


@pytest.mark.parametrize("pair", [("X", "v"), ("", "v"), ("a b", "v"), ("ä", "v"), ("x-bin", "text"), ("x", 1)])
def test_bad_metadata_is_refused(pair: Any) -> None:
    with pytest.raises(InvalidArgument):
        check_metadata([pair])


def test_the_call_id_is_found() -> None:
    assert client_call_id((("x", "y"), ("rpc-async-call-id", "id"))) == "id"
    assert client_call_id((("x", "y"),)) is None
    assert client_call_id((("rpc-async-call-id", b"bytes"),)) == ""
