"""Redis as it runs in production: Sentinels that fail over for real, and a cluster whose slots move. Slower, so few."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.client import PubSub
from redis.crc import key_slot

from models.errors import Fenced, Unavailable
from models.ports import ArchiveQuery, DeadLetter, Mark
from services.stores.redis.archive import RedisArchive
from services.stores.redis.dead_letters import RedisDeadLetters
from services.stores.redis.delivery import RedisDeliveryIds
from services.stores.redis.log import RedisEventLog
from services.stores.redis.options import RedisOptions
from tests.api.for_verbs import opened
from tests.api.gateway_in_process import system
from tests.clock import ManualClock
from tests.contract.conftest import PARTITION, Chain
from tests.contract.feed_reader import Reader, publish, same, until
from tests.contract.redis_peers import Cluster, Failover, Server, wait_until
from tests.contract.test_archive import incident


@pytest.fixture
def failover(tmp_path: Path) -> Iterator[Failover]:
    started = Failover(tmp_path)
    try:
        yield started.start()
    finally:
        started.stop()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    started = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        yield started.start()
    finally:
        started.stop()


@pytest.mark.asyncio
async def test_a_failover_loses_nothing_acknowledged_and_fences_the_writer_before_it(
    failover: Failover, chain: Chain
) -> None:
    options = RedisOptions(failover.url, replicas=1, timeout_s=2.0)
    log, before = RedisEventLog(options, PARTITION), RedisEventLog(options, PARTITION)
    old_epoch = (await before.open("a", 0.0, 10.0)).epoch
    opened = await log.open("a", 0.0, 10.0)
    chain.digests[0] = opened.last_digest
    for _ in range(50):
        await log.append(opened.epoch, chain.seq + 1, chain.next(3, size=2000))
    acknowledged = chain.seq

    failover.primary.stop(signal.SIGKILL)
    begun = time.monotonic()
    refused = 0
    while True:
        try:
            again = await log.open("a", 1.0, 10.0)
            break
        except Unavailable:
            refused += 1
            assert time.monotonic() - begun < 60
            await asyncio.sleep(0.2)
    await log.append(again.epoch, acknowledged + 1, chain.next())

    assert refused
    assert again.last_seq == acknowledged
    assert again.epoch == opened.epoch + 1
    assert len(await log.read(0)) == acknowledged + 1
    with pytest.raises(Fenced):
        await before.append(old_epoch, 1, [b"late"])
    for each in (log, before):
        await each.close()


@pytest.mark.asyncio
async def test_a_primary_that_was_superseded_while_we_were_connected_to_it_is_left(
    failover: Failover, chain: Chain
) -> None:
    log = RedisEventLog(RedisOptions(failover.url, replicas=1, timeout_s=2.0), PARTITION)
    opened = await log.open("a", 0.0, 10.0)
    await log.append(opened.epoch, 1, chain.next(3))

    # It stands still until another is promoted, and nobody can tell it: as if the others could not reach it, and we can.
    failover.primary.client().execute_command("ACL", "SETUSER", "default", "-replicaof", "-slaveof")
    failover.primary.pause()
    promoted = Redis(port=await _next_primary(failover), protocol=2)
    wait_until(lambda: promoted.info("replication")["connected_slaves"] == 1, "the other replica follows")
    failover.primary.go_on()
    with pytest.raises(Unavailable):
        await log.append(opened.epoch, 4, chain.next())
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(Unavailable):
                again = await log.open("a", 1.0, 10.0)
                break
            await asyncio.sleep(0.2)

    assert again.last_seq == 3
    await log.close()


@pytest.mark.asyncio
async def test_sentinels_without_a_replica_to_wait_for_are_refused(failover: Failover) -> None:
    log = RedisEventLog(RedisOptions(failover.url), PARTITION)

    with pytest.raises(Unavailable, match=r"state\.redis\.replicas is 0"):
        await log.open("a", 0.0, 10.0)
    await log.close()


@pytest.mark.asyncio
async def test_partitions_and_dead_letters_live_on_all_nodes_of_a_cluster(cluster: Cluster) -> None:
    # Nothing of time is proven here, and each of its nodes waits for the disk.
    options, clock = RedisOptions(cluster.url, prefix="spread", timeout_s=30.0), ManualClock()
    for number in range(6):
        chain = Chain()
        partition = f"shard/{number:04d}"
        log, archive = RedisEventLog(options, partition), RedisArchive(options, partition)
        ids = RedisDeliveryIds(options, partition)
        epoch = (await log.open("a", 0.0, 10.0)).epoch
        await log.append(epoch, 1, chain.next(4))
        for generation in (1, 2):
            await log.put_records(epoch, generation, [("k", b"%d" % generation), ("gone", None)])
            await log.close_snapshot(epoch, Mark(generation, 2, chain.digests[2], 1, b""))
        await log.truncate(epoch, 2)
        await archive.put([incident(1), incident(2, service="db")])
        await ids.add([("id", 1.0, b"answer")])

        assert [seq for seq, _frame in await log.read(0)] == [
            1,
            2,
            3,
            4,
        ]  # one append: dropped whole or not at all
        assert [page async for page in log.records(1)] == [[("k", b"1")]]
        assert (await archive.page(ArchiveQuery("default", 5, services=("db",)))).items == [
            incident(2, service="db")
        ]
        assert await ids.seen(["id"]) == {"id": b"answer"}
        for each in (log, archive, ids):
            await each.close()
    letters = RedisDeadLetters(options, max_bytes=10_000, max_age_s=60, clock=clock)
    await letters.add([DeadLetter(1000.0, "default", "door", "why", b"{")])
    kept = await letters.stats()
    await letters.close()

    assert kept["kept"] == 1
    assert all(node.client().dbsize() for node in cluster.nodes)


@pytest.mark.asyncio
async def test_a_partition_whose_slot_moves_to_another_node_goes_on_there(
    cluster: Cluster, chain: Chain
) -> None:
    log = RedisEventLog(RedisOptions(cluster.url, prefix="moved"), PARTITION)
    epoch = (await log.open("a", 0.0, 10.0)).epoch
    await log.append(epoch, 1, chain.next(3))
    await log.read(0)
    slot = key_slot(PARTITION.encode())
    source = next(node for node in cluster.nodes if node.client().cluster("COUNTKEYSINSLOT", slot))
    target = next(node for node in cluster.nodes if node is not source)
    source_id, target_id = (str(node.client().cluster("MYID"), "ascii") for node in (source, target))

    target.client().execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
    source.client().execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
    keys = source.client().execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100)
    migrate(source, target, keys[:1])
    between = [await outcome(log, epoch, chain) for _attempt in range(2)]
    migrate(source, target, keys[1:])
    for node in (target, *(each for each in cluster.nodes if each is not target)):
        node.client().execute_command("CLUSTER", "SETSLOT", slot, "NODE", target_id)
    begun = time.monotonic()
    while (after := await outcome(log, epoch, chain)) is not None and time.monotonic() - begun < 10:
        await asyncio.sleep(0.1)

    assert [type(each) for each in between] == [Unavailable, Unavailable]
    assert after is None
    assert [seq for seq, _frame in await log.read(0)] == [1, 2, 3, 4]
    await log.close()


def migrate(source: Server, target: Server, keys: list[bytes]) -> None:
    source.client().execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)


async def outcome(log: RedisEventLog, epoch: int, chain: Chain) -> Exception | None:
    """What came of one more append."""
    chain.back_to(3)
    try:
        await log.append(epoch, 4, chain.next())
    except Exception as error:
        return error
    return None


@pytest.mark.asyncio
async def test_the_feed_lives_on_one_node_of_a_cluster_and_is_heard_at_every_node(cluster: Cluster) -> None:
    async with system() as ours:
        one = await opened(ours)
        await publish(ours, cluster.url, "outside")
        await until(lambda: _nodes_with(cluster, f"outside:{{feed}}:incident:{one}"), "published")
        [home] = [node for node in cluster.nodes if node.client().keys("outside:*")]
        elsewhere = next(node for node in cluster.nodes if node is not home)
        with elsewhere.client().pubsub() as channel:
            channel.subscribe("outside:{feed}:changes")
            assert channel.get_message(timeout=5)

            await ours.post(f"/v1/incidents/{one}/acknowledge", {})
            heard = await asyncio.to_thread(_heard_of_an_incident, channel)

        assert heard["incident"]["id"] == one
        assert await _nodes_with(cluster, f"outside:{{feed}}:incident:{one}") == [home]


def _heard_of_an_incident(channel: PubSub) -> dict[str, Any]:
    while True:
        message = channel.get_message(timeout=10)
        assert message is not None
        said: dict[str, Any] = json.loads(message["data"])
        if said["event"] == "incident":
            return said


async def _nodes_with(cluster: Cluster, key: str) -> list[Server]:
    return [node for node in cluster.nodes if key.encode() in node.client().keys("outside:*")]


@pytest.mark.asyncio
async def test_the_feed_goes_on_at_the_primary_that_the_sentinels_name_after_a_failover(
    failover: Failover,
) -> None:
    async with system() as ours:
        await opened(ours)
        await publish(ours, failover.url, "outside")
        async with Reader(failover.primary.port, "outside").reading() as reader:
            await same(reader, ours)

        failover.primary.stop(signal.SIGKILL)
        await opened(ours)
        async with Reader(await _next_primary(failover), "outside").reading() as reader:
            shown = await same(reader, ours)

        assert len(shown) == 2


async def _next_primary(failover: Failover) -> int:
    """The port of the primary that the Sentinels name once it is another."""
    async with asyncio.timeout(60):
        while True:
            told = failover.sentinels[0].client().sentinel_get_master_addr_by_name(failover.SERVICE)
            assert isinstance(told, tuple)
            _host, port = told
            if int(port) != failover.primary.port:
                return int(port)
            await asyncio.sleep(0.1)
