"""The server's side: drives core over grpc.aio."""
