"""Writers that take one partition's log from each other, readers beside them, and a record of all that they did and were
told: a history for linearizability.py. Used by test_histories.py and tests/soak/test_histories_soak.py.

A writer behaves as a shard does: it opens the log, appends behind what it found, opens again when it is fenced or does not
know what became of an append. It also does what a shard should not: it stalls past its lease and goes on, and it dies in
the middle of an append and comes back under the same name.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from models.errors import Fenced, Full, NotOwner, OutcomeUnknown, Unavailable
from models.partition.frames import encode_frame
from models.ports import EventLog
from tests.contract.linearizability import (
    NEVER,
    Append,
    LastSeq,
    Open,
    Operation,
    Read,
    Release,
    Renew,
    What,
)

#: Shorter than a stall may be: a writer that stalls loses the log to another.
LEASE_S = 0.03
STALL_S = 0.12
#: Between two operations of one writer or reader, at most: some hundred operations a second are enough trouble.
PAUSE_S = 0.006
#: Of each hundred appends: how many are cancelled in the middle, and how many are made after a stall.
CANCELLED, STALLED = 3, 5
#: Writers of so many names: the first two have the same, and take each other's lease at once.
OWNERS = ("a", "a", "b", "c")
READERS = 2
#: How many seqs before the newest one it saw a reader may begin.
LOOK_BACK = 12


@dataclass(slots=True)
class History:
    """What was done so far. `counted`: how many of each kind were answered how."""

    operations: list[Operation] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)

    def add(self, who: str, what: What, began: float, *, cut_off: bool = False) -> None:
        self.operations.append(Operation(who, what, began, NEVER if cut_off else time.monotonic()))
        kind = type(what).__name__
        if cut_off:
            kind += " cut off"
        elif getattr(what, "fenced", False):
            kind += " fenced"
        elif getattr(what, "owned", False):
            kind += " refused"
        self.counted[kind] = self.counted.get(kind, 0) + 1


async def record(make: Callable[[], EventLog], seconds: float, seed: int) -> History:
    """Run them all for so long. `make` constructs an adapter over the same partition: each of them has its own, and a new
    one after each death. Raises what the port does not promise."""
    history = History()
    until = time.monotonic() + seconds
    tasks = [
        *(
            _Writer(f"writer {number} as {owner}", owner, make, history, random.Random(f"{seed}/w{number}")).run(until)
            for number, owner in enumerate(OWNERS)
        ),
        *(
            _Reader(f"reader {number}", make, history, random.Random(f"{seed}/r{number}")).run(until)
            for number in range(READERS)
        ),
    ]  # fmt: skip
    async with asyncio.TaskGroup() as group:
        for each in tasks:
            group.create_task(each)
    return history


class _Writer:
    def __init__(
        self, name: str, owner: str, make: Callable[[], EventLog], history: History, chance: random.Random
    ) -> None:
        self._name = name
        self._owner = owner
        self._make = make
        self._history = history
        self._chance = chance
        self._log = make()
        self._epoch = 0
        self._seq = 0
        self._digest = b""
        self._made = 0

    async def run(self, until: float) -> None:
        while time.monotonic() < until:
            if await self._open():
                await self._hold(until)
            await self._pause()
        await self._log.close()

    async def _open(self) -> bool:
        began = time.monotonic()
        try:
            opened = await self._log.open(self._owner, began, LEASE_S)
        except NotOwner:
            self._history.add(self._name, Open(self._owner, began, LEASE_S, owned=True), began)
            return False
        except (Unavailable, OutcomeUnknown, Fenced):  # taken or not; or taken, and by another after that
            self._history.add(self._name, Open(self._owner, began, LEASE_S), began, cut_off=True)
            return False
        self._history.add(self._name, Open(self._owner, began, LEASE_S, opened.epoch, opened.last_seq), began)
        assert opened.cut is None, opened.cut
        self._epoch, self._seq, self._digest = opened.epoch, opened.last_seq, opened.last_digest
        return True

    async def _hold(self, until: float) -> None:
        """Write until it is fenced, does not know, or has had enough."""
        for _count in range(self._chance.randrange(5, 60)):
            if time.monotonic() > until:
                return
            if self._chance.random() < STALLED / 100:
                await asyncio.sleep(self._chance.random() * STALL_S)
            elif self._chance.random() < 0.3 and not await self._renew():
                return
            if not await self._append():
                return
            if self._chance.random() < 0.1:
                await _read(self._log, self._name, self._history, max(0, self._seq - LOOK_BACK))
            await self._pause()
        if self._chance.random() < 0.5:
            await self._release()

    async def _append(self) -> bool:
        """Whether it may go on in this epoch."""
        frames, digest = [], self._digest
        for number in range(self._chance.randrange(1, 4)):
            self._made += 1
            frame, digest = encode_frame(
                self._seq + number + 1, 0.0, "default", f"{self._name} {self._made}", (), digest
            )
            frames.append(frame)
        what = Append(self._epoch, self._seq + 1, tuple(frames))
        began = time.monotonic()
        appending = asyncio.create_task(self._log.append(self._epoch, self._seq + 1, frames))
        if self._chance.random() < CANCELLED / 100:
            await self._die(appending, what, began)
            return False
        try:
            await appending
        except Fenced:
            self._history.add(
                self._name, Append(self._epoch, what.first_seq, what.frames, fenced=True), began
            )
            return False
        except OutcomeUnknown:
            self._history.add(self._name, what, began, cut_off=True)
            return False
        except (Unavailable, Full):
            # Nothing was kept, so it is no operation: another append takes these seqs, with frames of its own.
            return True
        self._history.add(self._name, what, began)
        self._seq, self._digest = self._seq + len(frames), digest
        return True

    async def _die(self, appending: asyncio.Task[None], what: Append, began: float) -> None:
        """Be gone in the middle of it, and be there again under the same name."""
        for _turn in range(self._chance.randrange(4)):
            await asyncio.sleep(0)
        appending.cancel()
        await asyncio.wait([appending])
        self._history.add(self._name, what, began, cut_off=True)
        gone, self._log = self._log, self._make()
        await gone.close()

    async def _renew(self) -> bool:
        began = time.monotonic()
        until = began + LEASE_S
        try:
            await self._log.renew(self._epoch, until)
        except Fenced:
            self._history.add(self._name, Renew(self._epoch, until, fenced=True), began)
            return False
        except Unavailable:
            self._history.add(self._name, Renew(self._epoch, until), began, cut_off=True)
            return True
        self._history.add(self._name, Renew(self._epoch, until), began)
        return True

    async def _release(self) -> None:
        began = time.monotonic()
        try:
            await self._log.release(self._epoch)
        except Unavailable:
            self._history.add(self._name, Release(self._epoch), began, cut_off=True)
        else:
            self._history.add(self._name, Release(self._epoch), began)

    async def _pause(self) -> None:
        await asyncio.sleep(self._chance.random() * PAUSE_S)


class _Reader:
    def __init__(
        self, name: str, make: Callable[[], EventLog], history: History, chance: random.Random
    ) -> None:
        self._name = name
        self._log = make()
        self._history = history
        self._chance = chance

    async def run(self, until: float) -> None:
        seen = 0
        while time.monotonic() < until:
            if self._chance.random() < 0.3:
                await self._last_seq()
            seen = await _read(
                self._log, self._name, self._history, max(0, seen - self._chance.randrange(LOOK_BACK))
            )
            await asyncio.sleep(self._chance.random() * PAUSE_S)
        await self._log.close()

    async def _last_seq(self) -> None:
        began = time.monotonic()
        try:
            found = await self._log.last_seq()
        except Unavailable:
            return
        self._history.add(self._name, LastSeq(found), began)


async def _read(log: EventLog, name: str, history: History, after: int) -> int:
    """The newest seq that was seen. One that was refused tells nothing."""
    began = time.monotonic()
    try:
        page = await log.read(after)
    except Unavailable:
        return after
    history.add(name, Read(after, tuple(frame for _seq, frame in page)), began)
    assert [seq for seq, _frame in page] == list(range(after + 1, after + 1 + len(page)))
    return after + len(page)
