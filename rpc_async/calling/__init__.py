"""The client's side: drives core over grpc.aio."""
