"""Writes what happens in one shard's log to the queue, page after page, from where the cursor stands. Run by announce.py, one for each
partition."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from models.errors import Broken, IncidentManagerError, Unavailable
from models.incidents.incident import Incident
from models.incidents.query import GetIncident, IncidentPage, decode_answer, encode
from models.metrics import Meter
from models.partition.frames import digest_of
from models.ports import Archive, Clock, EventLog
from services.feed.announcements import announcements, gap
from services.feed.follow import Ask, Follower, Gap
from services.feed.outlet import Outlet
from services.feed.standing import digest_at, moves_after, why_not

log = structlog.get_logger()

#: How often a log is looked at when nothing is new, as the live stream does.
POLL_S = 0.2
#: Wait before a retry, doubling.
RETRY_S = 0.5
RETRY_MAX_S = 5.0
#: Wait before it continues after a bug: the log would be full of it otherwise.
BUG_PAUSE_S = 10.0
#: Summaries remembered for all shards together, about all incidents of a busy day, 40 MB; and of one shard at least.
KNOWN_MAX = 20_000
KNOWN_LEAST = 1000
#: Of a frame's digest, in a cursor: two logs that have it in common by chance are none.
DIGEST_BYTES = 8


#: An incident that is not in this partition any more, from the one that has it since slots moved; None when nobody has it.
Elsewhere = Callable[[bytes, str], Awaitable[Incident | None]]


class Standing(msgspec.Struct, frozen=True):
    """All up to the frame `seq`, whose digest begins with `digest` (empty: not known), is confirmed."""

    seq: int
    digest: bytes


class ShardAnnouncements:
    """One partition on its way to the queue, of one tenant. `at` is None until it is known where it stands."""

    def __init__(
        self,
        partition: str,
        partitions: int,
        open_log: Callable[[str], EventLog],
        archive: Archive,
        ask: Ask,
        elsewhere: Elsewhere,
        outlet: Outlet,
        process: str,
        orchestrate: str,
        clock: Clock,
        meter: Meter,
        tenant: str,
    ) -> None:
        self.partition = partition
        self.at: Standing | None = None
        #: Why this partition stands still, "" when it goes on.
        self.why = ""
        self._most = max(KNOWN_LEAST, KNOWN_MAX // partitions)
        self._open_log = open_log
        self._log = open_log(partition)
        self._archive = archive
        self._ask = ask
        self._elsewhere = elsewhere
        self._outlet = outlet
        self._topics = process, orchestrate
        self._clock = clock
        self._meter = meter
        self._tenant = tenant
        self._end = 0
        #: Why events are missing that nobody was told of yet, "" when none are.
        self._gap = ""

    @property
    def behind(self) -> int:
        """Frames that are still to be read."""
        return 0 if self.at is None else max(0, self._end - self.at.seq)

    def begin(self, at: Standing | None, why: str) -> None:
        """Go on from there; without a place at the newest, and tell `why` what was before is missing."""
        self.at, self._gap = at, "" if at is not None else why

    async def run(self, moved_since: int | None = None) -> None:
        """Run until cancelled; with `moved_since`, a version of the slot map, until all is written that happened here before slots moved
        after it. Any failure holds up only this partition."""
        pause_s = RETRY_S
        while True:
            try:
                until = None if moved_since is None else (await self._moves(moved_since, self._seq))[1]
                follower = await self._stand()
                self._now("")
                while until is None or self._seq < until:
                    if not await self._step(follower, until):
                        break
                    pause_s = RETRY_S
                else:
                    return
            except IncidentManagerError as error:
                self._now(str(error))
                if isinstance(error, Broken):
                    # Perhaps another log is here by now, which does not go on from what this reader has seen.
                    await self._log.close()
                    self._log = self._open_log(self.partition)
            except Exception as error:
                self._now(f"a bug: {type(error).__name__}")
                log.exception(
                    "bug: events of a shard can't be written to the queue, retrying", partition=self.partition
                )
                await asyncio.sleep(BUG_PAUSE_S)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MAX_S)

    async def close(self) -> None:
        await self._log.close()
        await self._archive.close()

    async def begin_moved(self, moved_since: int) -> None:
        """Go on with what came here when slots moved after this version of the slot map: what was here before was written then. Raises
        Unavailable, Damaged."""
        first, _last = await self._moves(moved_since, 0)
        self.begin(Standing(max(0, first - 1), b""), "")

    async def find(self, identity: bytes) -> Incident | None:
        """An incident of this partition, from its shard or its archive. Raises Unavailable."""
        answer = decode_answer(await self._ask(encode(GetIncident(self._tenant, identity))))
        if isinstance(answer, IncidentPage) and answer.items:
            return answer.items[0].incident
        found = await self._archive.get(identity)
        return None if found is None else _incident_decoder.decode(found.record)

    @property
    def _seq(self) -> int:
        return 0 if self.at is None else self.at.seq

    async def _moves(self, since: int, after: int) -> tuple[int, int]:
        """The first and the last frame behind `after` with what left or came when slots moved after the version `since`; 0 for none."""
        return await moves_after(self._log, after, since)

    async def _stand(self) -> Follower:
        """Where reading goes on: at the frame behind the last that was confirmed, if the log still has it."""
        self._end = await self._log.last_seq()
        if self.at is not None:
            self._gap = await why_not(self._log, self.at.seq, self.at.digest) or self._gap
        if self.at is None or self._gap:
            await self._pass_over()
        assert self.at is not None
        return Follower(self._log, self._ask, self._archived, self._tenant, self.at.seq, self._most)

    async def _pass_over(self) -> None:
        """Tell that events are missing, and go on behind them: with the oldest frame still kept where older ones were truncated, else
        at the newest."""
        seq, digest = await self._log.last_seq(), b""
        if self._gap == "truncated" and self.at is not None:
            kept = await self._log.read(self.at.seq, 1)
            seq = kept[0][0] - 1 if kept else seq
        else:
            digest = await digest_at(self._log, seq)
            if not digest and (await self._log.stats())["frames"]:
                raise Unavailable(f"{self.partition}: the end of its log can't be read yet")
        if self._gap != "new":
            log.warning("events may be missing in the queue", partition=self.partition, reason=self._gap)
        await self._outlet.put(gap(self._clock.now(), self.partition, seq, self._gap, *self._topics))
        self._meter.count("llm_im_announce_gaps_total", reason=self._gap)
        self.at, self._gap = Standing(seq, digest[:DIGEST_BYTES]), ""

    async def _step(self, follower: Follower, until: int | None) -> bool:
        """Whether to go on with the same follower."""
        assert self.at is not None
        self._end = await self._log.last_seq()
        if self._end < self.at.seq:
            return False  # another log is here
        try:
            page = await follower.read(until)
        except Gap:
            return False
        if page.seq == self.at.seq:
            await asyncio.sleep(POLL_S)
            return True
        found = [
            message
            for each in page.happenings
            for message in announcements(self.partition, each, *self._topics)
        ]
        if found:
            await self._outlet.put(found)
        self.at = Standing(page.seq, digest_of(page.stored)[:DIGEST_BYTES])
        return True

    async def _archived(self, identity: bytes) -> Incident | None:
        found = await self._archive.get(identity)
        if found is None:
            return await self._elsewhere(identity, self.partition)
        return _incident_decoder.decode(found.record)

    def _now(self, why: str) -> None:
        if why and not self.why:
            log.warning(
                "events of a shard can't be written to the queue, retrying", partition=self.partition, why=why
            )
        self.why = why


_incident_decoder = msgspec.msgpack.Decoder(Incident)
