"""Making, checking and keeping backups: stores in memory made by hand, targets in folders, in fsspec's memory, in a bucket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from actors.runtime.clock import SystemClock
from models.backup import Backup, File
from models.errors import Broken, Conflict, Damaged, Malformed, NotFound, Unavailable
from models.partitions import decode_frame
from models.ports import Archive, ArchivedIncident, EventLog
from models.shard.events import ClockSetBack, ShardStarted
from models.shard.settings import ShardSettings
from services.upkeep.backup import packing
from services.upkeep.backup.create import create
from services.upkeep.backup.restore import restore
from services.upkeep.backup.retention import Pool, retain
from services.upkeep.backup.target import Target
from services.upkeep.backup.verify import verify
from services.upkeep.resharding import reshard
from tests.clock import ManualClock
from tests.contract import backup_peers as peers

SHARD = "shard/0000"
TARGETS = ["folder", "memory", "bucket"]


@pytest.fixture
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    """A folder, unless the test names something else."""
    kind = getattr(request, "param", "folder")
    if kind == "memory":
        return Target(f"memory://backups-{uuid4().hex}")
    if kind == "bucket":
        variable = "BUCKET_URL"
        if variable not in os.environ:
            pytest.skip(f"{variable} is not set: no bucket to test with (s3://bucket/prefix)")
        return Target(f"{os.environ[variable]}/{uuid4().hex}")
    return Target(str(tmp_path / "backups"))


@pytest.fixture
def stores() -> peers.MemoryStores:
    return peers.MemoryStores()


async def back_up(stores: Any, target: Target, clock: Any = None) -> Backup:
    return (await create(stores, target, clock or SystemClock(), backend="memory")).backup


def folder(target: Target) -> Path:
    return Path(target.url)


# -- making one ----------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("target", TARGETS, indirect=True)
async def test_a_backup_can_be_made_checked_and_restored_wherever_it_is_kept(
    stores: peers.MemoryStores, target: Target
) -> None:
    await peers.small(stores)
    await stores.archive(SHARD).put([peers.archived(1, 500.0, 900.0)])
    into = peers.MemoryStores()

    made = await back_up(stores, target)

    assert [each.id for each in (await Pool.read(target)).whole()] == [made.id]
    assert (await verify(target, await target.read(made.id))).is_whole
    await restore(into, target, made, SystemClock())
    assert await into.log(SHARD).read(0) == await stores.log(SHARD).read(0)
    assert await into.archive(SHARD).count() == 1
    assert (await retain(target, time.time(), 0.0)).backups == []


@pytest.mark.asyncio
async def test_no_frame_from_behind_the_moment_is_in_it(stores: peers.MemoryStores, target: Target) -> None:
    shard = await peers.small(stores, frames=3, at=1000.0)
    control = await stores.log("control").last_seq()

    class Later(peers.MemoryStores):
        """One more frame is written in the very moment in which the logs are read."""

        def log(self, partition: str) -> EventLog:
            found = stores.log(partition)
            read = found.read

            async def reading(*arguments: Any) -> list[tuple[int, bytes]]:
                if partition == SHARD and shard.seq == 3:
                    await shard.write(1010.1, ShardStarted(1, "later", 0.0))
                return await read(*arguments)

            found.read = reading  # type: ignore[method-assign, assignment]
            return found

    later = Later()
    later.store = stores.store

    made = await back_up(later, target, ManualClock(1010.0))

    assert {part.name: part.last_seq for part in made.parts} == {"control": control, SHARD: 3, "topology": 0}
    assert await stores.log(SHARD).last_seq() == 4


@pytest.mark.asyncio
async def test_a_log_that_is_truncated_while_it_is_read_is_read_anew(
    stores: peers.MemoryStores, target: Target
) -> None:
    shard = await peers.small(stores, frames=4)
    await shard.snapshot(1004.0)
    spoiled: list[str] = []

    class Busy(peers.MemoryStores):
        """Two snapshots are made while the first one is being read."""

        def log(self, partition: str) -> EventLog:
            found = stores.log(partition)
            records = found.records

            async def reading(generation: int) -> AsyncIterator[list[tuple[str, bytes]]]:
                if not spoiled:
                    spoiled.append(partition)
                    for _ in range(2):
                        await shard.write(1005.0, ShardStarted(1, "busy", 0.0))
                        await shard.snapshot(1005.0)
                async for page in records(generation):
                    yield page

            found.records = reading  # type: ignore[method-assign]
            return found

    busy = Busy()
    busy.store = stores.store

    made = await back_up(busy, target)

    assert spoiled == [SHARD]
    assert (made.part(SHARD).first_seq, made.part(SHARD).last_seq) == (6, 6)
    assert (await verify(target, made)).is_whole


@pytest.mark.asyncio
async def test_a_store_that_is_resharded_meanwhile_makes_no_backup(
    stores: peers.MemoryStores, target: Target
) -> None:
    await peers.small(stores)
    for number in range(16):
        found = peers.archived(number, 500.0, 900.0)
        in_slot = found.incident_id[:6] + bytes([0x70 | number, 0xFF]) + found.incident_id[8:]
        await stores.archive(SHARD).put([replace(found, incident_id=in_slot)])

    class Moved(peers.MemoryStores):
        """Before its archive is read, half of it moves to a partition that the backup does not know."""

        def archive(self, partition: str) -> Archive:
            found = stores.archive(partition)
            read = found.read

            async def reading(*arguments: Any) -> list[ArchivedIncident]:
                if not await stores.archive("shard/0001").count():
                    await reshard(stores, ShardSettings(), 2, SystemClock(), lambda _text: None)
                return await read(*arguments)

            found.read = reading  # type: ignore[method-assign, assignment]
            return found

    moved = Moved()
    moved.store = stores.store

    with pytest.raises(Conflict, match="resharded in the meantime"):
        await back_up(moved, target)

    assert await target.ids() == []
    assert len((await back_up(stores, target)).parts) == 4


@pytest.mark.asyncio
async def test_a_backup_that_is_never_fast_enough_is_given_up_with_the_reason(
    stores: peers.MemoryStores, target: Target
) -> None:
    shard = await peers.small(stores, frames=2)
    await shard.snapshot(1002.0)
    await shard.write(1003.0, ShardStarted(1, "test", 0.0))

    class Gap(peers.MemoryStores):
        def log(self, partition: str) -> EventLog:
            found = stores.log(partition)
            read = found.read

            async def reading(after: int, *more: int) -> list[tuple[int, bytes]]:
                return [(seq + 5, each) for seq, each in await read(after, *more)] if partition == SHARD else await read(after, *more)  # fmt: skip

            found.read = reading  # type: ignore[method-assign, assignment]
            return found

    gap = Gap()
    gap.store = stores.store

    with pytest.raises(
        Unavailable, match="given up after 5 tries to copy the logs; the last one: shard/0000: frames 3 to"
    ):
        await back_up(gap, target)

    assert await target.ids() == []


@pytest.mark.asyncio
async def test_a_log_whose_clock_was_ahead_and_is_set_back_is_in_it_to_its_end(
    stores: peers.MemoryStores, target: Target
) -> None:
    shard = await peers.small(stores, frames=3, at=1000.0)
    await shard.write(5000.0, ShardStarted(1, "by a fast clock", 0.0))
    await shard.write(1003.0, ClockSetBack(5000.0, 1003.0, 0.0, 0.0))

    made = await back_up(stores, target, ManualClock(1010.0))

    assert {part.last_seq for part in made.parts if part.name == SHARD} == {5}
    assert {part.last_now for part in made.parts if part.name == SHARD} == {1003.0}
    assert (await verify(target, made)).is_whole


@pytest.mark.asyncio
async def test_a_writer_whose_clock_goes_ahead_is_told_by_name(
    stores: peers.MemoryStores, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.upkeep.backup.create.CLOCKS_DIFFER_S", 0.01)
    await peers.small(stores, frames=3, at=1000.0)

    with pytest.raises(Conflict, match=r"shard/0000: frame 3 has a time 1.000 s in the future: the clocks"):
        await back_up(stores, target, ManualClock(1001.0))


@pytest.mark.asyncio
async def test_a_damaged_log_is_told_and_no_backup(stores: peers.MemoryStores, target: Target) -> None:
    await peers.small(stores)
    stores.store.damage_frame(SHARD, 2)

    with pytest.raises(Damaged, match="shard/0000 is damaged at seq 2"):
        await back_up(stores, target)

    assert await target.ids() == []


@pytest.mark.asyncio
async def test_a_store_that_nobody_ever_started_on_has_nothing_to_back_up(
    stores: peers.MemoryStores, target: Target
) -> None:
    with pytest.raises(Conflict, match="no system was ever started on this store"):
        await back_up(stores, target)


@pytest.mark.asyncio
async def test_what_a_folder_holds_is_for_its_owner_alone(stores: peers.MemoryStores, target: Target) -> None:
    await peers.small(stores)

    await back_up(stores, target)

    found = [*folder(target).rglob("*")]
    assert found
    assert {stat.S_IMODE(each.stat().st_mode) for each in found} == {0o600, 0o700}
    assert not [each for each in found if each.name.endswith(".part")]


@pytest.mark.asyncio
async def test_a_backup_that_was_killed_is_none_and_the_next_one_removes_what_it_left(
    stores: peers.MemoryStores, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    await peers.small(stores)
    put = Target.put

    async def dying(self: Target, data: bytes, known: dict[str, int] | None = None) -> File:
        await put(self, data, known)
        raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        patched.setattr(Target, "put", dying)
        with pytest.raises(asyncio.CancelledError):
            await back_up(stores, target)
    (folder(target) / "files" / f"{'0' * 64}.part").write_bytes(b"half")
    (folder(target) / "files" / ("1" * 64)).write_bytes(b"of a backup that never was")
    assert await target.ids() == []

    made = await back_up(stores, target)
    removed = await retain(target, time.time(), 3600.0)

    assert removed.files == 1
    assert {each.name for each in (folder(target) / "files").iterdir()} == made.files().keys()


# -- one writer at a time ------------------------------------------------------------------------------------------


def busy(target: Target, pid: int, seen: float) -> Path:
    path = folder(target) / "busy" / "other.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    said = {"what": "a backup", "host": socket.gethostname(), "pid": pid, "seen": seen}
    path.write_text(json.dumps(said))
    return path


@pytest.mark.asyncio
async def test_a_second_writer_is_refused_with_who_is_busy(
    stores: peers.MemoryStores, target: Target
) -> None:
    await peers.small(stores)
    path = busy(target, os.getppid(), time.time())

    for work in (back_up(stores, target), retain(target, time.time(), 0.0)):
        with pytest.raises(Conflict, match=f"a backup is under way in .*, by process {os.getppid()} on "):
            await work

    assert path.exists() and len([*path.parent.iterdir()]) == 1


@pytest.mark.asyncio
async def test_a_writer_that_died_or_was_not_heard_of_holds_nobody_up(
    stores: peers.MemoryStores, target: Target
) -> None:
    await peers.small(stores)
    dead = subprocess.Popen(["true"])
    dead.wait()

    for pid, seen in (
        (dead.pid, time.time()),
        (os.getpid(), time.time()),  # a process before us had our number
        (os.getppid(), time.time() - 301.0),
    ):
        path = busy(target, pid, seen)
        await back_up(stores, target)
        assert not [*path.parent.iterdir()]


@pytest.mark.asyncio
async def test_a_writer_that_was_taken_over_writes_no_manifest(
    stores: peers.MemoryStores, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    await peers.small(stores)
    put = Target.put

    async def slow(self: Target, data: bytes, known: dict[str, int] | None = None) -> File:
        for each in (folder(target) / "busy").iterdir():
            each.unlink()
        return await put(self, data, known)

    monkeypatch.setattr(Target, "put", slow)
    with pytest.raises(Conflict, match="another process took"):
        await back_up(stores, target)

    assert await target.ids() == []


# -- what is broken ------------------------------------------------------------------------------------------------


def every_file_of(backup: Backup) -> dict[str, str]:
    """One file of each kind -> its partition."""
    part = backup.part(SHARD)
    return {
        "frames": part.frames[0].digest,
        "records": part.records[0].digest,
        "deliveries": part.deliveries[0].digest,
        "archive": part.archive[0].files[0].digest,
    }


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["frames", "records", "deliveries", "archive"])
@pytest.mark.parametrize("how", ["changed", "cut", "missing"])
async def test_a_broken_file_is_found_and_named_and_hides_nothing_else(
    stores: peers.MemoryStores, target: Target, kind: str, how: str
) -> None:
    shard = await peers.small(stores)
    await shard.snapshot(1003.0)
    await shard.write(1004.0, ShardStarted(1, "test", 0.0))
    await stores.archive(SHARD).put([peers.archived(1, 500.0, 900.0)])
    await stores.delivery_ids(SHARD).add([("one", 1000.0, b"answer")])
    made = await back_up(stores, target)
    digest = every_file_of(made)[kind]
    path = folder(target) / "files" / digest
    match how:
        case "changed":
            path.write_bytes(path.read_bytes()[:-1] + b"?")
        case "cut":
            path.write_bytes(path.read_bytes()[:-1])
        case _:
            path.unlink()

    checked = await verify(target, made)

    assert not checked.is_whole
    assert [(each.partition, bool(each.wrong)) for each in checked.parts] == [
        ("control", False),
        (SHARD, True),
        ("topology", False),
    ]
    assert f"files/{digest}" in checked.parts[1].wrong
    (entry,) = (await Pool.read(target)).entries
    assert entry.is_whole == (how == "changed"), "a list tells by names and sizes"
    assert how == "changed" or f"files/{digest}" in entry.why


@pytest.mark.asyncio
async def test_a_frame_that_was_exchanged_for_a_good_one_breaks_the_chain(
    stores: peers.MemoryStores, target: Target
) -> None:
    await peers.small(stores)
    made = await back_up(stores, target)
    part = made.part(SHARD)
    frames = await packing.frames(target, part.frames[0])
    (file,) = await packed(target, [frames[0], frames[0], frames[2]])
    swapped = msgspec.structs.replace(part, frames=[file])

    checked = await verify(target, msgspec.structs.replace(made, parts=[made.parts[0], swapped]))

    assert "at seq 2" in checked.parts[1].wrong


@pytest.mark.asyncio
async def test_a_log_that_ends_too_early_is_found(stores: peers.MemoryStores, target: Target) -> None:
    await peers.small(stores)
    made = await back_up(stores, target)
    part = made.part(SHARD)
    frames = await packing.frames(target, part.frames[0])
    short = msgspec.structs.replace(part, frames=await packed(target, frames[:2]))

    checked = await verify(target, msgspec.structs.replace(made, parts=[made.parts[0], short]))

    assert checked.parts[1].wrong == "its log ends at seq 2, and the backup says 3"


async def packed(target: Target, frames: list[bytes]) -> list[File]:
    packer = packing.Packer[bytes](target, {})
    await packer.add(frames, 1)
    return await packer.flush()


@pytest.mark.asyncio
async def test_a_changed_manifest_is_found(stores: peers.MemoryStores, target: Target) -> None:
    await peers.small(stores)
    made = await back_up(stores, target)
    path = folder(target) / "backups" / f"{made.id}.json"
    path.write_bytes(path.read_bytes().replace(b'"last_seq":3', b'"last_seq":2'))

    with pytest.raises(Broken, match=f"backups/{made.id}.json is damaged"):
        await target.read(made.id)

    (entry,) = (await Pool.read(target)).entries
    assert "is damaged" in entry.why


@pytest.mark.asyncio
async def test_a_backup_of_a_newer_program_is_told_as_that(
    stores: peers.MemoryStores, target: Target
) -> None:
    await peers.small(stores)
    made = await back_up(stores, target)
    await target.write(msgspec.structs.replace(made, format=2))

    with pytest.raises(Broken, match=r"its format 2 is not known to this program"):
        await target.read(made.id)


# -- what is kept --------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_days_of_the_archive_that_did_not_change_are_shared_and_outlive_their_first_backup(
    stores: peers.MemoryStores, target: Target
) -> None:
    await peers.small(stores)
    day = peers.DAY_S
    archive = stores.archive(SHARD)
    await archive.put(
        [peers.archived(1, 10 * day + 1, 10 * day + 5), peers.archived(2, 11 * day + 1, 11 * day + 5)]
    )
    first = await back_up(stores, target, ManualClock(20 * day))
    await archive.put([peers.archived(3, 11 * day + 2, 12 * day), peers.archived(4, 12 * day, 12 * day)])
    second = await back_up(stores, target, ManualClock(21 * day))
    one, other = first.part(SHARD).archive, second.part(SHARD).archive
    assert [each.count for each in other] == [1, 2, 1]
    assert one[0].files == other[0].files and one[1].files != other[1].files

    removed = await retain(target, 22 * day, 1.5 * day)

    assert removed.backups == [first.id]
    assert {each.name for each in (folder(target) / "files").iterdir()} == second.files().keys()
    assert (await verify(target, second)).is_whole


@pytest.mark.asyncio
async def test_the_newest_whole_backup_stays_whatever_its_age(
    stores: peers.MemoryStores, target: Target
) -> None:
    await peers.small(stores)
    first = await back_up(stores, target, ManualClock(20 * peers.DAY_S))
    second = await back_up(stores, target, ManualClock(21 * peers.DAY_S))
    (folder(target) / "backups" / f"{second.id}.json").write_bytes(b"{}")

    removed = await retain(target, 400 * peers.DAY_S, peers.DAY_S)

    assert removed.backups == [second.id], "the broken one is younger and goes all the same"
    assert [each.id for each in (await Pool.read(target)).whole()] == [first.id]


@pytest.mark.asyncio
async def test_while_a_manifest_can_t_be_read_no_file_is_removed(
    stores: peers.MemoryStores, target: Target
) -> None:
    await peers.small(stores)
    made = await back_up(stores, target)
    (folder(target) / "backups" / f"{made.id}.json").write_bytes(b"{}")
    await target.put(b"needless")

    removed = await retain(target, time.time(), 3600.0)

    assert (removed.backups, removed.files) == ([], 0)
    assert made.files().keys() <= (await target.files()).keys()


@pytest.mark.asyncio
async def test_what_a_kill_between_backups_and_files_left_goes_the_next_time(
    stores: peers.MemoryStores, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = await peers.small(stores)
    first = await back_up(stores, target, ManualClock(20 * peers.DAY_S))
    await shard.write(1010.0, ShardStarted(2, "test", 0.0))
    second = await back_up(stores, target, ManualClock(21 * peers.DAY_S))

    async def dying(_self: Target, _names: list[str]) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patched, contextlib.suppress(asyncio.CancelledError):
        patched.setattr(Target, "remove_files", dying)
        await retain(target, 21.5 * peers.DAY_S, peers.DAY_S)
    assert await target.ids() == [second.id]
    assert first.files().keys() - (await target.files()).keys() == set()

    await retain(target, 21.5 * peers.DAY_S, peers.DAY_S)

    assert (await target.files()).keys() == second.files().keys()


# -- where ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "expected a folder or a URL"),
        ("s3://key:secret@bucket/x", "without user, password and query"),
        ("nowhere://x/y", "Protocol not known: nowhere"),
    ],
)
def test_a_target_that_can_t_be_used_is_told_without_its_secret(url: str, said: str) -> None:
    with pytest.raises(Malformed) as told:
        Target(url)

    assert said in str(told.value) and "secret@" not in str(told.value)


@pytest.mark.asyncio
async def test_a_target_that_can_t_be_written_is_told_by_name(
    stores: peers.MemoryStores, tmp_path: Path
) -> None:
    await peers.small(stores)
    (tmp_path / "file").touch()

    with pytest.raises(Unavailable, match="file/backups: Not a directory"):
        await back_up(stores, Target(str(tmp_path / "file" / "backups")))


@pytest.mark.asyncio
async def test_a_backup_that_is_not_there_is_told_as_that(target: Target) -> None:
    with pytest.raises(NotFound, match=r"there is no backup 20260101T000000\.000000Z in"):
        await target.read("20260101T000000.000000Z")


@pytest.mark.asyncio
async def test_nothing_secret_of_a_token_is_in_a_backup(tmp_path: Path) -> None:
    from tests.api.gateway_in_process import system

    source, target = peers.sqlite(tmp_path / "source"), Target(str(tmp_path / "backups"))
    async with system(peers.OverStores(source)) as ours:  # type: ignore[arg-type]
        answer = await ours.post("/v1/tokens", {"name": "admin", "scopes": ["admin"]})
        assert answer.status == 201, answer
        secret = str(answer.json["token"]).encode()
        made = await back_up(source, target)

    stored = b"".join(
        [frame for file in made.part("control").frames for frame in await packing.frames(target, file)]
    )
    frames = [decode_frame("control", each, number, None) for number, each in enumerate(await packing.frames(target, made.part("control").frames[0]), 1)]  # fmt: skip
    assert any("TokenCreated" in repr(frame) for frame in frames)
    assert secret not in stored and secret.rpartition(b"_")[2] not in stored
