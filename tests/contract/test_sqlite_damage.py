"""What only a real file can suffer: a full disk, a kill in the middle, flipped bytes, a commit that fails."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest
import pytest_asyncio

from models.errors import Broken, Damaged, Fenced, Full, IncidentManagerError, OutcomeUnknown, Unavailable
from models.ports import Mark
from services.stores.sqlite import files, snapshots
from services.stores.sqlite import log as sqlite_log
from services.stores.sqlite.log import SqliteEventLog
from tests.contract.conftest import Chain

PARTITION = "shard/0007"
FILE = "shard-0007.db"


class Logs:
    """Opens logs over one folder and closes them at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.all: list[SqliteEventLog] = []

    def __call__(self, folder: Path | None = None, max_bytes: int | None = None) -> SqliteEventLog:
        self.all.append(SqliteEventLog(folder or self.folder, PARTITION, max_bytes=max_bytes))
        return self.all[-1]


@pytest_asyncio.fixture
async def logs(tmp_path: Path) -> AsyncIterator[Logs]:
    opened = Logs(tmp_path / "state")
    yield opened
    for log in opened.all:
        await log.close()


@pytest.mark.asyncio
async def test_files_and_folders_are_for_their_owner_alone(logs: Logs) -> None:
    await logs().open("a", 0.0, 10.0)

    assert logs.folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in logs.folder.iterdir()} == {0o600}


@pytest.mark.asyncio
async def test_a_full_store_keeps_nothing_of_the_append_and_goes_on_when_there_is_room(
    logs: Logs, chain: Chain
) -> None:
    log = logs(max_bytes=400_000)
    epoch = (await log.open("a", 0.0, 10.0)).epoch

    with pytest.raises(Full):
        while True:
            await log.append(epoch, chain.seq + 1, chain.next(20, size=1000))
    kept = await log.last_seq()
    chain.back_to(kept)
    with pytest.raises(Full):
        await log.append(epoch, kept + 1, chain.next(20, size=1000))
    chain.back_to(kept)
    await log.renew(epoch, 50.0)
    for generation in (1, 2):
        await log.close_snapshot(epoch, Mark(generation, kept, chain.digests[kept], 1, b""))
    await log.truncate(epoch, kept)
    await log.append(epoch, kept + 1, chain.next(20, size=1000))

    assert kept > 0
    assert [seq for seq, _frame in await logs().read(0)] == list(range(kept + 1, kept + 21))


@pytest.mark.asyncio
async def test_a_full_store_refuses_a_batch_of_records_whole(logs: Logs, chain: Chain) -> None:
    log = logs(max_bytes=400_000)
    epoch = (await log.open("a", 0.0, 10.0)).epoch
    await log.append(epoch, 1, chain.next())

    with pytest.raises(Full):
        await log.put_records(epoch, 1, [(f"k{number}", b"x" * 10_000) for number in range(100)])
    await log.put_records(epoch, 1, [("a", b"1")])
    await log.close_snapshot(epoch, Mark(1, 1, chain.digests[1], 1, b""))

    assert [page async for page in log.records(1)] == [[("a", b"1")]]


@pytest.mark.asyncio
async def test_a_failed_commit_stops_the_writer_until_it_opens_again(logs: Logs, chain: Chain) -> None:
    # RLIMIT_FSIZE makes the write of the commit itself fail, as a broken disk would. It holds for a whole
    # process, so the writer is one of its own.
    script = """
import asyncio, resource, signal, sys
from models.errors import OutcomeUnknown
from services.stores.sqlite.log import SqliteEventLog
from tests.contract.conftest import Chain

async def main():
    chain = Chain()
    log = SqliteEventLog(sys.argv[1], "shard/0007")
    epoch = (await log.open("a", 0.0, 10.0)).epoch
    await log.append(epoch, 1, chain.next())
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, resource.RLIM_INFINITY))
    for size in (200_000, 100):
        try:
            await log.append(epoch, 2, chain.next(1, size) if size > 1000 else [b"x"])
        except OutcomeUnknown:
            print("unknown")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    opened = await log.open("a", 1.0, 10.0)
    chain.back_to(opened.last_seq)
    await log.append(opened.epoch, opened.last_seq + 1, chain.next())
    print(opened.last_seq, await log.last_seq(), len(await log.read(0)))

asyncio.run(main())
"""
    script = script.replace('chain.next(1, size) if size > 1000 else [b"x"]', "[os.urandom(size)]")
    script = script.replace("import asyncio, resource", "import asyncio, os, resource")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(logs.folder), stdout=asyncio.subprocess.PIPE, cwd=_root()
    )
    told, _errors = await process.communicate()

    assert told.decode().split() == ["unknown", "unknown", "1", "2", "2"]


