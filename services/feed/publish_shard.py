"""Writes what happens in one shard's log to the feed: from the position recorded in Redis, else from the shard as it is
now. Run by services/feed/publish.py, one for each partition."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from uuid import UUID

import msgspec
import structlog

from models.errors import Broken, IncidentManagerError, Unavailable
from models.incidents.incident import Incident
from models.incidents.query import ListSummaries, Looked, SummaryPage, decode_answer, encode
from models.metrics import Meter
from models.partition.frames import NO_DIGEST, digest_of
from models.ports import Archive, Clock, EventLog
from services.feed.follow import Ask, Follower, Gap, Page
from services.feed.publish_bodies import Entry, entry_of, entry_of_change, reset_message
from services.feed.standing import digest_at, why_not
from services.stores.redis.feed import FeedMoved, RedisFeed

log = structlog.get_logger()

#: How often a log is looked at when nothing is new, as the live stream does.
POLL_S = 0.2
#: How often to check a quiet feed, which may have been flushed; positions without a change are recorded as often.
CHECK_S = 2.0
#: Wait before a retry, doubling.
RETRY_S = 0.5
RETRY_MAX_S = 5.0
#: Wait before a feed is taken back from another writer: two that keep taking it from each other help nobody.
OTHER_S = 10.0
#: Wait before a feed continues after a bug: the log would be full of it otherwise.
BUG_PAUSE_S = 10.0
#: The most that one script writes: Redis answers nobody else for some 5 ms meanwhile.
PUT_MAX = 200
PUT_BYTES = 1024 * 1024
#: Summaries asked for at once: the shard answers between two batches, in 2 ms.
HEADS_PAGE = 250
#: Summaries remembered for all shards together, about all incidents of a busy day, 40 MB; and of one shard at least.
KNOWN_MAX = 20_000
KNOWN_LEAST = 1000


class FeedAway(Unavailable):
    """The feed's Redis can't be written now."""


class FeedPosition(msgspec.Struct, frozen=True):
    """How far a log was told: up to the frame `seq`, whose digest is `digest` (empty: not known), and of what comes after
    it up to and with the line `line`, given as frame and place within."""

    seq: int
    digest: bytes
    line: tuple[int, int] = (0, 0)

    @property
    def text(self) -> str:
        return f"{self.seq}:{self.digest.hex()}:{self.line[0]}:{self.line[1]}"

    @staticmethod
    def of(text: str) -> FeedPosition | None:
        """What `text` says, None when it can't be read."""
        try:
            seq, digest, *line = text.split(":")
            frame, place = map(int, line)
            return FeedPosition(int(seq), bytes.fromhex(digest), (frame, place))
        except ValueError:
            return None


