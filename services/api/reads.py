"""Reads of single incidents and of alerts, over all shards and the archive. Called by the HTTP routes. An answer is
complete or an error: when a shard or the archive cannot answer, the read raises Unavailable with its name, and never
returns a list that is shorter than the truth.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from actors.runtime.ending import end
from models.alerts.matchers import MatcherTuple
from models.errors import Broken, Busy, Malformed, TooLarge
from models.incidents.incident import TimelineEntry
from models.incidents.query import (
    PAGE_MAX,
    AlertPage,
    AlertView,
    GetIncident,
    IncidentAlerts,
    IncidentPage,
    IncidentView,
    ListAlerts,
    MutePreview,
    PreviewMutes,
    Probe,
    encode,
)
from models.partition.sharding import partition_name
from models.ports import Archive, ArchivedIncident
from services.api.asking import Ask, Asking, view_of
from services.api.v1.cursors import decode_numbers, decode_stop, encode_numbers, encode_stop
from services.api.v1.listing import Listing

#: How long a shard may take to say that it is there: a probe's own deadline is seldom longer than this.
PROBE_TIMEOUT_S = 2.0
#: Alerts one read may return. At about 600 bytes of JSON each this is 150 MB (in a file: spool.py), and who reads it
#: holds 100 bytes of each, until the last shard has answered.
ALERTS_MAX = 250_000
#: Alerts that all reads under way in one gateway may hold together.
ALERTS_HELD_MAX = 2 * ALERTS_MAX
#: How long one page of alerts is looked for; then it is short, and its cursor leads on.
ALERT_PAGE_TIME_S = 5.0

_alerts_decoder = msgspec.msgpack.Decoder(list[AlertView])


@dataclass(frozen=True, slots=True)
class Alerts:
    """One page of alerts. `next` is the cursor of the page after it, None at the end."""

    items: list[AlertView]
    next: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """An incident and where it was: with its shard, or, when `archived` is there, in the archive."""

    view: IncidentView
    archived: ArchivedIncident | None = None


@dataclass(frozen=True, slots=True)
class Counted:
    """How many alerts an incident has together with its children, and how many of them fire."""

    alerts: int
    firing: int


class Reads:
    """All reads of one gateway. What it is made of: Asking (asking.py)."""

    def __init__(
        self,
        ask: Ask,
        shards: int,
        shard_of_slot: Callable[[int], int],
        archives: Sequence[Archive],
        *,
        tenant: str = "default",
    ) -> None:
        self.asking = self._asking = Asking(ask, shards, shard_of_slot, archives, tenant=tenant)
        self.listing = Listing(self._asking)
        self._held = 0

    async def incident(self, incident_id: bytes) -> Found | None:
        """The incident, from its shard, else from the archive; None when neither has it."""
        page = await self._asking.one(
            self._asking.shard_of(incident_id), GetIncident(self._asking.tenant, incident_id), IncidentPage
        )
        if page.items:
            return Found(page.items[0])
        return await self._archived(incident_id)

    async def counted(self, views: Sequence[IncidentView]) -> list[Counted]:
        """The alerts of each incident with those of its children, which are fetched for it."""
        wanted = {child for view in views for child in view.incident.children}
        children = {view.incident.id: view for view in await self.listing.get(list(wanted))} if wanted else {}
        for identity in wanted - set(children):
            found = await self._archived(identity)
            if found is not None:
                children[identity] = found.view
        counted = []
        for view in views:
            family = [view, *(children[child] for child in view.incident.children if child in children)]
            counted.append(
                Counted(sum(each.alerts for each in family), sum(each.incident.firing for each in family))
            )
        return counted

    async def incident_alerts(
        self,
        incident_id: bytes,
        *,
        firing: bool | None = None,
        limit: int = PAGE_MAX,
        cursor: str | None = None,
    ) -> Alerts | None:
        """A page of an incident's alerts in the order they joined, then those of each of its children; None when there
        is no such incident. `firing` None: ended ones too."""
        if not 1 <= limit <= PAGE_MAX:
            raise Malformed(f"limit: expected 1 to {PAGE_MAX}, not {limit}")
        whose, after = (incident_id, -1) if cursor is None else decode_stop(cursor)
        found = await self.incident(incident_id)
        if found is None:
            return None
        children = sorted(found.view.incident.children)
        # A child that has left in the meantime is skipped.
        todo = children if whose == incident_id else [child for child in children if child >= whose]
        items: list[AlertView] = []
        for each in [incident_id, *todo] if whose == incident_id else todo:
            known = found if each == incident_id else await self.incident(each)
            if known is None:
                continue
            page = await self._own_alerts(known, firing, after if each == whose else -1, limit - len(items))
            items += page.items
            if page.next_after is not None:
                return Alerts(items, encode_stop(each, page.next_after))
            if len(items) == limit and each != ([incident_id, *children])[-1]:
                following = next(child for child in children if each == incident_id or child > each)
                return Alerts(items, encode_stop(following, -1))
        return Alerts(items, None)

    async def _own_alerts(self, found: Found, firing: bool | None, after: int, limit: int) -> AlertPage:
        """A page of the alerts of one incident without its children, as its place in them, or in the archive's list."""
        if found.archived is None:
            page = await self._alerts_of(found.view.incident.id, firing, after, limit)
            if page.items or found.view.alerts == 0 or after >= 0:
                return page
            # It has alerts, and the shard shows none: it went to the archive between the two questions.
            found = await self._archived(found.view.incident.id) or found
        if found.archived is None:
            return AlertPage([], None)
        alerts = _alerts_decoder.decode(found.archived.alerts)
        wanted = [
            place
            for place, each in enumerate(alerts)
            if place > after and (firing is None or each.firing is firing)
        ]
        return AlertPage(
            [alerts[place] for place in wanted[:limit]], wanted[limit - 1] if len(wanted) > limit else None
        )

    async def timeline(self, incident_id: bytes) -> tuple[list[TimelineEntry], int] | None:
        """An incident's history, oldest first, and how many entries were dropped before it; None when there
        is none."""
        found = await self.incident(incident_id)
        if found is None:
            return None
        return found.view.incident.timeline, found.view.incident.timeline_dropped

    async def alert_page(
        self,
        matchers: Sequence[MatcherTuple],
        *,
        firing: bool | None = None,
        limit: int = PAGE_MAX,
        cursor: str | None = None,
    ) -> Alerts:
        """A page of all alerts that match, shard by shard, in the order they came first. `firing` None: ended ones too."""
        if not 1 <= limit <= PAGE_MAX:
            raise Malformed(f"limit: expected 1 to {PAGE_MAX}, not {limit}")
        shard, after = (0, -1) if cursor is None else decode_numbers(cursor)
        loop = asyncio.get_running_loop()
        over_at = loop.time() + ALERT_PAGE_TIME_S
        items: list[AlertView] = []
        while shard < self._asking.shards:
            if len(items) == limit or loop.time() > over_at:
                return Alerts(items, encode_numbers(shard, after))
            query = ListAlerts(
                self._asking.tenant,
                after,
                limit - len(items),
                list(matchers),
                firing is True,
                firing is False,
            )
            page = await self._asking.one(shard, query, AlertPage)
            items += page.items
            if page.next_after is None:
                shard, after = shard + 1, -1
            elif page.next_after <= after:
                raise Broken(f"{partition_name(shard)} pages in a circle at {page.next_after}")
            else:
                after = page.next_after
        return Alerts(items, None)

    async def alerts(
        self, matchers: Sequence[MatcherTuple], *, firing_only: bool = True
    ) -> AsyncGenerator[list[AlertView], None]:
        """All alerts that match, a page at a time, from all shards at once, in no order.

        Raises TooLarge past ALERTS_MAX, Busy past ALERTS_HELD_MAX, Unavailable when a shard cannot answer:
        what came before is then not the whole answer. Close it (contextlib.aclosing) when done: its pages
        count as held till then.
        """
        held = 0
        after = dict.fromkeys(range(self._asking.shards), -1)
        asked = list(after)
        coming = asyncio.create_task(self._alert_pages(after, matchers, firing_only))
        try:
            while asked:
                pages = await coming
                for shard, page in zip(asked, pages, strict=True):
                    if page.next_after is None:
                        del after[shard]
                    elif page.next_after <= after[shard]:
                        raise Broken(f"{partition_name(shard)} pages in a circle at {page.next_after}")
                    else:
                        after[shard] = page.next_after
                asked = list(after)
                # The shards make the next pages while the caller encodes these.
                coming = asyncio.create_task(self._alert_pages(after, matchers, firing_only))
                for page in filter(lambda page: page.items, pages):
                    held += len(page.items)
                    self._held += len(page.items)
                    if held > ALERTS_MAX:
                        raise TooLarge(f"more than {ALERTS_MAX} alerts match: narrow the filter")
                    if self._held > ALERTS_HELD_MAX:
                        raise Busy(f"reads under way hold more than {ALERTS_HELD_MAX} alerts: try again")
                    yield page.items
        finally:
            self._held -= held
            await end([coming])

    async def _alert_pages(
        self, after: Mapping[int, int], matchers: Sequence[MatcherTuple], firing_only: bool
    ) -> list[AlertPage]:
        """The next page of each of these shards."""
        queries = [
            ListAlerts(self._asking.tenant, number, PAGE_MAX, list(matchers), firing_only)
            for number in after.values()
        ]
        return await self._asking.each(list(after), queries, AlertPage)

    async def muted_by(self, matchers: Sequence[MatcherTuple]) -> tuple[int, dict[bytes, int]]:
        """How many alerts fire in all, and how many of each incident's all matchers hold for."""
        firing, found = 0, dict[bytes, int]()
        after = dict.fromkeys(range(self._asking.shards), -1)
        while after:
            queries = [PreviewMutes(self._asking.tenant, list(matchers), number) for number in after.values()]
            pages = await self._asking.each(list(after), queries, MutePreview)
            for shard, page in zip(list(after), pages, strict=True):
                firing += page.firing
                for identity, count in page.incidents.items():
                    found[identity] = found.get(identity, 0) + count
                if page.next_after is None:
                    del after[shard]
                else:
                    after[shard] = page.next_after
        return firing, found

    async def silent_shards(self) -> dict[str, str]:
        """The shards that do not answer now, with the reason. Empty when all is well."""
        query = encode(Probe())
        answers = await asyncio.gather(
            *(self._asking.bounded(shard, query, PROBE_TIMEOUT_S) for shard in range(self._asking.shards)),
            return_exceptions=True,
        )
        return {
            partition_name(shard): str(answer) or type(answer).__name__
            for shard, answer in enumerate(answers)
            if isinstance(answer, Exception)
        }

    @property
    def shards(self) -> int:
        """How many shard partitions there are."""
        return self._asking.shards

    async def _archived(self, incident_id: bytes) -> Found | None:
        calls = [archive.get(incident_id) for archive in self._asking.archives]
        for archived in await self._asking.of_archives(calls):
            if archived is not None and archived.tenant == self._asking.tenant:
                return Found(view_of(archived), archived)
        return None

    async def _alerts_of(self, incident_id: bytes, firing: bool | None, after: int, limit: int) -> AlertPage:
        """A page that is empty and has a next one is followed up, so that people do not meet one."""
        shard = self._asking.shard_of(incident_id)
        while True:
            page = await self._asking.one(
                shard, IncidentAlerts(self._asking.tenant, incident_id, after, limit, firing), AlertPage
            )
            if page.items or page.next_after is None:
                return page
            if page.next_after <= after:
                raise Broken(f"{partition_name(shard)} pages in a circle at {after}")
            after = page.next_after