@pytest.mark.asyncio
@pytest.mark.parametrize("run", range(2))
async def test_what_was_acknowledged_survives_a_kill_in_the_middle(logs: Logs, run: int) -> None:
    script = """
import asyncio, sys
from services.stores.sqlite.log import SqliteEventLog
from tests.contract.conftest import Chain

async def main():
    chain = Chain()
    log = SqliteEventLog(sys.argv[1], "shard/0007")
    epoch = (await log.open("a", 0.0, 10.0)).epoch
    while True:
        await log.append(epoch, chain.seq + 1, chain.next(7, size=3000))
        print(chain.seq, flush=True)

asyncio.run(main())
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(logs.folder)], stdout=subprocess.PIPE, cwd=_root(), text=True
    ) as process:
        assert process.stdout is not None
        acknowledged = int(process.stdout.readline())
        time.sleep(0.3 + 0.17 * run)
        process.send_signal(signal.SIGKILL)
        for line in process.stdout:
            acknowledged = int(line) if line.endswith("\n") else acknowledged

    log = logs()
    opening = await log.open("a", 1.0, 10.0)
    seqs: list[int] = []
    while page := await log.read(seqs[-1] if seqs else 0):
        seqs += [seq for seq, _frame in page]

    assert acknowledged <= opening.last_seq <= acknowledged + 7
    assert seqs == list(range(1, opening.last_seq + 1))
    assert opening.cut is None


@pytest.mark.asyncio
async def test_a_write_ahead_log_cut_short_loses_no_append_that_was_whole(logs: Logs, chain: Chain) -> None:
    log = logs()
    epoch = (await log.open("a", 0.0, 10.0)).epoch
    for _ in range(5):
        await log.append(epoch, chain.seq + 1, chain.next(2, size=3000))
    copy = _copied(logs.folder, "cut")
    with open(copy / f"{FILE}-wal", "r+b") as wal:
        wal.truncate(wal.seek(0, os.SEEK_END) - 100)

    again = logs(copy)

    assert (await again.open("a", 1.0, 10.0)).last_seq == 8
    assert len(await again.read(0)) == 8


@pytest.mark.asyncio
async def test_flipped_bytes_anywhere_end_in_our_errors_or_in_whole_frames(logs: Logs, chain: Chain) -> None:
    log = logs()
    epoch = (await log.open("a", 0.0, 10.0)).epoch
    for _ in range(12):
        await log.append(epoch, chain.seq + 1, chain.next(3, size=500))
    await log.put_records(epoch, 1, [(f"k{number}", b"v" * 200) for number in range(40)])
    await log.close_snapshot(epoch, Mark(1, 30, chain.digests[30], 1, b"sum"))
    await log.close()
    chance = random.Random(3)
    pristine = (logs.folder / FILE).read_bytes()
    found_damage = 0

    for attempt in range(60):
        folder = logs.folder.with_name(f"flipped-{attempt}")
        folder.mkdir()
        bytes_ = bytearray(pristine)
        for _ in range(4):
            bytes_[chance.randrange(100, len(bytes_))] ^= 1 << chance.randrange(8)
        (folder / FILE).write_bytes(bytes_)
        hurt = SqliteEventLog(folder, PARTITION)
        try:
            opening = await hurt.open("a", 20.0, 10.0)
            for seq, frame in await hurt.read(0):
                assert chain.frames[seq] == frame
            for mark in await hurt.marks():
                assert {body async for page in hurt.records(mark.generation) for _key, body in page} == {
                    b"v" * 200
                }
            found_damage += opening.cut is not None
        except IncidentManagerError:
            found_damage += 1
        finally:
            await hurt.close()
        shutil.rmtree(folder)

    assert found_damage > 20


@pytest.mark.asyncio
async def test_missing_appends_are_damage(logs: Logs, chain: Chain) -> None:
    log = logs()
    epoch = (await log.open("a", 0.0, 10.0)).epoch
    for _ in range(5):
        await log.append(epoch, chain.seq + 1, chain.next())
    await log.read(0, limit_bytes=200)
    connection = apsw.Connection(str(logs.folder / FILE))
    connection.execute("DELETE FROM appends WHERE first_seq IN (3, 4)")
    connection.close()

    for reader, after in ((log, 0), (log, 2), (logs(), 0), (logs(), 2), (logs(), 3)):
        with pytest.raises(Damaged, match="missing"):
            await reader.read(after)
    with pytest.raises(Damaged, match="missing"):
        await logs().open("a", 1.0, 10.0)


@pytest.mark.asyncio
async def test_a_damaged_mark_gives_way_to_the_one_before(logs: Logs, chain: Chain) -> None:
    log = logs()
    epoch = (await log.open("a", 0.0, 10.0)).epoch
    await log.append(epoch, 1, chain.next(3))
    for generation in (1, 2):
        await log.put_records(epoch, generation, [("a", b"%d" % generation)])
        await log.close_snapshot(epoch, Mark(generation, generation, chain.digests[generation], 1, b""))
    connection = apsw.Connection(str(logs.folder / FILE))
    connection.execute("UPDATE marks SET seq = 3 WHERE generation = 2")

    assert [mark.generation for mark in await log.marks()] == [1]
    assert [page async for page in log.records(1)] == [[("a", b"1")]]
    connection.execute("UPDATE marks SET version = 9")
    connection.close()
    with pytest.raises(Damaged):
        await log.marks()


@pytest.mark.asyncio
async def test_a_file_that_is_no_database_or_of_another_partition_is_broken(
    logs: Logs, tmp_path: Path
) -> None:
    logs.folder.mkdir()
    (logs.folder / FILE).write_bytes(os.urandom(8192))
    with pytest.raises(Damaged):
        await logs().open("a", 0.0, 10.0)

    other = tmp_path / "other"
    stranger = SqliteEventLog(other, "shard/0008")
    await stranger.open("a", 0.0, 10.0)
    await stranger.close()
    (other / "shard-0008.db").rename(other / FILE)
    with pytest.raises(Damaged, match="is the log of shard/0008"):
        await logs(other).open("a", 0.0, 10.0)
    for read in (logs(other).read(0), logs(other).marks(), logs(other).stats()):
        with pytest.raises(Damaged, match="is the log of shard/0008"):
            await read


@pytest.mark.asyncio
async def test_a_log_without_the_record_of_its_end_is_damaged_and_not_begun_anew(
    logs: Logs, chain: Chain
) -> None:
    log = logs()
    epoch = (await log.open("a", 0.0, 10.0)).epoch
    await log.append(epoch, 1, chain.next(3))
    await log.close()
    connection = apsw.Connection(str(logs.folder / FILE))
    connection.execute("DELETE FROM log")
    connection.close()

    for _twice in range(2):
        for act in (logs().stats(), logs().read(0), logs().last_seq(), logs().open("a", 1.0, 10.0)):
            with pytest.raises(Damaged, match="the record of where its log ends is gone"):
                await act


@pytest.mark.asyncio
async def test_a_file_of_a_newer_program_is_refused(logs: Logs) -> None:
    await logs().open("a", 0.0, 10.0)
    connection = apsw.Connection(str(logs.folder / FILE))
    connection.pragma("user_version", 99)
    connection.close()

    with pytest.raises(Broken, match="99"):
        await logs().open("a", 0.0, 10.0)
    with pytest.raises(Broken, match="99"):
        await logs().read(0)


@pytest.mark.asyncio
async def test_the_snapshot_of_a_file_of_schema_1_is_read_on(
    logs: Logs, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        first, _rows_apart, ends = sqlite_log.SCHEMA
        older.setattr(sqlite_log, "SCHEMA", (first + ends,))  # today's writer fills the last column
        log = logs()
        epoch = (await log.open("a", 0.0, 10.0)).epoch
        await log.append(epoch, 1, chain.next())
        await log.put_records(epoch, 1, [("a", b"1"), ("b", b"2" * 200_000), ("c", b"3")])
        await log.close_snapshot(epoch, Mark(1, 1, chain.digests[1], 1, b""))
        await log.put_records(epoch, 2, [("a", b"4"), ("c", None)])
        await log.close_snapshot(epoch, Mark(2, 1, chain.digests[1], 1, b""))
        await log.close()
    connection = apsw.Connection(str(logs.folder / FILE))
    connection.execute("ALTER TABLE log DROP COLUMN last_seq")
    connection.close()

    beside = logs()
    assert [seq for seq, _frame in await beside.read(0)] == [1], (
        "read before its writer brought it up to date"
    )
    assert [page async for page in beside.records(2)] == [[("a", b"4"), ("b", b"2" * 200_000)]]
    await beside.close()
    log = logs()
    opened = await log.open("a", 1.0, 10.0)

    assert opened.last_seq == await log.last_seq() == 1
    assert [page async for page in log.records(1)] == [[("a", b"1"), ("b", b"2" * 200_000), ("c", b"3")]]
    assert [page async for page in log.records(2)] == [[("a", b"4"), ("b", b"2" * 200_000)]]


@pytest.mark.asyncio
async def test_a_file_locked_by_a_stranger_is_unavailable(
    logs: Logs, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BUSY_TIMEOUT_MS", 50)
    log = logs()
    epoch = (await log.open("a", 0.0, 10.0)).epoch
    connection = apsw.Connection(str(logs.folder / FILE))
    connection.execute("BEGIN IMMEDIATE")
    frames = chain.next()

    with pytest.raises(Unavailable) as refusal:
        await log.append(epoch, 1, frames)
    connection.execute("ROLLBACK")
    connection.close()
    await log.append(epoch, 1, frames)

    assert not isinstance(refusal.value, OutcomeUnknown)


@pytest.mark.asyncio
async def test_an_open_in_another_process_fences_this_one(logs: Logs, chain: Chain) -> None:
    log = logs()
    epoch = (await log.open("a", 0.0, 10.0)).epoch
    script = (
        "import asyncio, sys; from services.stores.sqlite.log import SqliteEventLog;"
        'print(asyncio.run(SqliteEventLog(sys.argv[1], "shard/0007").open("b", 11.0, 10.0)).epoch)'
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(logs.folder), stdout=asyncio.subprocess.PIPE, cwd=_root()
    )
    told, _errors = await process.communicate()

    assert int(told) == epoch + 1
    with pytest.raises(Fenced):
        await log.append(epoch, 1, chain.next())


@pytest.mark.asyncio
async def test_the_write_ahead_log_stays_short_under_a_steady_writer_with_a_reader(
    logs: Logs, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "WAL_LIMIT_BYTES", 100_000)
    log, reader = logs(), logs()
    epoch = (await log.open("a", 0.0, 10.0)).epoch

    largest = 0
    for _ in range(150):
        await log.append(epoch, chain.seq + 1, chain.next(4, size=3000))
        await reader.read(chain.seq - 1)
        largest = max(largest, (logs.folder / f"{FILE}-wal").stat().st_size)

    assert largest < 1_000_000


@pytest.mark.asyncio
async def test_tidying_of_superseded_records_is_spread_and_resumes_after_a_crash(
    logs: Logs, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "PRUNE_LEAST", 10)
    log = logs()
    epoch = (await log.open("a", 0.0, 10.0)).epoch
    await log.append(epoch, 1, chain.next())
    for generation in (1, 2, 3):
        await log.put_records(
            epoch, generation, [(f"k{number:03}", b"%d" % generation) for number in range(100)]
        )
        await log.close_snapshot(epoch, Mark(generation, 1, chain.digests[1], 1, b""))

    sizes = [(await log.stats())["record_bytes"]]
    log = logs()
    epoch = (await log.open("a", 1.0, 10.0)).epoch
    for step in range(12):
        await log.put_records(epoch, 4, [(f"new{step}", None)])
        sizes.append((await log.stats())["record_bytes"])

    assert sizes == [290] + [max(200, 290 - 10 * max(0, step - 1)) for step in range(1, 13)]
    assert len([item async for page in log.records(2) for item in page]) == 100


def _root() -> Path:
    return Path(__file__).parents[2]


def _copied(folder: Path, name: str) -> Path:
    """What a power cut at this moment would leave: the files as they are, without the lock's shared
    memory."""
    copy = folder.with_name(name)
    copy.mkdir()
    for file in (FILE, f"{FILE}-wal"):
        shutil.copy(folder / file, copy / file)
    return copy
