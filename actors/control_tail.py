"""Follows the control partition's log from outside its writer: it brings the slot map, tokens and changed settings to
every process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from actors.runtime.ending import end
from models.control.control import ControlState
from models.control.events import SettingsChanged
from models.errors import IncidentManagerError
from models.partition.frames import NO_DIGEST, decode_frame
from models.ports import EventLog

log = structlog.get_logger()

#: How often to poll the control partition's log: each poll costs 0.15 ms.
FOLLOW_S = 1.0
#: Until it holds anything, at a first start: a merge of two shards' incidents waits for the slot map in it.
FIRST_LOOK_S = 0.05


class SettingsWatch:
    """Passes each change of settings on once, if it was made under the start `start`."""

    def __init__(self, start: str, take: Callable[[SettingsChanged], None]) -> None:
        self.start = start
        self._take = take
        self._taken: SettingsChanged | None = None

    def look(self, state: ControlState) -> None:
        changed = state.settings
        if changed is not None and changed is not self._taken and changed.start == self.start:
            self._taken = changed
            self._take(changed)
            log.info("settings changed", by=changed.actor, keys=sorted(changed.changes))


class ControlTail:
    """The control partition as far as it was read. Works without its writer."""

    def __init__(self, event_log: EventLog, watch: SettingsWatch | None = None) -> None:
        self._event_log = event_log
        self._watch = watch
        self._seq = 0
        self._digest = NO_DIGEST
        self._following = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self.state = ControlState()

    async def follow(self) -> bool:
        """Read what is new; True when there was something. Safe to call twice at once. Raises Unavailable, Damaged."""
        async with self._following:
            if await self._event_log.last_seq() == self._seq:
                return False
            try:
                while page := await self._event_log.read(self._seq):
                    for seq, stored in page:
                        frame = decode_frame(self._event_log.partition, stored, seq, self._digest)
                        self._seq, self._digest = seq, frame.digest
                        for event in frame.events:
                            self.state.apply(event)
            finally:
                # What was read is not read again: if a page fails or is cancelled, the changes before it must still be
                # passed on.
                if self._watch is not None:
                    self._watch.look(self.state)
        return True

    async def catch_up(self) -> None:
        """Like follow(), but logs errors instead of raising them: a follower that stopped would miss revoked tokens."""
        try:
            await self.follow()
        except IncidentManagerError as error:
            log.warning("can't follow the control partition, retrying", why=str(error))
        except Exception as error:  # noqa: BLE001 - a bug, which is told and ends nothing
            log.warning("can't follow the control partition, retrying", why=type(error).__name__)

    async def keep_up(self) -> None:
        """Follow until cancelled. No error stops it."""
        while True:
            await self.catch_up()
            await asyncio.sleep(FOLLOW_S if self._seq else FIRST_LOOK_S)

    def start(self) -> None:
        """Follow in the background, until close()."""
        self._task = asyncio.get_running_loop().create_task(self.keep_up())

    async def close(self) -> None:
        if self._task is not None:
            await end([self._task])
            self._task = None
        await self._event_log.close()
