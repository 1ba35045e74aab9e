"""What there is to learn from: the incidents of a tenant, from each shard and then from each archive, the newest first."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from models.errors import Unavailable
from models.incidents.filters import IncidentFilter, Position
from models.incidents.incident import Incident
from models.incidents.query import IncidentPage, ListIncidents
from models.learned.examples import Example, example_of
from models.ports import ArchiveQuery
from services.api.asking import Asking, decode_incident

#: Incidents of one page: a shard answers it between two groups, in about 15 ms.
PAGE = 200
#: Between two pages: alerts come first.
PAUSE_S = 0.01
#: Incidents that are looked at in all: of more the oldest are left out. A minute or two of reading.
LOOKED_AT_MAX = 200_000
#: How long reading may take.
GATHER_TIME_S = 600.0


class _Kept:
    """The examples so far: those that a person corrected before others, and of each the newest, `most` in all."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._corrected: dict[bytes, Example] = {}
        self._others: dict[bytes, Example] = {}
        self._met: set[bytes] = set()

    @property
    def is_full(self) -> bool:
        return len(self._corrected) >= self._most or len(self._met) >= LOOKED_AT_MAX

    def add(self, incident: Incident) -> None:
        # One that moves to the archive meanwhile is met twice.
        if incident.id in self._met:
            return
        self._met.add(incident.id)
        found = example_of(incident)
        if found is None:
            return
        if found.is_corrected:
            self._corrected[incident.id] = found
        elif len(self._others) < self._most:
            self._others[incident.id] = found

    def all(self) -> list[Example]:
        corrected = [*self._corrected.values()][: self._most]
        # Those that somebody worked on before those that nobody looked at; sorting keeps the newest first.
        others = sorted(self._others.values(), key=lambda each: (not each.is_seen, -each.at))
        found = corrected + others[: self._most - len(corrected)]
        # In an order that does not depend on which shard answered first.
        return sorted(found, key=lambda each: each.question.incident_id)


async def gather(asking: Asking, most: int) -> list[Example]:
    """`most` at most. Raises Unavailable when a shard or an archive cannot answer: a model of half of it would be another one."""
    over_at = asyncio.get_running_loop().time() + GATHER_TIME_S
    kept = _Kept(most)
    at: dict[int, Position | None] = dict.fromkeys(range(asking.shards))
    while at and not kept.is_full:
        _check_time(over_at)
        shards = [*at]
        queries = [ListIncidents(asking.tenant, PAGE, at[shard], IncidentFilter()) for shard in shards]
        for shard, page in zip(shards, await asking.each(shards, queries, IncidentPage), strict=True):
            for view in page.items:
                kept.add(view.incident)
            if page.next_after is None:
                del at[shard]
            else:
                at[shard] = page.next_after
        await asyncio.sleep(PAUSE_S)
    query = ArchiveQuery(asking.tenant, PAGE)
    archives = {archive: query for archive in asking.archives}
    while archives and not kept.is_full:
        _check_time(over_at)
        pages = await asking.of_archives([archive.page(each) for archive, each in archives.items()])
        for archive, found in zip([*archives], pages, strict=True):
            for archived in found.items:
                kept.add(decode_incident(archived.record))
            if found.next_after is None:
                del archives[archive]
            else:
                archives[archive] = replace(query, after=found.next_after)
        await asyncio.sleep(PAUSE_S)
    return kept.all()


def _check_time(over_at: float) -> None:
    if asyncio.get_running_loop().time() > over_at:
        raise Unavailable(f"reading the incidents took over {GATHER_TIME_S:g} s")
