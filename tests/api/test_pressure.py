"""Full queues, shards that are away, full disks: a named refusal, nothing acknowledged lost, recovery without hands."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import apsw
import pytest

import actors.shard
import services.ingest.doors.http
from actors.runtime.host import Actor
from actors.shard import IncidentShard
from services.stores.memory.log import MemoryEventLog
from tests.api.gateway_in_process import (
    MemoryStores,
    Reply,
    SettableClock,
    SqliteStores,
    Stores,
    System,
    alert,
    system,
)

V2, V1 = "/api/v2/alerts", "/v1/alerts"
DOORS = pytest.mark.parametrize("door", [V2, V1])
TYPED = [(b"content-type", b"application/json")]
#: Series without an end end soon, and the grace after a silence is short as well.
LIFECYCLE = {"resolve_timeout": "20s", "expiry_grace": "30s"}


def is_busy(answer: Reply) -> bool:
    """A refusal that says when to come again."""
    return answer.status in (429, 503) and int(answer.headers["retry-after"]) >= 1 and bool(answer.json)


class Gate:
    """Holds up a shard's appends, as a slow disk does, until opened."""

    def __init__(self, actor: Actor | None) -> None:
        self.opened = asyncio.Event()
        self.waiting = 0
        log = actor.event_log  # type: ignore[union-attr]
        self._append = log.append
        log.append = self._wait

    async def _wait(self, *given: object) -> None:
        self.waiting += 1
        await self.opened.wait()
        await self._append(*given)


async def until(holds: Callable[[], object], timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.005)


# -- bounded queues --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("both_ways")
@DOORS
@pytest.mark.asyncio
async def test_past_the_alerts_a_gateway_holds_senders_are_told_to_come_again_and_no_2xx_is_lost(
    door: str,
) -> None:
    async with system(server={"max_inflight_alerts": 200}) as ours:
        gate = Gate(ours.cluster.get(ours.shards[0]))
        batches = [[alert(f"B{batch}N{number}") for number in range(10)] for batch in range(50)]

        sending = [asyncio.ensure_future(ours.post(door, batch)) for batch in batches]
        await until(lambda: sum(each.done() for each in sending) >= 40)
        refused = [each.result() for each in sending if each.done()]
        gate.opened.set()
        answers = await asyncio.gather(*sending)

        assert len(refused) == 40 and all(map(is_busy, refused))
        stored = await ours.names()
        for batch, answer in zip(batches, answers, strict=True):
            names = {each["labels"]["alertname"] for each in batch}
            assert names <= stored if answer.status in (200, 202) else is_busy(answer)
        again = [await ours.post(door, batch) for batch in batches]
        assert {answer.status for answer in again} <= {200, 202}
        assert len(await ours.names()) == 500


