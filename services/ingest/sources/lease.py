"""The right to poll something alone, and how far that got, both kept in the control partition (models/control/polls.py). Used by
fetching.py and services/feed/announce.py.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Protocol

from actors.control_tail import ControlTail
from models.control.control import ControlMessage
from models.control.polls import MoveCursor, Poll, Polls, ReleasePoll, TakePoll
from models.errors import Conflict, IncidentManagerError
from models.ports import Clock

#: After the process that polls was killed another one begins within this. A renewal is an event: three in a minute are few.
LEASE_S = 30.0


class LeaseNeeds(Protocol):
    """What a lease is taken with: see SourceNeeds. `control` follows the section Polls."""

    @property
    def name(self) -> str: ...
    @property
    def control(self) -> ControlTail: ...
    @property
    def tell_control(self) -> Callable[[ControlMessage], Awaitable[None]]: ...
    @property
    def clock(self) -> Clock: ...


class Lease:
    """One thing that is polled. Each object of this is another owner: a process that was killed and is back waits, as anybody
    else does, until the lease of the one before has run out."""

    def __init__(self, needs: LeaseNeeds, name: str, lease_s: float = LEASE_S) -> None:
        self.name = name
        self.lease_s = lease_s
        self._needs = needs
        self._owner = f"{needs.name}/{secrets.token_hex(4)}"
        self._epoch = 0
        self._until = 0.0
        #: What came before this was stored; "" at first.
        self.cursor = ""

    @property
    def is_held(self) -> bool:
        """By our own clock, and from before we asked: never longer than the control partition believes."""
        return self._needs.clock.monotonic() < self._until

    async def take(self) -> None:
        """Take it, or go on having it. Raises Conflict while somebody else has it, Unavailable."""
        asked = self._needs.clock.monotonic()
        await self._needs.tell_control(TakePoll(self.name, self._owner, self.lease_s))
        if not self._epoch:
            found = await self._found()
            self._epoch, self.cursor = found.epoch, found.cursor
        self._until = asked + self.lease_s

    async def keep(self) -> None:
        """Renew it in time. Returns when it is lost."""
        while True:
            await asyncio.sleep(self.lease_s / 3)
            try:
                async with asyncio.timeout(max(0.0, self._until - self._needs.clock.monotonic())):
                    await self.take()
            except (Conflict, TimeoutError):
                break
            except IncidentManagerError:
                if not self.is_held:
                    break
        self.forget()

    async def move(self, cursor: str) -> None:
        """What came before `cursor` is stored. Raises Conflict when somebody else has the lease by now, Unavailable."""
        if cursor != self.cursor:
            await self._needs.tell_control(MoveCursor(self.name, self._epoch, cursor))
            self.cursor = cursor

    async def release(self) -> None:
        """Let somebody else have it at once. If that can't be told, it runs out."""
        if self._epoch:
            self.forget()
            try:
                await self._needs.tell_control(ReleasePoll(self.name, self._owner))
            except IncidentManagerError:
                return

    def forget(self) -> None:
        """It is lost: whoever had it meanwhile moved the cursor."""
        self._epoch, self._until = 0, 0.0

    async def _found(self) -> Poll:
        await self._needs.control.follow()
        found = self._needs.control.state.of(Polls).polls.get(self.name)
        if found is None or found.owner != self._owner:
            raise Conflict(f"another process polls {self.name} by now")
        return found
