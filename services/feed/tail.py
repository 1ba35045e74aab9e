"""The newest happenings of one log, followed once for all who watch it (services/feed/watch.py)."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable

import structlog

from models.errors import Damaged, IncidentManagerError, Unavailable
from models.incidents.summaries import bytes_of
from models.ports import EventLog
from models.stream.happenings import Happening
from services.feed.follow import Follower, Gap

log = structlog.get_logger()

#: Happenings that a tail holds, about a kilobyte each, and fewer where incidents have long texts: minutes of most days,
#: seconds of a flood.
HELD_MAX = 4096
HELD_MAX_BYTES = 16 * 1024 * 1024
#: Summaries a tail remembers: about all incidents of a busy day, 20 MB.
KNOWN_MAX = 20_000
#: Clients that read one log by themselves at one moment; the others wait for their turn, a few milliseconds.
CATCHING_UP_MAX = 2


class LogTail:
    """The newest happenings of one log. Holds all that comes after the frame `floor`, up to the frame `seq`."""

    def __init__(self, event_log: EventLog, follower: Callable[[int, int], Follower]) -> None:
        self.event_log = event_log
        self.follower = follower
        self.seq = self.floor = 0
        self.why = ""
        self.catching_up = asyncio.Semaphore(CATCHING_UP_MAX)
        self._held: list[Happening] = []
        self._held_bytes = 0
        self._reader: Follower | None = None

    async def begin(self) -> None:
        """Stand at the end of the log. Raises Unavailable when it can't be read."""
        self._stand(await self._end())

    def after(self, seq: int, most: int) -> tuple[list[Happening], int]:
        """Whole frames of what is held after the frame `seq`, which is not before `floor`; and how far that goes."""
        start = bisect_right(self._held, seq, key=_seq)
        end = min(start + most, len(self._held))
        while start < end < len(self._held) and self._held[end].seq == self._held[end - 1].seq:
            end += 1
        found = self._held[start:end]
        return found, (max(seq, self.seq) if end == len(self._held) else found[-1].seq)

    async def follow(self) -> bool:
        """Read what is new; True if there was something. Never raises errors of a store or a shard: `why` has them."""
        moved = False
        try:
            last = await self.event_log.last_seq()
            if last < self.seq:
                # Another log is here, or a torn end was cut: nothing that was held is of use.
                self._stand(last)
            while self.seq < last and self._reader is not None:
                try:
                    page = await self._reader.read()
                except Gap:
                    self._stand(await self._end())
                    return True
                if page.seq == self.seq:
                    break
                self._hold(page.happenings, page.seq)
                moved = True
                await asyncio.sleep(0)
            self._now("")
        except IncidentManagerError as error:
            self._now(str(error))
        return moved

    def _now(self, why: str) -> None:
        if why and not self.why:
            log.warning("stream stalled", partition=self.event_log.partition, why=why)
        self.why = why

    def _stand(self, seq: int) -> None:
        self.seq = self.floor = seq
        self._held, self._held_bytes = [], 0
        self._reader = self.follower(seq, KNOWN_MAX)

    def _hold(self, happenings: list[Happening], seq: int) -> None:
        self._held += happenings
        self._held_bytes += sum(bytes_of(each.after) for each in happenings)
        self.seq = seq
        off = len(self._held) - HELD_MAX * 3 // 4 if len(self._held) > HELD_MAX else 0
        if self._held_bytes > HELD_MAX_BYTES:
            left = self._held_bytes - sum(bytes_of(each.after) for each in self._held[:off])
            while left > HELD_MAX_BYTES * 3 // 4:
                left -= bytes_of(self._held[off].after)
                off += 1
        if off:
            # A quarter at once: taking single ones off the front of a list costs as much.
            self.floor = self._held[off - 1].seq
            self._held_bytes -= sum(bytes_of(each.after) for each in self._held[:off])
            del self._held[:off]

    async def _end(self) -> int:
        """The last frame that is certain: where a torn end begins, which the writer will cut off, is unknown."""
        last = await self.event_log.last_seq()
        try:
            if last and not await self.event_log.read(last - 1, 1):
                stats = await self.event_log.stats()
                if stats["frames"]:
                    raise Unavailable(f"{self.event_log.partition}: its end can't be read yet")
        except Damaged as error:
            self._now(str(error))
        return last


def _seq(happening: Happening) -> int:
    return happening.seq
