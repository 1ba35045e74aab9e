"""Two tenants in one shard: every frame bears the tenant whose it is, and each is told of its own, whatever frame that is in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest
import pytest_asyncio

from actors.classifier import ClassifierActor
from actors.control import ControlActor
from actors.control_tail import ControlTail
from actors.delivery import DeliveryWindow
from actors.responder import ResponderActor
from actors.runtime.host import Host
from actors.runtime.local import LocalCluster
from actors.shard import IncidentShard, ShardOptions
from models.alerts.alert import key_digest, series_id
from models.classification.rules import Classifier
from models.control.control import CONTROL
from models.incidents.incident import Incident, IncidentState
from models.incidents.notification import Facts, Note
from models.incidents.query import GetIncident, ListIncidents, ListSummaries, decode_answer
from models.incidents.query import encode as encode_query
from models.incidents.verbs import Acknowledge, Comment, Merge
from models.partition.frames import EVERYONE, NO_DIGEST, Frame, encode_frame
from models.partitions import decode_frame
from models.ports import ActionResult
from models.shard.archiving import IncidentArchived
from models.shard.children import IncidentMergedInto
from models.shard.classification import IncidentClassified
from models.shard.events import (
    ActionSucceeded,
    AlertsObserved,
    CallAnswered,
    ClockSetBack,
    IncidentOpened,
    IncidentStateChanged,
    SeriesResolved,
    ShardStarted,
)
from models.shard.messages import AlertsArrived, Command, CommandDone, Failed, Reply, decode_reply, encode
from models.shard.settings import ShardSettings
from models.stream.happenings import about
from services.feed.follow import Follower, Page
from services.stores.memory.archive import MemoryArchive
from services.stores.memory.delivery_ids import MemoryDeliveryIds
from services.stores.memory.log import MemoryEventLog
from services.stores.memory.store import MemoryStore
from tests.api.gateway_in_process import SettableClock
from tests.scenario import alert

PARTITION, SHARD = "shard/0000", "shard-0000-a"
TENANTS = ("red", "blue")
SETTINGS = ShardSettings(
    notify=True,
    wait_s=(0.0,) * 5,
    interval_s=0.0,
    close_after_s=5.0,
    reopen_window_s=5.0,
    expiry_grace_s=0.0,
)
FOR_GOOD_S = 1e9


class Hook:
    """A receiver that takes everything."""

    def render(self, facts: Facts) -> bytes:
        return facts.reason.encode()

    async def act(self, key: str, facts: Facts, trace: str | None = None) -> ActionResult:
        return ActionResult(True, "taken")

    async def say(self, key: str, note: Note, trace: str | None = None) -> ActionResult:
        return ActionResult(ok=True, detail="said")

    async def close(self) -> None: ...


class World:
    """One shard with all it needs, over stores in memory."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.clock = SettableClock()
        self.cluster = LocalCluster()
        self._calls = 0

    @property
    def shard(self) -> IncidentShard:
        actor = self.cluster.get(SHARD)
        assert isinstance(actor, IncidentShard)
        return actor

    def log(self, partition: str = PARTITION) -> MemoryEventLog:
        return MemoryEventLog(self.store, partition)

    async def start(self) -> None:
        def control(host: Host) -> ControlActor:
            return ControlActor(host, self.log(CONTROL), self.clock, 1)

        def shard(host: Host) -> IncidentShard:
            return IncidentShard(
                host,
                ShardOptions(PARTITION, ["classifier-0"], ["responder-0"], [SHARD]),
                SETTINGS,
                self.log(),
                MemoryArchive(self.store, PARTITION),
                DeliveryWindow(MemoryDeliveryIds(self.store, PARTITION), 600.0),
                self.clock,
                ControlTail(self.log(CONTROL)),
            )

        await self.cluster.start("control-a", control)
        await self.cluster.start("classifier-0", lambda host: ClassifierActor(host, Classifier()))
        await self.cluster.start("responder-0", lambda host: ResponderActor(host, {"webhook": Hook()}))
        await self.cluster.start(SHARD, shard)
        await until(lambda: self.shard._ready)

    async def tell(self, message: AlertsArrived | Command) -> Reply:
        payload = msgspec.msgpack.encode([encode(message)])
        (reply,) = msgspec.msgpack.decode(await self.shard.tell(payload))
        return decode_reply(reply)

    async def push(self, tenant: str, *services: str, lasts_s: float = FOR_GOOD_S) -> None:
        self._calls += 1
        alerts = [alert(service, "Down") for service in services]
        await self.tell(
            AlertsArrived(
                b"%016d" % self._calls,
                tenant,
                "test",
                [series_id(tenant, each.labels) + key_digest(each.body) for each in alerts],
                [self.clock.now() + lasts_s] * len(alerts),
                [each.body for each in alerts],
                True,
            )
        )

    async def command(self, incident: Incident, verb: Comment | Merge) -> Reply:
        self._calls += 1
        return await self.tell(Command(b"%016d" % self._calls, incident.tenant, "ann", incident.id, verb))

    def incident(self, tenant: str, service: str) -> Incident:
        (found,) = [
            each
            for each in self.shard.shard.state.incidents.values()
            if (each.tenant, each.service) == (tenant, service)
        ]
        return found

    async def frames(self) -> list[Frame]:
        return [decode_frame(PARTITION, stored, seq, None) for seq, stored in await self.log().read(0)]

    async def follow(self, tenant: str) -> list[Page]:
        """All pages of a follower of this tenant, from the beginning."""
        follower = Follower(self.log(), self.shard.ask, self.archived, tenant, 0, 1000, all_changes=True)
        pages = []
        while (page := await follower.read()).stored:
            pages.append(page)
        return pages

    async def archived(self, identity: bytes) -> Incident | None:
        found = await MemoryArchive(self.store, PARTITION).get(identity)
        return None if found is None else msgspec.msgpack.decode(found.record, type=Incident)


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    ours = World()
    await ours.start()
    try:
        yield ours
    finally:
        await ours.cluster.stop()


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)


