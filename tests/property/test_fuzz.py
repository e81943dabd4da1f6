"""The fuzz targets for the readers and the machines; `tests/fuzz` tells what each must hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rpc_async.core.frames import Frame
from tests.fuzz import machines


@given(machines.ANYTHING)
def test_readers(data: bytes) -> None:
    machines.check_readers(data)


@given(machines.SERVER_HEARS, st.data())
def test_a_server_session(frames: list[Frame], data: st.DataObject) -> None:
    machines.check_server(frames, data)


@given(machines.CLIENT_HEARS, st.data())
def test_a_client_session(frames: list[Frame], data: st.DataObject) -> None:
    machines.check_client(frames, data)


@given(machines.ACKS, st.data())
def test_acknowledgements(acks: list[tuple[str, int]], data: st.DataObject) -> None:
    machines.check_acks(acks, data)
