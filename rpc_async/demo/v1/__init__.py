"""Generated from `protos/rpc_async/demo/v1`."""
