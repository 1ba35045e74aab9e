"""Backups of a system that takes alerts meanwhile, restored into empty stores of every kind and compared."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.folding import fold_control
from actors.runtime.clock import SystemClock
from actors.shard import IncidentShard
from models.backup import Backup, Until
from models.errors import Broken, Conflict, NotFound, Unavailable
from models.incidents.incident import Incident
from models.ports import EventLog
from models.settings.all import Settings
from models.shard.settings import ShardSettings
from services.stores.choice import Stores
from services.upkeep import offline
from services.upkeep.backup.create import create
from services.upkeep.backup.restore import restore
from services.upkeep.backup.target import Target
from services.upkeep.backup.verify import verify
from services.upkeep.resharding import reshard
from services.wiring.slots import as_assigned
from tests.api.gateway_in_process import (
    FIRST_SHARD_SERVICE,
    SECOND_SHARD_SERVICE,
    System,
    alert,
    system,
)
from tests.contract import backup_peers as peers
from tests.simulation.dump import difference

SHARDS = ["shard/0000", "shard/0001"]
NUMBERS = count(1)


@dataclass
class Made:
    """A backup, made while alerts came in, and where its system was."""

    source: Stores
    target: Target
    backup: Backup
    known: dict[str, dict[str, Any]]
    ids_before: set[str]


async def post(ours: System, name: str, service: str, delivery: str = "") -> int:
    headers = {"Idempotency-Key": delivery} if delivery else {}
    return (await ours.post("/v1/alerts", [alert(name, service)], headers=headers)).status


async def incidents(ours: System) -> dict[str, dict[str, Any]]:
    answer = await ours.get("/v1/incidents?limit=500")
    assert answer.status == 200, answer
    return {str(each["id"]): each for each in answer.items}


def never_truncated(ours: System) -> None:
    """Snapshots as busy shards have them, but no truncation: what a log holds whole can be replayed to compare with."""

    async def keep_all(_epoch: int, _up_to: int) -> None: ...

    for name in ours.shards:
        shard = ours.cluster.get(name)
        assert isinstance(shard, IncidentShard)
        shard.event_log.truncate = keep_all  # type: ignore[method-assign, assignment]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """One for all tests that leave it as it is."""
    return asyncio.run(make(tmp_path_factory.mktemp("backup")))


async def make(folder: Path) -> Made:
    source, target = peers.sqlite(folder / "source"), Target(str(folder / "backups"))
    async with system(peers.OverStores(source), state={"snapshot_every_frames": 25}) as ours:  # type: ignore[arg-type]
        never_truncated(ours)
        for number in range(30):
            await post(ours, f"Before{number}", (FIRST_SHARD_SERVICE, SECOND_SHARD_SERVICE)[number % 2])
        assert await post(ours, "Kept", FIRST_SHARD_SERVICE, "kept") == 202
        known = await incidents(ours)
        over = asyncio.Event()

        async def send(service: str) -> None:
            number = 0
            while not over.is_set():
                number += 1
                await post(ours, f"During{number % 40}", service)

        senders = [asyncio.create_task(send(each)) for each in (FIRST_SHARD_SERVICE, SECOND_SHARD_SERVICE)]
        await asyncio.sleep(0.2)
        backup = (await create(source, target, SystemClock(), backend="sqlite")).backup
        over.set()
        await asyncio.gather(*senders)
        assert await post(ours, "Late", FIRST_SHARD_SERVICE, "late") == 202
    return Made(source, target, backup, known, {"default/v1/kept"})


@pytest.fixture
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    """An empty store of the kind that the test names, SQLite when it names none."""
    kind = getattr(request, "param", "sqlite")
    if kind == "redis":
        return peers.redis(request.getfixturevalue("redis_server").url, f"restore-{next(NUMBERS)}")
    if kind == "postgres":
        return peers.postgres(request.getfixturevalue("postgres_server").url, f"restore_{next(NUMBERS)}")
    return peers.sqlite(tmp_path / f"empty-{next(NUMBERS)}")


async def put_back(made: Made, into: Stores, **options: Any) -> None:
    await restore(into, made.target, made.backup, SystemClock(), **options)


def cut(backup: Backup) -> dict[str, int]:
    return {part.name: part.last_seq for part in backup.parts}


@pytest.mark.parametrize("empty", ["sqlite", "redis", "postgres"], indirect=True)
@pytest.mark.asyncio
async def test_what_was_backed_up_while_alerts_came_in_is_restored_into_every_store(
    made: Made, empty: Stores
) -> None:
    await put_back(made, empty)

    for shard in SHARDS:
        assert made.backup.part(shard).snapshot is not None
        before, after = (
            await peers.state(made.source, shard, cut(made.backup)),
            await peers.state(empty, shard),
        )
        assert difference(before, after) == ""
    assert await peers.ids_in(empty, SHARDS) == made.ids_before
    async with system(peers.OverStores(empty)) as ours:  # type: ignore[arg-type]
        restored = await incidents(ours)
        assert made.known.keys() <= restored.keys()
        assert await post(ours, "Kept", FIRST_SHARD_SERVICE, "kept") == 202
        assert await incidents(ours) == restored, "a delivery from before the cut counted twice"
        assert await post(ours, "Late", FIRST_SHARD_SERVICE, "late") == 202
        assert await post(ours, "New", SECOND_SHARD_SERVICE) == 202
        later = await incidents(ours)
        assert len(later) == len(restored) + 2, (
            "a delivery from behind the cut was taken for one that is there"
        )
        async with system(peers.OverStores(made.source)) as old:  # type: ignore[arg-type]
            assert await post(old, "Other", SECOND_SHARD_SERVICE) == 202
            theirs = await incidents(old)
            assert not (later.keys() - restored.keys()) & theirs.keys(), "two systems made the same id"


class Failing:
    """Stores whose logs fail at one operation, once it was done so often."""

    def __init__(self, stores: Stores, operation: str, after: int) -> None:
        self._stores = stores
        self._operation = operation
        self._left = after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stores, name)

    def log(self, partition: str) -> EventLog:
        found = self._stores.log(partition)
        real: Callable[..., Any] = getattr(found, self._operation)

        async def failing(*arguments: Any) -> Any:
            self._left -= 1
            if self._left < 0:
                raise Unavailable("killed here")
            return await real(*arguments)

        setattr(found, self._operation, failing)
        return found


@pytest.mark.parametrize(
    ("operation", "after"),
    [("open", 2), ("seed", 1), ("append", 0), ("append", 2), ("put_records", 0), ("close_snapshot", 0),
     ("close_snapshot", 1)],
)  # fmt: skip
@pytest.mark.asyncio
async def test_a_restore_that_is_killed_goes_on_when_it_is_asked_for_again(
    made: Made, empty: Stores, operation: str, after: int
) -> None:
    with pytest.raises(Unavailable, match="killed here"):
        await put_back(made, Failing(empty, operation, after))

    await put_back(made, empty)

    for shard in SHARDS:
        before, restored = (
            await peers.state(made.source, shard, cut(made.backup)),
            await peers.state(empty, shard),
        )
        assert difference(before, restored) == ""
    async with system(peers.OverStores(empty)) as ours:  # type: ignore[arg-type]
        assert made.known.keys() <= (await incidents(ours)).keys()


@pytest.mark.asyncio
async def test_what_is_half_restored_is_started_by_nobody_and_finished_by_the_same_alone(
    made: Made, empty: Stores
) -> None:
    with pytest.raises(Unavailable):
        await put_back(made, Failing(empty, "close_snapshot", 1))

    control = empty.log("control")
    state = await fold_control(control)
    await control.close()
    with pytest.raises(Conflict, match=f"this is an unfinished copy of backup {made.backup.id}"):
        as_assigned(Settings(), state)
    with pytest.raises(Conflict, match=f"an unfinished copy of backup {made.backup.id}: repeat that restore"):
        await put_back(made, empty, until=Until(at=made.backup.cut_at))


@pytest.mark.asyncio
async def test_a_store_that_is_not_empty_is_refused_by_name_and_left_alone(made: Made) -> None:
    before = await peers.state(made.source, SHARDS[0])

    with pytest.raises(
        Conflict, match=r"the store is not empty: (control|shard/0000) has frames up to seq \d+"
    ):
        await put_back(made, made.source)

    assert difference(before, await peers.state(made.source, SHARDS[0])) == ""


@pytest.mark.asyncio
async def test_a_store_in_use_is_refused_with_who_uses_it(
    made: Made, empty: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline, "PATIENCE_S", 0.1)
    log = empty.log("control")
    epoch = (await log.open("control-a", SystemClock().now(), 10.0)).epoch

    with pytest.raises(Conflict, match="control is held by control-a: a system runs on it"):
        await put_back(made, empty)

    await log.renew(epoch, SystemClock().now() + 10.0)  # not fenced by it
    await log.close()


@pytest.mark.asyncio
async def test_a_partition_is_restored_at_any_seq_that_the_backup_has(made: Made, empty: Stores) -> None:
    part = made.backup.part(SHARDS[0])
    seq = (part.first_seq + part.last_seq) // 2

    await put_back(made, empty, until=Until(seqs={SHARDS[0]: seq}))

    log = empty.log(SHARDS[0])
    assert await log.last_seq() == seq
    await log.close()
    wanted = await peers.state(made.source, SHARDS[0], {SHARDS[0]: seq})
    assert difference(wanted, await peers.state(empty, SHARDS[0])) == ""


@pytest.mark.asyncio
async def test_all_partitions_are_restored_at_a_time(made: Made, empty: Stores) -> None:
    moment = (made.backup.first_at + made.backup.cut_at) / 2

    await put_back(made, empty, until=Until(at=moment))

    for name in SHARDS:
        log = empty.log(name)
        assert made.backup.part(name).first_seq <= await log.last_seq() <= made.backup.part(name).last_seq
        await log.close()
    log = empty.log(SHARDS[0])
    assert await log.last_seq() < made.backup.part(SHARDS[0]).last_seq
    await log.close()


@pytest.mark.parametrize(
    ("until", "said"),
    [
        (Until(at=1.0), r"--until-time: backup .* goes from .* to .*, not to 1970"),
        (Until(seqs={"shard/0000": 10**9}), r"--until: of shard/0000, backup .* has seq \d+ to \d+, not 1000000000"),
        (Until(seqs={"shard/0099": 1}), r"has no partition 'shard/0099'; there are control, shard/0000, shard/0001"),
    ],
)  # fmt: skip
@pytest.mark.asyncio
async def test_a_point_in_time_that_the_backup_has_not_is_told_with_what_it_has(
    made: Made, empty: Stores, until: Until, said: str
) -> None:
    with pytest.raises(NotFound, match=said):
        await put_back(made, empty, until=until)

    assert await empty.log("control").last_seq() == 0


@pytest.mark.asyncio
async def test_nothing_is_written_of_a_broken_backup(made: Made, empty: Stores, tmp_path: Path) -> None:
    shutil.copytree(made.target.url, tmp_path / "copy")
    (file,) = made.backup.part(SHARDS[1]).records
    path = tmp_path / "copy" / "files" / file.digest
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    copy = Target(str(tmp_path / "copy"))

    with pytest.raises(Broken, match=f"file files/{file.digest} is damaged"):
        await restore(empty, copy, made.backup, SystemClock())

    assert await empty.log("control").last_seq() == 0


@pytest.mark.asyncio
async def test_seqs_that_are_not_of_one_time_are_refused(tmp_path: Path, empty: Stores) -> None:
    source, target = peers.sqlite(tmp_path / "source"), Target(str(tmp_path / "backups"))
    async with system(peers.OverStores(source)) as ours:  # type: ignore[arg-type]
        await post(ours, "One", FIRST_SHARD_SERVICE)
        await post(ours, "Other", SECOND_SHARD_SERVICE)
        found = await incidents(ours)
        one, other = (
            next(key for key, each in found.items() if each["service"] == service)
            for service in (FIRST_SHARD_SERVICE, SECOND_SHARD_SERVICE)
        )
        before = await peers_seq(source, SHARDS[0])
        answer = await ours.post(f"/v1/incidents/{one}/link", {"incident": other, "reason": "same"})
        assert answer.status == 200, answer
        async with asyncio.timeout(5):
            while one not in str((await incidents(ours))[other]) and not await heard(source):
                await asyncio.sleep(0.02)
        backup = (await create(source, target, SystemClock(), backend="sqlite")).backup

    with pytest.raises(
        Conflict,
        match=r"in shard/0001 has received message 1 .* these partitions are from different points in time",
    ):
        await restore(empty, target, backup, SystemClock(), until=Until(seqs={SHARDS[0]: before}))

    assert await empty.log("control").last_seq() == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("early", ["control", SHARDS[0]])
async def test_seqs_from_before_and_after_resharding_are_refused(
    tmp_path: Path, empty: Stores, early: str
) -> None:
    source, target = peers.sqlite(tmp_path / "source"), Target(str(tmp_path / "backups"))
    async with system(peers.OverStores(source)) as ours:  # type: ignore[arg-type]
        for number in range(40):
            await post(ours, "Down", f"service-{number}")
    before = await peers_seq(source, early)
    await reshard(source, ShardSettings(), 3, SystemClock(), lambda _text: None)
    backup = (await create(source, target, SystemClock(), backend="sqlite")).backup
    assert (await verify(target, backup)).is_whole

    with pytest.raises(
        Conflict, match=r"by the slot map in shard/000\d: these partitions are from different points in time"
    ):
        await restore(empty, target, backup, SystemClock(), until=Until(seqs={early: before}))

    assert await empty.log("control").last_seq() == 0


async def peers_seq(stores: Stores, partition: str) -> int:
    log = stores.log(partition)
    try:
        return await log.last_seq()
    finally:
        await log.close()


async def heard(stores: Stores) -> bool:
    """Whether the second shard has heard a message."""
    known = await peers.state(stores, SHARDS[1])
    incidents = [msgspec.msgpack.decode(each, type=Incident) for each in known["incidents"].values()]
    return any(each.handling is not None and each.handling.heard for each in incidents)


@pytest.mark.asyncio
async def test_of_the_archive_only_what_is_not_younger_than_the_log_is_restored(tmp_path: Path) -> None:
    source, target, into = peers.MemoryStores(), Target(str(tmp_path / "backups")), peers.MemoryStores()
    await peers.small(source, frames=3, at=1000.0)
    await source.archive("shard/0000").put(
        [peers.archived(1, 500.0, 900.0), peers.archived(2, 600.0, 1001.5)]
    )
    await source.delivery_ids("shard/0000").add([("old", 999.0, b"a"), ("young", 1001.5, b"b")])
    backup = (await create(source, target, SystemClock(), backend="memory")).backup

    await restore(into, target, backup, SystemClock(), until=Until(seqs={"shard/0000": 2}))

    assert [each.record for each in await into.archive("shard/0000").read(b"")] == [msgspec.msgpack.encode(1)]
    assert await peers.ids_in(into, ["shard/0000"]) == {"old"}
