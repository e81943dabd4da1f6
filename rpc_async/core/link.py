"""The link: frames arrive exactly once and in order, however often the stream below is cut.

Each side numbers its frames by counting them, and keeps those that the other has not acknowledged. An
acknowledgement is a count: all frames up to it have arrived. After a cut each side learns the other's count and
sends again from there. The model is XMPP's stream management (XEP-0198).

The owner pushes frames, asks `take()` for what to send now, and tells what arrived: `acknowledge` and `arrived`
for each batch, `resume` after a cut. The layer above never sees a cut.

Who writes asks `next()`, which gives a batch or puts the writer to sleep. The link wakes it, by the function that it
was given, as soon as anything that is pushed or arrives makes something takeable. So there is no state in which
something may be sent and nobody looks: what the writer waits for (a frame, room, an acknowledgement that is due) comes
in here.

Large frames go in pieces (`START`, `PIECE` ...), cut when they are taken. In a causal link what was pushed after a
large frame waits for it; else the pieces take turns with the frames that come later, and with each other. How many
may be on their way is for `pacing.py`. Time is passed in, in seconds of any clock that only goes forward.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, cast

from rpc_async.core.frames import MAX_PAYLOAD, Frame, FrameKind, ProtocolError
from rpc_async.core.pacing import Pacer

__all__ = ["MAX_BATCH", "WINDOW", "WINDOW_FRAMES", "Link", "nobody"]

MAX_BATCH: Final = 120 * 1024
"""Bytes: a batch takes no more frames once it has this much. With its last frame and a piece it stays under 256 KiB."""
BATCH_ROOM: Final = 256 * 1024
"""Bytes that a batch may take beside a piece that is larger than others."""
MAX_BULK: Final = 1024 * 1024
"""Bytes of a piece at the most, where nothing small is beside it and the other side takes such messages."""
MAX_BATCH_FRAMES: Final = 1024
"""Frames in a batch. Enough to make a batch's own cost small, few enough that both sides work at the same time."""
FRAME_COST: Final = 8
"""Bytes that a frame takes in a batch beside its payload, at the most."""
FRAME_MEMORY: Final = 160
"""Bytes that a frame takes in memory beside its payload: a tuple, a number, the payload's head, a place in a list."""
WINDOW: Final = 4 * 1024 * 1024
"""Bytes that may be sent and not acknowledged. What is more waits in the queue, where the owner can see it."""
WINDOW_FRAMES: Final = 65_536
"""Frames that may be sent and not acknowledged."""
ACK_FRAMES: Final = 1024
"""A side acknowledges at the latest when this many frames have arrived that it has not acknowledged yet."""
ACK_BYTES: Final = MAX_PAYLOAD
"""The same in bytes: each piece is acknowledged, since a sender of large frames may wait for that."""
PIECES: Final = 3
"""Pieces of large frames in a batch that has nothing else."""
TRANSFERS: Final = 4
"""Large frames that take turns at a time; the others wait. It bounds what the receiver must put together."""
MAX_EMPTY: Final = 100
"""Batches in a row that may carry neither a frame nor a new acknowledgement."""
FULL_BYTES: Final = 256 * 1024 * 1024
"""Bytes of payloads that may wait to be sent; see `Link.full`."""
FULL_FRAMES: Final = 1024 * 1024
"""Frames that may wait to be sent."""

_START, _PIECE, _DROP = (int(kind) for kind in (FrameKind.START, FrameKind.PIECE, FrameKind.DROP))


def nobody() -> None:
    """Wake nobody: for an owner that looks by itself."""


class _Batch(NamedTuple):
    frames: list[Frame]
    size: int
    begun: int
    """Bytes of the large frames that are over with this batch: its pieces may be all that keeps them in memory."""


