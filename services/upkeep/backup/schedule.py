"""Makes backups on time, in a process of its own: an actor that services/wiring/bootstrap.py starts only when the settings ask for it.

When one is due says the target, by its newest backup: a restart neither forgets nor repeats one. Only beside the control
partition's writer is one made: of two systems on one store it is the one that holds that lease.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import msgspec
import structlog

from actors.runtime.ending import end
from actors.runtime.host import Host
from models.backup import shown
from models.errors import IncidentManagerError, Unavailable
from models.metrics import Meter, encode
from models.ports import Clock
from services.stores.choice import Stores
from services.upkeep.backup.create import Made, create
from services.upkeep.backup.retention import newest_whole, retain
from services.upkeep.backup.target import Target

log = structlog.get_logger()

#: How often the clock is looked at: a backup is late by no more. Also how long a failed one waits, at first.
LOOK_S = 30.0
#: What fails goes on failing for hours, or is mended within minutes.
RETRY_MAX_S = 900.0
ASK_TIMEOUT_S = 5.0


class BackupRunner:
    """Hosted like every actor. `target` is opened by a function, because that may fail and is then tried again."""

    def __init__(
        self,
        host: Host,
        stores: Stores,
        target: Callable[[], Target],
        clock: Clock,
        *,
        backend: str,
        interval_s: float,
        retention_s: float | None,
        control: str,
        look_s: float = LOOK_S,
    ) -> None:
        self.host = host
        self.meter = Meter(host.name)
        self._stores = stores
        self._open_target = target
        self._clock = clock
        self._backend = backend
        self._interval_s = interval_s
        self._retention_s = retention_s
        self._control = control
        self._look_s = look_s
        self._due_at = 0.0
        self._why = ""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.meter.count("llm_im_backup_failures_total", 0)
        self._task = asyncio.get_running_loop().create_task(self._live())

    async def stop(self) -> None:
        """Give up what is under way: nobody takes a backup without a manifest for one."""
        if self._task is not None:
            await end([self._task])
            self._task = None

    async def status(self, _payload: bytes) -> bytes:
        """For people: when the next one is due, and why the last one failed, "" when it did not."""
        return msgspec.json.encode({"due_at": self._due_at, "why": self._why})

    async def metrics(self, _payload: bytes) -> bytes:
        return encode(self.meter.read())

    async def _live(self) -> None:
        wait_s = self._look_s
        while True:
            try:
                await self._once()
                self._why, wait_s = "", self._look_s
            except asyncio.CancelledError:
                raise
            except Exception as error:
                self._why = str(error) if isinstance(error, IncidentManagerError) else repr(error)
                self.meter.count("llm_im_backup_failures_total")
                log.error(
                    "backup failed", actor=self.host.name, why=self._why, again_in_s=wait_s, exc_info=not isinstance(error, IncidentManagerError)
                )  # fmt: skip
                await asyncio.sleep(wait_s)
                wait_s = min(RETRY_MAX_S, wait_s * 2, max(self._interval_s, self._look_s))
            else:
                await asyncio.sleep(self._look_s)

    async def _once(self) -> None:
        """Make one if it is due and ours to make."""
        now = self._clock.now()
        if now < self._due_at or not await self._leads():
            return
        target = self._open_target()
        newest = await newest_whole(target, await target.files())
        if newest is not None:
            self.meter.set("llm_im_backup_success_timestamp_seconds", newest.cut_at)
            # One from far ahead was made before the clock was set back: nobody waits for that time to come again.
            if newest.cut_at < now + self._interval_s:
                self._due_at = newest.cut_at + self._interval_s
            if now < self._due_at:
                return
        made = await create(self._stores, target, self._clock, backend=self._backend)
        self._told(made)
        self._due_at = made.backup.cut_at + self._interval_s
        if self._retention_s is not None:
            removed = await retain(target, self._clock.now(), self._retention_s)
            if removed.backups:
                log.info("old backups removed", count=len(removed.backups), bytes=removed.bytes)

    def _told(self, made: Made) -> None:
        backup = made.backup
        self.meter.count("llm_im_backups_total")
        self.meter.set("llm_im_backup_success_timestamp_seconds", backup.cut_at)
        self.meter.set("llm_im_backup_seconds", backup.took_s)
        self.meter.set("llm_im_backup_bytes", sum(backup.files().values()))
        self.meter.set("llm_im_backup_written_bytes", made.written_bytes)
        log.info(
            "backup made",
            actor=self.host.name,
            id=backup.id,
            cut_at=shown(backup.cut_at),
            seconds=backup.took_s,
            bytes=sum(backup.files().values()),
            written_bytes=made.written_bytes,
        )

    async def _leads(self) -> bool:
        """Whether the control partition's writer beside us holds its lease."""
        with contextlib.suppress(Unavailable):
            status = await self.host.peers.call(self._control, "status", b"", ASK_TIMEOUT_S)
            return bool(msgspec.json.decode(status).get("leads"))
        return False