async def lived() -> AsyncIterator[World]:
    """A world in which everything that a shard can do happened to both tenants, mostly at the same time."""
    async with world() as ours:
        for tenant in TENANTS:
            await ours.push(tenant, "api", "db", "web")
            await ours.push(tenant, "brief", lasts_s=2.0)
        shard = ours.shard.shard.state
        await until(lambda: all(each.classified_by for each in shard.incidents.values()))
        await until(
            lambda: not any(each.notification_of("webhook").reason for each in shard.incidents.values())
        )
        for tenant in TENANTS:
            target, source = ours.incident(tenant, "api"), ours.incident(tenant, "db")
            assert isinstance(await ours.command(target, Comment("looking")), CommandDone)
            assert isinstance(await ours.command(target, Merge(source.id)), CommandDone)
        await until(lambda: all(ours.incident(tenant, "db").merged_into for tenant in TENANTS))
        await ours.shard.beat(b"")
        ours.clock.heard_s += 3.0
        brief = [ours.incident(tenant, "brief") for tenant in TENANTS]
        await until(lambda: all(each.state is IncidentState.RESOLVED for each in brief))
        for tenant in TENANTS:
            await ours.push(tenant, "api", "db", "web")
        for _ in range(3):
            await ours.shard.beat(b"")
            ours.clock.heard_s += 3.0
            await asyncio.sleep(0.3)
        await until(lambda: not any(each.id in shard.incidents for each in brief))
        yield ours


whole_life = pytest_asyncio.fixture(lived, name="ours")


async def owners(frames: list[Frame]) -> dict[bytes, str]:
    return {
        event.incident_id: event.tenant
        for frame in frames
        for event in frame.events
        if isinstance(event, IncidentOpened)
    }


def told(pages: list[Page]) -> list[tuple[bytes, str, str]]:
    """Who is told of, what, and its text."""
    return [
        (happening.after.id, happening.line.kind, happening.line.text)
        for page in pages
        for happening in page.happenings
    ]


