"""DeadLetters in memory, a port of models/ports.py. State is in a MemoryStore (store.py)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice

from models.ports import EVERY_LETTER, Clock, DeadLetter, LettersWanted
from services.stores.memory.store import Faults, Faulty, MemoryStore
from services.stores.shared.dead_letter_bounds import MAX_PAYLOAD_BYTES, cut, is_wanted, size_of


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

    async def page(self, after_id: int, limit: int, wanted: LettersWanted = EVERY_LETTER) -> list[DeadLetter]:
        await self._begin("page")
        page = self._some((each for each in self._store.letters if each.id > after_id), limit, wanted)
        await self._end("page")
        return page

    async def latest(
        self, before_id: int, limit: int, wanted: LettersWanted = EVERY_LETTER
    ) -> list[DeadLetter]:
        await self._begin("latest")
        newest = (each for each in reversed(self._store.letters) if not before_id or each.id < before_id)
        page = self._some(newest, limit, wanted)
        await self._end("latest")
        return page

    async def get(self, letter_id: int) -> DeadLetter | None:
        await self._begin("get")
        found = self._some((each for each in self._store.letters if each.id == letter_id), 1, EVERY_LETTER)
        await self._end("get")
        return found[0] if found else None

    async def remove(self, ids: Sequence[int]) -> int:
        await self._begin("remove")
        gone, before = set(ids), len(self._store.letters)
        self._store.letters = [each for each in self._store.letters if each.id not in gone]
        await self._end("remove")
        return before - len(self._store.letters)

    async def change(self, letter: DeadLetter) -> None:
        await self._begin("change")
        new = cut(letter, self._max_payload_bytes)
        self._store.letters = [
            replace(each, reason=new.reason, replays=new.replays, tried_at=new.tried_at, request=new.request)
            if each.id == letter.id
            else each
            for each in self._store.letters
        ]
        await self._end("change")

    def _some(self, letters: Iterable[DeadLetter], limit: int, wanted: LettersWanted) -> list[DeadLetter]:
        oldest = self._clock.now() - self._max_age_s
        return [*islice((each for each in letters if each.at >= oldest and is_wanted(each, wanted)), limit)]

    async def stats(self) -> dict[str, int]:
        await self._begin("stats")
        size = sum(map(size_of, self._store.letters))
        await self._end("stats")
        return {"kept": len(self._store.letters), "bytes": size, "dropped": self._store.letters_dropped}
