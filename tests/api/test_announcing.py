"""What happens to incidents, written to real queues: nothing is missing, the order of each incident holds, what comes again has the
same id, whoever is killed or away."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from models.control.polls import MoveCursor, Polls, TakePoll
from models.errors import Conflict
from models.settings.all import Settings
from models.settings.processes import ANNOUNCER
from models.shard.settings import ShardSettings
from services.feed import announce, announce_shard, outlet
from services.feed.announce_shard import Standing
from services.feed.announcements import ORCHESTRATED
from services.upkeep.resharding import reshard
from services.wiring import bootstrap
from services.wiring.actors import plan
from services.wiring.bootstrap import ANNOUNCER_ACTOR
from tests.api.announcing import Outside, counted, kill, timelines, until
from tests.api.gateway_in_process import SettableClock, SqliteStores, System, alert, system
from tests.api.queue_peers import KafkaPeer, NatsPeer, Peer, RabbitPeer
from tests.api.test_moving import Kept
from tests.contract.proxy import Proxy
from tests.ports import free_port

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(180)]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, seconds in (
        (announce, "CURSOR_S", 0.05), (announce, "LEASE_S", 1.0),
        (announce_shard, "POLL_S", 0.02), (announce_shard, "RETRY_S", 0.05), (announce_shard, "RETRY_MAX_S", 0.1),
        (outlet, "RETRY_S", 0.05), (outlet, "RETRY_MAX_S", 0.2),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, seconds)


async def opened(ours: System, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        answer = await ours.post(
            "/api/v2/alerts", [alert(f"Down{number}"), alert(f"Slow{number}", "db", group=str(number))]
        )
        assert answer.status == 200, answer


async def worked_on(ours: System) -> None:
    """Each incident is changed some times."""
    for each in (await ours.get("/v1/incidents?limit=500")).items:
        for verb, body in (("acknowledge", {}), ("comment", {"text": "on it"}), ("resolve", {})):
            await ours.post(f"/v1/incidents/{each['id']}/{verb}", body)


async def all_told(ours: System, outside: Outside) -> None:
    """Until readers know of each incident what its timeline has, in its order."""
    wanted: dict[str, list[str]] = {}
    found: dict[str, list[str]] = {}

    async def same() -> bool:
        nonlocal wanted, found
        wanted, found = await timelines(ours), await outside.kinds()
        return wanted == found

    try:
        await until(same, "all is told")
    except AssertionError:
        assert found == wanted
        raise


async def test_every_event_of_an_incident_is_written_in_order(peer: Peer) -> None:
    outside = Outside(peer)
    await outside.create()
    async with system() as ours:
        await outside.start(ours)
        await outside.begun()
        await opened(ours, 3)
        await worked_on(ours)
        await all_told(ours, outside)

        told = [each for each in await outside.read() if each["event"] == "incident"]
        assert {"Created", "Acknowledged", "CommentAdded", "Resolved"} <= {each["kind"] for each in told}
        assert set(await outside.gaps()) == {("shard/0000", "new"), ("shard/0001", "new")}
        line = next(each for each in told if each["kind"] == "CommentAdded")
        assert line["incident"]["state"] and line["text"].endswith("on it")
        orchestrated = await outside.read(outside.orchestrate)
        assert {each["kind"] for each in orchestrated if each["event"] == "incident"} <= ORCHESTRATED
        assert await counted(ours, "llm_im_announce_away") == 0


async def test_an_announcer_that_is_killed_again_and_again_leaves_nothing_out(peer: Peer) -> None:
    outside = Outside(peer)
    await outside.create()
    async with system() as ours:
        await outside.start(ours)
        await outside.begun()
        for round_ in range(3):
            await opened(ours, 6, 10 * round_)
            working = asyncio.create_task(worked_on(ours))
            await asyncio.sleep(0.15)  # in the middle of it, wherever that is
            await kill(ours)
            await outside.start(ours)
            await working
        await all_told(ours, outside)

        assert len(await outside.gaps()) == 2


async def test_a_stop_says_how_far_it_got_and_the_next_one_repeats_nothing(peer: Peer) -> None:
    outside = Outside(peer)
    await outside.create()
    async with system() as ours:
        await outside.start(ours)
        await outside.begun()
        await opened(ours, 4)
        await all_told(ours, outside)
        stopped = ours.cluster.kill(ANNOUNCER_ACTOR)
        assert stopped is not None
        await stopped.stop()
        await opened(ours, 2, 10)
        await outside.start(ours)
        await all_told(ours, outside)

        ids = Counter(json.loads(each.body)["id"] for each in await peer.read(outside.process))
        assert {*ids.values()} == {1}


async def test_while_the_broker_is_away_nobody_waits_and_nothing_is_missing_afterwards(peer: Peer) -> None:
    if not isinstance(peer, NatsPeer | RabbitPeer):
        pytest.skip("Kafka tells its clients where its brokers are: they pass by the proxy")
    outside = Outside(peer)
    await outside.create()
    async with system() as ours, Proxy(peer.port) as proxy:
        outside.broker = f"127.0.0.1:{proxy.port}"
        announcer = await outside.start(ours)
        await outside.begun()
        # The broker gets a message, and the connection breaks before it can confirm that.
        proxy.hurt("after", outside.process)
        proxy.target = free_port()
        await opened(ours, 3)

        async def says_so() -> bool:
            return "can't reach" in (await announcer.status(b"")).decode()

        await until(says_so, "its status says that the broker is away")
        assert proxy.hit.is_set() and await counted(ours, "llm_im_announce_away") == 1
        await worked_on(ours)
        proxy.target = peer.port
        await all_told(ours, outside)


async def test_a_broker_that_was_killed_has_all_of_it_afterwards(tmp_path: Path) -> None:
    peer = NatsPeer(tmp_path / "nats", user="incidents", password="s3cr3t")
    peer.start()
    try:
        outside = Outside(peer)
        await outside.create()
        async with system(SqliteStores(tmp_path / "store")) as ours:
            # As a system with these settings makes it.
            settings = Settings.model_validate(
                {
                    "messaging": outside.messaging | {"user": "incidents", "password": "s3cr3t"},
                    "state": {"path": str(tmp_path), "partitions": 2},
                }
            )
            [planned] = [each for each in plan(settings) if each.kind == ANNOUNCER]
            await ours.cluster.start(planned.name, partial(bootstrap.announcer_actor, planned.config))
            await outside.begun()
            await opened(ours, 2)
            await all_told(ours, outside)
            peer.stop(signal.SIGKILL)
            await opened(ours, 2, 10)
            peer.start()
            await worked_on(ours)
            await all_told(ours, outside)
    finally:
        peer.end()


async def test_a_topic_that_is_missing_is_named_and_written_to_once_it_is_there(peer: Peer) -> None:
    if isinstance(peer, KafkaPeer):
        pytest.skip("its mock makes every topic")
    outside = Outside(peer)
    await peer.create(outside.process)
    async with system() as ours:
        announcer = await outside.start(ours)

        async def says_so() -> bool:
            return outside.orchestrate in json.dumps([*json.loads(await announcer.status(b"")).values()])

        await until(says_so, "its status names what is missing")
        await peer.create(outside.orchestrate)
        await outside.begun()
        await opened(ours, 1)
        await all_told(ours, outside)


async def test_a_log_that_does_not_go_on_from_the_cursor_is_told_as_a_gap(peer: Peer) -> None:
    outside = Outside(peer)
    await outside.create()
    async with system() as ours:
        await outside.start(ours)
        await outside.begun()
        await opened(ours, 1)
        await all_told(ours, outside)
        await kill(ours)
        first, second = (
            Standing(10**6, b""),  # behind the end: another log
            Standing(1, b"\x01" * 8),  # another frame is there
        )
        announcer = ours.gateway.station
        owner = "somebody"

        async def taken() -> bool:
            try:
                await announcer.tell_control(TakePoll("announce/0", owner, 0.01))
            except Conflict:
                return False
            return True

        await until(taken, "the lease runs out")
        await announcer.tail.follow()
        found = announcer.tail.state.of(Polls).polls["announce/0"]
        assert announcer.tail.state.slots is not None
        cursor = announce._write_cursor(announcer.tail.state.slots.version, [first, second])
        await announcer.tell_control(MoveCursor("announce/0", found.epoch, cursor))

        await outside.start(ours)
        await outside.begun(4)

        # Those of one shard come in their order; what another one tells meanwhile may come between them.
        gaps = await outside.gaps()
        for shard in ("shard/0000", "shard/0001"):
            assert [why for of, why in gaps if of == shard] == ["new", "unknown"]
        await opened(ours, 1, 10)

        async def is_told() -> bool:
            return len(await outside.kinds()) == 4

        await until(is_told, "it goes on")


async def test_what_waited_when_services_moved_is_written_from_where_it_was(peer: Peer) -> None:
    if not isinstance(peer, KafkaPeer):
        pytest.skip("from where it goes on is the same whatever the broker")
    outside, kept, clock = Outside(peer), Kept(), SettableClock()
    await outside.create()

    async def stop(ours: System) -> None:
        stopped = ours.cluster.kill(ANNOUNCER_ACTOR)
        assert stopped is not None
        await stopped.stop()

    async with system(kept, clock=clock) as ours:  # type: ignore[arg-type]
        await outside.start(ours)
        await outside.begun()
        await opened(ours, 4)
        await all_told(ours, outside)
        await stop(ours)
        await opened(ours, 4, 10)
        await worked_on(ours)
    for partitions in (3, 1):
        await reshard(kept, ShardSettings(), partitions, clock, lambda _text: None)
        async with system(kept, clock=clock, state={"partitions": partitions}) as ours:  # type: ignore[arg-type]
            # Something happens before it begins, and while it writes what happened before.
            await opened(ours, 2, 100 * partitions)
            await outside.start(ours)
            await worked_on(ours)
            await all_told(ours, outside)
            await stop(ours)
            await opened(ours, 2, 1000 * partitions)
            await worked_on(ours)

    assert len(await outside.gaps()) == 2