class ShardFeed:
    """One partition on its way into the feed, of one tenant. `behind` counts the frames that are still to be read."""

    def __init__(
        self,
        partition: str,
        partitions: Collection[str],
        open_log: Callable[[str], EventLog],
        archive: Archive,
        ask: Ask,
        slots: Callable[[], Awaitable[int]],
        feed: RedisFeed,
        through: Callable[[Awaitable[None]], Awaitable[None]],
        take: Callable[[int], Awaitable[dict[str, str]]],
        clock: Clock,
        meter: Meter,
        tenant: str,
    ) -> None:
        self.partition = partition
        self._tenant = tenant
        self._partitions = partitions
        self._open_log = open_log
        self._log = open_log(partition)
        self._archive = archive
        self._ask = ask
        self._slots = slots
        self._feed = feed
        self._through = through
        self._take = take
        self._clock = clock
        self._meter = meter
        self._why = ""
        self._end = 0
        self._noted_at = 0.0
        #: Where the log was read to, and what Redis has noted: the same, or somewhat less while nothing changes.
        self._at = FeedPosition(0, NO_DIGEST)
        self._noted = ""
        self._follower = self._follower_from(0)

    @property
    def behind(self) -> int:
        return max(0, self._end - self._at.seq)

    async def run(self) -> None:
        """Run until cancelled. Any failure holds up only this partition's part of the feed."""
        pause_s = RETRY_S
        while True:
            try:
                await self._begin()
                self._now("")
                while True:
                    await self._step()
                    pause_s = RETRY_S
            except FeedMoved as error:
                if error.by_other:
                    log.warning(
                        "another writer took the feed, taking it back: do two systems share publish.redis.prefix?",
                        partition=self.partition, in_s=OTHER_S,
                    )  # fmt: skip
                    await asyncio.sleep(OTHER_S)
            except FeedAway:
                pass  # services/feed/publish.py has logged it
            except IncidentManagerError as error:
                self._now(str(error))
                if isinstance(error, Broken):
                    # Perhaps another log is here by now, which does not go on from what this reader has seen.
                    await self._log.close()
                    self._log = self._open_log(self.partition)
            except Exception:
                log.exception("bug: feed stalled", partition=self.partition)
                await asyncio.sleep(BUG_PAUSE_S)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MAX_S)

    async def close(self) -> None:
        await self._log.close()
        await self._archive.close()

    # --- where it begins ---

    async def _begin(self) -> None:
        """Start at the position recorded in Redis; if that is not possible, rebuild the partition's part."""
        self._end = await self._log.last_seq()
        text = (await self._take(await self._slots())).get(self.partition, "")
        place = FeedPosition.of(text)
        why = (
            "new"
            if not text
            else "unknown"
            if place is None
            else await why_not(self._log, place.seq, place.digest)
        )
        if place is None or why:
            await self._make_anew(text, why)
        else:
            self._stand(place, self._follower_from(place.seq))

    async def _make_anew(self, text: str, why: str) -> None:
        """Write all incidents of the shard as they are, delete the others, and send a reset. Killed in the middle, it
        starts over."""
        log.info("rebuilding the feed of a shard", partition=self.partition, reason=why)
        await self._put(text, "", [])
        seq = await self._log.last_seq()
        digest = await digest_at(self._log, seq)
        if not digest and (await self._log.stats())["frames"]:
            raise Unavailable(f"{self.partition}: the end of its log can't be read yet")
        follower = self._follower_from(seq)
        seen: set[str] = set()
        after: Looked | None = None
        while True:
            answer = decode_answer(await self._ask(encode(ListSummaries(self._tenant, after, HEADS_PAGE))))
            if not isinstance(answer, SummaryPage) or answer.seq < seq:
                raise Unavailable(f"{self.partition} is behind its own log")
            for summary in answer.items:
                follower.know(answer.seq, summary)
                seen.add(str(UUID(bytes=summary.id)))
            for batch in _batches(entry_of(summary) for summary in answer.items):
                await self._put("", "", batch)
            after = answer.next_after
            if after is None:
                break
        await self._through(self._feed.sweep(self.partition, self._partitions, seen))
        place = FeedPosition(seq, digest)
        await self._put("", place.text, [], reset_message(self._clock.now(), self.partition, why))
        self._meter.count("llm_im_publish_resets_total", reason=why)
        self._stand(place, follower)

    def _stand(self, place: FeedPosition, follower: Follower) -> None:
        self._at, self._noted, self._follower = place, place.text, follower
        self._noted_at = self._clock.monotonic()

    def _follower_from(self, seq: int) -> Follower:
        most = max(KNOWN_LEAST, KNOWN_MAX // len(self._partitions))
        return Follower(self._log, self._ask, self._archived, self._tenant, seq, most, all_changes=True)

    async def _archived(self, identity: bytes) -> Incident | None:
        found = await self._archive.get(identity)
        return None if found is None else _incident_decoder.decode(found.record)

    # --- how it goes on ---

    async def _step(self) -> None:
        self._end = await self._log.last_seq()
        if self._end < self._at.seq:
            await self._make_anew(self._noted, "unknown")
            return
        before = self._at.seq
        if before < self._end:
            try:
                page = await self._follower.read()
            except Gap:
                await self._make_anew(self._noted, "truncated")
                return
            if page.set_back:
                # Any incident's times may have changed, without an event.
                await self._make_anew(self._noted, "clock")
                return
            if page.seq != before:
                await self._publish(page)
        if self._clock.monotonic() - self._noted_at >= CHECK_S:
            await self._note()
        if self._at.seq in (before, self._end):
            await asyncio.sleep(POLL_S)

    async def _publish(self, page: Page) -> None:
        """All changes of a page, each once: those that were told before what told them died are passed over."""
        start, end = self._at, FeedPosition(page.seq, digest_of(page.stored))
        new = [each for each in page.happenings if (each.seq, each.place) > start.line]
        told = 0
        for batch in _batches(entry_of_change(each) for each in new):
            told += len(batch)
            last = new[told - 1]
            then = end if told == len(new) else FeedPosition(start.seq, start.digest, (last.seq, last.place))
            await self._put(self._noted, then.text, batch)
            self._noted, self._noted_at = then.text, self._clock.monotonic()
        self._at = end
        if new:
            self._meter.count("llm_im_published_total", len(new))

    async def _note(self) -> None:
        """Record how far the log was read, or check that what was recorded is still there."""
        if self._noted != self._at.text:
            await self._put(self._noted, self._at.text, [])
            self._noted = self._at.text
        else:
            await self._through(self._feed.check(self.partition, self._noted))
        self._noted_at = self._clock.monotonic()

    async def _put(self, told: str, then: str, entries: list[Entry], message: bytes = b"") -> None:
        await self._through(self._feed.put(self.partition, told, then, entries, message))

    def _now(self, why: str) -> None:
        if why and not self._why:
            log.warning("feed stalled", partition=self.partition, why=why)
        self._why = why


def _batches(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """At most PUT_MAX at once, and no more bytes than PUT_BYTES but for a single one."""
    batch: list[Entry] = []
    size = 0
    for each in entries:
        own = len(each.record) + len(each.message)
        if batch and (len(batch) == PUT_MAX or size + own > PUT_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(each)
        size += own
    if batch:
        yield batch


_incident_decoder = msgspec.msgpack.Decoder(Incident)
