"""A partition's snapshots: when one is due, and the writing of it a slice at a time, between two groups of messages.

One is written at least as fast as the next becomes due: what a recovery replays is never more than twice the pace, and the
last group. A slice a group alone is not enough: in a flood a group dirties more than a slice takes, each snapshot takes longer
than the one before, and what lies behind the newest grows without a bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from actors.runtime.ending import end
from models.errors import Fenced, Unavailable
from models.metrics import Meter
from models.partition.machine import Folding
from models.ports import Clock, EventLog, Mark

#: Bytes of snapshot records written at once: 1-2 ms of the writer thread. As long as nothing much happens, between two groups.
SLICE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Pace:
    """A snapshot is due after so many frames, so many bytes, or so long while something changed."""

    every_frames: int
    every_events: int
    every_bytes: int
    every_s: float


class Snapshots:
    """Of one partition. `over` is called when background work ends; an exception in that work is fatal."""

    def __init__(
        self,
        event_log: EventLog,
        meter: Meter,
        clock: Clock,
        log: structlog.stdlib.BoundLogger,
        over: Callable[[asyncio.Task[None]], None],
        pace: Pace,
    ) -> None:
        self._event_log = event_log
        self._meter = meter
        self._clock = clock
        self._log = log
        self._over = over
        self._pace = pace
        self._generation = 0
        self._seq = 0
        self._digest = b""
        #: Records that the running one had to write when it began.
        self._whole = 0
        self._truncating: asyncio.Task[None] | None = None
        self.begin_anew()

    def begin_anew(self) -> None:
        """Start counting: the state was recovered, or a snapshot of it begins."""
        self._frames = self._events = self._bytes = 0
        self._at = self._clock.monotonic()

    def decided(self, events: int) -> None:
        """So many events are on their way to the log."""
        self._events += events

    def appended(self, frames: int, size: int) -> None:
        """So much came to the log."""
        self._frames += frames
        self._bytes += size

    @property
    def share(self) -> float:
        """How far it is to the next snapshot, 1 when it is due; without the time, which makes no recovery longer."""
        pace = self._pace
        return max(
            self._frames / pace.every_frames, self._events / pace.every_events, self._bytes / pace.every_bytes
        )

    async def write_slice(self, machine: Folding, epoch: int, digest: bytes) -> None:
        """The next slice, if one is due, and more if this snapshot would else not be over when the next is due. `digest` is that of the last frame. Raises Fenced; if the store is down, the
        snapshot is abandoned."""
        try:
            await self._write(machine, epoch, digest)
        except Unavailable as error:
            # The log works without it, only recovery takes longer; what it held is dirty again.
            machine.checkpoint.abandon()
            self._log.warning("snapshot failed, will be retried", why=str(error))

    async def stop(self) -> None:
        """End background work. Safe to call twice."""
        if self._truncating is not None:
            await end([self._truncating])

    async def _write(self, machine: Folding, epoch: int, digest: bytes) -> None:
        checkpoint = machine.checkpoint
        if not checkpoint.is_running:
            if not self._is_due(machine):
                return
            checkpoint.begin()
            self._whole = checkpoint.pending
            self._seq, self._digest = machine.seq, digest
            self.begin_anew()
            # Above every generation any writer ever used, also in a snapshot that was never finished.
            self._generation = max(self._generation + 1, epoch << 20)
        while records := checkpoint.slice(SLICE_BYTES):
            await self._event_log.put_records(epoch, self._generation, records)
            if checkpoint.pending <= self._whole * (1 - self.share):
                return
        checksum = checkpoint.census().checksum()
        mark = Mark(self._generation, self._seq, self._digest, machine.snapshot_version, checksum)
        await self._event_log.close_snapshot(epoch, mark)
        checkpoint.closed()
        self._meter.count("llm_im_snapshots_total")
        self._meter.set("llm_im_snapshot_seconds", self._clock.monotonic() - self._at)
        if self._truncating is None or self._truncating.done():
            # In the background: dropping thousands of appends takes half a second; an append waits for only a slice of
            # it.
            self._truncating = asyncio.get_running_loop().create_task(self._truncate_behind(epoch))
            self._truncating.add_done_callback(self._over)

    async def _truncate_behind(self, epoch: int) -> None:
        try:
            marks = await self._event_log.marks()
            if len(marks) > 1:
                await self._event_log.truncate(epoch, marks[-1].seq)
        except Unavailable as error:
            self._log.warning("log not truncated, the next snapshot tries again", why=str(error))
        except Fenced:
            # The loop notices at its next append, unless it has taken a newer epoch itself.
            return

    def _is_due(self, machine: Folding) -> bool:
        return self.share >= 1 or (
            self._frames > 0
            and self._clock.monotonic() - self._at >= self._pace.every_s
            and machine.checkpoint.has_changes
        )
