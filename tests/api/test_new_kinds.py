"""Room to grow: a third kind of partition and another store port, one row each, are backed up, restored, verified, copied and
left alone by resharding, like those that ship."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

import models.partitions
import services.upkeep.kept.table
from actors.begun import Kept
from actors.control import ControlActor
from actors.folding import fold
from actors.runtime.host import Host
from actors.runtime.local import LocalCluster
from models.control.control import CONTROL
from models.errors import Broken, Conflict, Damaged
from models.partition.checkpoint import META, Checkpoint, RecordKind, parse_key
from models.partition.event import Event
from models.partition.frames import NO_DIGEST, Frames, encode_frame
from models.partition.sharding import SlotMap
from models.partitions import PartitionKind, kind_of
from models.ports import Mark
from models.settings.all import Settings
from models.shard.settings import ShardSettings
from services.cli.shared import terminal
from services.stores.choice import Stores
from services.upkeep import verifying
from services.upkeep.backup.create import create
from services.upkeep.backup.restore import restore
from services.upkeep.backup.target import Target
from services.upkeep.backup.verify import verify
from services.upkeep.copying import copy, sizes
from services.upkeep.kept.port import KeptPort
from services.upkeep.kept.table import KEPT
from services.upkeep.resharding import reshard
from services.wiring import slots
from tests.api.gateway_in_process import SettableClock
from tests.contract import backup_peers as peers

CLOCK = SettableClock()
TOWER = "tower"


class BellHung(Event, frozen=True):
    name: str


class Tower:
    """A machine of its own: it knows which bells hang."""

    frames = Frames([BellHung])
    snapshot_version = 7
    bell = RecordKind("bell", has_ids=True)

    def __init__(self, partition: str) -> None:
        self.partition = partition
        self.seq = 0
        self.trace_id: str | None = None
        self.now = 0.0
        self.bells: set[str] = set()
        self.checkpoint = Checkpoint([META, self.bell], self._capture)

    def replay(self, events: Sequence[Event], now: float) -> None:
        for event in events:
            self.apply(event, now)

    def apply(self, event: Event, now: float) -> None:
        assert isinstance(event, BellHung)
        self.now = now
        self.checkpoint.touch(self.bell, event.name.encode())
        self.bells.add(event.name)

    def _capture(self, kind: RecordKind, key: int | bytes) -> bytes | None:
        return msgspec.msgpack.encode((self.now,)) if kind is META else b""

    def load(self, records: Iterable[tuple[str, bytes]]) -> None:
        for key, record in records:
            kind, identity, version = parse_key(key, {each.name: each for each in (META, self.bell)})
            self.checkpoint.loaded(kind, identity, record, version)
            if kind is META:
                (self.now,) = msgspec.msgpack.decode(record)
            else:
                assert isinstance(identity, bytes)
                self.bells.add(identity.decode())

    def loaded(self) -> None: ...


def _cracked(tower: Tower, _slots: SlotMap | None) -> list[str]:
    return [f"bell {each} is cracked" for each in sorted(tower.bells) if each.startswith("cracked")]


#: The row of a partition kind.
TOWERS = PartitionKind(
    TOWER,
    Tower,
    keeps=("ropes",),
    problems=_cracked,
    count=lambda tower: {"bells": len(tower.bells)},
)


@dataclass
class Ropes:
    """A store port: ropes, each once."""

    there: list[str] = field(default_factory=list)

    async def close(self) -> None: ...


class WithRopes(peers.MemoryStores):
    """An adapter of the new port, beside those that ship."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, Ropes] = {}

    def ropes(self, partition: str) -> Ropes:
        return self.kept.setdefault(partition, Ropes())


class KeptRopes(KeptPort[Ropes, str]):
    name = "ropes"
    counted = items = "ropes"
    decoder = msgspec.msgpack.Decoder(list[str])

    def open(self, stores: Stores, partition: str) -> Ropes:
        assert isinstance(stores, WithRopes)
        return stores.ropes(partition)

    async def pages(self, port: Ropes) -> AsyncIterator[list[str]]:
        for each in port.there:
            yield [each]

    async def put(self, port: Ropes, items: Sequence[str]) -> None:
        port.there += [each for each in items if each not in port.there]


