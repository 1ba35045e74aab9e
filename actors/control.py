"""The control partition's single writer. It owns the slot map and changed settings; tokens and silences follow here.

Shards and gateways do not ask it: they tail its log (actors/control_tail.py), so that they go on without it.
"""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import structlog

from actors.control_tail import SettingsWatch
from actors.host import Host
from models.control import ControlState
from models.errors import Broken, Damaged, Fenced, IncidentManagerError, Malformed, NotOwner, Unavailable
from models.events import Event, SettingsChanged
from models.frames import decode_frame, encode_frame
from models.metrics import Meter
from models.metrics import decode as decode_metrics
from models.metrics import encode as encode_metrics
from models.ports import Clock, EventLog

log = structlog.get_logger()

PARTITION = "control"
LEASE_S = 10.0
RETRY_S = 1.0
#: A gateway reports every second; one that has not for so long is gone.
REPORT_AGE_S = 10.0


class ControlActor:
    """Same log, same decide/apply as a shard, one writer."""

    def __init__(
        self,
        host: Host,
        event_log: EventLog,
        clock: Clock,
        partitions: int,
        watch: SettingsWatch | None = None,
    ) -> None:
        self.host = host
        self.event_log = event_log
        self.clock = clock
        self.partitions = partitions
        self.state = ControlState()
        self.meter = Meter(host.name, partition=PARTITION)
        self._reported: dict[str, tuple[float, bytes]] = {}
        self._watch = watch
        self._epoch = 0
        self._seq = 0
        self._digest = b""
        #: One writes at a time; set when a write failed and only the log knows what is true.
        self._writing = asyncio.Lock()
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._live())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._epoch:
            await self.event_log.release(self._epoch)
        await self.event_log.close()

    async def status(self, _payload: bytes) -> bytes:
        start = "" if self._watch is None else self._watch.start
        return msgspec.json.encode({"ready": self.state.slots is not None, "start": start})

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

    async def change(self, payload: bytes) -> bytes:
        """Settings a person changed (encoded SettingsChanged), durable when this returns. Safe to call twice."""
        try:
            changed = _changed_decoder.decode(payload)
        except msgspec.MsgspecError as error:
            raise Malformed(f"expected MessagePack of SettingsChanged: {error}") from error
        await self._write([changed])
        return b""

    async def _live(self) -> None:
        while True:
            try:
                async with self._writing:
                    await self._recover()
                while not self._lost.is_set():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._lost.wait(), LEASE_S / 3)
                    await self.event_log.renew(self._epoch, self.clock.now() + LEASE_S)
            except Damaged as error:
                # Starting again would find the same damage. Gateways go on with the map they read.
                log.error(
                    "control log damaged: its writer stops",
                    actor=self.host.name,
                    why=str(error),
                    seq=error.seq,
                )
                return
            except (Fenced, Broken) as error:
                log.error("control partition stops", actor=self.host.name, why=str(error))
                self.host.fatal(str(error))
                return
            except (Unavailable, NotOwner) as error:
                log.warning("control partition waits", actor=self.host.name, why=str(error))
            await asyncio.sleep(RETRY_S)

    async def _recover(self) -> None:
        opened = await self.event_log.open(self.host.name, self.clock.now(), LEASE_S)
        self._epoch = opened.epoch
        state, seq, digest = ControlState(), 0, opened.anchor
        while page := await self.event_log.read(seq):
            for seq, stored in page:
                frame = decode_frame(PARTITION, stored, seq, digest)
                digest = frame.digest
                for event in frame.events:
                    state.apply(event)
        self._seq, self._digest = seq, digest
        self._lost.clear()
        events = state.begin(self.partitions)
        if events:
            await self._append(state, events)
        self.state = state
        if self._watch is not None:
            self._watch.look(state)
        log.info("control ready", actor=self.host.name, epoch=self._epoch, slot_map=state.slot_version)

    async def _write(self, events: list[Event]) -> None:
        """Decided events into the log, then into the state. Raises Unavailable when they are not known to be stored."""
        async with self._writing:
            if self.state.slots is None or self._lost.is_set():
                raise Unavailable("the control partition is not ready; try again")
            try:
                await self._append(self.state, events)
            except IncidentManagerError:
                # What the log holds now is not known: read it again before anything else is written.
                self._lost.set()
                raise
        if self._watch is not None:
            self._watch.look(self.state)

    async def _append(self, state: ControlState, events: list[Event]) -> None:
        frame, digest = encode_frame(self._seq + 1, self.clock.now(), "default", None, events, self._digest)
        await self.event_log.append(self._epoch, self._seq + 1, [frame])
        self._seq, self._digest = self._seq + 1, digest
        for event in events:
            state.apply(event)


_changed_decoder = msgspec.msgpack.Decoder(SettingsChanged)
