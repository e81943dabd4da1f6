"""The demo's generated code, which the examples of the documentation use."""
