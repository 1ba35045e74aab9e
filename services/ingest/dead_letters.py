"""What a door could not read, on its way to the port DeadLetters: stored after the answer, never before it. letters.py makes
letters of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence

import structlog

from actors.runtime.ending import end
from models.errors import IncidentManagerError, Unavailable
from models.metrics import Meter
from models.ports import Clock, DeadLetter, DeadLetters
from services.ingest.formats.format import Format, Request
from services.ingest.formats.reading import Fault
from services.ingest.letters import letters_of

log = structlog.get_logger()

#: Letters that wait to be written; beyond that the newest are counted and dropped: a flood must not use up memory.
WAITING_MAX = 2000
#: Bytes of those.
WAITING_MAX_BYTES = 16 * 1024 * 1024
BATCH = 200
#: How often a store that is away is tried again, and for how long: a restart takes seconds. What comes meanwhile waits, within the
#: bounds above.
RETRY_S = 0.2
RETRY_MAX_S = 5.0
GIVE_UP_S = 30.0
#: How often it is asked what it holds.
COUNT_EVERY_S = 10.0


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
        self._counted_at = -COUNT_EVERY_S
        self._stopping = False

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._write())

    async def stop(self) -> None:
        """Write what waits, then end. Safe to call twice."""
        self._stopping = True
        if self._task is not None:
            await end([self._task])
            self._task = None
        while self._waiting:
            await self._write_batch()
        self._idle.set()
        await self._store.close()

    def put(self, tenant: str, form: Format, request: Request, faults: Sequence[Fault]) -> None:
        """Keep what is wrong with a request. Counts what there is no room for."""
        made = letters_of(self._clock.now(), tenant, form, request, faults, self._max_payload_bytes)
        for kept, letter in enumerate(made):
            if (
                len(self._waiting) >= WAITING_MAX
                or self._bytes + len(letter.payload) + len(letter.request) > WAITING_MAX_BYTES
            ):
                self._meter.count("llm_im_dead_letters_lost_total", len(faults) - kept, door=form.name)
                break
            self._waiting.append(letter)
            self._bytes += len(letter.payload) + len(letter.request)
            self._idle.clear()
            self._meter.count("llm_im_dead_letters_total", door=form.name)
        self._wake.set()

    async def look(self) -> None:
        """Now and then, set the gauges of what the store holds. Whatever it has to say is no reason to stop taking alerts."""
        now = self._clock.monotonic()
        if now - self._counted_at < COUNT_EVERY_S:
            return
        self._counted_at = now
        with contextlib.suppress(IncidentManagerError):
            stats = await self._store.stats()
            self._meter.set("llm_im_dead_letters_kept", stats["kept"])
            self._meter.set("llm_im_dead_letters_kept_bytes", stats["bytes"])
            self._meter.set("llm_im_dead_letters_dropped", stats["dropped"])

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
        size = sum(len(letter.payload) + len(letter.request) for letter in batch)
        wait_s, begun = RETRY_S, self._clock.monotonic()
        try:
            while True:
                try:
                    await self._store.add(batch)
                except Unavailable as error:
                    if self._stopping or self._clock.monotonic() - begun >= GIVE_UP_S:
                        self._lose(batch, error)
                        return
                except IncidentManagerError as error:
                    self._lose(batch, error)
                    return
                except Exception:  # noqa: BLE001 - told of the letter that it is about
                    await self._one_by_one(batch)
                    return
                else:
                    return
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, RETRY_MAX_S)
        except asyncio.CancelledError:
            # stop() tries once more.
            self._waiting.extendleft(reversed(batch))
            self._bytes += size
            raise
        finally:
            self._bytes -= size

    async def _one_by_one(self, batch: Sequence[DeadLetter]) -> None:
        """One that its store can't take costs none of the others, and not those to come: queues wait for them."""
        for letter in batch:
            try:
                await self._store.add([letter])
            except IncidentManagerError as error:
                self._lose([letter], error)
            except Exception:
                self._meter.count("llm_im_dead_letters_lost_total", 1, door=letter.door)
                log.exception("bug: a dead letter can't be stored", door=letter.door)

    def _lose(self, batch: Sequence[DeadLetter], error: IncidentManagerError) -> None:
        self._meter.count("llm_im_dead_letters_lost_total", len(batch), door=batch[0].door)
        log.warning("dead letters lost: their store is not available", count=len(batch), why=str(error))
