"""The incidents of a window as rows: from each shard, then from each archive, a stretch at a time. Called by services/api/v1/analytics.py.

An incident that moves to the archive meanwhile is met twice and counted once, as its shard had it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import msgspec

from models.analytics.rows import Row, row_of
from models.errors import Broken, Unavailable
from models.incidents.filters import IncidentFilter, Position, Sort, compile_filter
from models.incidents.incident import IncidentState
from models.incidents.query import IncidentPage, IncidentView, ListIncidents
from models.partition.sharding import partition_name
from models.ports import ArchiveQuery
from services.api.asking import Asking, decode_incident, view_of

#: Incidents of one answer, at about 500 bytes a row. Of more the oldest are left out, and the answer says so.
ROWS_MAX = 50_000
#: How long rows are gathered: 50,000 take a quarter of it.
GATHER_TIME_S = 20.0
#: Incidents of one page: decoding them takes 15 ms, between which the gateway takes alerts.
PAGE = 200


@dataclass(frozen=True, slots=True)
class Rows:
    """`is_complete`: there are no more."""

    items: list[Row]
    is_complete: bool


class _Found(dict[bytes, Row]):
    """Rows by incident. Of what an incident says, which may be much, only the value of `label` is kept."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self._label = label

    def add(self, view: IncidentView) -> None:
        row = row_of(view)
        value = row.labels.get(self._label)
        labels = {} if value is None else {self._label: value}
        self[row.id] = msgspec.structs.replace(row, title="", labels=labels)


async def gather(asking: Asking, wanted: IncidentFilter, label: str = "") -> Rows:
    """All that match, newest first within each source, without titles and with no label but `label`. Raises Unavailable when a shard
    or an archive cannot answer."""
    over_at = asyncio.get_running_loop().time() + GATHER_TIME_S
    found = _Found(label)
    complete = await _from_shards(asking, wanted, found, over_at)
    if complete and (not wanted.states or IncidentState.CLOSED in wanted.states):
        complete = await _from_archives(asking, wanted, found, over_at)
    return Rows([*found.values()], complete)


async def _from_shards(asking: Asking, wanted: IncidentFilter, found: _Found, over_at: float) -> bool:
    at: dict[int, Position | None] = dict.fromkeys(range(asking.shards))
    while at:
        _check_time(over_at)
        shards = [*at]
        queries = [ListIncidents(asking.tenant, PAGE, at[shard], wanted) for shard in shards]
        for shard, page in zip(shards, await asking.each(shards, queries, IncidentPage), strict=True):
            for view in page.items:
                found.add(view)
            before = at[shard]
            if page.next_after is None:
                del at[shard]
            elif before is not None and page.next_after >= before:
                raise Broken(f"{partition_name(shard)} pages in a circle at {page.next_after}")
            else:
                at[shard] = page.next_after
            await asyncio.sleep(0)
        if len(found) >= ROWS_MAX and at:
            return False
    return True


async def _from_archives(asking: Asking, wanted: IncidentFilter, found: _Found, over_at: float) -> bool:
    query = ArchiveQuery(
        asking.tenant,
        PAGE,
        None,
        tuple(wanted.services),
        tuple(wanted.severities),
        tuple(wanted.types),
        Sort.NEWEST,
        wanted.created_after,
        wanted.created_before,
        wanted.updated_after,
        wanted.updated_before,
    )
    at = {archive: query for archive in asking.archives}
    while at:
        _check_time(over_at)
        pages = await asking.of_archives([archive.page(each) for archive, each in at.items()])
        for archive, page in zip([*at], pages, strict=True):
            # A new one for each page: a pattern's steps are bounded by the page.
            holds = compile_filter(wanted)
            for archived in page.items:
                if archived.incident_id not in found and holds(decode_incident(archived.record)):
                    found.add(view_of(archived))
            if page.next_after is None:
                del at[archive]
            else:
                at[archive] = replace(query, after=page.next_after)
            await asyncio.sleep(0)
        if len(found) >= ROWS_MAX and at:
            return False
    return True


def _check_time(over_at: float) -> None:
    if asyncio.get_running_loop().time() > over_at:
        raise Unavailable(
            f"reading the incidents took over {GATHER_TIME_S:g} s: narrow the filter or the window"
        )
