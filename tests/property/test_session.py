"""Both sides of a session over a network that carries, delays and cuts at random (C13, C14).

Each side sends only while its writer is awake, as the drivers do: a side that may send and is not told so hangs here.
"""

from __future__ import annotations

from collections import deque

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rpc_async.core.client_session import ClientSession
from rpc_async.core.frames import MAX_PAYLOAD, Frame, FrameKind
from rpc_async.core.server_session import ServerSession
from rpc_async.core.session import Session

Batch = tuple[list[Frame], int]
SIZES = st.sampled_from([0, 1, 100, MAX_PAYLOAD, MAX_PAYLOAD + 1, 3 * MAX_PAYLOAD, 20 * MAX_PAYLOAD])


def size_of(frames: list[Frame]) -> int:
    """Bytes that a batch takes, about: as in the message that carries it."""
    return sum(len(payload) + 4 for _, _, payload in frames)


class SessionMachine(RuleBasedStateMachine):
    """A client's machine, a server's, and batches in flight."""

    @initialize(causal=st.booleans())
    def start(self, causal: bool) -> None:
        self.causal = causal
        self.awake = {"client", "server"}
        self.client: ClientSession[str] = ClientSession(
            causal=causal, max_payload=1 << 24, wake=lambda: self.awake.add("client")
        )
        self.server: ServerSession[str] = ServerSession(max_payload=1 << 24, wake=lambda: self.awake.add("server"))
        self.to_server: deque[Batch] = deque()
        self.to_client: deque[Batch] = deque()
        self.sizes: dict[int, int] = {}
        self.executed: list[int] = []
        self.settled: list[int] = []
        self.aborted: set[int] = set()
        self.asked: set[int] = set()
        self.seen_asked: list[int] = []
        self.now = 0.0

    @rule(size=SIZES, method=st.sampled_from(["/a", "/b"]), head=st.booleans())
    def begin(self, size: int, method: str, head: bool) -> None:
        number = self.client.begin(method, bytes(size), method, head)
        self.sizes[number] = size

    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        if self.client.outstanding:
            number = data.draw(st.sampled_from(sorted(self.client.outstanding)))
            assert self.client.abort(number) is not None
            self.aborted.add(number)
            assert self.client.abort(number) is None

    @rule(data=st.data())
    def ask(self, data: st.DataObject) -> None:
        if self.client.outstanding:
            number = data.draw(st.sampled_from(sorted(self.client.outstanding)))
            assert self.client.ask(number)
            self.client.watch(number)
            self.asked.add(number)

    @rule(data=st.data(), size=SIZES)
    def server_ends(self, data: st.DataObject, size: int) -> None:
        if self.server.calls:
            number = data.draw(st.sampled_from(sorted(self.server.calls)))
            assert self.server.end(number, FrameKind.REPLY, bytes(size))
            assert not self.server.end(number, FrameKind.REPLY, b"")

    @rule()
    def client_sends(self) -> None:
        self._send("client", self.client, self.to_server)

    @rule()
    def server_sends(self) -> None:
        self._send("server", self.server, self.to_client)

    def _send(self, name: str, machine: Session, to: deque[Batch]) -> None:
        if name in self.awake:
            frames = machine.link.next(self.now)
            if frames is None:
                self.awake.remove(name)
            else:
                to.append((frames, machine.link.ack()))

    @rule()
    def server_hears(self) -> None:
        if self.to_server:
            frames, ack = self.to_server.popleft()
            self.server.link.arrived(len(frames), size_of(frames), ack, self.now)
            for told in self.server.receive(frames):
                if told.kind in (FrameKind.CALL, FrameKind.CALL_WITH_HEAD):
                    assert len(told.payload) == self.sizes[told.number]
                    self.executed.append(told.number)
                    self.server.calls[told.number] = told.method
                elif told.kind == FrameKind.ABORT:
                    self.server.release(told.number)
                elif told.kind == FrameKind.CANCEL:
                    self.seen_asked.append(told.number)
                    self.server.link.push(FrameKind.CANCEL_NOTE, told.number, b"")

    @rule()
    def client_hears(self) -> None:
        if self.to_client:
            frames, ack = self.to_client.popleft()
            self.client.link.arrived(len(frames), size_of(frames), ack, self.now)
            for _, (kind, number, _) in self.client.receive(frames):
                if kind == FrameKind.REPLY:
                    self.settled.append(number)

    @rule(seconds=st.sampled_from([2**-10, 2**-3, 8]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def cut(self) -> None:
        self.now += 1
        self.client.cut(self.now)
        self.client.cut(self.now + 5)  # the first one counts
        self.server.cut(self.now)
        assert self.client.time_left(self.now + 2, 3) == 1
        self.to_server.clear()
        self.to_client.clear()
        self.server.resumed(self.client.link.received)
        self.client.resumed(self.server.link.received)
        assert self.client.time_left(self.now + 2, 3) is None
        self.awake = {"client", "server"}  # whoever has a new stream looks

    @invariant()
    def once(self) -> None:
        if not hasattr(self, "client"):
            return
        assert len(set(self.executed)) == len(self.executed)
        assert len(set(self.settled)) == len(self.settled)
        assert not self.aborted & set(self.settled)
        assert set(self.seen_asked) <= self.asked
        if self.causal:  # C13
            assert self.executed == sorted(self.executed)

    @invariant()
    def whoever_may_send_is_awake(self) -> None:
        if hasattr(self, "client"):
            assert "client" in self.awake or not self.client.link.wants_to_send
            assert "server" in self.awake or not self.server.link.wants_to_send

    def teardown(self) -> None:
        if not hasattr(self, "client"):
            return
        while self.awake or self.to_server or self.to_client or self.server.calls:
            self.client_sends()
            self.server_hears()
            while self.server.calls:
                self.server.end(next(iter(self.server.calls)), FrameKind.REPLY, b"")
            self.server_sends()
            self.client_hears()
        assert not self.client.outstanding
        assert set(self.executed) >= set(self.sizes) - self.aborted
        assert self.client.assembly.held_bytes == self.server.assembly.held_bytes == 0
        assert self.client.link.queued_bytes == self.server.link.queued_bytes == 0
        assert self.client.link.all_taken
        assert self.server.link.all_taken
        self.once()


TestSessionMachine = SessionMachine.TestCase
