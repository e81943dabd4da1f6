"""For tests of programs that use this library, and for its own: what networks do, when the test says so."""

from rpc_async.testing.clock import FakeClock
from rpc_async.testing.pair import Pair, ServerOptions, pair
from rpc_async.testing.proxy import CuttingProxy

__all__ = ["CuttingProxy", "FakeClock", "Pair", "ServerOptions", "pair"]
