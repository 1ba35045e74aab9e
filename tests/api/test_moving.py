"""Another number of partitions, and other stores: what people see is the same before and after, whatever was killed in
between, and no alert that is sent again counts twice."""

from __future__ import annotations

import asyncio
import copy as copying
import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.folding import fold_control, fold_shard
from models.control.events import SettingsChanged
from models.errors import Conflict, Damaged, Unavailable
from models.partition.frames import Frame, encode_frame
from models.partition.sharding import SLOTS, SlotMap, partition_name, slot_of, slot_of_id
from models.ports import Archive, DeadLetters, DeliveryIds, EventLog
from models.shard.heartbeats import HeartbeatsOfShard
from models.shard.settings import ShardSettings
from models.shard.slot_transfer import SlotArrived, SlotLeft
from services.stores.choice import Stores, open_stores
from services.stores.memory.archive import MemoryArchive
from services.stores.memory.dead_letters import MemoryDeadLetters
from services.stores.memory.delivery_ids import MemoryDeliveryIds
from services.stores.memory.log import MemoryEventLog
from services.stores.memory.store import MemoryStore
from services.times import timestamp
from services.upkeep.copying import copy, sizes
from services.upkeep.resharding import reshard
from tests.api.gateway_in_process import SettableClock, SqliteStores, System, alert, system
from tests.api.test_control_partition import Control
from tests.contract import postgres_peers, redis_peers

V1 = "/v1/alerts"
SERVICES = [f"service-{number}" for number in range(24)]
#: What lived_in() makes takes so long by its clock; who goes on with it has a clock that agrees.
LIVED_S = 3 * 3600.0
CLOCK = SettableClock()
CLOCK.ahead_s = LIVED_S
WRITES = {"append", "seed", "put", "put_records", "close_snapshot", "remove", "add"}


class Killed(BaseException):
    """The process is gone in the middle of something."""


@dataclass
class Fatal:
    """Kills at the `at`-th write, before it happened or after."""

    at: int = 10**9
    after_it: bool = False
    writes: int = 0
    names: list[str] = field(default_factory=list)

    async def before(self, operation: str) -> None:
        if operation.rpartition(".")[2] in WRITES:
            self.writes += 1
            self.names.append(operation)
            if self.writes == self.at and not self.after_it:
                raise Killed

    async def after(self, operation: str) -> None:
        if self.writes == self.at and self.after_it:
            self.at = 10**9
            raise Killed


class Kept:
    """The memory adapters, as services/stores/choice.py gives stores and as the in-process system asks for them."""

    def __init__(self, store: MemoryStore | None = None, fatal: Fatal | None = None) -> None:
        self.store = store or MemoryStore()
        self.fatal = fatal

    def log(self, partition: str) -> EventLog:
        return MemoryEventLog(self.store, partition, self.fatal)

    def archive(self, partition: str) -> Archive:
        return MemoryArchive(self.store, partition, self.fatal)

    def delivery_ids(self, partition: str) -> DeliveryIds:
        return MemoryDeliveryIds(self.store, partition, self.fatal)

    deliveries = delivery_ids

    def dead_letters(self, *given: object, **_more: object) -> DeadLetters:
        return MemoryDeadLetters(self.store, max_bytes=1_000_000, max_age_s=1e6, clock=CLOCK)

    async def check(self) -> None: ...

    def again(self, fatal: Fatal | None = None) -> Kept:
        """The same data in another place."""
        return Kept(copying.deepcopy(self.store), fatal)


async def send(ours: System, **more: object) -> Mapping[str, Any]:
    body = [{**alert("Down", service, pod=pod), **more} for service in SERVICES for pod in ("a", "b")]
    answer = await ours.post(V1, body)
    assert answer.status == 202, answer
    found: Mapping[str, Any] = answer.json
    return found


async def picture(ours: System) -> dict[str, object]:
    """Everything that people see."""
    found: dict[str, object] = {}
    cursor = ""
    while True:
        answer = await ours.get(f"/v1/incidents?limit=7{cursor}")
        assert answer.status == 200, answer
        page = json.loads(answer.body)
        for each in page["items"]:
            identity = each["id"]
            for part in ("", "/alerts", "/timeline"):
                shown = await ours.get(f"/v1/incidents/{identity}{part}")
                assert shown.status == 200, shown
                assert f"{identity}{part}" not in found, "listed twice"
                found[f"{identity}{part}"] = json.loads(shown.body)
        if page["next"] is None:
            return found
        cursor = f"&cursor={page['next']}"