@pytest.mark.usefixtures("both_ways")
@DOORS
@pytest.mark.asyncio
async def test_past_the_inbox_of_a_shard_senders_are_told_to_come_again(
    door: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with system() as ours:
        shard = ours.cluster.get(ours.shards[0])
        assert isinstance(shard, IncidentShard)
        gate = Gate(shard)
        first = asyncio.ensure_future(ours.post(door, [alert("First")]))
        await until(lambda: gate.waiting)
        # Another gateway's alerts fill the inbox.
        import msgspec

        from models.shard.messages import AlertsArrived, encode

        filler = encode(
            AlertsArrived(b"x" * 16, "default", "v1", [b"k" * 24] * 100, [1.0] * 100, [b""] * 100)
        )
        filling = asyncio.ensure_future(
            ours.cluster.call(ours.shards[0], "tell", msgspec.msgpack.encode([filler]), 10.0)
        )
        await until(lambda: shard._inbox_weight >= 100)
        monkeypatch.setattr(actors.shard, "INBOX_ALERTS_MAX", 100)

        refused = await ours.post(door, [alert("Second")])
        gate.opened.set()

        assert is_busy(refused), refused
        assert (await first).status in (200, 202)
        await filling
        assert (await ours.post(door, [alert("Second")])).status in (200, 202)
        assert await ours.names() == {"First", "Second"}


@DOORS
@pytest.mark.asyncio
async def test_past_the_requests_at_once_senders_are_told_to_come_again(
    door: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services.ingest.doors.http, "REQUESTS_MAX", 20)
    async with system() as ours:
        gate = Gate(ours.cluster.get(ours.shards[0]))

        sending = [asyncio.ensure_future(ours.post(door, [alert(f"N{number}")])) for number in range(30)]
        await until(lambda: sum(each.done() for each in sending) >= 10)
        gate.opened.set()
        answers = await asyncio.gather(*sending)

        assert sum(map(is_busy, answers)) == 10
        stored = await ours.names()
        assert stored == {f"N{place}" for place, answer in enumerate(answers) if answer.status in (200, 202)}
        assert (await ours.get("/-/healthy")).status == 200


@pytest.mark.asyncio
async def test_bodies_that_many_slow_senders_hold_are_bounded_together() -> None:
    async with system(server={"max_body_bytes": 10_000, "body_timeout": 5.0}) as ours:
        go = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b"[" + b" " * 9000
            await go.wait()
            yield json.dumps(alert("Slow")).encode() + b"]"

        sending = [asyncio.ensure_future(ours.request("POST", V1, slow(), TYPED)) for _ in range(40)]
        await until(lambda: sum(each.done() for each in sending) >= 23)
        small = await ours.post(V1, [alert("Small")])
        go.set()
        answers = await asyncio.gather(*sending)

        assert sorted({answer.status for answer in answers}) == [202, 503]
        assert all(is_busy(answer) for answer in answers if answer.status == 503)
        assert small.status == 202
        assert ours.gateway.http._room.held == 0


# -- a shard that is away --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("both_ways")
@pytest.mark.asyncio
async def test_a_shard_away_is_503_on_v2_and_207_by_item_on_v1_and_the_others_part_is_stored() -> None:
    async with system(server={"hold": 0.3}) as ours:
        await until(lambda: ours.gateway._started)
        await ours.crash(ours.shards[1])

        v2 = await ours.post(V2, [alert("A1"), alert("A2", "db")])
        v1 = await ours.post(V1, [alert("B1"), alert("B2", "db"), {"labels": {}}])
        none = await ours.post(V1, [alert("C2", "db")])
        listing = await ours.get(V2)

        assert is_busy(v2) and v2.status == 503 and isinstance(v2.json, str) and "shard-0001" in v2.json
        assert v1.status == 207 and int(v1.headers["retry-after"]) >= 1
        assert [item["status"] for item in v1.items] == [202, 503, 400]
        assert "shard-0001" in str(v1.items[1]["error"])
        assert none.status == 503 and is_busy(none)
        # Not a list that is shorter than the truth.
        assert listing.status == 503 and "shard" in str(listing.json)
        assert (await ours.get(f"/v1/incidents/{v1.items[0]['incident_id']}")).status == 200
        assert (await ours.get("/health/ready")).json["status"] == "degraded"

        await ours.cluster.restart(ours.shards[1])
        await ours.ready()
        for door, batch in ((V2, [alert("A1"), alert("A2", "db")]), (V1, [alert("B1"), alert("B2", "db")])):
            assert (await ours.post(door, batch)).status in (200, 202)
        assert await ours.names() == {"A1", "A2", "B1", "B2"}
        assert len((await ours.get("/v1/incidents")).json["items"]) == 4


@pytest.mark.usefixtures("both_ways")
@DOORS
@pytest.mark.asyncio
async def test_a_shard_that_comes_back_within_hold_costs_its_senders_only_time(door: str) -> None:
    async with system(server={"hold": 8.0}) as ours:
        await ours.post(door, [alert("Before")])
        await ours.crash(ours.shards[0])

        sending = [asyncio.ensure_future(ours.post(door, [alert(f"During{number}")])) for number in range(20)]
        await asyncio.sleep(0.2)
        assert not any(each.done() for each in sending)
        await ours.cluster.restart(ours.shards[0])
        answers = await asyncio.gather(*sending)

        assert {answer.status for answer in answers} <= {200, 202}
        assert await ours.names() == {"Before", *(f"During{number}" for number in range(20))}


# -- a full disk -----------------------------------------------------------------------------------------------


class Disk:
    """A store whose room can be taken away and given back."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.folder = folder
        self.stores: Stores = MemoryStores() if kind == "memory" else SqliteStores(folder)
        self._logs: list[object] = []

    async def fill(self, ours: System) -> None:
        """No byte more."""
        if isinstance(self.stores, MemoryStores):
            self.stores.store.max_bytes = 0
            return
        for name in ours.shards:
            log = ours.cluster.get(name).event_log  # type: ignore[union-attr]
            self._logs.append(log)
            # As SqliteEventLog(max_bytes=...) sets it: SQLite takes what the file has for the least. What is free
            # inside is used up first.
            await log._writer.run(lambda connection: connection.pragma("max_page_count", 1))

    async def free(self, ours: System) -> None:
        if isinstance(self.stores, MemoryStores):
            self.stores.store.max_bytes = None
            return
        for log in self._logs:
            await log._writer.run(lambda connection: connection.pragma("max_page_count", 1_000_000))  # type: ignore[attr-defined]

    def check(self) -> None:
        if isinstance(self.stores, SqliteStores):
            for path in self.folder.glob("*.db"):
                connection = apsw.Connection(str(path))
                assert connection.pragma("integrity_check") == "ok", path
                connection.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_full_disk_is_503_and_what_was_acknowledged_is_there_when_room_returns(
    kind: str, tmp_path: Path
) -> None:
    disk = Disk(kind, tmp_path)
    async with system(disk.stores, server={"hold": 0.3}, lifecycle={"resolve_timeout": "60s"}) as ours:
        acknowledged = {f"Before{number}" for number in range(20)}
        answer = await ours.post(
            V2, [alert(name, service) for name in acknowledged for service in ("api", "db")]
        )
        assert answer.status == 200
        await disk.fill(ours)

        refused = []
        async with asyncio.timeout(20):
            # Free room inside the file's last page is used up first.
            for number in range(1000):
                name = f"During{number}"
                large = {"labels": {"alertname": name, "service": "api"}, "annotations": {"x": name * 1500}}
                answer = await ours.post(V2, [large])
                if answer.status == 200:
                    acknowledged.add(name)
                    continue
                assert is_busy(answer), answer
                refused.append(answer)
                if len(refused) == 3:
                    break
        by_item = await ours.post(V1, [alert("Item", "api", big="y" * 16_000), {"labels": {}}])
        reads = [
            await ours.get(path) for path in (V2, "/v1/incidents", "/health/ready", "/-/healthy", "/metrics")
        ]
        await disk.free(ours)
        await ours.ready()

        assert len(refused) == 3
        assert by_item.status == 503 and [item["status"] for item in by_item.items] == [503, 400]
        # A read is whole or it is a 503; what needs no shard goes on.
        assert {answer.status for answer in reads} <= {200, 503}
        assert [answer.status for answer in reads[3:]] == [200, 200]
        async with asyncio.timeout(10):
            while (after := await ours.post(V2, [alert("After"), alert("After", "db")])).status != 200:
                assert is_busy(after)
        assert acknowledged | {"After"} <= await ours.names()
        assert not ours.cluster.deaths
    disk.check()

    async with system(disk.stores) as again:
        assert acknowledged | {"After"} <= await again.names()


@pytest.mark.asyncio
async def test_nothing_expires_for_the_time_the_disk_was_full() -> None:
    disk, clock = Disk("memory", Path()), SettableClock()
    async with system(disk.stores, clock=clock, server={"hold": 0.2}, lifecycle=LIFECYCLE) as ours:
        assert (await ours.post(V2, [alert("Fires")])).status == 200
        await disk.fill(ours)
        assert (await ours.post(V2, [alert("Fires")])).status == 503

        clock.ahead_s += 600
        await disk.free(ours)
        async with asyncio.timeout(15):
            while (await ours.get("/health/ready")).json["status"] != "ready":
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)

        assert await ours.names() == {"Fires"}
        await grace_passes(ours, clock)
        assert await ours.names() == set()


async def grace_passes(ours: System, clock: SettableClock) -> None:
    """31 s, in which everybody is heard: in steps too short to be a silence."""
    for _ in range(8):
        clock.heard_s += 4
        await asyncio.sleep(0.25)


@pytest.mark.asyncio
async def test_a_clock_that_is_put_forward_ends_no_series() -> None:
    clock = SettableClock()
    async with system(clock=clock, lifecycle=LIFECYCLE) as ours:
        assert (await ours.post(V2, [alert("Fires")])).status == 200

        clock.heard_s += 600
        await asyncio.sleep(0.5)

        assert await ours.names() == {"Fires"}
        await grace_passes(ours, clock)
        assert await ours.names() == set()


@pytest.mark.asyncio
async def test_where_every_tick_is_late_incidents_close_all_the_same() -> None:
    clock = SettableClock()
    async with system(clock=clock, lifecycle={"close_after": "1m", "reopen_window": "1m"}) as ours:
        for status in ("firing", "resolved"):
            sent = await ours.post(V1, [alert("Ends") | {"status": status}])
        path = f"/v1/incidents/{sent.items[0]['incident_id']}"

        async with asyncio.timeout(5):
            while (await ours.get(path)).json["state"] != "Closed":
                clock.heard_s += 10
                await asyncio.sleep(0.02)


@pytest.mark.asyncio
async def test_nothing_expires_for_the_time_a_recovery_stood_still(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, append = SettableClock(), MemoryEventLog.append

    async def stands_still(self: MemoryEventLog, *given: object) -> None:
        clock.ahead_s += 600
        await append(self, *given)  # type: ignore[arg-type]

    async with system(clock=clock, lifecycle=LIFECYCLE) as ours:
        assert (await ours.post(V2, [alert("Fires")])).status == 200
        await ours.crash("shard-0000-a")
        with monkeypatch.context() as patch:
            patch.setattr(MemoryEventLog, "append", stands_still)
            await ours.cluster.restart("shard-0000-a")
            async with asyncio.timeout(5):
                while not clock.ahead_s:
                    await asyncio.sleep(0)
        await ours.ready()
        await asyncio.sleep(0.5)

        assert await ours.names() == {"Fires"}
