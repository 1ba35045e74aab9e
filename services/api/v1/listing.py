"""Pages of incidents over all shards and the archive, in any order. Called by the routes of /v1/incidents. A page is
merged from what each shard and each archive has next. None of them looks at more than a stretch of its incidents at
once, so a filter that seldom matches does not block them: those that have not looked far enough are asked again, until
the page is full or LIST_TIME_S is over. Then the page is short, perhaps empty, and its cursor continues.

The archives are asked after the shards, not beside them: an incident that moves meanwhile is met twice, never missed. In
both, the shard's is the newer: one that was reopened on its way to the archive is as its shard has it, which is asked for
every incident of the archive that the page may show.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from models.errors import Broken, Malformed
from models.incidents.filters import IncidentFilter, Position, Sort, compile_filter, place_of
from models.incidents.incident import IncidentState
from models.incidents.query import (
    PAGE_MAX,
    GetIncidents,
    IncidentPage,
    IncidentView,
    ListIncidents,
)
from models.ports import ArchivePage, ArchiveQuery
from services.api.asking import Asking, decode_incident, view_of
from services.api.v1.cursors import decode_place, encode_place

#: How long a page may take: a person is waiting, and 100,000 incidents are searched in a tenth of it.
LIST_TIME_S = 5.0


@dataclass(frozen=True, slots=True)
class Incidents:
    """One page. `next` is the cursor of the page after it, None at the end."""

    items: list[IncidentView]
    next: str | None


@dataclass(frozen=True, slots=True)
class _Known:
    """Incidents with their places; all there are up to `to`, or all at all when that is None."""

    items: list[tuple[Position, IncidentView]]
    to: Position | None


#: What a shard or archive has next: items with their places, and where its next page begins.
_Page = tuple[list[tuple[Position, IncidentView]], Position | None]
_AskPages = Callable[[list[int], list[Position | None]], Awaitable[list[_Page]]]


class Listing:
    """Lists of incidents of one gateway."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    async def page(
        self,
        wanted: IncidentFilter,
        *,
        sort: Sort = Sort.NEWEST,
        limit: int = 100,
        cursor: str | None = None,
        alive_only: bool = False,
    ) -> Incidents:
        """A page of incidents; `alive_only` leaves the archive out. Raises Malformed for a bad limit, cursor or matcher, TooLarge for a pattern that takes
        too many steps, Unavailable when a shard or an archive cannot answer."""
        if not 1 <= limit <= PAGE_MAX:
            raise Malformed(f"limit: expected 1 to {PAGE_MAX}, not {limit}")
        after = None if cursor is None else decode_place(cursor, sort)
        over_at = asyncio.get_running_loop().time() + LIST_TIME_S
        alive = await self._alive(wanted, sort, limit, after, over_at)
        old = (
            _Known([], None)
            if alive_only or (wanted.states and IncidentState.CLOSED not in wanted.states)
            else await self._old(wanted, sort, limit, after, over_at, alive)
        )
        known_to = _first(sort, [place for place in (alive.to, old.to) if place is not None])
        met = {view.incident.id: (place, view) for known in (old, alive) for place, view in known.items}
        ordered = sorted(
            (
                (place, view)
                for place, view in met.values()
                if known_to is None or not sort.comes_after(place, known_to)
            ),
            key=lambda each: each[0],
            reverse=sort.goes_down,
        )
        items = ordered[:limit]
        goes_on_at = items[-1][0] if len(ordered) > limit else known_to
        return Incidents(
            [view for _place, view in items], None if goes_on_at is None else encode_place(sort, goes_on_at)
        )

    async def _alive(
        self, wanted: IncidentFilter, sort: Sort, limit: int, after: Position | None, over_at: float
    ) -> _Known:
        """Incidents of the shards."""

        async def ask(shards: list[int], afters: list[Position | None]) -> list[_Page]:
            queries = [ListIncidents(self._asking.tenant, limit, after, wanted, sort) for after in afters]
            return [
                ([(place_of(view.incident, sort), view) for view in page.items], page.next_after)
                for page in await self._asking.each(shards, queries, IncidentPage)
            ]

        return await _walk(ask, self._asking.shards, sort, limit, after, over_at)

    async def _old(
        self,
        wanted: IncidentFilter,
        sort: Sort,
        limit: int,
        after: Position | None,
        over_at: float,
        alive: _Known,
    ) -> _Known:
        """Incidents of the archives; those that a shard has otherwise are as it has them now."""
        archives = self._asking.archives

        async def ask(places: list[int], afters: list[Position | None]) -> list[_Page]:
            calls = [
                archives[place].page(self._archive_query(wanted, sort, limit, after))
                for place, after in zip(places, afters, strict=True)
            ]
            pages: list[ArchivePage] = await self._asking.of_archives(calls)
            return [
                ([(each.place(sort), view_of(each)) for each in page.items], page.next_after)
                for page in pages
            ]

        old = await _walk(ask, len(archives), sort, limit, after, over_at, alive.to)
        met = {view.incident.id for _place, view in alive.items}
        asked = [view.incident.id for _place, view in old.items if view.incident.id not in met]
        here = {view.incident.id: view for view in await self.get(asked)} if asked else {}
        holds = compile_filter(wanted)
        items = []
        for place, view in old.items:
            now = here.get(view.incident.id)
            if now is None or now.incident.version == view.incident.version:
                items.append((place, view))
            elif holds(now.incident):
                place = place_of(now.incident, sort)
                if after is None or sort.comes_after(place, after):
                    items.append((place, now))
        return _Known(items, old.to)

    def _archive_query(
        self, wanted: IncidentFilter, sort: Sort, limit: int, after: Position | None
    ) -> ArchiveQuery:
        # A new one for each page: a pattern's steps are bounded by the page.
        holds = compile_filter(wanted)
        return ArchiveQuery(
            self._asking.tenant,
            limit,
            after,
            tuple(wanted.services),
            tuple(wanted.severities),
            tuple(wanted.types),
            sort,
            wanted.created_after,
            wanted.created_before,
            wanted.updated_after,
            wanted.updated_before,
            lambda record: holds(decode_incident(record)),
        )

    async def get(self, incident_ids: Sequence[bytes]) -> list[IncidentView]:
        """Those of these incidents that are in a shard, in no order."""
        by_shard: dict[int, list[bytes]] = {}
        for identity in incident_ids:
            by_shard.setdefault(self._asking.shard_of(identity), []).append(identity)
        asked = [
            (shard, identities[start : start + PAGE_MAX])
            for shard, identities in by_shard.items()
            for start in range(0, len(identities), PAGE_MAX)
        ]
        pages = await self._asking.each(
            [shard for shard, _some in asked],
            [GetIncidents(self._asking.tenant, some) for _shard, some in asked],
            IncidentPage,
        )
        return [view for page in pages for view in page.items]


