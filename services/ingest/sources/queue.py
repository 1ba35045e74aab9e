"""What the sources that read queues have in common: connect, read until that fails, try again; who waits; what it says of itself.
kafka.py, nats.py and rabbitmq.py are its children.

A child's `read` connects and reads into lanes, until the connection is lost or `leaving` is set. What a lane calls settled is in the
log, and is acknowledged; nothing else is.
"""

from __future__ import annotations

import asyncio
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import cast

import structlog

from actors.runtime.ending import end
from models.errors import IncidentManagerError
from models.settings.messaging import Messaging
from services.brokers.common import WORDS_MAX, brokers_of
from services.ingest.sources.lane import FINISH_S, Lane
from services.ingest.sources.messages import Message, Messages
from services.ingest.sources.source import Source, SourceNeeds

log = structlog.get_logger()

#: Between tries to connect: a broker that was restarted is back within seconds, one that is gone is not asked all the time.
RETRY_S = 0.5
RETRY_MAX_S = 15.0
#: How often the lag is asked for.
LAG_S = 5.0
#: A connection that held for so long was well: the next try comes soon.
WELL_S = 10.0
#: What is wrong is told again after this.
TELL_AGAIN_S = 300.0
#: A stop: lanes finish, then the connection is closed.
LEAVE_S = FINISH_S + 10.0
#: Bytes of bodies that a collector holds: with no room for more it reads nothing. One of the largest always fits.
HELD_MAX_BYTES = 64 * 1024 * 1024


class QueueSource(Source):
    """One queue, read by one collector."""

    def __init__(self, needs: SourceNeeds) -> None:
        self.needs = needs
        self.messaging: Messaging = needs.settings.messaging
        self.concurrency = needs.settings.worker.concurrency
        self.prefetch = needs.settings.worker.prefetch
        self.password = cast("str | None", needs.given.get("messaging_password"))
        self.messages = Messages(needs, self.name, self.messaging.format or "")
        self.leaving = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._away = "not connected yet"
        #: What the log said last of what is wrong, and when.
        self._told, self._told_at = "", -math.inf
        self._retry_s = RETRY_S
        #: Lanes that can't store anything now, and why.
        self._waiting: dict[Lane, str] = {}
        self.lanes: set[Lane] = set()
        #: Done with the bug that ended a lane.
        self._broken: asyncio.Future[Exception] | None = None

    # -- Source

    async def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._live())

    async def stop(self) -> None:
        self.leaving.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=LEAVE_S)
            await end([self._task])
            self._task = None

    @property
    def why_away(self) -> str:
        waiting = next(iter(self._waiting.values()), "")
        return self._away or (waiting and f"messages stay in the queue: {waiting}")

    def measure(self) -> None:
        self.needs.meter.set("llm_im_queue_held", sum(lane.held for lane in self.lanes), source=self.name)

    # -- for children

    @abstractmethod
    async def read(self) -> None:
        """Connect and read, until `leaving` is set; then finish the lanes, acknowledge, and close. Raises Unavailable and
        Malformed for what a person may have to mend; either way it is tried again."""

    @property
    def where(self) -> str:
        """The brokers, for a person."""
        return brokers_of(self.messaging)

    def connected(self) -> None:
        """All is well."""
        if self._away:
            log.info("a queue is read", source=self.name, queue=self.messaging.ingest, brokers=self.where)
        self._away = ""

    def lost(self, why: str) -> None:
        """Nothing can be fetched now. Told once, and again after a while: a connection may be lost again and again."""
        self._away, now = why[:WORDS_MAX], self.needs.clock.monotonic()
        if self._away != self._told or now - self._told_at >= TELL_AGAIN_S:
            self._told, self._told_at = self._away, now
            log.warning("a queue can't be read, retrying", source=self.name, why=self._away)

    def lane(self, settled: Callable[[Message], None]) -> Lane:
        """A new one. The child finishes or drops it."""
        lane = Lane(self.messages, self.concurrency, settled, self._lane_waits, self._lane_broke)
        self.lanes.add(lane)
        return lane

    async def end_lane(self, lane: Lane, *, finish: bool) -> None:
        """It is over: `finish` what is under way, or drop all."""
        self.lanes.discard(lane)
        await (lane.finish() if finish else lane.drop())

    def set_lag(self, partition: str, lag: int) -> None:
        self.needs.meter.set("llm_im_queue_lag", max(0, lag), source=self.name, partition=partition)

    def forget_lag(self, partition: str) -> None:
        self.needs.meter.forget("llm_im_queue_lag", source=self.name, partition=partition)

    # -- its own

    def _lane_broke(self, error: Exception) -> None:
        if self._broken is not None and not self._broken.done():
            self._broken.set_result(error)

    async def _read(self) -> None:
        """read(), until it ends or a lane does. Raises what they do."""
        loop = asyncio.get_running_loop()
        self._broken = loop.create_future()
        reading = loop.create_task(self.read())
        try:
            await asyncio.wait((reading, self._broken), return_when=asyncio.FIRST_COMPLETED)
            if self._broken.done():
                raise self._broken.result()
            reading.result()
        finally:
            await end([reading])

    def _lane_waits(self, lane: Lane, why: str) -> None:
        had = bool(self._waiting)
        if why:
            self._waiting[lane] = why
        else:
            self._waiting.pop(lane, None)
        if why and not had:
            log.warning("messages of a queue can't be stored now, retrying", source=self.name, why=why)
        elif had and not self._waiting:
            log.info("messages of a queue are stored again", source=self.name)

    async def _live(self) -> None:
        while not self.leaving.is_set():
            begun = self.needs.clock.monotonic()
            try:
                await self._read()
                if self.leaving.is_set():
                    return
                self.lost(f"{self.where} closed the connection")
            except IncidentManagerError as error:
                self.lost(str(error))
            except Exception as error:
                log.exception("bug: a queue can't be read, retrying", source=self.name)
                self.lost(f"a bug: {error!r}")
            finally:
                for lane in [*self.lanes]:
                    await self.end_lane(lane, finish=False)
            if self.needs.clock.monotonic() - begun >= WELL_S:
                self._retry_s = RETRY_S
            pause_s, self._retry_s = self._retry_s, min(2 * self._retry_s, RETRY_MAX_S)
            await self.pause(pause_s)

    async def pause(self, seconds: float) -> bool:
        """Wait, unless it is to stop meanwhile. Whether it is."""
        try:
            async with asyncio.timeout(seconds):
                await self.leaving.wait()
        except TimeoutError:
            return False
        return True


def header_bytes(headers: Mapping[str, object] | None) -> dict[bytes, bytes]:
    """Headers as formats see them: names in lower case. Those that are no text are left out."""
    found: dict[bytes, bytes] = {}
    for name, value in (headers or {}).items():
        if isinstance(value, bytes):
            found[name.lower().encode("utf-8", "replace")] = value
        elif isinstance(value, str):
            found[name.lower().encode("utf-8", "replace")] = value.encode("utf-8", "replace")
    return found
