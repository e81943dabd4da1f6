"""The faults that the wires must take: each a scenario, short in the test suite and long in `make soak`."""
