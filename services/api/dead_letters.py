"""Shows, replays and drops the dead letters of one tenant. Called by services/api/v1/dead_letters.py."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from models.errors import NotFound
from models.ports import DeadLetter, DeadLetters, LettersWanted
from services.ingest.replay import WAITING, Replayed, Replayer

#: Letters read at once: each may have 64 KiB.
SLICE = 50
#: How long one request goes on replaying before it answers; the rest is another request.
REPLAY_S = 15.0
#: Letters dropped by one request.
DROP_MAX = 10_000


class LetterDesk:
    """Raises NotFound, Malformed, Unavailable."""

    def __init__(self, store: DeadLetters, replayer: Replayer, tenant: str) -> None:
        self._store = store
        self._replayer = replayer
        self._tenant = tenant

    async def newest(self, before_id: int, limit: int, wanted: LettersWanted) -> list[DeadLetter]:
        """The newest first; `before_id` 0: from the end."""
        wanted, found = self._ours(wanted), list[DeadLetter]()
        while len(found) < limit:
            page = await self._store.latest(before_id, min(SLICE, limit - len(found)), wanted)
            if not page:
                break
            found += page
            before_id = page[-1].id
        return found

    async def find(self, letter_id: int) -> DeadLetter:
        """Raises NotFound."""
        letter = await self._store.get(letter_id)
        if letter is None or letter.tenant != self._tenant:
            raise NotFound(f"there is no dead letter {letter_id}: it was replayed, dropped, or is too old")
        return letter

    async def replay(self, letter_id: int, as_format: str) -> Replayed:
        """See Replayer.replay()."""
        return await self._replayer.replay(letter_id, as_format)

    async def replay_some(
        self, after_id: int, limit: int, wanted: LettersWanted, as_format: str
    ) -> tuple[list[Replayed], int]:
        """Replay letters in the order they came; what became of each, and the last id that was looked at, 0 when there are no more.
        Stops early when something can't be stored now: the others would wait for the same."""
        self._replayer.check(as_format)
        wanted, done = self._ours(wanted), list[Replayed]()
        loop = asyncio.get_running_loop()
        until = loop.time() + REPLAY_S
        while True:
            page = await self._store.page(after_id, SLICE, wanted)
            if not page:
                return done, 0
            for letter in page:
                if len(done) >= limit or loop.time() >= until:
                    return done, after_id
                try:
                    done.append(await self._replayer.replay(letter.id, as_format))
                except NotFound:
                    pass  # another one was quicker
                else:
                    if done[-1].outcome == WAITING:
                        return done, after_id
                after_id = letter.id

    async def drop(self, letter_id: int) -> None:
        """Forget a letter for good. Raises NotFound."""
        await self.find(letter_id)
        await self._store.remove([letter_id])

    async def drop_some(self, wanted: LettersWanted) -> tuple[int, bool]:
        """Forget letters for good; how many, and whether there are more."""
        wanted, dropped, after_id = self._ours(wanted), 0, 0
        while dropped < DROP_MAX:
            page = await self._store.page(after_id, SLICE, wanted)
            if not page:
                return dropped, False
            dropped += await self._store.remove([each.id for each in page])
            after_id = page[-1].id
        return dropped, bool(await self._store.page(after_id, 1, wanted))

    def _ours(self, wanted: LettersWanted) -> LettersWanted:
        return replace(wanted, tenant=self._tenant)