@pytest.mark.asyncio
async def test_every_frame_bears_the_tenant_whose_all_of_it_is(ours: World) -> None:
    frames = await ours.frames()
    whose = await owners(frames)

    seen: dict[type, set[str]] = {}
    for frame in frames:
        for event in frame.events:
            seen.setdefault(type(event), set()).add(frame.tenant)
            for identity in about(event):
                assert whose[identity] == frame.tenant, event
    assert seen[ShardStarted] == {EVERYONE}
    for kind in (
        AlertsObserved, SeriesResolved, IncidentClassified, IncidentStateChanged, IncidentMergedInto, ActionSucceeded, IncidentArchived
    ):  # fmt: skip
        assert seen[kind] == {*TENANTS}, kind


@pytest.mark.asyncio
@pytest.mark.parametrize("tenant", TENANTS)
async def test_a_follower_is_told_of_all_that_is_its_tenants_and_of_nothing_else(
    ours: World, tenant: str
) -> None:
    whose = await owners(await ours.frames())
    found = told(await ours.follow(tenant))

    assert {identity for identity, _kind, _text in found} == {
        identity for identity, owner in whose.items() if owner == tenant
    }
    kinds = {kind for _identity, kind, _text in found}
    assert {"Created", "Classified", "CommentAdded", "Merged", "Resolved", "NotificationSent"} <= kinds


@pytest.mark.asyncio
@pytest.mark.parametrize("tenant", TENANTS)
async def test_a_log_whose_frames_of_time_and_verdicts_bear_the_default_tenants_name_tells_each_the_same(
    ours: World, tenant: str
) -> None:
    """As versions up to 0.3.0 wrote it: only requests bore their own."""
    older, digest = MemoryEventLog(MemoryStore(), PARTITION), NO_DIGEST
    epoch = (await older.open("older", 0.0, 1.0)).epoch
    for frame in await ours.frames():
        is_request = any(isinstance(event, CallAnswered) for event in frame.events)
        tag = frame.tenant if is_request else "default"
        stored, digest = encode_frame(frame.seq, frame.now, tag, frame.trace_id, frame.events, digest)
        await older.append(epoch, frame.seq, [stored])
    expected = told(await ours.follow(tenant))
    ours.log = lambda partition=PARTITION: older  # type: ignore[method-assign]

    assert told(await ours.follow(tenant)) == expected


@pytest.mark.asyncio
async def test_a_tenant_of_whom_nothing_is_there_is_told_nothing(ours: World) -> None:
    assert not told(await ours.follow("default"))


@pytest.mark.asyncio
@pytest.mark.parametrize("tenant", TENANTS)
async def test_lists_and_reads_are_of_the_asked_tenant(ours: World, tenant: str) -> None:
    other = next(each for each in TENANTS if each != tenant)
    here = {each.id for each in ours.shard.shard.state.incidents.values() if each.tenant == tenant}
    children = {each.id for each in ours.shard.shard.state.incidents.values() if each.merged_into}
    theirs = ours.incident(other, "api").id

    listed = decode_answer(await ours.shard.ask(encode_query(ListIncidents(tenant))))
    summaries = decode_answer(await ours.shard.ask(encode_query(ListSummaries(tenant))))
    foreign = decode_answer(await ours.shard.ask(encode_query(GetIncident(tenant, theirs))))
    refused = await ours.tell(Command(b"x" * 16, tenant, "ann", theirs, Acknowledge()))

    assert {each.incident.id for each in listed.items} == here - children  # type: ignore[union-attr]
    assert {each.id for each in summaries.items} == here  # type: ignore[union-attr]
    assert not foreign.items  # type: ignore[union-attr]
    assert isinstance(refused, Failed) and refused.kind == "NotFound"


@pytest.mark.asyncio
async def test_a_clock_that_is_set_back_is_told_to_the_followers_of_every_tenant(ours: World) -> None:
    ours.clock.ahead_s -= 100.0
    await ours.push("red", "later")
    await ours.shard.beat(b"")

    for tenant in (*TENANTS, "default"):
        assert [page.set_back for page in await ours.follow(tenant)].count(True) == 1, tenant
    (frame,) = [
        each for each in await ours.frames() if any(isinstance(event, ClockSetBack) for event in each.events)
    ]
    assert frame.tenant == EVERYONE
