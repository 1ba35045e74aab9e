"""The control partition's single writer: slot map, API tokens, settings changed while it runs; silences follow here.

Shards and gateways do not call it: they follow its log (actors/control_tail.py), so they work without it. Only changes
are sent to it. `llm-im tokens --local` runs one of these for a moment where no system runs.
"""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import structlog

from actors.begun import Kept, has_begun, held, lost_control
from actors.control_tail import SettingsWatch
from actors.folding import fold_control
from actors.runtime.ending import end
from actors.runtime.host import Host
from models.control.control import ControlState, decode_message
from models.control.events import PartitionsBegan
from models.errors import Broken, Damaged, Fenced, NotOwner, Unavailable
from models.metrics import Meter
from models.metrics import decode as decode_metrics
from models.metrics import encode as encode_metrics
from models.partition.event import Event
from models.partition.frames import NO_DIGEST, encode_frame
from models.partition.sharding import partition_name
from models.ports import Clock, EventLog

log = structlog.get_logger()

PARTITION = "control"
LEASE_S = 10.0
RETRY_S = 1.0
#: A gateway reports every second; one that has not for this long is gone.
REPORT_AGE_S = 10.0


class ControlActor:
    """Same log, same decide/apply as a shard, one writer."""

    def __init__(
        self,
        host: Host,
        event_log: EventLog,
        clock: Clock,
        partitions: int | None,
        watch: SettingsWatch | None = None,
        settings: str = "",
        kept: Kept | None = None,
    ) -> None:
        """Without `partitions` the slots stay unassigned: the first start of the system decides how many there are.
        `settings`, without secrets, are what all were started with. `kept` is what the other partitions keep: a log is not
        begun where they hold something, and which of them have begun is noted."""
        self.host = host
        self.event_log = event_log
        self.clock = clock
        self.partitions = partitions
        self.state = ControlState()
        self.meter = Meter(host.name, partition=PARTITION)
        self._reported: dict[str, tuple[float, bytes]] = {}
        self._watch = watch
        self._settings = settings
        self._kept = kept
        self._epoch = 0
        self._seq = 0
        self._digest = NO_DIGEST
        #: False while the log is not ours or the outcome of an append is unknown.
        self._writable = False
        self._lost = asyncio.Event()
        self._changing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._live())

    async def stop(self) -> None:
        if self._task is not None:
            await end([self._task])
            self._task = None
        if self._epoch:
            with contextlib.suppress(Unavailable):  # the store is down: the lease runs out by itself
                await self.event_log.release(self._epoch)
        await self.event_log.close()

    async def status(self, _payload: bytes) -> bytes:
        """Whether it is ready and holds its lease (`leads`), the id of this start, and the settings in force."""
        start = "" if self._watch is None else self._watch.start
        changed = self.state.settings
        settings = self._settings if changed is None or changed.start != start else changed.settings
        return msgspec.json.encode(
            {
                "ready": self.state.slots is not None,
                "leads": self._writable,
                "start": start,
                "settings": settings,
            }
        )

    async def change(self, payload: bytes) -> bytes:
        """Decide about one message (models/control/control.py) and make what comes of it durable before answering b"".

        A repeat of the same message makes no second event. Raises what ControlState.decide raises, and Unavailable if
        it is unknown whether anything was stored: try again.
        """
        message = decode_message(payload)
        async with self._changing:
            if not self._writable:
                raise Unavailable("the control partition is recovering")
            now = self.clock.now()
            if events := self.state.decide(message, now):
                try:
                    await self._commit(events, now)
                except Fenced as error:
                    self.host.fatal(str(error))
                    raise
        return b""

    async def metrics(self, _payload: bytes) -> bytes:
        return encode_metrics(self.meter.read())

    async def report(self, payload: bytes) -> bytes:
        """A gateway's reading (encoded ActorMetrics), so that one scrape of any gateway shows them all."""
        reading = decode_metrics(payload)
        self._reported[reading.name] = (self.clock.monotonic(), payload)
        return b""

    async def reported(self, _payload: bytes) -> bytes:
        """The readings of gateways that reported lately, as a MessagePack list."""
        oldest = self.clock.monotonic() - REPORT_AGE_S
        self._reported = {name: found for name, found in self._reported.items() if found[0] >= oldest}
        return msgspec.msgpack.encode([payload for _at, payload in self._reported.values()])

    async def _live(self) -> None:
        while True:
            try:
                async with self._changing:
                    await self._recover()
                await self._renew()
            except Damaged as error:
                # Starting again would find the same damage. Gateways go on with the map they read.
                log.error(
                    "control log damaged, its writer stops",
                    actor=self.host.name,
                    why=str(error),
                    seq=error.seq,
                )
                return
            except (Fenced, Broken) as error:
                log.error("control partition stopped", actor=self.host.name, why=str(error))
                self.host.fatal(str(error))
                return
            except (Unavailable, NotOwner) as error:
                log.warning("control partition not available, retrying", actor=self.host.name, why=str(error))
            except Exception as error:
                # A bug. If it went on silently, nobody would renew the lease or accept a change until a person noticed.
                log.exception("control partition crashed", actor=self.host.name)
                self.host.fatal(repr(error))
                return
            finally:
                self._writable = False
            await asyncio.sleep(RETRY_S)

    async def _renew(self) -> None:
        """Keep the lease until an append fails."""
        while True:
            await self._note_begun()
            try:
                async with asyncio.timeout(LEASE_S / 3):
                    await self._lost.wait()
            except TimeoutError:
                await self.event_log.renew(self._epoch, self.clock.now() + LEASE_S)
            else:
                raise Unavailable("an append failed: reading the log again")

    async def _note_begun(self) -> None:
        """Record which partitions have a log by now, so that a lost one is noticed."""
        slots = self.state.slots
        if self._kept is None or slots is None:
            return
        begun: list[str] = []
        for name in map(partition_name, range(slots.partitions)):
            if name not in self.state.begun:
                event_log = self._kept.log(name)
                try:
                    if await has_begun(event_log):
                        begun.append(name)
                finally:
                    await event_log.close()
        if begun:
            async with self._changing:
                await self._commit([PartitionsBegan(begun)], self.clock.now())

    async def _refuse_lost(self) -> None:
        """Raises Damaged if this log is empty but shards hold data: then it existed before."""
        if self._kept is None or await self.event_log.last_seq():
            return
        if holding := await held(self._kept, self.partitions or 0):
            raise lost_control(PARTITION, holding)

    async def _recover(self) -> None:
        await self._refuse_lost()
        opened = await self.event_log.open(self.host.name, self.clock.now(), LEASE_S)
        self._epoch = opened.epoch
        self._lost.clear()
        self.state = state = await fold_control(self.event_log)
        self._seq, self._digest = opened.last_seq, opened.last_digest
        if self.partitions is not None and (events := state.begin(self.partitions)):
            await self._commit(events, self.clock.now())
        self._writable = True
        self._look()
        log.info("control ready", actor=self.host.name, epoch=self._epoch, slot_map=state.slot_version)

    async def _commit(self, events: list[Event], now: float) -> None:
        """Append, then apply. After any failed append the log is opened again before the next one."""
        frame, digest = encode_frame(self._seq + 1, now, "default", None, events, self._digest)
        try:
            await self.event_log.append(self._epoch, self._seq + 1, [frame])
        except BaseException:
            self._writable = False
            self._lost.set()
            raise
        self._seq += 1
        self._digest = digest
        for event in events:
            self.state.apply(event)
        self._look()

    def _look(self) -> None:
        if self._watch is not None:
            self._watch.look(self.state)
