"""The control partition's single writer. Today it owns the slot map; tokens, silences and settings follow here.

Shards and gateways do not ask it: they tail its log (actors/control_tail.py), so that they go on without it.
"""

from __future__ import annotations

import asyncio

import msgspec
import structlog

from actors.host import Host
from models.control import ControlState
from models.errors import Broken, Damaged, Fenced, NotOwner, Unavailable
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

    def __init__(self, host: Host, event_log: EventLog, clock: Clock, partitions: int) -> None:
        self.host = host
        self.event_log = event_log
        self.clock = clock
        self.partitions = partitions
        self.state = ControlState()
        self.meter = Meter(host.name, partition=PARTITION)
        self._reported: dict[str, tuple[float, bytes]] = {}
        self._epoch = 0
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
        return b'{"ready":true}' if self.state.slots is not None else b'{"ready":false}'

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
                await self._recover()
                while True:
                    await asyncio.sleep(LEASE_S / 3)
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
        events = state.begin(self.partitions)
        if events:
            frame_bytes, digest = encode_frame(seq + 1, self.clock.now(), "default", None, events, digest)
            await self.event_log.append(self._epoch, seq + 1, [frame_bytes])
            for event in events:
                state.apply(event)
        self.state = state
        log.info("control ready", actor=self.host.name, epoch=self._epoch, slot_map=state.slot_version)
