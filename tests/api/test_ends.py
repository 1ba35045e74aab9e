"""Writers when something goes wrong with them, and calls that are given up: each ends when it is told to, and none goes on
without a word."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from itertools import count

import pytest
import structlog.testing

from actors.control import ControlActor
from actors.delivery import DeliveryWindow
from actors.runtime.host import Host
from actors.runtime.local import LocalCluster
from actors.shard import IncidentShard, ShardOptions
from models.errors import Damaged, Unavailable
from models.partition.frames import encode_frame
from models.ports import Mark
from models.shard.events import CallAnswered, ShardStarted
from models.shard.settings import ShardSettings
from services.stores.memory.archive import MemoryArchive
from services.stores.memory.delivery_ids import MemoryDeliveryIds
from services.stores.memory.log import MemoryEventLog
from services.stores.memory.store import MemoryStore
from tests.api.gateway_in_process import SettableClock


class Waiting:
    """Answers when it is let."""

    def __init__(self, _host: Host) -> None:
        self.may_answer = asyncio.Event()

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    async def ask(self, _payload: bytes) -> bytes:
        await self.may_answer.wait()
        return b""


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.005)


@pytest.mark.asyncio
@pytest.mark.parametrize("turns", range(4))
async def test_a_call_that_is_given_up_in_the_moment_of_its_answer_is_given_up(turns: int) -> None:
    cluster = LocalCluster()
    await cluster.start("waiting", Waiting)
    waiting = cluster.get("waiting")
    assert isinstance(waiting, Waiting)
    call = asyncio.create_task(cluster.call("waiting", "ask", b"", 5.0))
    await asyncio.sleep(0.01)

    waiting.may_answer.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    was_cancelled = call.cancel()
    await asyncio.wait([call])

    assert call.cancelled() is was_cancelled


@pytest.mark.asyncio
async def test_a_writer_that_is_stopped_in_the_moment_of_a_failed_append_stops() -> None:
    control = ControlActor(
        Host("control-a", LocalCluster(), lambda _why: None),
        MemoryEventLog(MemoryStore(), "control"),
        SettableClock(),
        2,
    )
    await control.start()
    await until(lambda: control._ready)

    control._wake.set()
    await asyncio.sleep(0)

    async with asyncio.timeout(5):
        await control.stop()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("error", "ends"), [(KeyError("a bug"), True), (Damaged("control", 3, "bits"), False)]
)
async def test_a_writer_that_meets_a_bug_ends_its_process_and_one_whose_log_is_damaged_stands_still(
    error: Exception, ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read(_log: MemoryEventLog, _after: int, _limit_bytes: int = 0) -> list[tuple[int, bytes]]:
        raise error

    monkeypatch.setattr(MemoryEventLog, "read", read)
    deaths: list[str] = []
    control = ControlActor(
        Host("control-a", LocalCluster(), deaths.append),
        MemoryEventLog(MemoryStore(), "control"),
        SettableClock(),
        2,
    )
    await control.start()
    await until(control._tasks[0].done)

    assert deaths == (["KeyError('a bug')"] if ends else [])
    await control.stop()


@pytest.mark.asyncio
async def test_a_shard_that_is_superseded_while_it_recovers_is_fenced_and_its_log_is_no_damage() -> None:
    store = MemoryStore()
    deaths: list[str] = []
    shard = IncidentShard(
        Host("shard-0000-a", LocalCluster(), deaths.append),
        ShardOptions("shard/0000"),
        ShardSettings(),
        MemoryEventLog(store, "shard/0000"),
        MemoryArchive(store, "shard/0000"),
        DeliveryWindow(MemoryDeliveryIds(store, "shard/0000"), 600.0),
        SettableClock(),
    )
    marks = shard.event_log.marks

    async def slowly() -> list[Mark]:
        """Its lease runs out meanwhile, and another writes."""
        other = MemoryEventLog(store, "shard/0000")
        opened = await other.open("shard-0000-b", time.time() + 60.0, 10.0)
        frame, _digest = encode_frame(
            1, time.time(), "default", None, [ShardStarted(1, "b", 0.0)], opened.last_digest
        )
        await other.append(opened.epoch, 1, [frame])
        return await marks()

    shard.event_log.marks = slowly  # type: ignore[method-assign]
    with structlog.testing.capture_logs() as lines:
        await shard.start()
        await until(lambda: deaths or any("damaged" in str(line["event"]) for line in lines))
    await shard.stop()

    assert len(deaths) == 1 and "shard/0000" in deaths[0]
    assert not [line for line in lines if "damaged" in str(line["event"])]


@pytest.mark.asyncio
async def test_a_shard_is_stopped_whole_while_its_store_is_away() -> None:
    store = MemoryStore()
    closed: list[str] = []

    class Archive(MemoryArchive):
        async def close(self) -> None:
            closed.append("archive")

    log = MemoryEventLog(store, "shard/0000")
    shard = IncidentShard(
        Host("shard-0000-a", LocalCluster(), lambda _why: None),
        ShardOptions("shard/0000"),
        ShardSettings(),
        log,
        Archive(store, "shard/0000"),
        DeliveryWindow(MemoryDeliveryIds(store, "shard/0000"), 600.0),
        SettableClock(),
    )
    await shard.start()
    await until(lambda: shard._ready)

    async def release(_epoch: int) -> None:
        raise Unavailable("the store is away")

    log.release = release  # type: ignore[method-assign, assignment]
    await shard.stop()

    assert closed == ["archive"]


@pytest.mark.asyncio
async def test_a_recovery_knows_nothing_of_one_that_failed_before_it() -> None:
    """A store that goes away in the middle of each: what they met was gathered without end, also what its log lost meanwhile,
    and was then taken for accepted."""
    store = MemoryStore()
    log = MemoryEventLog(store, "shard/0000")
    window = DeliveryWindow(MemoryDeliveryIds(store, "shard/0000"), 600.0)
    shard = IncidentShard(
        Host("shard-0000-a", LocalCluster(), lambda _why: None),
        ShardOptions("shard/0000"),
        ShardSettings(),
        log,
        MemoryArchive(store, "shard/0000"),
        window,
        SettableClock(),
    )
    read, tries = log.read, count()

    async def fails_twice(after: int, limit_bytes: int = 0) -> list[tuple[int, bytes]]:
        if next(tries) < 2:
            window.replayed(CallAnswered(b"call", b"answer", "lost-by-a-failover"), time.time())
            raise Unavailable("away in the middle")
        return await read(after)

    log.read = fails_twice  # type: ignore[method-assign]
    await shard.start()
    await until(lambda: shard._ready)

    assert await window.store.seen(["lost-by-a-failover"]) == {}
    await shard.stop()


@pytest.mark.asyncio
async def test_what_a_recovery_met_is_written_in_slices() -> None:
    store = MemoryDeliveryIds(MemoryStore(), "shard/0000")
    sizes: list[int] = []
    add = store.add

    async def counted(entries: Sequence[tuple[str, float, bytes]]) -> None:
        sizes.append(len(entries))
        await add(entries)

    store.add = counted  # type: ignore[method-assign]
    window = DeliveryWindow(store, 600.0)
    window.recovering()
    for number in range(2500):
        window.replayed(CallAnswered(b"call", b"answer", f"delivery-{number}"), 1000.0)

    await window.recovered(1001.0)

    assert sum(sizes) == 2500 and max(sizes) <= 1000
    assert len(await store.seen([f"delivery-{number}" for number in range(2500)])) == 2500
    await window.close()
