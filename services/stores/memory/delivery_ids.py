"""DeliveryIds in memory, a port of models/ports.py. State is in a MemoryStore (store.py)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from services.stores.memory.store import Faults, Faulty, MemoryStore

#: Records and ids in one page: small, so that a simulation sees what happens between two pages.
PAGE_ITEMS = 1000


class MemoryDeliveryIds(Faulty):
    """models.ports.DeliveryIds."""

    def __init__(self, store: MemoryStore, partition: str, faults: Faults | None = None) -> None:
        super().__init__(faults, "delivery_ids", f"{partition} (delivery ids)")
        self.partition = partition
        self._ids = store.partition(partition).delivery_ids

    async def seen(self, ids: Sequence[str]) -> dict[str, bytes]:
        await self._begin("seen")
        found = {each: self._ids[each][1] for each in ids if each in self._ids}
        await self._end("seen")
        return found

    async def add(self, entries: Sequence[tuple[str, float, bytes]]) -> None:
        await self._begin("add")
        for delivery_id, at, answer in entries:
            self._ids.setdefault(delivery_id, (at, answer))
        await self._end("add")

    async def drop_before(self, at: float) -> int:
        await self._begin("drop_before")
        dropped = [each for each, (accepted_at, _answer) in self._ids.items() if accepted_at < at]
        for each in dropped:
            del self._ids[each]
        await self._end("drop_before")
        return len(dropped)

    async def recent(self, since: float) -> AsyncIterator[list[str]]:
        await self._begin("recent")
        found = [each for each, (accepted_at, _answer) in self._ids.items() if accepted_at >= since]
        await self._end("recent")
        for start in range(0, len(found), PAGE_ITEMS):
            yield found[start : start + PAGE_ITEMS]

    async def entries(self) -> AsyncIterator[list[tuple[str, float, bytes]]]:
        await self._begin("entries")
        found = [(each, at, answer) for each, (at, answer) in self._ids.items()]
        await self._end("entries")
        for start in range(0, len(found), PAGE_ITEMS):
            yield found[start : start + PAGE_ITEMS]
