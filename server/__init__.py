"""The demo server, a program: `python -m server`."""