async def lived_in(kept: Kept) -> dict[str, object]:
    """A system that people worked with for a while: open, acknowledged, merged, resolved, closed and archived incidents,
    snapshots behind a truncated log."""
    clock = SettableClock()
    async with system(kept, clock=clock, state={"snapshot_every_frames": 10}) as ours:  # type: ignore[arg-type]
        body = [alert("Old", service) for service in SERVICES]
        assert (await ours.post(V1, body)).status == 202
        assert (await ours.post(V1, [{**each, "status": "resolved"} for each in body])).status == 202
        clock.ahead_s = LIVED_S
        await archived(ours, kept, len(SERVICES))
        await send(ours)
        ids = [each["id"] for each in (await ours.get("/v1/incidents?limit=100&state=Triaged")).items]
        for number, identity in enumerate(ids[:6]):
            path = f"/v1/incidents/{identity}"
            assert (await ours.post(f"{path}/acknowledge", {"reason": "mine"})).status == 200
            assert (await ours.post(f"{path}/comment", {"text": f"comment {number}"})).status == 200
        assert (await ours.post(f"/v1/incidents/{ids[0]}/merge", {"incident": ids[7]})).status == 200
        assert (await ours.post(f"/v1/incidents/{ids[8]}/resolve", {"notes": "over"})).status == 200
        for number in range(30):
            await ours.post(V1, [alert(f"More{number}", SERVICES[number % 5])])
        return await settled(ours)


async def settled(ours: System) -> dict[str, object]:
    """The picture once nothing changes any more: classifiers and peers answer behind the requests."""
    before: dict[str, object] = {}
    async with asyncio.timeout(20):
        while True:
            now = await picture(ours)
            if now == before:
                return now
            before = now
            await asyncio.sleep(0.2)


async def archived(ours: System, kept: Kept, count: int) -> None:
    async with asyncio.timeout(20):
        while sum(len(each.incidents) for each in kept.store.partitions.values()) < count:
            await asyncio.sleep(0.02)


async def as_it_was(kept: Kept, partitions: int, before: dict[str, object]) -> None:
    """Started on so many partitions it shows the same, and knows what is sent again."""
    async with system(kept, clock=CLOCK, state={"partitions": partitions}) as ours:  # type: ignore[arg-type]
        assert await settled(ours) == before
        again = await send(ours)
        assert {each["decision"] for each in again["items"]} == {"repeated"}
        assert len(await picture(ours)) == len(before)
        # What is new goes on from there.
        assert (await ours.post(V1, [alert("New", service) for service in SERVICES])).status == 202
        assert len(await settled(ours)) == len(before) + 3 * len(SERVICES)


def say(_text: str) -> None:
    """Nobody listens."""


@pytest.mark.asyncio
@pytest.mark.parametrize("wanted", [(3,), (1,), (5, 2)], ids=str)
async def test_after_resharding_everything_is_as_it_was(wanted: tuple[int, ...]) -> None:
    kept = Kept()
    before = await lived_in(kept)

    for partitions in wanted:
        done = await reshard(kept, ShardSettings(), partitions, CLOCK, say)
        assert done.partitions == partitions and done.incidents and done.counts["archived"]

    slots = (await fold_control(kept.log("control"))).slots
    assert slots is not None and slots.partitions == wanted[-1]
    for index in range(6):
        archive = await kept.archive(partition_name(index)).read(b"")
        assert all(slots.owners[slot_of_id(each.incident_id)] == index for each in archive)
    await as_it_was(kept, wanted[-1], before)


@pytest.mark.asyncio
async def test_resharding_that_was_killed_anywhere_goes_on_where_it_was() -> None:
    kept = Kept()
    before = await lived_in(kept)
    whole = Fatal()
    await reshard(kept.again(whole), ShardSettings(), 3, CLOCK, say)
    assert {name.rpartition(".")[2] for name in whole.names} >= {"append", "put", "remove"}

    for at in range(1, whole.writes + 1):
        for after_it in (False, True):
            killed = kept.again(Fatal(at, after_it))
            with pytest.raises(Killed):
                await reshard(killed, ShardSettings(), 3, CLOCK, say)
            killed.fatal = None
            if at < whole.writes or not after_it:
                await reshard(killed, ShardSettings(), 3, CLOCK, say)
            assert await content(killed, 3) == await content(await done(kept), 3), (at, after_it)
    await as_it_was(killed, 3, before)


