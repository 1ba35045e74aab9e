"""Reads over all shards and the archive: asked of every shard at once, merged, bounded. Called by the HTTP
routes.

An answer is whole or it is an error: when a shard or the archive cannot answer, the read raises Unavailable
with its name, and never returns a list that is shorter than the truth.
"""

from __future__ import annotations

import asyncio
import base64
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from models.errors import Broken, Busy, Malformed, TooLarge, Unavailable
from models.incident import Incident, IncidentState, IncidentType, Severity, TimelineEntry
from models.ports import Archive, ArchivedIncident, ArchiveQuery
from models.query import (
    PAGE_MAX,
    AlertPage,
    AlertView,
    GetIncident,
    IncidentAlerts,
    IncidentPage,
    IncidentView,
    ListAlerts,
    ListIncidents,
    MatcherTuple,
    Probe,
    Query,
    decode_answer,
    encode,
)
from models.sharding import partition_name, slot_of_id

#: How long one page of a shard may take. A shard answers between two batches, within milliseconds; the rest
#: is room for one that is restarting, which the gateway's hold bridges in up to 5 s.
ASK_TIMEOUT_S = 10.0
#: How long a shard may take to say that it is there: a probe's own deadline is seldom longer than this.
PROBE_TIMEOUT_S = 2.0
#: Alerts one read may return. At about 600 bytes of JSON each this is 150 MB, held until the last shard has
#: answered, because an answer that fails half-way cannot take its 200 back.
ALERTS_MAX = 250_000
#: Alerts that all reads under way in one gateway may hold together.
ALERTS_HELD_MAX = 2 * ALERTS_MAX
#: Bytes of an incident id (a UUID).
ID_BYTES = 16

Ask = Callable[[int, bytes], Awaitable[bytes]]

#: The (created_at, id) that a page of incidents starts after.
Position = tuple[float, bytes]

_A = TypeVar("_A", IncidentPage, AlertPage)
_T = TypeVar("_T")

_alerts_decoder = msgspec.msgpack.Decoder(list[AlertView])
_incident_decoder = msgspec.msgpack.Decoder(Incident)
_position_decoder = msgspec.msgpack.Decoder(Position)
_number_decoder = msgspec.msgpack.Decoder(int)


@dataclass(frozen=True, slots=True)
class IncidentFilter:
    """What a list of incidents is narrowed to. Empty means any."""

    states: tuple[IncidentState, ...] = ()
    severities: tuple[Severity, ...] = ()
    types: tuple[IncidentType, ...] = ()
    services: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Incidents:
    """One page, newest first. `next` is the cursor of the page after it, None at the end."""

    items: list[IncidentView]
    next: str | None


@dataclass(frozen=True, slots=True)
class Alerts:
    """One page of an incident's alerts. `next` is the cursor of the page after it, None at the end."""

    items: list[AlertView]
    next: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """An incident and where it was: with its shard, or, when `archived` is there, in the archive."""

    view: IncidentView
    archived: ArchivedIncident | None = None


