"""Backups on time: when one is due, whose it is, what happens when it fails."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import structlog.testing

from actors.runtime.host import Actor, Host
from actors.runtime.local import LocalCluster
from models.backup import backup_id
from models.metrics import decode as decode_metrics
from models.settings.all import Settings
from models.shard.events import ShardStarted
from services.machine import logs
from services.upkeep.backup.schedule import BackupRunner
from services.upkeep.backup.target import Target
from services.wiring import bootstrap
from services.wiring.actors import plan
from tests.clock import ManualClock
from tests.contract import backup_peers as peers


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target(str(tmp_path / "backups"))


@pytest.fixture
def stores() -> peers.MemoryStores:
    return peers.MemoryStores()


class Control:
    """The control partition's writer, as far as the schedule asks it."""

    def __init__(self, host: Host) -> None:
        self.leads = True

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    async def status(self, _payload: bytes) -> bytes:
        return msgspec.json.encode({"ready": True, "leads": self.leads})


class Scheduled:
    """A schedule beside its control partition, over a store and a target."""

    def __init__(self, stores: peers.MemoryStores, target: Callable[[], Target], clock: ManualClock) -> None:
        self.cluster = LocalCluster()
        self.clock = clock
        self._make = lambda host: BackupRunner(
            host,
            stores,
            target,
            clock,
            backend="memory",
            interval_s=3600.0,
            retention_s=2 * 3600.0,
            control="control-a",
            look_s=0.01,
        )

    async def __aenter__(self) -> Scheduled:
        await self.cluster.start("control-a", Control)
        await self.cluster.start("backup-0", self._make)
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.cluster.stop()

    async def restart(self) -> None:
        actor = self.cluster.kill("backup-0")
        assert actor is not None
        await actor.stop()
        await self.cluster.restart("backup-0")

    def control(self) -> Control:
        actor: Actor | None = self.cluster.get("control-a")
        assert isinstance(actor, Control)
        return actor

    async def count(self, metric: str) -> float:
        actor = self.cluster.get("backup-0")
        assert isinstance(actor, BackupRunner)
        reading = decode_metrics(await actor.metrics(b""))
        return sum(each.value for each in [*reading.counters, *reading.gauges] if each.name == metric)

    async def until(self, metric: str, value: float) -> None:
        async with asyncio.timeout(5):
            while await self.count(metric) < value:
                await asyncio.sleep(0.005)


@pytest.mark.asyncio
async def test_backups_are_made_on_time_and_a_restart_neither_forgets_nor_repeats_one(
    stores: peers.MemoryStores, target: Target
) -> None:
    await peers.small(stores)
    clock = ManualClock(1_000_000.0)
    async with Scheduled(stores, lambda: target, clock) as scheduled:
        await scheduled.until("llm_im_backups_total", 1)
        await scheduled.restart()
        await scheduled.until("llm_im_backup_success_timestamp_seconds", 1_000_000.0)
        clock.forward(3599.0)
        await asyncio.sleep(0.05)
        assert await target.ids() == [backup_id(1_000_000.0)]

        clock.forward(2.0)
        await scheduled.until("llm_im_backups_total", 1)
        assert await target.ids() == [backup_id(1_000_000.0), backup_id(1_003_601.0)]
        for _ in range(2):
            clock.forward(3601.0)
            await scheduled.until("llm_im_backup_success_timestamp_seconds", clock.now())
        async with asyncio.timeout(5):
            while len(await target.ids()) > 2:
                await asyncio.sleep(0.005)

    assert await target.ids() == [backup_id(clock.now() - 3601.0), backup_id(clock.now())], (
        "older than the retention"
    )


@pytest.mark.asyncio
async def test_only_beside_who_holds_the_control_partition_is_one_made(
    stores: peers.MemoryStores, target: Target
) -> None:
    await peers.small(stores)
    scheduled = Scheduled(stores, lambda: target, ManualClock(1_000_000.0))
    await scheduled.cluster.start("control-a", Control)
    scheduled.control().leads = False
    async with scheduled:
        await asyncio.sleep(0.05)
        assert await target.ids() == []
        scheduled.control().leads = True
        await scheduled.until("llm_im_backups_total", 1)


@pytest.mark.asyncio
async def test_a_backup_that_fails_is_an_error_that_says_why_is_counted_and_tried_again(
    stores: peers.MemoryStores, tmp_path: Path
) -> None:
    await peers.small(stores)
    place = tmp_path / "disk"
    place.touch()
    with structlog.testing.capture_logs() as lines:
        async with Scheduled(stores, lambda: Target(str(place)), ManualClock(1_000_000.0)) as scheduled:
            await scheduled.until("llm_im_backup_failures_total", 1)
            assert await scheduled.count("llm_im_backups_total") == 0
            place.unlink()
            await scheduled.until("llm_im_backups_total", 1)

    told = next(line for line in lines if line["event"] == "backup failed")
    assert (told["log_level"], told["actor"]) == ("error", "backup-0")
    assert "Not a directory" in told["why"]


@pytest.mark.asyncio
async def test_the_settings_start_an_actor_that_makes_them_at_low_priority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nice: list[int] = []
    monkeypatch.setattr(os, "nice", nice.append)
    monkeypatch.setattr(logs, "configure", lambda *_how: None)
    state = {"path": str(tmp_path)}
    assert "backup-0" not in {each.name for each in plan(Settings.model_validate({"state": state}))}
    wanted = {"backup_target": str(tmp_path / "backups"), "backup_interval": "1h"}
    settings = Settings.model_validate({"state": state, "disaster_recovery": wanted})
    await peers.small(peers.sqlite(tmp_path / "store"))
    cluster = LocalCluster()
    await cluster.start("control-a", Control)

    (found,) = [each for each in plan(settings) if each.name == "backup-0"]
    await cluster.start(found.name, lambda host: bootstrap.backup_actor(found.config, host))

    try:
        async with asyncio.timeout(5):
            while not await Target(str(tmp_path / "backups")).ids():
                await asyncio.sleep(0.01)
    finally:
        await cluster.stop()
    assert nice == [bootstrap.BACKUP_NICE]


@pytest.mark.asyncio
async def test_a_clock_that_was_set_back_neither_ends_backups_nor_goes_unnoticed(
    stores: peers.MemoryStores, target: Target
) -> None:
    shard = await peers.small(stores)
    clock = ManualClock(1_000_000.0)
    async with Scheduled(stores, lambda: target, clock) as scheduled:
        await scheduled.until("llm_im_backups_total", 1)
        clock.jump(-86_400.0)
        await scheduled.restart()

        await scheduled.until("llm_im_backups_total", 1)

        await shard.write(1_000_001.0, ShardStarted(1, "before the clock was set back", 0.0))
        clock.forward(3601.0)
        with structlog.testing.capture_logs() as lines:
            await scheduled.until("llm_im_backup_failures_total", 1)
    assert any("or one was set back" in line.get("why", "") for line in lines)
