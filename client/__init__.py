"""The demo client, a program: `python -m client`, and the tour that `make demo` gives: `python -m client.demo`."""
