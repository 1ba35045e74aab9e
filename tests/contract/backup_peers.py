"""For the tests of backups: systems over any store, small stores made by hand, and states to compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from models.backup import Until
from models.control.events import SlotsAssigned
from models.partition.event import Event
from models.partition.frames import NO_DIGEST, encode_frame
from models.partition.sharding import SlotMap
from models.partitions import decode_frame
from models.ports import Archive, ArchivedIncident, Clock, DeadLetters, DeliveryIds, EventLog, Mark
from models.settings.all import Settings
from models.shard.events import ShardStarted
from models.shard.settings import ShardSettings
from models.shard.shard import Shard
from services.stores.choice import Stores, open_stores
from services.stores.memory.archive import MemoryArchive
from services.stores.memory.dead_letters import MemoryDeadLetters
from services.stores.memory.delivery_ids import MemoryDeliveryIds
from services.stores.memory.log import MemoryEventLog
from services.stores.memory.store import MemoryStore
from tests.simulation.dump import dump

CONTROL = "control"
DAY_S = 86_400.0


class OverStores:
    """What tests/api/gateway_in_process.py wants, over the adapters that the settings choose."""

    def __init__(self, stores: Stores) -> None:
        self.stores = stores

    def log(self, partition: str) -> EventLog:
        return self.stores.log(partition)

    def archive(self, partition: str) -> Archive:
        return self.stores.archive(partition)

    def deliveries(self, partition: str) -> DeliveryIds:
        return self.stores.delivery_ids(partition)

    def dead_letters(self, settings: Settings, clock: Clock) -> DeadLetters:
        bounds = settings.dead_letters
        return self.stores.dead_letters(
            max_bytes=bounds.max_bytes, max_age_s=bounds.max_age, clock=clock, max_payload_bytes=1024
        )


def sqlite(folder: Path) -> Stores:
    return open_stores({"backend": "sqlite", "folder": str(folder)})


def redis(url: str, prefix: str) -> Stores:
    from services.stores.redis.options import RedisOptions

    return open_stores({"backend": "redis", **asdict(RedisOptions(url, prefix=prefix))})


def postgres(url: str, schema: str) -> Stores:
    from services.stores.postgres.options import PostgresOptions

    return open_stores({"backend": "postgres", **asdict(PostgresOptions(url, schema=schema))})


class MemoryStores:
    """The shipped memory adapters as services/stores/choice.py would give them."""

    def __init__(self) -> None:
        self.store = MemoryStore()

    def log(self, partition: str) -> EventLog:
        return MemoryEventLog(self.store, partition)

    def archive(self, partition: str) -> Archive:
        return MemoryArchive(self.store, partition)

    def delivery_ids(self, partition: str) -> DeliveryIds:
        return MemoryDeliveryIds(self.store, partition)

    def dead_letters(
        self, *, max_bytes: int, max_age_s: float, clock: Clock, max_payload_bytes: int
    ) -> DeadLetters:
        return MemoryDeadLetters(self.store, max_bytes=max_bytes, max_age_s=max_age_s, clock=clock)

    async def check(self) -> None: ...


class Writer:
    """Writes one partition by hand, frame by frame."""

    def __init__(self, stores: Stores, partition: str) -> None:
        self.partition = partition
        self.log = stores.log(partition)
        self.seq = 0
        self.digest = NO_DIGEST
        self.epoch = 0
        self.generation = 0

    async def write(self, at: float, *events: Event) -> None:
        if not self.epoch:
            self.epoch = (await self.log.open("writer", at, 10.0)).epoch
        self.seq += 1
        frame, self.digest = encode_frame(self.seq, at, "default", None, events, self.digest)
        await self.log.append(self.epoch, self.seq, [frame])

    async def snapshot(self, at: float) -> None:
        """Of an empty shard, as of the last frame, and truncated behind the one before."""
        self.generation += 1
        record = msgspec.msgpack.encode((at, 0.0))
        await self.log.put_records(self.epoch, self.generation, [("k/00000000", record)])
        await self.log.close_snapshot(self.epoch, Mark(self.generation, self.seq, self.digest, 1, b""))
        marks = await self.log.marks()
        if len(marks) > 1:
            await self.log.truncate(self.epoch, marks[-1].seq)


async def small(stores: Stores, frames: int = 3, at: float = 1000.0) -> Writer:
    """A control partition, and a shard of frames without alerts a second apart, whose writer is returned."""
    slots = SlotMap.even(1)
    control = Writer(stores, CONTROL)
    await control.write(at, SlotsAssigned(slots.version, b"\0\0" * len(slots.owners)))
    await control.log.release(control.epoch)
    shard = Writer(stores, "shard/0000")
    for number in range(frames):
        await shard.write(at + number, ShardStarted(1, "test", 0.0))
    await shard.log.release(shard.epoch)
    return shard


def archived(number: int, created_at: float, updated_at: float) -> ArchivedIncident:
    """A closed incident whose id says when it was created."""
    identity = (int(created_at * 1000) << 80 | 0x7 << 76 | number).to_bytes(16, "big")
    record, alerts = msgspec.msgpack.encode(number), msgspec.msgpack.encode([])
    return ArchivedIncident(
        identity, "default", "api", "Closed", 1, "Unknown", created_at, updated_at, updated_at, record, alerts
    )


async def state(stores: Stores, partition: str, until: Mapping[str, int] | None = None) -> dict[str, Any]:
    """What a shard would know that recovered from this log now, or up to a seq; by replay alone where all frames are."""
    event_log = stores.log(partition)
    last = Until(seqs=until).seqs or {}
    try:
        shard, seq = Shard(partition, ShardSettings()), 0
        page = await event_log.read(0, 1)
        if not page or page[0][0] > 1:
            (mark, *_older) = await event_log.marks()
            async for records in event_log.records(mark.generation):
                shard.load(records)
            shard.loaded()
            seq = mark.seq
        while page := await event_log.read(seq):
            for seq, stored in page:
                if seq > last.get(partition, seq):
                    return dump(shard, shard.now)
                frame = decode_frame(partition, stored, seq, None)
                shard.trace_id = frame.trace_id
                for event in frame.events:
                    shard.apply(event, frame.now)
        return dump(shard, shard.now)
    finally:
        await event_log.close()


async def ids_in(stores: Stores, partitions: Sequence[str]) -> set[str]:
    """The delivery ids that are kept."""
    found: set[str] = set()
    for name in partitions:
        ids = stores.delivery_ids(name)
        async for page in ids.entries():
            found |= {identity for identity, _at, _answer in page}
        await ids.close()
    return found
