"""What must be so before gRPC is loaded: imported before all else, it imports nothing of the library."""

from __future__ import annotations

import os
from typing import Final

__all__ = ["GRPC_FORK_SUPPORT"]

GRPC_FORK_SUPPORT: Final = "GRPC_ENABLE_FORK_SUPPORT"
"""gRPC's variable, which it reads once, when it is loaded. Unless it is "0", gRPC starts its threads anew in a forked
child, whatever that child then does, and there they crash every now and then (`rpc_async/fork.py`)."""

os.environ.setdefault(GRPC_FORK_SUPPORT, "0")
