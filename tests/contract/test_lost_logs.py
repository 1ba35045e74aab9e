"""A partition's log that is gone is not begun anew without a word: the control partition's, a shard's, in every store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from actors.begun import Kept, held
from actors.folding import fold_control
from actors.runtime.clock import SystemClock
from actors.shard import IncidentShard
from models.errors import Conflict, Damaged, NotFound, Unavailable
from models.shard.events import ShardStarted
from models.shard.reception import ReceptionGap
from models.shard.settings import ShardSettings
from services.stores.choice import Stores
from services.upkeep.backup.create import create
from services.upkeep.backup.target import Target
from services.upkeep.lost import accept_loss
from services.wiring import station
from tests.api import gateway_in_process
from tests.api.gateway_in_process import FIRST_SHARD_SERVICE, SECOND_SHARD_SERVICE, System, alert, system
from tests.contract import backup_peers as peers

NUMBERS = count(1)
KINDS = ["sqlite", "redis", "postgres"]
CLOCK = SystemClock()


class Place:
    """Stores of one kind, and how a partition's log goes missing there."""

    def __init__(self, stores: Stores, lose: Callable[[str], None]) -> None:
        self.stores = stores
        self.lose = lose

    @property
    def kept(self) -> Kept:
        return Kept(self.stores.log, self.stores.archive)


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    kind = getattr(request, "param", "sqlite")
    if kind == "redis":
        return _redis(request.getfixturevalue("redis_server").url, f"lost-{next(NUMBERS)}")
    if kind == "postgres":
        return _postgres(request.getfixturevalue("postgres_server").url, f"lost_{next(NUMBERS)}")

    def lose(partition: str) -> None:
        for path in tmp_path.glob(f"{partition.replace('/', '-')}.db*"):
            path.unlink()

    return Place(peers.sqlite(tmp_path), lose)


def _redis(url: str, prefix: str) -> Place:
    from redis import Redis

    def lose(partition: str) -> None:
        with Redis.from_url(url) as client:
            for name in ("log", "appends", "marks", "records", "keys", "written"):
                client.delete(f"{prefix}:{{{partition}}}:{name}")

    return Place(peers.redis(url, prefix), lose)


def _postgres(url: str, schema: str) -> Place:
    import psycopg

    def lose(partition: str) -> None:
        with psycopg.connect(url) as client:
            for table in ("logs", "appends", "marks", "records"):
                client.execute(f"DELETE FROM {schema}.{table} WHERE partition = %s", (partition,))

    return Place(peers.postgres(url, schema), lose)


async def use(place: Place) -> None:
    async with running(place) as ours:
        body = [alert("A", FIRST_SHARD_SERVICE), alert("B", SECOND_SHARD_SERVICE)]
        assert (await ours.post("/v1/alerts", body)).status == 202
        token = {"name": "boss", "scopes": ["admin"]}
        assert (await ours.post("/v1/tokens", token)).status == 201


def running(place: Place):  # type: ignore[no-untyped-def]
    return system(peers.OverStores(place.stores))  # type: ignore[arg-type]


def shard_of(ours: System, index: int) -> IncidentShard:
    found = ours.cluster.get(ours.shards[index])
    assert isinstance(found, IncidentShard)
    return found


