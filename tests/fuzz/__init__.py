"""Fuzz targets for the session wire: what a peer may send, and what must hold whatever it sends.

`tests/property/test_fuzz.py` and `tests/integration/test_fuzz.py` run them a little; `python -m tests.fuzz` runs them
for as long as one likes.
"""
