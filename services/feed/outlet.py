"""Brings messages to the broker, each after those of its key before it, until it confirms all of them. A broker that is away is waited
for: what is to be written stays in the logs meanwhile. Used by services/feed/announce.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from models.errors import IncidentManagerError, TooLarge
from models.metrics import Meter
from models.ports import Clock
from services.feed.announcements import Announcement, shortened
from services.feed.writers.writer import Writer

log = structlog.get_logger()

#: Between two tries, doubling: a broker that was restarted is back within seconds.
RETRY_S = 0.5
RETRY_MAX_S = 15.0
#: Messages that wait for confirmation at once: enough to keep a broker a millisecond away busy.
IN_FLIGHT_MAX = 64


class Outlet:
    """One for all shards. `why_away`: why nothing can be written now, "" when it can."""

    def __init__(self, writer: Writer, meter: Meter, clock: Clock) -> None:
        self.why_away = "not connected yet"
        self._writer = writer
        self._meter = meter
        self._clock = clock
        self._is_open = False
        #: Grows with each connection: of two that fail on the same one, the second closes nothing.
        self._connection = 0
        self._retry_s = RETRY_S
        self._away_since: float | None = None
        self._turn = asyncio.Lock()
        self._room = asyncio.Semaphore(IN_FLIGHT_MAX)

    async def put(self, messages: Sequence[Announcement]) -> None:
        """Returns when the broker has all of them. Those that it may have got already, before an error, it gets again."""
        left = [*messages]
        while left:
            connection = await self.connect()
            done: set[int] = set()
            errors = await asyncio.gather(
                *(self._send(each, done) for each in _by_key(left)), return_exceptions=True
            )
            left = [each for each in left if id(each) not in done]
            failed = next((each for each in errors if each is not None), None)
            if failed is None:
                self._retry_s = RETRY_S
            elif isinstance(failed, IncidentManagerError):
                await self._lost(connection, str(failed))
            else:
                raise failed

    async def connect(self) -> int:
        """Wait until there is a connection: which one it is."""
        async with self._turn:
            while not self._is_open:
                try:
                    await self._writer.open()
                except IncidentManagerError as error:
                    self._away(str(error))
                    await self._writer.close()
                    await self._pause()
                except BaseException:
                    await self._writer.close()
                    raise
                else:
                    self._is_open = True
                    self._connection += 1
                    self._well()
            return self._connection

    async def close(self) -> None:
        self._is_open = False
        await self._writer.close()

    async def _send(self, messages: Sequence[Announcement], done: set[int]) -> None:
        """All of one key, one after the other."""
        for message in messages:
            async with self._room:
                try:
                    await self._writer.send(message)
                except TooLarge:
                    await self._send_short(message)
            done.add(id(message))
            self._meter.count("llm_im_announced_total", topic=message.topic)

    async def _send_short(self, message: Announcement) -> None:
        try:
            await self._writer.send(shortened(message))
        except TooLarge as error:
            # It must not hold up all that come after it.
            log.error("an event is too large for the queue, left out", event_id=message.id, why=str(error))
            self._meter.count("llm_im_announce_left_out_total", topic=message.topic)

    async def _lost(self, connection: int, why: str) -> None:
        async with self._turn:
            if connection == self._connection and self._is_open:
                self._away(why)
                await self.close()
                await self._pause()

    async def _pause(self) -> None:
        pause_s, self._retry_s = self._retry_s, min(2 * self._retry_s, RETRY_MAX_S)
        await asyncio.sleep(pause_s)

    def _away(self, why: str) -> None:
        if self._away_since is None:
            self._away_since = self._clock.monotonic()
            log.warning("events can't be written to the queue, retrying", why=why)
        self.why_away = why

    def _well(self) -> None:
        self.why_away = ""
        if self._away_since is not None:
            away_s, self._away_since = self._clock.monotonic() - self._away_since, None
            log.info("events are written to the queue again", away_s=round(away_s, 1))


def _by_key(messages: Sequence[Announcement]) -> list[list[Announcement]]:
    found: dict[str, list[Announcement]] = {}
    for each in messages:
        found.setdefault(each.key, []).append(each)
    return [*found.values()]
