"""Other people's programs and packages against the library. `make test-peers` installs what they need."""
