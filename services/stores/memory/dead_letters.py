"""DeadLetters in memory, a port of models/ports.py. State is in a MemoryStore (store.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from models.ports import Clock, DeadLetter
from services.stores.memory.store import Faults, Faulty, MemoryStore
from services.stores.shared.dead_letter_bounds import MAX_PAYLOAD_BYTES, cut, size_of


class MemoryDeadLetters(Faulty):
    """models.ports.DeadLetters. Letters past `max_age_s` are not shown; the next add() drops them."""

    def __init__(
        self,
        store: MemoryStore,
        *,
        max_bytes: int,
        max_age_s: float,
        clock: Clock,
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
        faults: Faults | None = None,
    ) -> None:
        super().__init__(faults, "dead_letters", "dead letters")
        self._store = store
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._clock = clock
        self._max_payload_bytes = max_payload_bytes

    async def add(self, letters: Sequence[DeadLetter]) -> None:
        await self._begin("add")
        store = self._store
        for letter in letters:
            store.letters_given += 1
            store.letters.append(replace(cut(letter, self._max_payload_bytes), id=store.letters_given))
        oldest = self._clock.now() - self._max_age_s
        kept = [letter for letter in store.letters if letter.at >= oldest]
        size = sum(map(size_of, kept))
        over = 0
        while size > self._max_bytes:
            size -= size_of(kept[over])
            over += 1
        store.letters_dropped += len(store.letters) - len(kept) + over
        store.letters = kept[over:]
        await self._end("add")

    async def page(self, after_id: int, limit: int) -> list[DeadLetter]:
        await self._begin("page")
        oldest = self._clock.now() - self._max_age_s
        shown = (letter for letter in self._store.letters if letter.id > after_id and letter.at >= oldest)
        page = list(islice(shown, limit))
        await self._end("page")
        return page

    async def stats(self) -> dict[str, int]:
        await self._begin("stats")
        size = sum(map(size_of, self._store.letters))
        await self._end("stats")
        return {"kept": len(self._store.letters), "bytes": size, "dropped": self._store.letters_dropped}
