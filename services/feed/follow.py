"""Reads one shard's log beside its writer, as happenings (models/stream/happenings.py). Used by services/feed/tail.py, watch.py.

What an event does not say about its incident is requested from the shard, for one page of the log at a time, or from
the archive if the shard no longer has it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

import msgspec

from models.errors import Unavailable
from models.incidents.incident import Incident
from models.incidents.query import PAGE_MAX, GetSummaries, Summary, SummaryPage, decode_answer, encode
from models.incidents.summaries import FRAME_END, LogPosition, Summaries, fold, opened, split_off, summary_of
from models.partition.event import Event
from models.partition.frames import EVERYONE, UNSURE, Skimmed
from models.ports import EventLog
from models.shard.assembly import ASSEMBLY
from models.shard.events import ClockSetBack, IncidentOpened, IncidentStateChanged
from models.shard.splitting import IncidentSplit
from models.stream.happenings import CHANGED, DESCRIBED, SYSTEM, Happening, Line, about, line
from models.wire import tag_of

#: Bytes of log read at once: to skim them takes some milliseconds, and a gateway has alerts to take meanwhile.
READ_BYTES = 64 * 1024
#: Events read in one go, some 3 ms. A tick that ends a thousand incidents takes few bytes.
BREATHE_EVENTS = 250
#: Incidents of other tenants that are remembered, so that they are not asked for again at each of their events: a megabyte.
FOREIGN_MAX = 10_000
#: A summary from the archive: no event comes after it.
NEVER_AGAIN: LogPosition = (FRAME_END, FRAME_END)

#: Events that a follower must not skip.
_WANTED = DESCRIBED | {tag_of(ClockSetBack)}

#: Asks one shard; raises Unavailable.
Ask = Callable[[bytes], Awaitable[bytes]]
#: An incident that left its shard, None when the archive has none.
ReadArchived = Callable[[bytes], Awaitable[Incident | None]]


class Gap(Exception):
    """The frames that come next were truncated."""


class Page(msgspec.Struct, frozen=True):
    """What was read, up to and including the frame `seq`, which is `stored`. `set_back`: the shard's clock was set back
    within it, and with it times of incidents that have no event here."""

    happenings: list[Happening]
    seq: int
    stored: bytes = b""
    set_back: bool = False


class _Foreign:
    """Incidents that are another tenant's, or that nobody has any more."""

    def __init__(self) -> None:
        self._met: OrderedDict[bytes, None] = OrderedDict()

    def __contains__(self, identity: bytes) -> bool:
        return identity in self._met

    def add(self, identity: bytes) -> None:
        self._met[identity] = None
        if len(self._met) > FOREIGN_MAX:
            self._met.popitem(last=False)


