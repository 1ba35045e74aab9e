"""A store without room: what numbers and reads show is what is in the log, and what is said is that the disk is full."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from actors.folding import fold_shard
from actors.shard import IncidentShard
from models.errors import Full
from models.incidents.query import ListSummaries, SummaryPage, decode_answer, encode
from models.shard.settings import ShardSettings
from services.stores.choice import Stores
from services.stores.sqlite.log import SqliteEventLog
from tests.api.gateway_in_process import SettableClock, System, alert, system
from tests.api.test_pressure import until
from tests.contract import backup_peers as peers
from tests.contract.conftest import Chain

NUMBERS = count(1)
STORED, REFUSED = 40, 41


@pytest.fixture
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    match request.param:
        case "memory":
            return peers.MemoryStores()
        case "redis":
            return peers.redis(request.getfixturevalue("redis_server").url, f"full-{next(NUMBERS)}")
        case "postgres":
            return peers.postgres(request.getfixturevalue("postgres_server").url, f"full_{next(NUMBERS)}")
    return peers.sqlite(tmp_path)


def shard_of(ours: System) -> IncidentShard:
    found = ours.cluster.get(ours.shards[0])
    assert isinstance(found, IncidentShard)
    return found


def fill(shard: IncidentShard, *, wholly: bool) -> None:
    """No append any more; `wholly`: not even the word that somebody owns the log."""

    async def refuse(*_given: object) -> None:
        raise Full("the disk is full")

    shard.event_log.append = refuse  # type: ignore[method-assign, assignment]
    if wholly:
        shard.event_log.open = refuse  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize("wholly", [False, True], ids=["no append", "no open either"])
@pytest.mark.parametrize("stores", ["memory", "sqlite", "redis", "postgres"], indirect=True)
@pytest.mark.asyncio
async def test_numbers_and_reads_show_what_is_in_the_log_alone(stores: Stores, wholly: bool) -> None:
    over = peers.OverStores(stores)
    async with system(over, server={"hold": 0.3}, state={"partitions": 1}) as ours:  # type: ignore[arg-type]
        shard = shard_of(ours)
        body = [alert(f"A{number}") for number in range(STORED)]
        assert (await ours.post("/v1/alerts", body)).status == 202
        fill(shard, wholly=wholly)

        more = [alert(f"B{number}") for number in range(REFUSED)]
        assert (await ours.post("/v1/alerts", more)).status == 503

        for _look in range(3):
            metrics = (await ours.get("/metrics")).body.decode()
            status = json.loads(await shard.status(b""))
            assert (status["incidents"], status["series"]) == (STORED, STORED)
            assert _sum(metrics, "llm_im_open_incidents") == _sum(metrics, "llm_im_open_series") == STORED
            assert _sum(metrics, "llm_im_alerts_decided_total") == STORED
            assert 'decision="opened"' in metrics
            assert (await ours.post("/v1/alerts", more)).status == 503
        read = await ours.get("/v1/incidents?limit=500")
        log = stores.log("shard/0000")
        summaries = decode_answer(await shard.ask(encode(ListSummaries("default"))))
        assert isinstance(summaries, SummaryPage) and summaries.seq == await log.last_seq()
        assert len((await fold_shard(log, ShardSettings())).machine.state.incidents) == STORED
        await log.close()

        assert read.status == 200 and len(read.items) == STORED
        assert "the disk is full" in str(await shard.status(b""))


@pytest.mark.asyncio
async def test_what_was_stored_is_read_though_a_start_has_more_to_say_than_there_is_room_for() -> None:
    clock = SettableClock()
    async with system(clock=clock, server={"hold": 0.3}, state={"partitions": 1}) as ours:
        shard = shard_of(ours)
        assert (await ours.post("/v1/alerts", [alert("Down")])).status == 202
        fill(shard, wholly=False)

        # What hung on the false time is put right by every start, and that is not stored either.
        clock.heard_s -= 60.0
        await until(lambda: "the disk is full" in shard._why_not)
        async with asyncio.timeout(20):
            while (read := await ours.get("/v1/incidents")).status != 200:
                pass
        assert len(read.items) == 1


def _sum(metrics: str, name: str) -> float:
    lines = [line for line in metrics.splitlines() if line.startswith((f"{name}{{", f"{name} "))]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True, capture_output=True)  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user may not mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.asyncio
async def test_every_word_about_a_full_disk_says_that_it_is_full(small_disk: Path, chain: Chain) -> None:
    log = SqliteEventLog(small_disk, "control")
    epoch = (await log.open("a", 0.0, 10.0)).epoch
    await log.append(epoch, 1, chain.next())
    with (small_disk / "other").open("wb", buffering=0) as filler, pytest.raises(OSError):
        while True:
            filler.write(b"x" * 512)

    said = []
    for _try in range(3):
        with pytest.raises(Full) as refused:
            await log.append(epoch, 2, [b"y" * 100_000])
        said.append(str(refused.value))
    again = SqliteEventLog(small_disk, "control")
    try:
        await again.open("b", 100.0, 10.0)
    except Full as error:
        said.append(str(error))
    await again.close()
    other = SqliteEventLog(small_disk, "shard/0000")
    with pytest.raises(Full) as refused:
        await other.open("a", 0.0, 10.0)
    said.append(str(refused.value))
    await other.close()
    (small_disk / "other").unlink()
    await log.open("a", 200.0, 10.0)

    assert all("disk is full" in each for each in said), said
    assert [seq for seq, _frame in await log.read(0)] == [1]
    await log.close()
