"""Closed incidents of a partition in Redis. Written by the partition's archiver, read by the gateways.

    archive:incidents  hash   incident id -> MessagePack of the incident
    archive:index      zset   for each incident four entries in the order of their bytes: what it is found by, time, id
    archive:closed     zset   incident id by the time it closed

An entry of the index is a heading (tenant alone, or tenant and service, severity or type), then the time and the id:
a page is one stretch of it, at any size. Other filters are tested without fetching the incident, by asking whether the
entry under their heading exists.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncGenerator, Sequence
from typing import cast

import msgspec

from models.errors import Broken
from models.ports import ArchivedIncident, ArchiveQuery
from services.stores.redis_lane import Argument, Command, Lane, Reply, sortable
from services.stores.redis_options import RedisOptions, key_of

#: Beyond this many values of a filter, one pass over the newest incidents is cheaper than a stretch a value.
MAX_LOOKUPS = 32
#: Entries of the index read at once: a page of the API and some that filters leave out.
STRETCH = 200
#: Incidents dropped in one transaction: about a millisecond.
DROP_SLICE = 200
TIME_BYTES = 8

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ArchivedIncident)


class RedisArchive:
    """models.ports.Archive. Constructing it connects nowhere."""

    def __init__(self, options: RedisOptions, partition: str) -> None:
        self.partition = partition
        place = f"{partition} (archive)"
        self._writer = Lane(options, partition, place, durable=True)
        self._reader = Lane(options, partition, place, durable=False)
        self._incidents = key_of(options, partition, "archive:incidents")
        self._index = key_of(options, partition, "archive:index")
        self._closed = key_of(options, partition, "archive:closed")

    async def put(self, incidents: Sequence[ArchivedIncident]) -> None:
        latest = {each.incident_id: each for each in incidents}
        if not latest:
            return
        (before,) = await self._writer.ask(("HMGET", self._incidents, *latest))
        stale = [
            entry
            for value in cast("list[bytes | None]", before)
            if value
            for entry in _entries(_decoded(value))
        ]
        rows: list[Argument] = []
        entries: list[Argument] = []
        closed: list[Argument] = []
        for each in latest.values():
            rows += (each.incident_id, _encoder.encode(each))
            closed += (each.closed_at, each.incident_id)
            for entry in _entries(each):
                entries += (0, entry)
        commands: list[Command] = [("MULTI",)]
        commands += [("ZREM", self._index, *stale)] if stale else []
        commands += [("HSET", self._incidents, *rows), ("ZADD", self._index, *entries)]
        commands += [("ZADD", self._closed, *closed), ("EXEC",)]
        await self._writer.write(*commands)

    async def get(self, incident_id: bytes) -> ArchivedIncident | None:
        (found,) = await self._reader.ask(("HGET", self._incidents, incident_id))
        return _decoded(found) if isinstance(found, bytes) else None

    async def page(self, query: ArchiveQuery) -> list[ArchivedIncident]:
        found: list[ArchivedIncident] = []
        places = self._places(query)
        try:
            while len(found) < query.limit:
                wanted = await _first(places, query.limit - len(found))
                if not wanted:
                    return found
                (rows,) = await self._reader.ask(
                    ("HMGET", self._incidents, *(place[TIME_BYTES:] for place in wanted))
                )
                # One that was dropped meanwhile is no longer there.
                found += [_decoded(row) for row in cast("list[bytes | None]", rows) if row is not None]
            return found
        finally:
            await places.aclose()

    async def drop_before(self, closed_before: float, limit: int) -> int:
        dropped = 0
        while dropped < limit:
            slice_ = min(DROP_SLICE, limit - dropped)
            (reply,) = await self._writer.ask(
                ("ZRANGEBYSCORE", self._closed, "-inf", f"({closed_before!r}", "LIMIT", 0, slice_)
            )
            if not (ids := cast("list[bytes]", reply)):
                break
            (rows,) = await self._writer.ask(("HMGET", self._incidents, *ids))
            entries = [
                entry for row in cast("list[bytes | None]", rows) if row for entry in _entries(_decoded(row))
            ]
            commands: list[Command] = [("MULTI",), ("HDEL", self._incidents, *ids)]
            commands += [("ZREM", self._index, *entries)] if entries else []
            commands += [("ZREM", self._closed, *ids), ("EXEC",)]
            # Not waited for: an incident that a failover brings back is dropped the next time.
            await self._writer.write(*commands, replicated=False)
            dropped += len(ids)
        return dropped

    async def count(self) -> int:
        (counted,) = await self._reader.ask(("HLEN", self._incidents))
        return cast("int", counted)

    async def close(self) -> None:
        await self._reader.close()
        await self._writer.close()

    async def _places(self, query: ArchiveQuery) -> AsyncGenerator[bytes, None]:
        """Time and id of what matches, newest first: one stretch a value of the narrowest filter, merged."""
        filters = [
            [_heading("s", query.tenant, each) for each in dict.fromkeys(query.services)],
            [_heading("t", query.tenant, each) for each in dict.fromkeys(query.types)],
            [_heading("p", query.tenant, str(each)) for each in dict.fromkeys(query.severities)],
        ]  # from many values to few: the first that is given is taken as the narrowest
        leading = next(
            (each for each in filters if 0 < len(each) <= MAX_LOOKUPS), [_heading("a", query.tenant)]
        )
        others = [each for each in filters if each and each is not leading]
        before = None if query.before is None else sortable(query.before[0]) + query.before[1]
        heads = [(heading, await self._stretch(heading, before)) for heading in leading]
        # A heap of stretches: the newest of their first places comes next.
        heap = [
            (_descending(stretch[0]), number) for number, (_heading, stretch) in enumerate(heads) if stretch
        ]
        heapq.heapify(heap)
        passed: list[bytes] = []
        at = [0] * len(heads)
        while heap:
            _order, number = heap[0]
            heading, stretch = heads[number]
            passed.append(stretch[at[number]])
            at[number] += 1
            if at[number] == len(stretch):
                stretch = await self._stretch(heading, stretch[-1]) if len(stretch) == STRETCH else []
                heads[number], at[number] = (heading, stretch), 0
            if stretch:
                heapq.heapreplace(heap, (_descending(stretch[at[number]]), number))
            else:
                heapq.heappop(heap)
            if len(passed) == STRETCH or not heap:
                for place in await self._matching(passed, others):
                    yield place
                passed = []

    async def _stretch(self, heading: bytes, before: bytes | None) -> list[bytes]:
        most = b"(" + heading + (b"\xff" if before is None else before)
        (entries,) = await self._reader.ask(
            ("ZREVRANGEBYLEX", self._index, most, b"[" + heading, "LIMIT", 0, STRETCH)
        )
        return [entry[len(heading) :] for entry in cast("list[bytes]", entries)]

    async def _matching(self, places: list[bytes], others: Sequence[Sequence[bytes]]) -> list[bytes]:
        """Those of `places` that are in the index under one heading of each of the other filters."""
        for headings in others:
            if not places:
                break
            asked: list[Command] = [
                ("ZMSCORE", self._index, *(heading + place for place in places)) for heading in headings
            ]
            scores = await self._reader.ask(*asked)
            columns = [cast("list[Reply]", each) for each in scores]
            places = [
                place
                for number, place in enumerate(places)
                if any(column[number] is not None for column in columns)
            ]
        return places


def _entries(incident: ArchivedIncident) -> list[bytes]:
    place = sortable(incident.created_at) + incident.incident_id
    return [
        _heading("a", incident.tenant) + place,
        _heading("s", incident.tenant, incident.service) + place,
        _heading("t", incident.tenant, incident.type) + place,
        _heading("p", incident.tenant, str(incident.severity)) + place,
    ]


def _heading(kind: str, *words: str) -> bytes:
    """Lengths before the words: no heading is the beginning of another."""
    return kind.encode() + b"".join(len(word.encode()).to_bytes(4, "big") + word.encode() for word in words)


def _descending(place: bytes) -> bytes:
    return bytes(255 - byte for byte in place)


def _decoded(value: bytes) -> ArchivedIncident:
    try:
        return _decoder.decode(value)
    except msgspec.MsgspecError as error:
        raise Broken(f"an archived incident can't be read: {error}") from error


async def _first(places: AsyncGenerator[bytes, None], count: int) -> list[bytes]:
    found: list[bytes] = []
    async for place in places:
        found.append(place)
        if len(found) == count:
            break
    return found
