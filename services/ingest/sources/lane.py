"""The messages of one ordered part of a queue (a partition, a subject, a queue) on their way into the log. Used by the sources that
read queues.

What only fires overlaps with what came before it; all else waits for that, so that an end never overtakes its beginning. What can't be
stored now stays, with all that is behind it, and is tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from actors.runtime.ending import end
from models.errors import Busy, IncidentManagerError
from services.ingest.sources.messages import PASSING, Message, Messages

#: Between tries of what can't be stored now: a shard that was killed is back within seconds, and an outage lasts minutes.
RETRY_S = 0.2
RETRY_MAX_S = 10.0
#: A stop waits so long for what is under way: longer than an append takes, and than a shard's restart is waited out.
FINISH_S = 8.0
#: Messages begun before others get a turn: each takes about 0.1 ms.
TURN = 8


@dataclass(slots=True, eq=False)
class _Entry:
    message: Message
    is_plain: bool = True
    is_settled: bool = False


class Lane:
    """put() messages in their order; `settled` is called for each in the same order, once it is stored or a dead letter. `waits`
    is told why nothing can be stored, and "" once it can; `broke`, that a bug ended the lane: nothing of it is settled any more."""

    def __init__(
        self,
        messages: Messages,
        concurrency: int,
        settled: Callable[[Message], None],
        waits: Callable[[Lane, str], None],
        broke: Callable[[Exception], None],
    ) -> None:
        self._messages = messages
        self._concurrency = concurrency
        self._settled = settled
        self._waits = waits
        self._broke = broke
        self._entries: deque[_Entry] = deque()
        #: How many of them, from the left, were begun.
        self._begun = 0
        self._under_way = 0
        self._failed: IncidentManagerError | None = None
        self._retry_s = RETRY_S
        self._is_waiting = False
        self._changed = asyncio.Event()
        self._leaving = asyncio.Event()
        #: Bytes of the bodies that are held.
        self.held_bytes = 0
        self._task = asyncio.get_running_loop().create_task(self._work())

    @property
    def held(self) -> int:
        """Messages that are not settled yet."""
        return len(self._entries)

    @property
    def unsettled(self) -> list[Message]:
        """Those, in their order."""
        return [entry.message for entry in self._entries]

    def put(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self._entries.append(_Entry(message))
            self.held_bytes += len(message.body)
        self._changed.set()

    async def finish(self) -> None:
        """Begin nothing more, and settle what is under way; forget the rest. Safe to call twice."""
        self._leaving.set()
        self._changed.set()
        if not self._task.done():
            await asyncio.wait([self._task], timeout=FINISH_S)
        await self.drop()

    async def drop(self) -> None:
        """Forget all of it: somebody else gets these messages now. What is under way may be stored, and is settled by nobody."""
        self._entries.clear()
        self.held_bytes = 0
        await end([self._task])
        self._tell("")

    async def _work(self) -> None:
        try:
            await self._take_all()
        except Exception as error:  # noqa: BLE001 - told by the source, which reads from the start
            self._broke(error)

    async def _take_all(self) -> None:
        turn = 0
        while True:
            self._changed.clear()
            if self._leaving.is_set() and not self._under_way:
                return
            if self._failed is not None and not self._under_way:
                await self._wait_for_better(self._failed)
                continue
            entry = self._next()
            if entry is None:
                await self._changed.wait()
                continue
            if entry.is_settled:  # by an earlier try, while one before it failed
                self._begun += 1
                continue
            if not entry.is_plain and self._under_way:
                await self._changed.wait()
                continue
            self._begun += 1
            self._under_way += 1
            if not entry.is_plain:
                self._over(entry, await self._messages.take(entry.message))
            elif not self._messages.begin(entry.message, partial(self._over, entry)):
                entry.is_plain = False
                self._begun -= 1
                self._under_way -= 1
            turn += 1
            if turn % TURN == 0:
                await asyncio.sleep(0)

    def _next(self) -> _Entry | None:
        """What may be begun now."""
        if self._failed is not None or self._leaving.is_set() or self._under_way >= self._concurrency:
            return None
        return self._entries[self._begun] if self._begun < len(self._entries) else None

    def _over(self, entry: _Entry, error: IncidentManagerError | None) -> None:
        self._under_way -= 1
        self._changed.set()
        if error is not None:
            entry.is_plain = False
            if self._failed is None or isinstance(error, PASSING):
                self._failed = error
            return
        entry.is_settled = True
        self._retry_s = RETRY_S
        self._tell("")
        while self._entries and self._entries[0].is_settled:
            message = self._entries.popleft().message
            self._begun -= 1
            self.held_bytes -= len(message.body)
            self._settled(message)

    async def _wait_for_better(self, error: IncidentManagerError) -> None:
        """Then everything that is not settled begins again, in its order."""
        self._failed, self._begun = None, 0
        if not isinstance(error, PASSING):
            return  # take() says what is wrong with it
        self._tell(str(error) or type(error).__name__)
        asked_s = error.retry_after_s if isinstance(error, Busy) else 0.0
        pause_s = min(max(self._retry_s, asked_s), RETRY_MAX_S)
        self._retry_s = min(2 * self._retry_s, RETRY_MAX_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._leaving.wait()

    def _tell(self, why: str) -> None:
        if why or self._is_waiting:
            self._is_waiting = bool(why)
            self._waits(self, why)