class Reads:
    """All reads of one gateway.

    ask            sends a query (models/query.py) to a shard by index; raises Unavailable
    shards         how many shard partitions there are
    shard_of_slot  the partition that holds a slot now
    archives       all of them; an incident's is not known by its id, and a miss is cheap
    """

    def __init__(
        self,
        ask: Ask,
        shards: int,
        shard_of_slot: Callable[[int], int],
        archives: Sequence[Archive],
        *,
        tenant: str = "default",
    ) -> None:
        self._ask = ask
        self._shards = shards
        self._shard_of_slot = shard_of_slot
        self._archives = tuple(archives)
        self._tenant = tenant
        self._held = 0

    async def incidents(
        self, wanted: IncidentFilter, *, limit: int = 100, cursor: str | None = None
    ) -> Incidents:
        """A page of incidents, newest first by (created_at, id). Raises Malformed for a bad limit or cursor,
        Unavailable when a shard or an archive cannot answer."""
        if not 1 <= limit <= PAGE_MAX:
            raise Malformed(f"limit: expected 1 to {PAGE_MAX}, not {limit}")
        before = None if cursor is None else decode_position(cursor)
        query = ListIncidents(
            self._tenant,
            limit,
            before,
            [str(state) for state in wanted.states],
            [int(severity) for severity in wanted.severities],
            [str(kind) for kind in wanted.types],
            list(wanted.services),
        )
        # One more from the archives tells whether there is a next page; shards say so themselves.
        old_query = ArchiveQuery(
            self._tenant,
            limit + 1,
            before,
            wanted.services,
            tuple(int(severity) for severity in wanted.severities),
            tuple(str(kind) for kind in wanted.types),
        )

        # The archive after the shards, not beside them: an incident that moves meanwhile is then met twice,
        # never missed. In both, the shard's is the newer.
        pages = await self._ask_all(query, IncidentPage)
        found = {view.incident.id: view for page in pages for view in page.items}
        if not wanted.states or IncidentState.CLOSED in wanted.states:
            for page in await self._of_archives([archive.page(old_query) for archive in self._archives]):
                for archived in page:
                    if archived.incident_id not in found:
                        found[archived.incident_id] = _view(archived)

        ordered = sorted(found.values(), key=_position, reverse=True)
        # A shard may stop before its page is full: what lies behind its last one may be newer than others'
        # items.
        known_to = max(
            (_position(page.items[-1]) for page in pages if page.more and page.items), default=None
        )
        if known_to is not None:
            ordered = [view for view in ordered if _position(view) >= known_to]
        items = ordered[:limit]
        more = len(ordered) > limit or any(page.more for page in pages)
        return Incidents(items, encode_position(_position(items[-1])) if more and items else None)

    async def incident(self, incident_id: bytes) -> Found | None:
        """The incident, from its shard, else from the archive; None when neither has it."""
        page = await self._ask_one(
            self._shard_of(incident_id), GetIncident(self._tenant, incident_id), IncidentPage
        )
        if page.items:
            return Found(page.items[0])
        return await self._archived(incident_id)

    async def incident_alerts(
        self, incident_id: bytes, *, limit: int = PAGE_MAX, cursor: str | None = None
    ) -> Alerts | None:
        """A page of an incident's alerts, in the order they joined; None when there is no such incident."""
        if not 1 <= limit <= PAGE_MAX:
            raise Malformed(f"limit: expected 1 to {PAGE_MAX}, not {limit}")
        after = -1 if cursor is None else decode_number(cursor)
        found = await self.incident(incident_id)
        if found is not None and found.archived is None:
            page = await self._alerts_of(incident_id, after, limit)
            if page.items or found.view.alerts == 0 or after >= 0:
                return Alerts(page.items, None if page.next_after is None else encode_number(page.next_after))
            # It has alerts, and the shard shows none: it went to the archive between the two questions.
            found = await self._archived(incident_id)
        if found is None or found.archived is None:
            return None
        alerts = _alerts_decoder.decode(found.archived.alerts)
        items = alerts[after + 1 : after + 1 + limit]
        more = after + 1 + limit < len(alerts)
        return Alerts(items, encode_number(after + limit) if more else None)

    async def timeline(self, incident_id: bytes) -> tuple[list[TimelineEntry], int] | None:
        """An incident's history, oldest first, and how many entries were dropped before it; None when there
        is none."""
        found = await self.incident(incident_id)
        if found is None:
            return None
        return found.view.incident.timeline, found.view.incident.timeline_dropped

    async def alerts(
        self, matchers: Sequence[MatcherTuple], *, firing_only: bool = True
    ) -> AsyncGenerator[list[AlertView], None]:
        """All alerts that match, a page at a time, from all shards at once, in no order.

        Raises TooLarge past ALERTS_MAX, Busy past ALERTS_HELD_MAX, Unavailable when a shard cannot answer:
        what came before is then not the whole answer. Close it (contextlib.aclosing) when done: its pages
        count as held till then.
        """
        held = 0
        after = dict.fromkeys(range(self._shards), -1)
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
                        raise Busy(f"reads under way hold more than {ALERTS_HELD_MAX} alerts: ask again")
                    yield page.items
        finally:
            self._held -= held
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)

    async def _alert_pages(
        self, after: Mapping[int, int], matchers: Sequence[MatcherTuple], firing_only: bool
    ) -> list[AlertPage]:
        """The next page of each of these shards."""
        queries = [
            ListAlerts(self._tenant, number, PAGE_MAX, list(matchers), firing_only)
            for number in after.values()
        ]
        return await self._ask_each(list(after), queries, AlertPage)

    async def silent_shards(self) -> dict[str, str]:
        """The shards that do not answer now, with the reason. Empty when all is well."""
        query = encode(Probe())
        answers = await asyncio.gather(
            *(self._bounded(shard, query, PROBE_TIMEOUT_S) for shard in range(self._shards)),
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
        return self._shards

    async def _archived(self, incident_id: bytes) -> Found | None:
        for archived in await self._of_archives([archive.get(incident_id) for archive in self._archives]):
            if archived is not None and archived.tenant == self._tenant:
                return Found(_view(archived), archived)
        return None

    async def _alerts_of(self, incident_id: bytes, after: int, limit: int) -> AlertPage:
        """A page that is empty and has a next one is followed up, so that people do not meet one."""
        shard = self._shard_of(incident_id)
        while True:
            page = await self._ask_one(
                shard, IncidentAlerts(self._tenant, incident_id, after, limit), AlertPage
            )
            if page.items or page.next_after is None:
                return page
            if page.next_after <= after:
                raise Broken(f"{partition_name(shard)} pages in a circle at {after}")
            after = page.next_after

    def _shard_of(self, incident_id: bytes) -> int:
        return self._shard_of_slot(slot_of_id(incident_id))

    async def _ask_one(self, shard: int, query: Query, kind: type[_A]) -> _A:
        return (await self._ask_each([shard], [query], kind))[0]

    async def _ask_all(self, query: Query, kind: type[_A]) -> list[_A]:
        return await self._ask_each(range(self._shards), [query] * self._shards, kind)

    async def _ask_each(self, shards: Sequence[int], queries: Sequence[Query], kind: type[_A]) -> list[_A]:
        """The answers, in the order asked. Raises Unavailable that names every shard without one; what a
        shard refuses (TooLarge, Malformed) is raised as it is."""
        calls = [
            self._bounded(shard, encode(query), ASK_TIMEOUT_S)
            for shard, query in zip(shards, queries, strict=True)
        ]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        silent = [
            f"{partition_name(shard)} cannot answer: {outcome}"
            for shard, outcome in zip(shards, outcomes, strict=True)
            if isinstance(outcome, Unavailable | Busy)
        ]
        if silent:
            raise Unavailable("; ".join(silent))
        answers: list[_A] = []
        for shard, outcome in zip(shards, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                raise outcome
            answer = decode_answer(outcome)
            if not isinstance(answer, kind):
                raise Broken(
                    f"{partition_name(shard)} answered with {type(answer).__name__}, not {kind.__name__}"
                )
            answers.append(answer)
        return answers

    async def _bounded(self, shard: int, query: bytes, timeout_s: float) -> bytes:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._ask(shard, query)
        except TimeoutError as error:
            raise Unavailable(f"no answer within {timeout_s:g} s") from error

    async def _of_archives(self, calls: Sequence[Coroutine[None, None, _T]]) -> list[_T]:
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                outcomes = await asyncio.gather(*calls, return_exceptions=True)
        except TimeoutError as error:
            raise Unavailable(f"the archive cannot answer: nothing within {ASK_TIMEOUT_S:g} s") from error
        found: list[_T] = []
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, Unavailable):
                raise Unavailable(f"archive {index} cannot answer: {outcome}") from outcome
            if isinstance(outcome, BaseException):
                raise outcome
            found.append(outcome)
        return found


def encode_position(position: Position) -> str:
    """The opaque cursor of a page of incidents."""
    return _to_text(msgspec.msgpack.encode(position))


def decode_position(cursor: str) -> Position:
    """What encode_position was given. Raises Malformed."""
    try:
        at, incident_id = _position_decoder.decode(_from_text(cursor))
    except (msgspec.MsgspecError, ValueError) as error:
        raise _bad_cursor() from error
    if not math.isfinite(at) or len(incident_id) != ID_BYTES:
        raise _bad_cursor()
    return at, incident_id


def encode_number(number: int) -> str:
    """The opaque cursor of a page of alerts."""
    return _to_text(msgspec.msgpack.encode(number))


def decode_number(cursor: str) -> int:
    """What encode_number was given. Raises Malformed."""
    try:
        number = _number_decoder.decode(_from_text(cursor))
    except (msgspec.MsgspecError, ValueError) as error:
        raise _bad_cursor() from error
    # Larger ones are no place in any list, and the shard's counters are 64 bits wide.
    if not 0 <= number < 2**62:
        raise _bad_cursor()
    return number


def _bad_cursor() -> Malformed:
    return Malformed('cursor: expected the "next" of an earlier page of the same list')


def _to_text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _from_text(text: str) -> bytes:
    return base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _position(view: IncidentView) -> Position:
    return view.incident.created_at, view.incident.id


def _view(archived: ArchivedIncident) -> IncidentView:
    """An archived incident as a shard would show it. Its alerts are counted without reading them."""
    return IncidentView(_incident_decoder.decode(archived.record), _count(archived.alerts))


def _count(encoded_list: bytes) -> int:
    """How many items an encoded MessagePack list holds: its header says."""
    first = encoded_list[0]
    if 0x90 <= first <= 0x9F:
        return first & 0x0F
    if first == 0xDC:
        return int.from_bytes(encoded_list[1:3], "big")
    if first == 0xDD:
        return int.from_bytes(encoded_list[1:5], "big")
    raise Broken(f"an archived incident's alerts begin with {first:#x}, which is no list")
