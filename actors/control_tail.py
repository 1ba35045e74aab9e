"""Follows the control partition's log from outside its writer: it brings the slot map, tokens and changed settings to
every process. Each process takes the sections it goes by (models/control/assembly.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from actors.folding import newest_snapshot
from actors.runtime.ending import end
from models.control.assembly import SECTIONS
from models.control.control import ControlState
from models.control.events import SettingsChanged
from models.control.section import Section
from models.errors import Damaged, IncidentManagerError
from models.partition.frames import NO_DIGEST, check_frame
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
        if changed is not None and changed != self._taken and changed.start == self.start:
            self._taken = changed
            self._take(changed)
            log.info("settings changed", by=changed.actor, keys=sorted(changed.changes))


class ControlTail:
    """Sections of the control partition as far as they were read. Goes on without its writer."""

    def __init__(
        self,
        event_log: EventLog,
        watch: SettingsWatch | None = None,
        sections: Iterable[type[Section]] = SECTIONS,
    ) -> None:
        """`sections` are what `state` holds; a watch needs ChangedSettings among them."""
        self._event_log = event_log
        self._watch = watch
        self._sections = (*sections,)
        self._seq = 0
        self._digest = NO_DIGEST
        self._following = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        #: Another object after the log was begun at a snapshot: read it each time.
        self.state = ControlState(self._sections)

    async def follow(self) -> bool:
        """Read what is new, at first the newest snapshot; True when there was something. Safe to call twice at once. Raises
        Unavailable, Damaged."""
        async with self._following:
            if await self._event_log.last_seq() == self._seq:
                return False
            if not self._seq:
                # Nobody may use the snapshot alone: what came after it may revoke a token or make a silence.
                first = ControlTail(self._event_log, None, self._sections)
                await first._begin_at_snapshot()
                await first._read_on()
                self.state, self._seq, self._digest = first.state, first._seq, first._digest
            try:
                await self._read_on()
            finally:
                # What was read is not read again: if a page fails or is cancelled, the changes before it must still be
                # passed on.
                if self._watch is not None:
                    self._watch.look(self.state)
        return True

    async def _read_on(self) -> None:
        while page := await self._event_log.read(self._seq):
            if page[0][0] != self._seq + 1:
                # It was dropped behind a snapshot while we did not look.
                await self._begin_at_snapshot(page[0][0])
                continue
            for seq, stored in page:
                self._fold(seq, stored)

    async def _begin_at_snapshot(self, first_seq: int = 0) -> None:
        """Take the newest snapshot. Raises Damaged where the log begins at `first_seq` and none reaches to there."""
        found = await newest_snapshot(self._event_log, lambda: ControlState(self._sections))
        if found.seq < first_seq - 1:
            raise Damaged(
                self._event_log.partition,
                first_seq,
                "the log begins here and no snapshot of what came before can be read",
            )
        self.state, self._seq, self._digest = found.machine, found.seq, found.digest

    def _fold(self, seq: int, stored: bytes) -> None:
        digest = check_frame(self._event_log.partition, stored, seq, self._digest)
        frame = self.state.frames.skim(self._event_log.partition, stored, seq, self.state.folds)
        self._seq, self._digest = seq, digest
        if frame is not None:
            for _place, event in frame.events:
                self.state.apply(event, frame.now)

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
