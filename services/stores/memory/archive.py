"""Archive in memory, a port of models/ports.py. State is in a MemoryStore (store.py)."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import replace

from models.incidents.filters import Position
from models.ports import (
    ALERTS_HEAD_BYTES,
    ARCHIVE_SCAN_MAX,
    ArchivedIncident,
    ArchivePage,
    ArchiveQuery,
)
from services.stores.memory.store import Faults, Faulty, MemoryStore
from services.stores.shared.chain import READ_LIMIT_BYTES


class MemoryArchive(Faulty):
    """models.ports.Archive."""

    def __init__(self, store: MemoryStore, partition: str, faults: Faults | None = None) -> None:
        super().__init__(faults, "archive", f"{partition} (archive)")
        self.partition = partition
        self._incidents = store.partition(partition).incidents

    async def put(self, incidents: Sequence[ArchivedIncident]) -> None:
        await self._begin("put")
        self._incidents.update((each.incident_id, each) for each in incidents)
        await self._end("put")

    async def get(self, incident_id: bytes) -> ArchivedIncident | None:
        await self._begin("get")
        found = self._incidents.get(incident_id)
        await self._end("get")
        return found

    async def page(self, query: ArchiveQuery) -> ArchivePage:
        await self._begin("page")
        sort, after = query.sort, query.after
        matching = sorted(
            (
                each
                for each in self._incidents.values()
                if each.tenant == query.tenant
                and (after is None or sort.comes_after(each.place(sort), after))
                and (not query.services or each.service in query.services)
                and (not query.severities or each.severity in query.severities)
                and (not query.types or each.type in query.types)
                and query.created_after <= each.created_at < (query.created_before or math.inf)
                and query.updated_after <= each.updated_at < (query.updated_before or math.inf)
            ),
            key=lambda each: each.place(sort),
            reverse=sort.goes_down,
        )
        items: list[ArchivedIncident] = []
        next_after: Position | None = None
        for looked_at, each in enumerate(matching, 1):
            if query.holds is None or query.holds(each.record):
                items.append(replace(each, alerts=each.alerts[:ALERTS_HEAD_BYTES]))
            if len(items) == query.limit or looked_at == ARCHIVE_SCAN_MAX:
                next_after = each.place(sort) if looked_at < len(matching) else None
                break
        await self._end("page")
        return ArchivePage(items, next_after)

    async def read(self, after: bytes, limit_bytes: int = READ_LIMIT_BYTES) -> list[ArchivedIncident]:
        await self._begin("read")
        found: list[ArchivedIncident] = []
        left = limit_bytes
        for identity in sorted(each for each in self._incidents if each > after):
            incident = self._incidents[identity]
            left -= len(incident.record) + len(incident.alerts)
            if found and left < 0:
                break
            found.append(incident)
        await self._end("read")
        return found

    async def tally(self, first: bytes, end: bytes) -> tuple[int, float]:
        await self._begin("tally")
        times = [each.updated_at for identity, each in self._incidents.items() if first <= identity < end]
        await self._end("tally")
        return len(times), max(times, default=0.0)

    async def drop_before(self, closed_before: float, limit: int) -> int:
        await self._begin("drop_before")
        aged = (each for each in self._incidents.values() if each.closed_at < closed_before)
        dropped = heapq.nsmallest(limit, aged, key=lambda each: each.closed_at)
        for each in dropped:
            del self._incidents[each.incident_id]
        await self._end("drop_before")
        return len(dropped)

    async def remove(self, incident_ids: Sequence[bytes]) -> None:
        await self._begin("remove")
        for identity in incident_ids:
            self._incidents.pop(identity, None)
        await self._end("remove")

    async def count(self) -> int:
        await self._begin("count")
        counted = len(self._incidents)
        await self._end("count")
        return counted
