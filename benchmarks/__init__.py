"""Measures the library side by side with raw grpc.aio, always in one run: `make bench`."""
