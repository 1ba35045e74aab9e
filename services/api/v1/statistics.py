"""Figures over all incidents: gathered stretch by stretch from the shards, and from the archive for what closed in the
window. Called by stats.py."""

from __future__ import annotations

import asyncio
from array import array
from collections import Counter
from dataclasses import dataclass, field, replace

from models.errors import Broken, Unavailable
from models.incidents.filters import IncidentFilter, Sort, compile_filter
from models.incidents.incident import Incident, IncidentState
from models.incidents.listing import began_at
from models.incidents.query import CountIncidents, IncidentCounts, Looked
from models.partition.sharding import partition_name
from models.ports import ArchiveQuery
from services.api.asking import Asking, decode_incident

#: How long figures are gathered: 200,000 incidents take a tenth of it.
STATS_TIME_S = 10.0
#: Archived incidents that are counted: at 60 us each about half a second. Of more, the oldest are left out, and the answer
#: says so.
ARCHIVED_MAX = 10_000
_PAGE = 1000


@dataclass(slots=True)
class Figures:
    """What was counted; stats.py says what each means. Times are in seconds."""

    states: Counter[str] = field(default_factory=Counter)
    severities: Counter[int] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)
    services: Counter[str] = field(default_factory=Counter)
    decided: Counter[int] = field(default_factory=Counter)
    acknowledged: int = 0
    unassigned: int = 0
    overdue: int = 0
    opened: int = 0
    acknowledged_s: array[float] = field(default_factory=lambda: array("d"))
    resolved_s: array[float] = field(default_factory=lambda: array("d"))
    is_complete: bool = True

    def add(self, counts: IncidentCounts) -> None:
        """Take in one stretch of one shard."""
        self.states.update(counts.states)
        self.severities.update(counts.severities)
        self.types.update(counts.types)
        self.services.update(counts.services)
        self.decided.update(counts.decided)
        self.acknowledged += counts.acknowledged
        self.unassigned += counts.unassigned
        self.overdue += counts.overdue
        self.opened += counts.opened
        self.acknowledged_s.frombytes(counts.acknowledged_s)
        self.resolved_s.frombytes(counts.resolved_s)


async def gather(asking: Asking, wanted: IncidentFilter, *, now: float, since: float) -> Figures:
    """The figures of now and of the time since then. Raises Unavailable when a shard or an archive cannot answer."""
    figures = Figures()
    over_at = asyncio.get_running_loop().time() + STATS_TIME_S
    looked: dict[int, Looked | None] = dict.fromkeys(range(asking.shards))
    while looked:
        _check_time(over_at)
        shards = list(looked)
        queries = [CountIncidents(asking.tenant, now, since, wanted, looked[shard]) for shard in shards]
        for shard, counts in zip(shards, await asking.each(shards, queries, IncidentCounts), strict=True):
            figures.add(counts)
            before = looked[shard]
            if counts.looked is None:
                del looked[shard]
            elif before is not None and counts.looked >= before:
                raise Broken(f"{partition_name(shard)} counts in a circle at {counts.looked}")
            else:
                looked[shard] = counts.looked
    if not wanted.states or IncidentState.CLOSED in wanted.states:
        await _count_archived(asking, figures, wanted, since, over_at)
    return figures


async def _count_archived(
    asking: Asking, figures: Figures, wanted: IncidentFilter, since: float, over_at: float
) -> None:
    query = ArchiveQuery(
        asking.tenant,
        _PAGE,
        None,
        tuple(wanted.services),
        tuple(wanted.severities),
        tuple(wanted.types),
        Sort.LATELY_UPDATED,
        wanted.created_after,
        wanted.created_before,
        max(since, wanted.updated_after),
        wanted.updated_before,
    )
    at = {archive: query for archive in asking.archives}
    counted = 0
    while at:
        _check_time(over_at)
        pages = await asking.of_archives([archive.page(each) for archive, each in at.items()])
        for archive, page in zip(list(at), pages, strict=True):
            # A new one for each page: a pattern's steps are bounded by the page.
            holds = compile_filter(wanted)
            for archived in page.items:
                incident = decode_incident(archived.record)
                if holds(incident):
                    _count_one(figures, incident, since)
            counted += len(page.items)
            if page.next_after is None:
                del at[archive]
            else:
                at[archive] = replace(query, after=page.next_after)
        if counted >= ARCHIVED_MAX and at:
            figures.is_complete = False
            return


def _count_one(figures: Figures, incident: Incident, since: float) -> None:
    """What models.incidents.listing.count_incidents counts of one that is closed."""
    if incident.merged_into:
        return
    figures.states[incident.state] += 1
    figures.opened += incident.created_at >= since
    answered_at = 0.0 if incident.handling is None else incident.handling.answered_at
    if answered_at and answered_at >= since:
        figures.acknowledged_s.append(max(0.0, answered_at - began_at(incident)))
    if incident.resolved_at >= since:
        figures.resolved_s.append(max(0.0, incident.resolved_at - began_at(incident)))


def _check_time(over_at: float) -> None:
    if asyncio.get_running_loop().time() > over_at:
        raise Unavailable(f"figures took over {STATS_TIME_S:g} s: narrow the filter or the window")
