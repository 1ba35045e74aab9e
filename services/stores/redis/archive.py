"""Closed incidents of a partition in Redis. Written by the partition's archiver, read by the gateways.

archive:incidents  hash   incident id -> MessagePack of the incident, of its alerts only the head
archive:alerts     hash   incident id -> its alerts: a page of incidents does not fetch them
archive:index      zset   where each stands in every list: archive_index.py
archive:closed     zset   incident id by the time it closed
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import msgspec

from models.errors import Broken
from models.incidents.filters import Position
from models.ports import ALERTS_HEAD_BYTES, ARCHIVE_SCAN_MAX, ArchivedIncident, ArchivePage, ArchiveQuery
from services.stores.redis.archive_index import ENTRIES_MAX, STRETCH, Found, by_id, entries_of, walk
from services.stores.redis.lane import Argument, Command, Lane
from services.stores.redis.options import RedisOptions, key_of
from services.stores.shared.chain import READ_LIMIT_BYTES

#: Incidents dropped in one transaction: about a millisecond.
DROP_SLICE = 200

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
        self._alerts = key_of(options, partition, "archive:alerts")
        self._index = key_of(options, partition, "archive:index")
        self._closed = key_of(options, partition, "archive:closed")

    async def put(self, incidents: Sequence[ArchivedIncident]) -> None:
        latest = {each.incident_id: each for each in incidents}
        if not latest:
            return
        stale = await self._entries(list(latest))
        rows: list[Argument] = []
        alerts: list[Argument] = []
        entries: list[Argument] = []
        closed: list[Argument] = []
        for each in latest.values():
            rows += (each.incident_id, _encoder.encode(_shown(each)))
            alerts += (each.incident_id, each.alerts)
            closed += (each.closed_at, each.incident_id)
            for entry in entries_of(each):
                entries += (0, entry)
        commands: list[Command] = [("MULTI",)]
        commands += [("ZREM", self._index, *stale)] if stale else []
        commands += [("HSET", self._incidents, *rows), ("HSET", self._alerts, *alerts)]
        commands += [("ZADD", self._index, *entries), ("ZADD", self._closed, *closed), ("EXEC",)]
        await self._writer.write(*commands)

    async def get(self, incident_id: bytes) -> ArchivedIncident | None:
        found, alerts = await self._reader.ask(
            ("HGET", self._incidents, incident_id), ("HGET", self._alerts, incident_id)
        )
        if not isinstance(found, bytes) or not isinstance(alerts, bytes):
            return None
        return replace(_decoded(found), alerts=alerts)

    async def page(self, query: ArchiveQuery) -> ArchivePage:
        most = query.limit if query.holds is None else ARCHIVE_SCAN_MAX
        items: list[ArchivedIncident] = []
        looked_at, last = 0, cast("Position | None", None)
        walking = walk(self._reader, self._index, query)
        try:
            stretches = 0
            async for found, reached in walking:
                # One more than may be looked at tells whether there is a next page.
                found = found[: most - looked_at + 1]
                for each, row in zip(found, await self._shown(found), strict=True):
                    if len(items) == query.limit or looked_at == most:
                        return ArchivePage(items, last)
                    looked_at, last = looked_at + 1, each.place
                    if row is None:
                        continue
                    incident = _decoded(row)
                    if query.holds is None or query.holds(incident.record):
                        items.append(incident)
                stretches += 1
                if stretches * STRETCH >= ENTRIES_MAX:
                    return ArchivePage(items, reached)
            return ArchivePage(items)
        finally:
            await walking.aclose()

    async def read(self, after: bytes, limit_bytes: int = READ_LIMIT_BYTES) -> list[ArchivedIncident]:
        while ids := [identity for identity, _at in await by_id(self._reader, self._index, after)]:
            sizes = await self._reader.ask(
                *(("HSTRLEN", key, identity) for identity in ids for key in (self._incidents, self._alerts))
            )
            left, fitting = limit_bytes, cast("list[bytes]", [])
            for place, identity in enumerate(ids):
                left -= cast("int", sizes[2 * place]) + cast("int", sizes[2 * place + 1])
                if fitting and left < 0:
                    break
                fitting.append(identity)
            rows, alerts = await self._reader.ask(
                ("HMGET", self._incidents, *fitting), ("HMGET", self._alerts, *fitting)
            )
            found = [
                replace(_decoded(row), alerts=of_it)
                for row, of_it in zip(
                    cast("list[bytes | None]", rows), cast("list[bytes | None]", alerts), strict=True
                )
                if row is not None and of_it is not None  # else dropped meanwhile
            ]
            if found:
                return found
            after = fitting[-1]
        return []

    async def tally(self, first: bytes, end: bytes) -> tuple[int, float]:
        counted, newest = 0, 0.0
        found = await by_id(self._reader, self._index, first, end, inclusive=True)
        while found:
            counted, newest = counted + len(found), max(newest, *(at for _identity, at in found))
            found = await by_id(self._reader, self._index, found[-1][0], end)
        return counted, newest

    async def remove(self, incident_ids: Sequence[bytes]) -> None:
        for start in range(0, len(incident_ids), DROP_SLICE):
            await self._forget(incident_ids[start : start + DROP_SLICE], replicated=True)

    async def drop_before(self, closed_before: float, limit: int) -> int:
        dropped = 0
        while dropped < limit:
            slice_ = min(DROP_SLICE, limit - dropped)
            (reply,) = await self._writer.ask(
                ("ZRANGEBYSCORE", self._closed, "-inf", f"({closed_before!r}", "LIMIT", 0, slice_)
            )
            if not (ids := cast("list[bytes]", reply)):
                break
            # Not waited for: an incident that a failover brings back is dropped the next time.
            await self._forget(ids, replicated=False)
            dropped += len(ids)
        return dropped

    async def count(self) -> int:
        (counted,) = await self._reader.ask(("HLEN", self._incidents))
        return cast("int", counted)

    async def close(self) -> None:
        await self._reader.close()
        await self._writer.close()

    async def _forget(self, ids: Sequence[bytes], *, replicated: bool) -> None:
        entries = await self._entries(ids)
        commands: list[Command] = [("MULTI",)]
        commands += [("HDEL", self._incidents, *ids), ("HDEL", self._alerts, *ids)]
        commands += [("ZREM", self._index, *entries)] if entries else []
        commands += [("ZREM", self._closed, *ids), ("EXEC",)]
        await self._writer.write(*commands, replicated=replicated)

    async def _shown(self, found: Sequence[Found]) -> list[bytes | None]:
        """What pages show of these, encoded; None of one that was dropped meanwhile."""
        if not found:
            return []
        (rows,) = await self._reader.ask(("HMGET", self._incidents, *(each.incident_id for each in found)))
        return cast("list[bytes | None]", rows)

    async def _entries(self, ids: Sequence[bytes]) -> list[bytes]:
        """The index entries of those that are there."""
        (rows,) = await self._writer.ask(("HMGET", self._incidents, *ids))
        return [
            entry for row in cast("list[bytes | None]", rows) if row for entry in entries_of(_decoded(row))
        ]


def _shown(incident: ArchivedIncident) -> ArchivedIncident:
    return replace(incident, alerts=incident.alerts[:ALERTS_HEAD_BYTES])


def _decoded(value: bytes) -> ArchivedIncident:
    try:
        return _decoder.decode(value)
    except msgspec.MsgspecError as error:
        raise Broken(f"an archived incident can't be read: {error}") from error
