"""Generated from `protos/rpc_async/v1`: the messages and services of the library itself."""
