"""What can be marked as a manager routine, and what cannot."""

from __future__ import annotations

from typing import Any

import pytest

import rpc_async
from rpc_async import dce


def test_what_is_no_routine() -> None:
    wrong: Any

    def generator(self: Any, state: Any, binding: Any, request: Any) -> Any:
        yield

    async def in_task(self: Any, state: Any, binding: Any, request: Any) -> None: ...

    for wrong in (lambda self, call: None, print, 7, generator):
        with pytest.raises(rpc_async.InvalidArgument):
            dce.manager(wrong)
    with pytest.raises(rpc_async.InvalidArgument, match="inline"):
        dce.manager(inline=True)(in_task)