@pytest.mark.parametrize("place", KINDS, indirect=True)
@pytest.mark.asyncio
async def test_without_its_control_log_a_store_that_holds_something_opens_no_door(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await use(place)
    place.lose("control")
    monkeypatch.setattr(station, "FIRST_SLOTS_S", 0.5)

    with pytest.raises(Unavailable, match="no slot map"):
        async with running(place):
            pass

    control = place.stores.log("control")
    assert await control.last_seq() == 0, "nothing was begun"
    await control.close()


@pytest.mark.parametrize("place", KINDS, indirect=True)
@pytest.mark.asyncio
async def test_a_lost_control_log_is_made_anew_only_when_asked_and_asks_for_tokens(place: Place) -> None:
    await use(place)
    place.lose("control")

    done = await accept_loss(place.stores, ShardSettings(), "control", CLOCK, 1)

    assert (done.partitions, done.incidents) == (2, 2)
    async with running(place) as ours:
        assert (await ours.get("/v1/incidents")).status == 401
        assert (await ours.post("/v1/tokens", {"name": "mine", "scopes": ["admin"]})).status == 401
        assert (
            len(shard_of(ours, 0).shard.state.incidents) == len(shard_of(ours, 1).shard.state.incidents) == 1
        )
    with pytest.raises(Conflict, match="it is not lost"):
        await accept_loss(place.stores, ShardSettings(), "control", CLOCK, 1)


@pytest.mark.asyncio
async def test_a_control_log_made_anew_keeps_the_shards_that_hold_nothing_yet(place: Place) -> None:
    async with running(place) as ours:
        assert (await ours.post("/v1/alerts", [alert("A", FIRST_SHARD_SERVICE)])).status == 202
    place.lose("control")

    done = await accept_loss(place.stores, ShardSettings(), "control", CLOCK, 1)

    assert (done.partitions, done.incidents) == (2, 1)


@pytest.mark.parametrize("place", KINDS, indirect=True)
@pytest.mark.asyncio
async def test_an_archive_counts_as_something(place: Place) -> None:
    assert await held(place.kept, 2) == []
    archive = place.stores.archive("shard/0005")
    await archive.put([peers.archived(1, 1000.0, 1000.0)])
    await archive.close()

    assert await held(place.kept, 2) == ["shard/0005"]


@pytest.mark.asyncio
async def test_a_first_start_that_was_ended_early_is_begun_again(place: Place) -> None:
    shard = peers.Writer(place.stores, "shard/0000")
    await shard.write(1000.0, ShardStarted(1, "test", 0.0), ReceptionGap(990.0, 1300.0, "nobody called"))
    await shard.log.release(shard.epoch)
    await shard.log.close()

    async with running(place) as ours:
        assert (await ours.post("/v1/alerts", [alert("A", FIRST_SHARD_SERVICE)])).status == 202


@pytest.mark.parametrize("place", KINDS, indirect=True)
@pytest.mark.asyncio
async def test_a_shard_whose_log_is_gone_stops_and_says_so_and_the_others_go_on(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await use(place)
    place.lose("shard/0001")
    monkeypatch.setattr(gateway_in_process, "READY_S", 0.0)  # it never is

    for _start in range(2):
        async with running(place) as ours, asyncio.timeout(30):
            said = "its log is gone: the control log says that it had begun"
            while said not in str(await shard_of(ours, 1).status(b"")):
                await asyncio.sleep(0.02)
            with pytest.raises(Unavailable):
                await shard_of(ours, 1).ask(b"")
            while len(shard_of(ours, 0).shard.state.incidents) != 1:
                await asyncio.sleep(0.02)
    with pytest.raises(Damaged, match="its log is gone"):
        await create(place.stores, Target(str(tmp_path / "backups")), CLOCK, backend="test")


@pytest.mark.asyncio
async def test_a_lost_shard_begins_anew_only_when_asked_in_epochs_above_all_before(place: Place) -> None:
    await use(place)
    place.lose("shard/0001")

    await accept_loss(place.stores, ShardSettings(), "shard/0001", CLOCK, 1)

    async with running(place) as ours:
        assert len(shard_of(ours, 1).shard.state.incidents) == 0
        assert shard_of(ours, 1).shard.epoch > 1_000_000
    with pytest.raises(Conflict, match="it is not lost"):
        await accept_loss(place.stores, ShardSettings(), "shard/0001", CLOCK, 1)


@pytest.mark.parametrize("name", ["shard/0002", "shard/1", "SHARD/0001", "nonsense", "", "../control"])
@pytest.mark.asyncio
async def test_what_is_no_partition_is_not_begun(place: Place, tmp_path: Path, name: str) -> None:
    await use(place)
    before = sorted(each.name for each in tmp_path.glob("**/*.db"))

    with pytest.raises(NotFound, match="there are control and shard/0000 to shard/0001"):
        await accept_loss(place.stores, ShardSettings(), name, CLOCK, 1)

    assert sorted(each.name for each in tmp_path.glob("**/*.db")) == before


@pytest.mark.asyncio
async def test_with_the_slot_map_gone_too_that_comes_first(place: Place) -> None:
    await use(place)
    place.lose("shard/0001")
    place.lose("control")

    with pytest.raises(Conflict, match="accept-loss control"):
        await accept_loss(place.stores, ShardSettings(), "shard/0001", CLOCK, 1)


@pytest.mark.asyncio
async def test_what_has_begun_is_noted_once(place: Place) -> None:
    for _start in range(2):
        await use_again(place)

    control = place.stores.log("control")
    state = await fold_control(control)
    await control.close()
    assert state.begun == {"shard/0000", "shard/0001"}


async def use_again(place: Place) -> None:
    async with running(place) as ours:
        assert shard_of(ours, 0).shard.epoch