class _Large:
    """A large frame on its way out. One that was dropped is empty, and stays in the queue until its turn comes."""

    __slots__ = ("kind", "named", "number", "payload", "taken")

    def __init__(self, kind: int, named: int, number: int, payload: bytes) -> None:
        self.kind: Final = kind
        self.named: Final = named  # the frame's own number
        self.number: Final = number  # the call's
        self.payload: bytes = payload
        self.taken: int = 0

    def piece(self, most: int) -> Frame:
        """Cut the next piece off. It is a view, since it is copied when the batch is encoded."""
        begin = self.taken
        self.taken = min(begin + most, len(self.payload))
        return _PIECE, self.number, cast("bytes", memoryview(self.payload)[begin : self.taken])

    @property
    def remaining(self) -> int:
        return len(self.payload) - self.taken


class Link:
    """One side of a session's link."""

    __slots__ = (
        "_again", "_again_bytes", "_again_frames", "_begun_bytes", "_bulk", "_causal", "_empty", "_large",
        "_over_bytes", "_pacer", "_queue", "_queued_large", "_retained", "_retained_bytes", "_sent", "_told",
        "_unacknowledged_bytes", "_unfinished", "_wake", "acknowledged", "asleep", "queued_bytes", "received",
    )  # fmt: skip

    def __init__(self, *, causal: bool, wake: Callable[[], object] = nobody) -> None:
        """Make a link.

        Args:
            causal: Whether what is pushed after a large frame waits for it.
            wake: Wakes the writer. It is called from inside of what makes something takeable, under whatever lock that
                is told under: it must see to it that the writer asks `next` soon, and do no more.
        """
        self._causal = causal
        self._wake = wake
        self.asleep: bool = False
        """The writer has found nothing to send, and asks again only when it is woken."""
        self._queue: deque[Frame | _Large] = deque()
        self._queued_large = 0
        self._large: deque[_Large] = deque()
        self._unfinished: dict[int, _Large] = {}  # all of them, wherever they wait, by their calls
        self._pacer = Pacer()
        self._begun_bytes = 0  # what was taken of them: it stays in memory until the last piece is acknowledged
        self._over_bytes = 0  # what of that is over with the next batch
        self._bulk = MAX_PAYLOAD
        self._retained: deque[_Batch] = deque()
        self._retained_bytes = 0
        self._again: deque[_Batch] = deque()  # sent before a cut, and did not arrive
        self._again_frames = 0
        self._again_bytes = 0
        self._sent = 0
        self.acknowledged: int = 0
        """Frames of this side that have arrived on the other."""
        self.received: int = 0
        """Frames that have arrived."""
        self._told = 0
        self._unacknowledged_bytes = 0
        self._empty = 0
        self.queued_bytes: int = 0
        """Bytes of payloads that wait to be sent for the first time."""

    # -- sending ----------------------------------------------------------------------------------------

    def push(self, kind: int, number: int, payload: bytes, call: int = 0) -> None:
        """Have a frame sent, after those that were pushed before.

        Args:
            kind: The frame's kind.
            number: The frame's number.
            payload: Its payload, of any size.
            call: The number of the call, where the frame's own number is another.
        """
        size = len(payload)
        if size > MAX_PAYLOAD:
            start = bytes((kind,)) + size.to_bytes(8)
            large = _Large(kind, number, call or number, payload)
            self._queue.append((_START, number, start))
            self._queue.append(large)
            self._queued_large += 1
            self._unfinished[large.number] = large
            size += len(start)
        else:
            self._queue.append((kind, number, payload))
        self.queued_bytes += size
        if self.asleep:
            self._rouse()

    def allow(self, message: int) -> None:
        """The other side takes messages of so many bytes. Before it has said so pieces have 64 KiB."""
        self._bulk = max(MAX_PAYLOAD, min(message - BATCH_ROOM, MAX_BULK))

    def push_first(self, kind: int, number: int, payload: bytes) -> None:
        """Have a small frame sent before everything that was pushed and has not been taken."""
        self._queue.appendleft((kind, number, payload))
        self.queued_bytes += len(payload)
        if self.asleep:
            self._rouse()

    @property
    def holds_large(self) -> bool:
        """Whether what is pushed may have to wait for a large frame."""
        return self._queued_large > 0

    def drop(self, number: int) -> bool:
        """End the large frame of the call `number`, if it is on its way. Returns whether it was."""
        large = self._unfinished.pop(number, None)
        if large is None:
            return False
        self.queued_bytes -= large.remaining
        self._over_bytes += large.taken
        large.payload, large.taken = b"", 0
        if large in self._large:
            self._large.remove(large)
        self._queue.append((_DROP, number, b""))
        if self.asleep:
            self._rouse()
        return True

    def forget(self) -> None:
        """Let go of everything that was pushed, and of the writer. Nothing is sent any more; do not `resume`."""
        for items in (self._queue, self._large, self._retained, self._again, self._unfinished):
            items.clear()
        self._pacer.cut()
        self._queued_large = 0
        self._wake = nobody
        self.queued_bytes = self._begun_bytes = self._over_bytes = 0
        self._retained_bytes = self._again_bytes = self._again_frames = 0
        self.acknowledged = self._sent

    @property
    def wants_to_send(self) -> bool:
        """Whether `take` has something to give, or an acknowledgement is due."""
        if self._again:
            return True
        if self._retained_bytes < WINDOW and self._sent - self.acknowledged < WINDOW_FRAMES:  # `ready`
            if self._queue and not (self._queued_large and self._held_up):
                return True
            if self._large and self._pacer.room:
                return True
        return self.ack_due

    @property
    def full(self) -> bool:
        """Whether so much waits to be sent that nothing should be added that can be refused."""
        return self.queued_bytes > FULL_BYTES or len(self._queue) > FULL_FRAMES

    @property
    def backlog(self) -> int:
        """Bytes of memory that wait to be sent for the first time."""
        return self.queued_bytes + FRAME_MEMORY * len(self._queue)

    @property
    def held(self) -> int:
        """Bytes of memory that are held for the other side: what waits, and what it has not acknowledged."""
        frames = len(self._queue) + self._sent - self.acknowledged
        payloads = self.queued_bytes + self._begun_bytes + self._retained_bytes + self._again_bytes
        return payloads + FRAME_MEMORY * frames

    @property
    def carried(self) -> int:
        """Frames that have been carried so far, both ways."""
        return self.received + self.acknowledged

    @property
    def ready(self) -> bool:
        """Whether `take` gives what is pushed: the other side has acknowledged enough."""
        return self._retained_bytes < WINDOW and self._sent - self.acknowledged < WINDOW_FRAMES

    @property
    def _held_up(self) -> bool:
        """Whether the queue begins with a piece that must wait, and everything after it with it."""
        if not self._queued_large or self._pacer.room or not self._causal:
            return False
        item = self._queue[0]
        return isinstance(item, _Large) and item.remaining > 0

    @property
    def ack_due(self) -> bool:
        """Whether an acknowledgement should go out even if no frame does."""
        return self.received - self._told >= ACK_FRAMES or self._unacknowledged_bytes >= ACK_BYTES

    @property
    def all_taken(self) -> bool:
        """Whether everything that was pushed has been taken, to the last piece."""
        return not (self._queue or self._large)

    @property
    def idle(self) -> bool:
        """Whether the other side has everything that was pushed."""
        return not (self._queue or self._large or self._retained or self._again)

    def never_left(self) -> Iterator[Frame]:
        """Iterate over the frames that have not been taken once, not even in part. They surely have not left."""
        items = iter(self._queue)
        for item in items:
            if isinstance(item, _Large):
                continue
            if item[0] == _START:
                large = next(items)
                assert isinstance(large, _Large)
                yield item[2][0], item[1], large.payload
            else:
                yield item

    def unfinished(self) -> Iterator[Frame]:
        """Iterate over the large frames that have not left this side to the last piece, each as it was pushed."""
        return ((large.kind, large.named, large.payload) for large in self._unfinished.values())

    def withdraw(self, which: Callable[[Frame], bool]) -> list[Frame]:
        """Take frames back that `never_left`."""
        kept: deque[Frame | _Large] = deque()
        taken: list[Frame] = []
        items = iter(self._queue)
        for item in items:
            if isinstance(item, _Large):
                kept.append(item)
                continue
            large = next(items) if item[0] == _START else None
            frame = item
            if isinstance(large, _Large):
                frame = item[2][0], item[1], large.payload
            if which(frame):
                taken.append(frame)
                self.queued_bytes -= len(item[2])
                if isinstance(large, _Large):
                    self.queued_bytes -= len(frame[2])
                    self._queued_large -= 1
                    self._unfinished.pop(large.number, None)
            else:
                kept.append(item)
                if large is not None:
                    kept.append(large)
        self._queue = kept
        return taken

    def next(self, now: float) -> list[Frame] | None:
        """Return the frames of the next batch, maybe none where only an acknowledgement is due; for the writer.

        None: there is nothing to send, and the writer sleeps until it is woken. Whoever has a new stream to write to
        asks without being woken.
        """
        return None if self.sleep() else self.take(now)

    def sleep(self) -> bool:
        """Put the writer to sleep if there is nothing to send. Returns whether it sleeps."""
        self.asleep = asleep = not self.wants_to_send
        return asleep

    def _rouse(self) -> None:
        if self.wants_to_send:
            self.asleep = False
            self._wake()

    def take(self, now: float) -> list[Frame]:
        """Return the frames of the next batch, which are kept until they are acknowledged; maybe none.

        The caller sends them with `ack()`.
        """
        if self._again:
            batch = self._again.popleft()
            self._again_frames -= len(batch.frames)
            self._again_bytes -= batch.size
            self._retain(batch)
            return batch.frames
        if not self.ready:
            return []
        queue = self._queue
        count = len(queue)
        size = self.queued_bytes + FRAME_COST * count
        if count > MAX_BATCH_FRAMES or size > MAX_BATCH or self._queued_large or self._large:
            frames, size = self._gather(now)
            self._first(frames, size)
            self._pacer.sent(self._sent, now)
            return frames
        frames = cast("list[Frame]", list(queue))  # the common case, in C
        queue.clear()
        self.queued_bytes = 0
        self._first(frames, size)
        return frames

    def _gather(self, now: float) -> tuple[list[Frame], int]:
        frames: list[Frame] = []
        size = 0
        alone = self._causal or self._pacer.alone(now)
        most = self._pacer.piece(self._bulk) if alone else MAX_PAYLOAD
        small = False
        while self._queue and size < MAX_BATCH and len(frames) < MAX_BATCH_FRAMES and not self._held_up:
            frame = self._next(most)
            if frame is not None:
                frames.append(frame)
                size += len(frame[2]) + FRAME_COST
                small = small or frame[0] < _START
        if small and not self._causal:
            self._pacer.beside_small(now)
            most = MAX_PAYLOAD
        # Where small frames wait too, the batch stays short.
        for _ in range(1 if frames or most > MAX_PAYLOAD else PIECES):
            if self._large and self._pacer.room:
                transfer = self._large.popleft()
                piece = self._piece(transfer, most)
                if transfer.remaining:
                    self._large.insert(TRANSFERS - 1, transfer)
                frames.append(piece)
                size += len(piece[2]) + FRAME_COST
        self.queued_bytes -= size - FRAME_COST * len(frames)
        return frames, size

    def _next(self, most: int) -> Frame | None:
        """Return the queue's next frame; or None, where it is a large one that was dropped or has stepped aside.

        A piece has `most` bytes at the most.
        """
        item = self._queue[0]
        if not isinstance(item, _Large):
            self._queue.popleft()
            return item
        if self._causal and item.remaining:
            frame = self._piece(item, most)
            if item.remaining:
                return frame
        else:
            frame = None
            if item.remaining:
                self._large.append(item)
        self._queue.popleft()
        self._queued_large -= 1
        return frame

    def _piece(self, large: _Large, most: int) -> Frame:
        frame = large.piece(most)
        self._begun_bytes += len(frame[2])
        self._pacer.taken(len(frame[2]))
        if not large.remaining:
            self._over_bytes += large.taken
            del self._unfinished[large.number]
        return frame

    def _first(self, frames: list[Frame], size: int) -> None:
        if frames:
            self._sent += len(frames)
            self._retain(_Batch(frames, size, self._over_bytes))
            self._over_bytes = 0

    def _retain(self, batch: _Batch) -> None:
        self._retained.append(batch)
        self._retained_bytes += batch.size

    def ack(self) -> int:
        """Return the acknowledgement to send now."""
        self._told = self.received
        self._unacknowledged_bytes = 0
        return self.received

    # -- receiving --------------------------------------------------------------------------------------

    def acknowledge(self, count: int, now: float) -> None:
        """The other side has acknowledged `count` frames in all. `arrived` does this; it does not wake the writer.

        Raises:
            ProtocolError: It cannot have: so many were never sent; or it has taken an acknowledgement back.
        """
        self._release(count)
        self._pacer.acknowledged(count, now)

    def _release(self, count: int) -> None:
        sent = self._sent - self._again_frames
        if not self.acknowledged <= count <= sent:
            raise _impossible(count, self.acknowledged, sent)
        new = count - self.acknowledged
        self.acknowledged = count
        retained = self._retained
        while new:
            batch = retained.popleft()
            self._retained_bytes -= batch.size
            if len(batch.frames) > new:
                rest = batch.frames[new:]
                batch = _Batch(rest, sum(len(frame[2]) + FRAME_COST for frame in rest), batch.begun)
                retained.appendleft(batch)
                self._retained_bytes += batch.size
                return
            new -= len(batch.frames)
            self._begun_bytes -= batch.begun

    def arrived(self, count: int, size: int, ack: int, now: float) -> None:
        """A batch of `count` frames and `size` bytes has arrived, with an acknowledgement.

        Raises:
            ProtocolError: See `acknowledge`; or the other side sends empty batches without end.
        """
        if count or ack != self.acknowledged:
            self._empty = 0
        else:
            self._empty += 1
            if self._empty > MAX_EMPTY:
                raise ProtocolError(f"more than {MAX_EMPTY} empty batches in a row")
        if ack != self.acknowledged:
            self.acknowledge(ack, now)
        self.received += count
        self._unacknowledged_bytes += size
        if self.asleep:
            self._rouse()  # for what may be sent now; and for the acknowledgement, which may be due

    # -- cuts -------------------------------------------------------------------------------------------

    def resume(self, count: int) -> None:
        """A new stream has been opened, and `count` of this side's frames have arrived: send again from there.

        Raises:
            ProtocolError: See `acknowledge`. Nothing has changed.
        """
        if not self.acknowledged <= count <= self._sent:
            raise _impossible(count, self.acknowledged, self._sent)
        self._retained.extend(self._again)  # two cuts in a row: not all was sent again
        self._retained_bytes += self._again_bytes
        self._again, self._again_frames = deque(), 0
        self._release(count)
        self._again, self._retained = self._retained, deque()
        self._again_bytes, self._retained_bytes = self._retained_bytes, 0
        self._again_frames = sum(len(batch.frames) for batch in self._again)
        self._empty = 0
        self._pacer.cut()


def _impossible(count: int, least: int, most: int) -> ProtocolError:
    return ProtocolError(f"an acknowledgement of {count} frames, where {least} to {most} are possible")
