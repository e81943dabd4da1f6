"""The semantics, with nothing else: no gRPC, no asyncio, no threads, no clock.

Each machine is a table of transitions. A driver holds a machine, tells it what happened, and carries out the
effects that it returns; it keeps no copy of the machine's state. Machines do no locking: a driver that is
used from several threads calls its machine under a lock of its own.
"""