@pytest.fixture(autouse=True)
def rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two lines."""
    monkeypatch.setattr(models.partitions, "PARTITIONS", (*models.partitions.PARTITIONS, TOWERS))
    monkeypatch.setattr(services.upkeep.kept.table, "KEPT", (*KEPT, KeptRopes()))


async def hang(stores: WithRopes, *bells: str) -> None:
    writer = peers.Writer(stores, TOWER)
    for number, bell in enumerate(bells):
        await writer.write(1000.0 + number, BellHung(bell))
    await writer.log.release(writer.epoch)


async def used(*bells: str) -> WithRopes:
    """A small system with a tower: a snapshot, a frame behind it, and two ropes."""
    stores = WithRopes()
    await peers.small(stores)
    first, *more = bells or ("great", "small")
    writer = peers.Writer(stores, TOWER)
    await writer.write(1000.0, BellHung(first))
    tower = Tower(TOWER)
    tower.apply(BellHung(first), 1000.0)
    tower.checkpoint.begin()
    records = tower.checkpoint.slice(1 << 20)
    await writer.log.put_records(writer.epoch, 1, records)
    mark = Mark(1, 1, writer.digest, Tower.snapshot_version, tower.checkpoint.census().checksum())
    await writer.log.close_snapshot(writer.epoch, mark)
    for bell in more:
        await writer.write(1001.0, BellHung(bell))
    await writer.log.release(writer.epoch)
    stores.ropes(TOWER).there += ["short", "long"]
    return stores


async def bells(stores: Stores) -> set[str]:
    return (await fold(stores.log(TOWER), lambda: Tower(TOWER))).machine.bells


@pytest.mark.asyncio
async def test_they_are_in_a_backup_which_is_verified_and_restored(tmp_path: Path) -> None:
    stores, target, into = await used(), Target(str(tmp_path)), WithRopes()
    made = (await create(stores, target, CLOCK, backend="memory")).backup

    checked = await verify(target, made)
    done = await restore(into, target, made, CLOCK)

    assert checked.is_whole and [each.partition for each in checked.parts] == [
        "control",
        "shard/0000",
        "topology",
        TOWER,
    ]
    tower = checked.parts[-1]
    assert tower.reached is not None and tower.reached.counts["bells"] == 2 and tower.kept["ropes"] == 2
    assert "2 bells" in terminal.counted(done.reached[TOWER].counts)
    assert await bells(into) == {"great", "small"}
    assert into.ropes(TOWER).there == ["short", "long"]
    assert into.ropes("shard/0000").there == []


@pytest.mark.asyncio
async def test_what_does_not_fit_in_one_is_told_of_the_backup(tmp_path: Path) -> None:
    target = Target(str(tmp_path))
    made = (await create(await used("great", "cracked"), target, CLOCK, backend="memory")).backup

    checked = await verify(target, made)

    assert [each.wrong for each in checked.parts] == ["", "", "", "bell cracked is cracked"]
    with pytest.raises(Broken, match="bell cracked is cracked"):
        await restore(WithRopes(), target, made, CLOCK)


@pytest.mark.asyncio
async def test_a_snapshot_of_another_version_is_told_by_its_own_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Target(str(tmp_path))
    made = (await create(await used(), target, CLOCK, backend="memory")).backup

    monkeypatch.setattr(Tower, "snapshot_version", 8)
    checked = await verify(target, made)

    assert [each.wrong for each in checked.parts] == [
        "",
        "",
        "",
        "its snapshot has version 7, this program reads 8",
    ]


@pytest.mark.asyncio
async def test_a_backup_from_before_there_were_any_restores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, into = Target(str(tmp_path)), WithRopes()
    with monkeypatch.context() as before:
        before.setattr(models.partitions, "PARTITIONS", models.partitions.PARTITIONS[:-1])
        made = (await create(await used(), target, CLOCK, backend="memory")).backup
    assert [each.name for each in made.parts] == ["control", "shard/0000", "topology"]

    await restore(into, target, made, CLOCK)

    assert await bells(into) == set() and into.ropes(TOWER).there == []


@pytest.mark.asyncio
async def test_they_are_copied_to_other_stores() -> None:
    stores, other = await used(), WithRopes()

    [*_others, tower] = await sizes(stores, other)
    done = await copy(stores, other, "memory", CLOCK, lambda _text: None)

    assert (tower.partition, tower.frames, tower.counts) == (TOWER, 2, {"ropes": (2, 0)})
    assert done.counts["ropes"] == 2
    assert await bells(other) == {"great", "small"} and other.ropes(TOWER).there == ["short", "long"]


@pytest.mark.parametrize("what", ["frames", "ropes"])
@pytest.mark.asyncio
async def test_a_store_that_holds_some_is_not_empty(what: str, tmp_path: Path) -> None:
    stores, other, target = await used(), WithRopes(), Target(str(tmp_path))
    made = (await create(stores, target, CLOCK, backend="memory")).backup
    if what == "frames":
        await hang(other, "odd")
    else:
        other.ropes(TOWER).there.append("odd")

    with pytest.raises(Conflict, match="tower"):
        await copy(stores, other, "memory", CLOCK, lambda _text: None)
    with pytest.raises(Conflict, match="the store is not empty: tower has "):
        await restore(other, target, made, CLOCK)


@pytest.mark.parametrize("bell", ["small", "cracked"])
@pytest.mark.asyncio
async def test_the_checks_of_a_store_look_at_them(bell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = await used("great", bell)
    for module in (verifying, slots):
        monkeypatch.setattr(module, "open_stores", lambda _place: stores, raising=False)
    monkeypatch.setattr("services.stores.choice.open_stores", lambda _place: stores)

    found = await verifying.verify(Settings(), 1)
    logs = await verifying.check_logs(Settings(), models.partitions.names(1))

    assert [each.partition for each in found] == ["control", "shard/0000", "topology", TOWER]
    assert found[-1].problems == (["bell cracked is cracked"] if bell == "cracked" else [])
    assert (found[-1].counts["bells"], found[-1].counts["ropes"]) == (2, 2)
    assert logs[-1].events == {"BellHung": 2} and logs[-1].records == 2 and not logs[-1].damage


@pytest.mark.asyncio
async def test_resharding_leaves_them_alone() -> None:
    stores = await used()

    await reshard(stores, ShardSettings(), 2, CLOCK, lambda _text: None)

    assert await bells(stores) == {"great", "small"} and stores.ropes(TOWER).there == ["short", "long"]


@pytest.mark.asyncio
async def test_one_that_had_begun_is_missed_when_it_is_gone() -> None:
    stores = await used()
    host = Host("control-a", LocalCluster(), pytest.fail)
    control = ControlActor(host, stores.log(CONTROL), CLOCK, 1, kept=Kept(stores.log, stores.archive))
    await control.start()
    async with asyncio.timeout(5):
        while TOWER not in control.state.begun:
            await asyncio.sleep(0.01)
    await control.stop()
    assert control.state.begun == {"shard/0000", TOWER}

    del stores.store.partitions[TOWER]

    with pytest.raises(Damaged, match="tower is damaged at seq 0: its log is gone"):
        await copy(stores, WithRopes(), "memory", CLOCK, lambda _text: None)


@pytest.mark.asyncio
async def test_a_log_of_one_kind_does_not_hold_events_of_another() -> None:
    stored, _digest = encode_frame(1, 0.0, "default", None, [BellHung("great")], NO_DIGEST)

    assert kind_of(TOWER).frames.decode(TOWER, stored, 1, None).events == [BellHung("great")]
    with pytest.raises(Broken):
        kind_of("shard/0000").frames.decode("shard/0000", stored, 1, None)
    with pytest.raises(Broken, match="a kind that this version does not know"):
        kind_of("spire/0000")