async def done(kept: Kept) -> Kept:
    other = kept.again()
    await reshard(other, ShardSettings(), 3, CLOCK, say)
    return other


async def content(kept: Stores, partitions: int) -> dict[bytes, tuple[str, int, str]]:
    """Where each incident is, and what it is."""
    found: dict[bytes, tuple[str, int, str]] = {}
    for name in map(partition_name, range(partitions)):
        shard = (await fold_shard(kept.log(name), ShardSettings())).machine
        for identity, incident in shard.state.incidents.items():
            series = sorted(
                msgspec.msgpack.encode(shard.state.series.moved(each))
                for each in shard.state.members[identity]
            )
            assert identity not in found
            found[identity] = name, len(series), repr(incident) + repr(series)
        for each in await kept.archive(name).read(b""):
            assert each.incident_id not in found
            found[each.incident_id] = name, 0, repr(msgspec.msgpack.encode(each))
    return found


@pytest.mark.asyncio
async def test_what_left_is_in_the_old_log_and_what_arrived_in_the_new() -> None:
    kept = Kept()
    await lived_in(kept)
    left: list[SlotLeft] = []
    came: list[SlotArrived] = []

    def look(frame: Frame) -> None:
        left.extend(each for each in frame.events if isinstance(each, SlotLeft))
        came.extend(each for each in frame.events if isinstance(each, SlotArrived))

    await reshard(kept, ShardSettings(), 3, CLOCK, say)
    for index in range(3):
        await fold_shard(kept.log(partition_name(index)), ShardSettings(), look)

    assert left
    assert sorted((each.slot, each.incidents, each.series) for each in left) == sorted(
        (each.slot, each.incidents, each.series) for each in came
    )


async def pulses(kept: Kept, partitions: int) -> dict[str, Any]:
    """What the shards know of heartbeats, by their names; each only where its service is."""
    slots = (await fold_control(kept.log("control"))).slots
    assert slots is not None
    found: dict[str, Any] = {}
    for index in range(partitions):
        known = (await fold_shard(kept.log(partition_name(index)), ShardSettings())).machine.of(
            HeartbeatsOfShard
        )
        for each in known.pulses.values():
            heartbeat = each.heartbeat
            assert slots.owners[slot_of("default", heartbeat.service)] == index
            assert heartbeat.name not in found
            found[heartbeat.name] = (each.last_at, each.since, each.base, each.deaf_s, each.labels)
        assert known.listened_at or not known.pulses
    return found


@pytest.mark.asyncio
async def test_heartbeats_are_waited_for_as_before_when_their_services_move() -> None:
    kept, clock = Kept(), SettableClock()
    async with system(kept, clock=clock) as ours:  # type: ignore[arg-type]
        for service in SERVICES:
            body = json.dumps(
                {"interval": "1h", "grace": "1m", "service": service, "severity": "P1"}
            ).encode()
            made = await ours.request(
                "PUT", f"/v1/heartbeats/of-{service}", [body], [(b"content-type", b"application/json")]
            )
            assert made.status == 201, made
        for service in SERVICES[1:]:
            assert (await ours.get(f"/v1/heartbeats/of-{service}/beat")).status == 200
    before = await pulses(kept, 2)
    assert len(before) == len(SERVICES) and sum(last > 0 for last, *_ in before.values()) == len(SERVICES) - 1

    whole = Fatal()
    await reshard(kept.again(whole), ShardSettings(), 5, CLOCK, say)
    for at in range(1, whole.writes + 1):
        killed = kept.again(Fatal(at, after_it=at % 2 == 0))
        with pytest.raises(Killed):
            await reshard(killed, ShardSettings(), 5, CLOCK, say)
        killed.fatal = None
        slots = (await fold_control(killed.log("control"))).slots
        assert slots is not None
        if slots.partitions != 5:
            await reshard(killed, ShardSettings(), 5, CLOCK, say)
        assert await pulses(killed, 5) == before, at
    await reshard(kept, ShardSettings(), 5, CLOCK, say)
    await reshard(kept, ShardSettings(), 1, CLOCK, say)
    assert await pulses(kept, 1) == before

    last = f"of-{SERVICES[1]}"
    async with system(kept, clock=clock, state={"partitions": 1}) as ours:  # type: ignore[arg-type]
        shown = (await ours.get(f"/v1/heartbeats/{last}")).json
        assert shown["last_beat_at"] == timestamp(before[last][0])


