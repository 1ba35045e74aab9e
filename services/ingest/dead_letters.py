"""What a door could not read, on its way to the port DeadLetters: stored after the answer, never before it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

import structlog

from actors.runtime.ending import end
from models.control.tokens import without_secrets
from models.errors import IncidentManagerError
from models.metrics import Meter
from models.ports import Clock, DeadLetter, DeadLetters
from services.ingest.formats.reading import Fault

log = structlog.get_logger()

#: Letters that wait to be written; beyond that the newest are counted and dropped: a flood must not use up memory.
WAITING_MAX = 2000
#: Bytes of those.
WAITING_MAX_BYTES = 16 * 1024 * 1024
BATCH = 200


class DeadLetterBox:
    """put() returns at once; a task writes. One a gateway."""

    def __init__(self, store: DeadLetters, clock: Clock, meter: Meter, *, max_payload_bytes: int) -> None:
        self._store = store
        self._clock = clock
        self._meter = meter
        self._max_payload_bytes = max_payload_bytes
        self._waiting: deque[DeadLetter] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        #: Whether nothing waits to be written, nor is being written.
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._write())

    async def stop(self) -> None:
        """Write what waits, then end. Safe to call twice."""
        if self._task is not None:
            await end([self._task])
            self._task = None
        while self._waiting:
            await self._write_batch()
        self._idle.set()
        await self._store.close()

    def put(self, tenant: str, door: str, faults: Sequence[Fault], content_type: str) -> None:
        """Keep what is wrong with a request. Counts what there is no room for."""
        now = self._clock.now()
        for place, fault in enumerate(faults):
            # Some senders have their token in the body. Before the cut, which might leave most of one.
            raw = without_secrets(fault.raw)
            payload = raw[: self._max_payload_bytes]
            if len(self._waiting) >= WAITING_MAX or self._bytes + len(payload) > WAITING_MAX_BYTES:
                self._meter.count("llm_im_dead_letters_lost_total", len(faults) - place, door=door)
                break
            cut = len(payload) < len(raw)
            message = without_secrets(fault.message.encode("utf-8", "replace")).decode()
            self._waiting.append(DeadLetter(now, tenant, door, message, payload, content_type, truncated=cut))
            self._bytes += len(payload)
            self._idle.clear()
            self._meter.count("llm_im_dead_letters_total", door=door)
        self._wake.set()

    async def written(self) -> None:
        """Until all that was put so far is stored, or counted as lost."""
        await self._idle.wait()

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._write_batch()
            self._idle.set()

    async def _write_batch(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
        self._bytes -= sum(len(letter.payload) for letter in batch)
        await self._store_them(batch)

    async def _store_them(self, letters: Sequence[DeadLetter]) -> None:
        try:
            await self._store.add(letters)
        except IncidentManagerError as error:
            self._lost(letters)
            log.warning("dead letters lost: their store is not available", count=len(letters), why=str(error))
        except Exception:
            # One that its store can't take costs none of the others, and not those to come: queues wait for them.
            for letter in letters if len(letters) > 1 else ():
                await self._store_them([letter])
            if len(letters) == 1:
                self._lost(letters)
                log.exception("bug: a dead letter can't be stored", door=letters[0].door)

    def _lost(self, letters: Sequence[DeadLetter]) -> None:
        self._meter.count("llm_im_dead_letters_lost_total", len(letters), door=letters[0].door)
