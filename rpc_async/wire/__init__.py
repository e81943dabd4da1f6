"""The only place that turns messages, metadata and trailers into core's types and back."""
