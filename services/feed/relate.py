"""Reads one shard's log for the correlator (actors/correlator.py): how its incidents are, page after page. It stands where the
correlator's own log says; where that place is not there any more, it asks the shard for all that is open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from models.errors import Unavailable
from models.incidents.incident import OPEN_STATES, Incident
from models.incidents.notification import RESOLVED
from models.incidents.query import ListSummaries, Looked, Summary, SummaryPage, decode_answer, encode
from models.partition.frames import digest_of
from models.ports import Archive, EventLog
from models.stream.happenings import Happening
from models.topology.events import IncidentNews
from models.topology.messages import IncidentsHeard
from services.feed.follow import Ask, Follower, Gap
from services.feed.standing import digest_at, moves_after, why_not

#: Summaries remembered of one shard: about all incidents of a busy day, 20 MB.
KNOWN_MAX = 20_000
#: Of a frame's digest: two logs that have it in common by chance are none.
DIGEST_BYTES = 8
#: Summaries of one answer of a shard, for all that is open.
HEADS_PAGE = 500
#: Characters of a title that are kept: it is shown in a line.
TITLE_MAX = 200
#: A line of these says that somebody was notified.
NOTIFIED = "NotificationSent"


class IncidentReader:
    """One shard's log. begin(), then read() again and again; after an error begin() anew."""

    def __init__(self, partition: str, event_log: EventLog, archive: Archive, ask: Ask, tenant: str) -> None:
        self.partition = partition
        self._log = event_log
        self._archive = archive
        self._ask = ask
        self._tenant = tenant
        self._follower: Follower | None = None
        self._whole: IncidentsHeard | None = None

    async def begin(self, seq: int, digest: bytes) -> None:
        """Go on behind the frame `seq`, whose digest begins with `digest`; with all that is open, if the log does not go on from there,
        or for seq 0, or where incidents left or came because slots moved: of those it has no news. Raises Unavailable, Damaged."""
        goes_on = seq and not await why_not(self._log, seq, digest)
        if goes_on and not any(await moves_after(self._log, seq)):
            self._follower = self._follower_from(seq)
            return
        last = await self._log.last_seq()
        digest = await digest_at(self._log, last)
        if not digest and (await self._log.stats())["frames"]:
            raise Unavailable(f"{self.partition}: the end of its log can't be read yet")
        self._follower = follower = self._follower_from(last)
        found: list[IncidentNews] = []
        after: Looked | None = None
        while True:
            answer = decode_answer(await self._ask(encode(ListSummaries(self._tenant, after, HEADS_PAGE))))
            if not isinstance(answer, SummaryPage) or answer.seq < last:
                raise Unavailable(f"{self.partition} is behind its own log")
            for summary in answer.items:
                if summary.state in OPEN_STATES:
                    follower.know(answer.seq, summary)
                    found.append(_news(summary, summary.created_at, told=False))
            after = answer.next_after
            if after is None:
                break
        self._whole = IncidentsHeard(
            self.partition, last, digest[:DIGEST_BYTES], [each for each in found if each.is_open], whole=True
        )

    async def read(self) -> IncidentsHeard | None:
        """What is new, None for nothing. Raises Unavailable, Damaged."""
        if self._whole is not None:
            whole, self._whole = self._whole, None
            return whole
        follower = self._follower
        assert follower is not None
        if await self._log.last_seq() < follower.seq:
            raise Unavailable(f"{self.partition}: another log is here")
        before = follower.seq
        try:
            page = await follower.read()
        except Gap:
            raise Unavailable(f"{self.partition}: what comes next in its log is not kept any more") from None
        if page.seq == before:
            return None
        return IncidentsHeard(
            self.partition,
            page.seq,
            digest_of(page.stored)[:DIGEST_BYTES],
            [*_incidents(page.happenings).values()],
        )

    async def close(self) -> None:
        await self._log.close()
        await self._archive.close()

    def _follower_from(self, seq: int) -> Follower:
        return Follower(self._log, self._ask, self._archived, self._tenant, seq, KNOWN_MAX, all_changes=True)

    async def _archived(self, identity: bytes) -> Incident | None:
        found = await self._archive.get(identity)
        return None if found is None else _incident_decoder.decode(found.record)


def _incidents(happenings: Iterable[Happening]) -> Mapping[bytes, IncidentNews]:
    """How the incidents of a page are after it: when each began, or began again, and whether somebody was notified since."""
    found: dict[bytes, IncidentNews] = {}
    for each in happenings:
        after, before = each.after, found.get(each.after.id)
        is_open = _is_open(after)
        was_open = before.is_open if before is not None else each.before is not None and _is_open(each.before)
        # Of one that opened again before this was read it is not known when; it was before this page.
        since = after.created_at if before is None else before.since
        if after.reopened and (before is None or (is_open and not was_open)):
            since = each.at
        # The end of its run before may be told when it is open again.
        is_told_of = each.line.kind == NOTIFIED and each.line.reason != RESOLVED
        told = is_open and (is_told_of or (was_open and before is not None and before.told))
        found[after.id] = _news(after, since, told=told)
    return found


def _is_open(summary: Summary) -> bool:
    """Open by itself: its parent stands for a child."""
    return summary.state in OPEN_STATES and not summary.merged_into


def _news(summary: Summary, since: float, *, told: bool) -> IncidentNews:
    return IncidentNews(
        summary.id,
        summary.service,
        summary.title[:TITLE_MAX],
        int(summary.counts.severity),
        _is_open(summary),
        since,
        summary.reopened,
        told,
    )


_incident_decoder = msgspec.msgpack.Decoder(Incident)