@pytest.mark.asyncio
async def test_nothing_is_moved_under_a_system_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.upkeep.offline.PATIENCE_S", 0.3)
    kept, other = Kept(), Kept()
    async with system(kept, clock=CLOCK) as ours:  # type: ignore[arg-type]
        await send(ours)

        with pytest.raises(Conflict, match="control is held by control-a: a system runs on it"):
            await reshard(kept, ShardSettings(), 3, CLOCK, say)
        with pytest.raises(Conflict, match="control is held by control-a: a system runs on it"):
            await copy(kept, other, "memory", CLOCK, say)

        assert {each["decision"] for each in (await send(ours))["items"]} == {"repeated"}


@pytest.mark.asyncio
async def test_a_move_to_another_number_is_refused_while_one_is_under_way() -> None:
    kept = Kept()
    await lived_in(kept)
    with pytest.raises(Conflict, match="there are 2 partitions already"):
        await reshard(kept, ShardSettings(), 2, CLOCK, say)
    with pytest.raises(Killed):
        await reshard(Kept(kept.store, Fatal(3)), ShardSettings(), 3, CLOCK, say)

    with pytest.raises(Conflict, match="resharding to 3 partitions is under way"):
        await reshard(kept, ShardSettings(), 4, CLOCK, say)

    await reshard(kept, ShardSettings(), 3, CLOCK, say)
    with pytest.raises(Conflict, match="there are no slots yet"):
        await reshard(Kept(), ShardSettings(), 3, CLOCK, say)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("trouble", "why"), [("held", "is held by shard-0001-a"), ("damaged", "shard/0001 is damaged at seq")]
)
async def test_a_move_that_can_not_be_done_is_not_begun_and_the_system_can_be_started(
    trouble: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.upkeep.offline.PATIENCE_S", 0.3)
    kept = Kept()
    await lived_in(kept)
    log = kept.log("shard/0001")
    if trouble == "held":
        await log.open("shard-0001-a", CLOCK.now(), 60.0)
    else:
        # Behind the newest snapshot, or nobody reads it; and not in the last append, or it is a torn tail.
        async with system(kept, clock=CLOCK) as ours:  # type: ignore[arg-type]
            await send(ours)
            await send(ours)
        kept.store.damage_frame("shard/0001", max(mark.seq for mark in await log.marks()) + 1)

    with pytest.raises((Conflict, Damaged), match=why):
        await reshard(kept, ShardSettings(), 3, CLOCK, say)

    state = await fold_control(kept.log("control"))
    assert state.moving_to is None and state.slots is not None and state.slots.partitions == 2


@pytest.mark.parametrize("partitions", [1, 2, 3, 7, 64, SLOTS])
@pytest.mark.parametrize("wanted", [1, 2, 3, 5, 63, 65, SLOTS])
def test_slots_are_spread_evenly_and_few_are_moved(partitions: int, wanted: int) -> None:
    before = SlotMap.even(partitions)

    after = before.spread(wanted)

    counts = [list(after.owners).count(index) for index in range(wanted)] if wanted <= 65 else [1]
    moved = sum(a != b for a, b in zip(before.owners, after.owners, strict=True))
    assert after.partitions == wanted and after.version == before.version + 1
    assert max(counts) - min(counts) <= 1
    assert moved <= SLOTS - min(partitions, wanted) * (SLOTS // max(partitions, wanted))


# --- other stores ---


@pytest.mark.asyncio
async def test_a_copy_is_the_same_and_lives_on(tmp_path: Path) -> None:
    kept, other = Kept(), open_stores({"backend": "sqlite", "folder": str(tmp_path)})
    before = await lived_in(kept)
    said = await sizes(kept, other)

    await copy(kept, other, "memory", CLOCK, say)

    assert [each.partition for each in said] == ["control", "shard/0000", "shard/0001", "topology"]
    # Nothing is correlated here, so that log is empty.
    assert all(bool(each.frames) is (each.partition != "topology") and not each.there for each in said)
    with pytest.raises(Conflict, match="not empty"):
        await sizes(kept, other)
    assert await content(other, 2) == await content(kept, 2)
    with pytest.raises(Conflict, match="was started, or is already complete"):
        await copy(kept, other, "memory", CLOCK, say)
    for index in range(2):
        log = other.log(partition_name(index))
        opened = await log.open("someone", CLOCK.now(), 1.0)
        epochs = kept.store.partition(partition_name(index)).epoch
        assert opened.epoch > epochs, "ids are made of epochs: none may come twice"
        await log.release(opened.epoch)
        await log.close()
    shown = await shows(tmp_path)
    assert shown == before


async def shows(folder: Path) -> dict[str, object]:
    async with system(SqliteStores(folder), clock=CLOCK) as ours:
        return await settled(ours)


@pytest.mark.parametrize("begins", ["whole", "behind a snapshot"])
@pytest.mark.asyncio
async def test_copying_that_was_killed_anywhere_goes_on_where_it_was(begins: str) -> None:
    kept = Kept()
    before = await lived_in(kept)
    if begins != "whole":
        async with Control(kept.store) as control:
            for number in range(8):
                await control.tell(SettingsChanged("another", f"{number}", {}, "{}", b"", b"", "INFO"))
            await control.snapshot()
    whole = Fatal()
    await copy(kept.again(), Kept(fatal=whole), "memory", CLOCK, say)
    expected = await content(kept, 2)

    for at in range(1, whole.writes):
        for after_it in (False, True):
            target = Kept(fatal=Fatal(at, after_it))
            with pytest.raises(Killed):
                await copy(kept, target, "memory", CLOCK, say)
            state = await fold_control(target.log("control"))
            assert (
                state.copied_from or state.slots is None or not target.store.partitions.keys() - {"control"}
            )
            target.fatal = None
            await copy(kept, target, "memory", CLOCK, say)
            assert await content(target, 2) == expected, (at, after_it)
    await as_it_was(target, 2, before)


@pytest.mark.asyncio
async def test_a_copy_goes_into_empty_stores_only() -> None:
    kept, other = Kept(), Kept()
    await lived_in(kept)
    async with system(other, clock=CLOCK) as ours:  # type: ignore[arg-type]
        await send(ours)

    with pytest.raises(Conflict, match="control: the target holds another log"):
        await copy(kept, other, "memory", CLOCK, say)
    with pytest.raises(Conflict, match="no system was ever started there"):
        await copy(Kept(), Kept(), "memory", CLOCK, say)


@pytest.mark.asyncio
@pytest.mark.parametrize("left", ["archive", "log"])
async def test_what_is_left_in_the_target_is_found_before_anything_is_copied(left: str) -> None:
    kept, other = Kept(), Kept()
    await lived_in(kept)
    if left == "archive":
        await other.archive("shard/0001").put(await kept.archive("shard/0000").read(b""))
    else:
        log = other.log("shard/0001")
        opened = await log.open("someone", CLOCK.now(), 0.0)
        frame, _digest = encode_frame(1, 1.0, "default", None, [], opened.last_digest)
        await log.append(opened.epoch, 1, [frame])

    with pytest.raises(Conflict, match="shard/0001: the target is not empty"):
        await copy(kept, other, "memory", CLOCK, say)

    assert await other.log("control").last_seq() == 0


@pytest.mark.asyncio
async def test_a_store_that_goes_away_in_the_middle_loses_nothing() -> None:
    class Away(Fatal):
        async def before(self, operation: str) -> None:
            await super().before(operation)
            if self.writes > 5:
                raise Unavailable("the store is away")

    kept = Kept()
    await lived_in(kept)
    target = Kept(fatal=Away())

    with pytest.raises(Unavailable):
        await copy(kept, target, "memory", CLOCK, say)
    target.fatal = None
    await copy(kept, target, "memory", CLOCK, say)

    assert await content(target, 2) == await content(kept, 2)


@pytest.mark.asyncio
async def test_what_went_through_every_store_is_the_same(tmp_path: Path) -> None:
    redis = redis_peers.Server(tmp_path / "redis", *redis_peers.DURABLE).start()
    postgres = postgres_peers.Server()
    try:
        kept = Kept()
        await lived_in(kept)
        expected = await content(kept, 2)
        here: Stores = kept
        for place in (
            {"backend": "redis", "url": redis.url},
            {"backend": "postgres", "url": postgres.start().url},
            {"backend": "sqlite", "folder": str(tmp_path / "sqlite")},
        ):
            there = open_stores(place)
            await copy(here, there, "the one before", CLOCK, say)
            assert await content(there, 2) == expected
            await reshard(there, ShardSettings(), 3, CLOCK, say)
            assert {key: each[1:] for key, each in (await content(there, 3)).items()} == {
                key: each[1:] for key, each in expected.items()
            }
            await reshard(there, ShardSettings(), 2, CLOCK, say)
            here, expected = there, await content(there, 2)
    finally:
        redis.stop(signal.SIGKILL)
        postgres.remove()