async def _walk(
    ask: _AskPages,
    sources: int,
    sort: Sort,
    limit: int,
    after: Position | None,
    over_at: float,
    far_enough: Position | None = None,
) -> _Known:
    """Page through all sources till `limit` incidents are known, or all up to `far_enough`, or the time is over."""
    loop = asyncio.get_running_loop()
    items: list[tuple[Position, IncidentView]] = []
    #: Where each source continues; those that have no more are removed.
    at: dict[int, Position | None] = dict.fromkeys(range(sources), after)
    asked = list(at)
    while asked:
        for source, (found, next_after) in zip(
            asked, await ask(asked, [at[each] for each in asked]), strict=True
        ):
            items += found
            if next_after is None:
                del at[source]
                continue
            before = at[source]
            if before is not None and not sort.comes_after(next_after, before):
                raise Broken(f"source {source} of a list pages in a circle")
            at[source] = next_after
        if len(items) >= limit:
            last = sorted((place for place, _view in items), reverse=sort.goes_down)[limit - 1]
            if far_enough is None or sort.comes_after(far_enough, last):
                far_enough = last
        if loop.time() > over_at:
            break
        asked = [
            source
            for source, place in at.items()
            if far_enough is None or place is None or sort.comes_after(far_enough, place)
        ]
    return _Known(items, _first(sort, [place for place in at.values() if place is not None]))


def _first(sort: Sort, places: Sequence[Position]) -> Position | None:
    if not places:
        return None
    return max(places) if sort.goes_down else min(places)