class Follower:
    """One reader of one log, for one tenant. `seq` is the frame it read last. With `all_changes` it also reports
    changes of an incident that are not in its timeline, as CHANGED.

    An event is the tenant's whose incident it tells of. The tenant of a frame only says which frames need not be looked at:
    older programs wrote another's name on what came of time, verdicts and outcomes.
    """

    def __init__(
        self,
        event_log: EventLog,
        ask: Ask,
        archived: ReadArchived,
        tenant: str,
        seq: int,
        most: int,
        *,
        all_changes: bool = False,
    ) -> None:
        self.seq = seq
        self._all_changes = all_changes
        self._event_log = event_log
        self._ask = ask
        self._archived = archived
        self._tenant = tenant
        self._known = Summaries(most)
        self._foreign = _Foreign()

    async def read(self, until: int | None = None) -> Page:
        """What comes next, up to the frame `until`; empty at the end. Raises Gap, Unavailable, Damaged, and then stays where it was."""
        page = await self._event_log.read(self.seq, READ_BYTES)
        if until is not None:
            page = [each for each in page if each[0] <= until]
        if not page:
            return Page([], self.seq)
        if page[0][0] != self.seq + 1:
            raise Gap
        partition = self._event_log.partition
        frames: list[tuple[int, Skimmed]] = []
        events = 0
        for seq, stored in page:
            frame = ASSEMBLY.frames.skim(partition, stored, seq, _WANTED)
            if frame is not None and (frame := self._may_concern(frame)) is not None:
                frames.append((seq, frame))
                events = await self._breathe(events + len(frame.events))
        last = page[-1][0]
        asked = await self._ask_for(self._unknown(frames), last) if frames else {}
        happenings: list[Happening] = []
        events = 0
        set_back = False
        for seq, frame in frames:
            place = 0
            for number, event in frame.events:
                if isinstance(event, ClockSetBack):
                    self._known.set_back(event)
                    set_back = True
                for nth, identity in enumerate(about(event)):
                    found = self._happening((seq, number), place, nth, frame, event, identity, asked)
                    if found is not None:
                        happenings.append(found)
                    place += 1
            events = await self._breathe(events + len(frame.events))
        self._known.trim()
        self.seq = last
        return Page(happenings, last, page[-1][1], set_back)

    def _may_concern(self, frame: Skimmed) -> Skimmed | None:
        """What of a frame may be of interest to the tenant, None when nothing is. Of another's frame that is only what concerns
        everyone: older programs wrote it into the frame of the message that was at hand."""
        if frame.tenant in (self._tenant, EVERYONE, UNSURE):
            return frame
        shared = [found for found in frame.events if isinstance(found[1], ClockSetBack)]
        return msgspec.structs.replace(frame, events=shared) if shared else None

    def know(self, seq: int, summary: Summary) -> None:
        """Remember a summary as of the frame `seq`, so that it need not be requested."""
        self._known.put((seq, FRAME_END), summary)
        self._known.trim()

    async def _breathe(self, events: int) -> int:
        """Let others run once this many were read; returns the new count."""
        if events < BREATHE_EVENTS:
            return events
        await asyncio.sleep(0)
        return 0

    def _unknown(self, frames: list[tuple[int, Skimmed]]) -> list[bytes]:
        """Incidents that existed before and were not seen yet: their summaries must be requested. Notes those that open
        and are another tenant's."""
        wanted: dict[bytes, None] = {}
        made: set[bytes] = set()
        for seq, frame in frames:
            for number, event in frame.events:
                for identity in about(event):
                    if identity in wanted or identity in made or self._known.get(identity) is not None:
                        continue
                    if isinstance(event, IncidentOpened):
                        if event.tenant == self._tenant:
                            made.add(identity)
                        else:
                            self._foreign.add(identity)
                    elif identity in self._foreign:
                        continue
                    elif (
                        isinstance(event, IncidentSplit)
                        and identity == event.made
                        and event.incident_id not in wanted
                    ):
                        source = self._known.get(event.incident_id)
                        if source is not None and source[0] >= (seq, number):
                            # Its summary is later than the split, so it can't stand in for the new one.
                            wanted[identity] = None
                        else:
                            made.add(identity)
                    else:
                        wanted[identity] = None
        return list(wanted)

    async def _ask_for(self, identities: list[bytes], last: int) -> dict[bytes, tuple[LogPosition, Summary]]:
        found: dict[bytes, tuple[LogPosition, Summary]] = {}
        for start in range(0, len(identities), PAGE_MAX):
            some = identities[start : start + PAGE_MAX]
            answer = decode_answer(await self._ask(encode(GetSummaries(self._tenant, some))))
            if not isinstance(answer, SummaryPage) or answer.seq < last:
                # Its log was read further than it is itself: the shard is restarting.
                raise Unavailable(f"{self._event_log.partition} is behind its own log")
            found.update((summary.id, ((answer.seq, FRAME_END), summary)) for summary in answer.items)
        for identity in identities:
            if identity not in found:
                incident = await self._archived(identity)
                if incident is not None and incident.tenant == self._tenant:
                    found[identity] = (NEVER_AGAIN, summary_of(incident))
                else:
                    self._foreign.add(identity)
        return found

    def _happening(
        self,
        at: LogPosition,
        place: int,
        nth: int,
        frame: Skimmed,
        event: Event,
        identity: bytes,
        asked: dict[bytes, tuple[LogPosition, Summary]],
    ) -> Happening | None:
        """None if there is nothing to report, or nobody has the incident any more (its retention is over)."""
        known = self._known.get(identity)
        if known is None and identity in asked:
            known = asked[identity]
            self._known.put(*known)
        before, after = None, None
        if known is not None and known[0] >= at:
            after = known[1]
        elif known is not None:
            before = known[1]
            after = fold(before, event, frame.now)
        elif isinstance(event, IncidentOpened) and event.tenant == self._tenant:
            after = opened(event, frame.now)
        elif isinstance(event, IncidentSplit) and (source := self._known.get(event.incident_id)) is not None:
            after = split_off(event, source[1], frame.now)
        if after is None:
            return None
        if known is None or known[0] < at:
            self._known.put(at, after)
        if before is None and isinstance(event, IncidentStateChanged):
            before = msgspec.structs.replace(after, state=event.before)
        told = line(event, nth, frame.now, before, after)
        if told is None and self._all_changes and after != before:
            told = Line(CHANGED, SYSTEM, "")
        if told is None:
            return None
        sure = after.updated_at <= frame.now
        return Happening(at[0], place, frame.now, frame.trace_id, told, before, after, sure)
