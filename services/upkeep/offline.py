"""The logs of a system that does not run, held by a command while it works on them: resharding.py, copying.py."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol

from actors.runtime.ending import end
from models.errors import Conflict, Fenced, IncidentManagerError, NotOwner
from models.partition.event import Event
from models.partition.frames import EVERYONE, check_frame, encode_frame, time_of
from models.ports import Clock, EventLog, Opened

LEASE_S = 30.0
#: A system that was killed leaves its lease, of 10 s; one that runs renews it.
PATIENCE_S = 12.0
RETRY_S = 0.5


class Logs(Protocol):
    """Where they are."""

    def log(self, partition: str) -> EventLog: ...


class HeldLog:
    """A log that only we write. `seq`, `digest` and `now` are of its last frame."""

    def __init__(self, log: EventLog, opened: Opened) -> None:
        self.log = log
        self.opened = opened
        self.epoch = opened.epoch
        self.seq = opened.last_seq
        self.digest = opened.last_digest
        self.now = 0.0

    async def append(self, events: Sequence[Event], now: float) -> None:
        """A frame for each event, all durable or none. Time does not go back behind the frames before."""
        if events:
            await self.append_frames([], self.digest, events, now)

    async def append_frames(
        self, frames: Sequence[bytes], digest: bytes, events: Sequence[Event] = (), now: float = 0.0
    ) -> None:
        """Frames that are made already, of which `digest` is the last one's, and one for each event behind them."""
        self.now = now = max(now, self.now)
        added = list(frames)
        for event in events:
            frame, digest = encode_frame(self.seq + len(added) + 1, now, EVERYONE, None, [event], digest)
            added.append(frame)
        await self.log.append(self.epoch, self.seq + 1, added)
        self.seq, self.digest = self.seq + len(added), digest

    async def seed(self, seq: int, digest: bytes, epoch_before: int) -> None:
        """EventLog.seed()."""
        self.epoch = await self.log.seed(self.epoch, seq, digest, epoch_before)
        self.seq, self.digest = seq, digest


class Offline:
    """Use as `async with`: everything that was taken is renewed until the end, and then released."""

    def __init__(self, stores: Logs, owner: str, clock: Clock) -> None:
        self._stores = stores
        self._owner = owner
        self._clock = clock
        self._held: dict[str, HeldLog] = {}
        self._renewing: asyncio.Task[None] | None = None
        self._lost: str = ""

    async def take(self, partition: str) -> HeldLog:
        """The partition's log, waited for while a killed system's lease runs out. Raises Conflict when somebody goes on
        holding it, Damaged, Unavailable."""
        if (known := self._held.get(partition)) is not None:
            return known
        log = self._stores.log(partition)
        deadline = self._clock.monotonic() + PATIENCE_S
        while True:
            try:
                opened = await log.open(self._owner, self._clock.now(), LEASE_S)
                break
            except NotOwner as error:
                if self._clock.monotonic() >= deadline:
                    await log.close()
                    raise Conflict(
                        f"{partition} is held by {error.owner}: a system runs on it; first: llm-im down"
                    ) from None
            except BaseException:
                await log.close()
                raise
            await asyncio.sleep(RETRY_S)
        held = HeldLog(log, opened)
        self._held[partition] = held
        if opened.last_seq and opened.first_seq:
            ((seq, stored),) = await log.read(opened.last_seq - 1)
            check_frame(partition, stored, seq, None)
            held.now = time_of(stored)
        return held

    def check(self) -> None:
        """Raises Fenced when a lease could not be renewed: somebody else may write by now."""
        if self._lost:
            raise Fenced(self._lost)

    async def __aenter__(self) -> Offline:
        self._renewing = asyncio.get_running_loop().create_task(self._renew())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._renewing is not None:
            await end([self._renewing])
        for held in self._held.values():
            with contextlib.suppress(IncidentManagerError):  # it runs out by itself
                await held.log.release(held.epoch)
            await held.log.close()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 3)
            for partition, held in [*self._held.items()]:
                try:
                    await held.log.renew(held.epoch, self._clock.now() + LEASE_S)
                except IncidentManagerError as error:
                    self._lost = f"{partition} could not be held any longer: {error}"
                    return
