"""The same echo by other means, each in its own idiom: `make bench-peers`."""
