"""Alerts from real queues: nothing is acknowledged before the log has it, nothing is stored twice, nothing stands in the way."""

from __future__ import annotations

import asyncio
import gzip
import json
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from nats.js.api import AckPolicy, ConsumerConfig

from actors.shard import IncidentShard
from models.metrics import decode
from models.settings.all import Settings
from models.shard.messages import Decision
from services.brokers.kafka import in_words
from services.ingest.sources import kafka, nats
from services.ingest.sources.lane import Lane
from services.ingest.sources.queue import QueueSource
from services.wiring import helpers
from services.wiring.collector import Collector
from tests.api.gateway_in_process import System, alert, system
from tests.api.queue_peers import KafkaPeer, NatsPeer, Peer, RabbitPeer, group_of

pytestmark = pytest.mark.timeout(180)
WAIT_S = 45.0


async def until(holds: Callable[[], Awaitable[object]], what: str = "") -> None:
    give_up_at = asyncio.get_running_loop().time() + WAIT_S
    while not await holds():
        assert asyncio.get_running_loop().time() < give_up_at, what
        await asyncio.sleep(0.05)


def body(*alerts: dict[str, Any]) -> bytes:
    return json.dumps([*alerts]).encode()


def decided(ours: System) -> Counter[str]:
    """What all shards decided, by decision."""
    found: Counter[str] = Counter()
    for shard in map(ours.cluster.get, ours.shards):
        assert isinstance(shard, IncidentShard)
        for decision in Decision:
            found[decision.name] += shard.shard.state.decided[decision]
    return +found


def source_of(ours: System, collector: str = "collector-0") -> QueueSource:
    found = ours.cluster.get(collector)
    assert isinstance(found, Collector)
    (source,) = found.sources.values()
    assert isinstance(source, QueueSource)
    return source


async def end(ours: System, collector: str) -> None:
    gone = ours.cluster.kill(collector)
    assert isinstance(gone, Collector)
    await gone.stop()


async def metric(ours: System, name: str, collector: str = "collector-0") -> dict[str, float]:
    """A metric's values, by partition or outcome."""
    reading = decode(await ours.cluster.call(collector, "metrics", b"", 5.0))
    samples = [each for each in (*reading.counters, *reading.gauges) if each.name == name]
    return {
        each.labels.get("partition") or each.labels.get("outcome") or each.labels["source"]: each.value
        for each in samples
    }


def is_empty(peer: Peer, topic: str) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return await peer.left(topic) == 0

    return holds


def are_there(ours: System, names: set[str]) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return bool(await ours.names() == names)

    return holds


@pytest.mark.asyncio
async def test_alerts_of_a_queue_become_incidents_and_are_acknowledged(peer: Peer) -> None:
    topic = peer.topic()
    await peer.create(topic)
    async with system(messaging=peer.settings(topic)) as ours:
        await peer.publish(topic, [body(alert("Down"), alert("Slow", "db")), body(alert("Late"))])

        await until(are_there(ours, {"Down", "Slow", "Late"}), "all alerts")
        await until(is_empty(peer, topic), "all acknowledged")
        assert (await ours.get("/health/ready")).json["status"] == "ready"
        assert await metric(ours, "llm_im_queue_messages_total") == {"stored": 2}
        assert await metric(ours, "llm_im_source_up") == {peer.name: 1.0}


@pytest.mark.asyncio
async def test_nothing_is_acknowledged_before_the_log_has_it_and_memory_is_bounded(peer: Peer) -> None:
    topic, names = peer.topic(), {f"Down{number}" for number in range(60)}
    await peer.create(topic)
    worker = {"prefetch": 10, "concurrency": 4}
    async with system(messaging=peer.settings(topic), worker=worker, server={"hold": 0.2}) as ours:
        for shard in ours.shards:
            await ours.crash(shard)
        await peer.publish(topic, [body(alert(name)) for name in sorted(names)])

        async def holds_some() -> bool:
            return bool(source_of(ours).why_away and sum((await metric(ours, "llm_im_queue_held")).values()))

        await until(holds_some, "messages that wait")
        assert "messages stay in the queue" in source_of(ours).why_away
        assert sum((await metric(ours, "llm_im_queue_held")).values()) <= 20
        assert (await metric(ours, "llm_im_queue_messages_total")) == {}

        async def all_wait() -> bool:
            return sum((await metric(ours, "llm_im_queue_lag")).values()) == len(names)

        await until(all_wait, "the lag is known")
        for shard in ours.shards:
            await ours.cluster.restart(shard)
        await until(is_empty(peer, topic), "all acknowledged")
        await until(are_there(ours, names), "all alerts")
        await until(lambda: _is(source_of(ours).why_away == ""), "it is well again")
        once = decided(ours)
        assert once["OPENED"] + once["JOINED"] == len(names) and not once["REPEATED"], once


async def _is(value: bool) -> bool:
    return value


def of_short_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members of a Kafka group hear of others at once, and are taken for dead soon."""
    config = kafka.KafkaSource.config
    short = {"session.timeout.ms": 3000, "heartbeat.interval.ms": 300}
    monkeypatch.setattr(kafka.KafkaSource, "config", lambda source: {**config(source), **short})


@pytest.mark.asyncio
async def test_what_a_killed_collector_stored_and_did_not_acknowledge_is_not_stored_again(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats, "ACK_WAIT_S", 1.0)
    monkeypatch.setattr(nats, "PROGRESS_S", 0.2)
    topic, names = peer.topic(), {f"Down{number}" for number in range(30)}
    await peer.create(topic)
    of_short_sessions(monkeypatch)
    # Killed between the answer of the log and the acknowledgement: nobody learns what is settled.
    hears = QueueSource.lane
    monkeypatch.setattr(QueueSource, "lane", _deaf(hears))
    async with system(messaging=peer.settings(topic)) as ours:
        await peer.publish(topic, [body(alert(name)) for name in sorted(names)])
        await until(are_there(ours, names), "all alerts")
        await end(ours, "collector-0")
        monkeypatch.setattr(QueueSource, "lane", hears)
        await ours.cluster.restart("collector-0")
        await peer.publish(topic, [body(alert("Last"))])

        await until(is_empty(peer, topic), "all acknowledged")
        await until(are_there(ours, {*names, "Last"}), "the last one too")
        once = decided(ours)
        assert once["OPENED"] + once["JOINED"] == len(names) + 1, once
        assert once["DUPLICATE"] == len(names) and not once["REPEATED"], once


def _deaf(lane: Any) -> Any:
    def deaf(source: QueueSource, _settled: object) -> Lane:
        made: Lane = lane(source, lambda _message: None)
        return made

    return deaf


@pytest.mark.asyncio
async def test_what_cannot_be_read_is_a_dead_letter_with_its_place_and_holds_nobody_up(peer: Peer) -> None:
    topic = peer.topic()
    await peer.create(topic)
    async with system(messaging=peer.settings(topic), server={"max_body_bytes": 4096}) as ours:
        await peer.publish(topic, [b"{not json", b'{"fields": "of nobody"}', b"", b"x" * 5000])
        await peer.publish(topic, [body(alert("Named"))], {"format": "nobody's"})
        await peer.publish(topic, [gzip.compress(b" " * 1_000_000)], {"content-encoding": "gzip"})
        await peer.publish(topic, [body({"labels": {}}, alert("Half"))])
        await peer.publish(topic, [gzip.compress(body(alert("Packed")))], {"content-encoding": "gzip"})
        mail = b"From: probe@example.org\r\nSubject: [FIRING] Disk is full\r\n\r\nservice: api\r\n"
        await peer.publish(topic, [mail], {"content-type": "message/rfc822"})
        await peer.publish(topic, [body(alert("Good"))], {"format": "v1"})

        await until(is_empty(peer, topic), "all acknowledged")
        names = await ours.names()
        assert {"Half", "Packed", "Good"} <= names and len(names) == 4, names
        letters: list[Any] = await ours.letters(7)
        assert len(letters) == 7
        assert all(topic in letter.place or topic.replace(".", "-") in letter.place for letter in letters)
        assert await metric(ours, "llm_im_queue_messages_total") == {"stored": 4, "dead_letter": 6}


@pytest.mark.asyncio
async def test_an_end_never_overtakes_its_beginning(peer: Peer) -> None:
    topic = peer.topic()
    await peer.create(topic)
    names = [f"Flap{number}" for number in range(15)]
    over = {"endsAt": "2026-01-01T00:00:00Z", "startsAt": "2025-12-31T00:00:00Z"}
    async with system(messaging=peer.settings(topic)) as ours:
        story = [each for name in names for each in (body(alert(name)), body({**alert(name), **over}))]
        await peer.publish(topic, story)

        await until(is_empty(peer, topic), "all acknowledged")
        assert await ours.names() == set()
        told = decided(ours)
        assert told["OPENED"] + told["JOINED"] == told["RESOLVED"] == len(names), told


@pytest.mark.asyncio
async def test_a_broker_that_is_away_is_named_and_read_again_once_it_is_back(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not isinstance(peer, NatsPeer):
        pytest.skip("librdkafka's mock cluster can't come back at its port; RabbitMQ: the next test")
    await _goes_and_comes_back(peer, monkeypatch)


@pytest.mark.soak
@pytest.mark.asyncio
async def test_rabbitmq_that_is_away_is_named_and_read_again_once_it_is_back(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not isinstance(peer, RabbitPeer):
        pytest.skip("this one takes half a minute to come back")
    await _goes_and_comes_back(peer, monkeypatch)


async def _goes_and_comes_back(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helpers, "ASK_EVERY_S", 0.05)
    monkeypatch.setattr(helpers, "SILENT_AFTER_S", 0.1)
    topic = peer.topic()
    await peer.create(topic)
    async with system(messaging=peer.settings(topic)) as ours:
        await peer.publish(topic, [body(alert("Before"))])
        await until(is_empty(peer, topic), "the first")
        await asyncio.to_thread(peer.stop)

        async def is_told() -> bool:
            found = (await ours.get("/health/ready")).json
            return found["status"] == "degraded" and "can't reach" in found["reasons"].get(peer.name, "")

        await until(is_told, "health names it")
        assert (await ours.post("/v1/alerts", [alert("ByHttp")])).status == 202
        await asyncio.to_thread(peer.start)
        await peer.publish(topic, [body(alert("After"))])
        await until(are_there(ours, {"Before", "After", "ByHttp"}), "read again")
        await until(lambda: _is(source_of(ours).why_away == ""), "well again")


@pytest.mark.asyncio
async def test_what_is_missing_and_who_is_refused_is_said_in_plain_words(peer: Peer) -> None:
    topic = peer.topic()
    async with system(messaging=peer.settings(topic)) as ours:
        if not isinstance(peer, KafkaPeer):
            await until(lambda: _is(topic in source_of(ours).why_away), "the missing queue is named")
            assert "Create one" in source_of(ours).why_away
    if isinstance(peer, RabbitPeer):
        who = {"user": "eve", "password": "s3cr3t"}
        async with system(messaging=peer.settings(topic, **who)) as ours:
            await until(lambda: _is("does not accept user 'eve'" in source_of(ours).why_away), "who")
            assert "s3cr3t" not in source_of(ours).why_away


@pytest.mark.asyncio
async def test_nats_that_wants_a_user_says_so(tmp_path: Path) -> None:
    peer = NatsPeer(tmp_path, user="alice", password="w0rd")
    peer.start()
    try:
        async with system(messaging=peer.settings("incidents.ingest")) as ours:
            await until(lambda: _is("asks for a user" in source_of(ours).why_away), "asks")
        who = {"user": "eve", "password": "s3cr3t"}
        async with system(messaging=peer.settings("incidents.ingest", **who)) as ours:
            await until(lambda: _is("does not accept user 'eve'" in source_of(ours).why_away), "who")
            assert "s3cr3t" not in source_of(ours).why_away
        who = {"user": "alice", "password": "w0rd"}
        await peer.create("incidents.ingest")
        async with system(messaging=peer.settings("incidents.ingest", **who)) as ours:
            await until(lambda: _is(source_of(ours).why_away == ""), "let in")
    finally:
        peer.stop()


@pytest.mark.asyncio
async def test_nats_gives_late_what_another_reader_held_and_it_is_stored_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A durable consumer that somebody made with an acknowledgement time of its own, and a message that is back later than newer ones."""
    monkeypatch.setattr(nats, "ACK_WAIT_S", 0.2)
    peer, topic = NatsPeer(tmp_path), "incidents.ingest"
    peer.start()
    try:
        await peer.create(topic)
        client = await peer.client()
        consumer = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, ack_wait=4.0)
        reader = await client.jetstream().pull_subscribe(
            topic, group_of(topic), topic.replace(".", "-"), consumer
        )
        await peer.publish(topic, [body(alert("Held"))])
        assert len(await reader.fetch(1)) == 1
        async with system(messaging=peer.settings(topic)) as ours:
            await until(lambda: _is(source_of(ours).why_away == ""), "it is read")
            await peer.publish(topic, [body(alert("Newer"))])
            await until(is_empty(peer, topic), "all acknowledged")
            assert await ours.names() == {"Held", "Newer"}
        await client.jetstream().pull_subscribe(
            topic, "careless", topic.replace(".", "-"), ConsumerConfig(ack_policy=AckPolicy.NONE)
        )
        careless = {**peer.settings(topic), "consumer_group": "careless"}
        async with system(messaging=careless) as ours:
            await until(lambda: _is("explicit acknowledgements" in source_of(ours).why_away), "it is refused")
        await client.close()
    finally:
        peer.stop()


@pytest.mark.asyncio
async def test_a_nats_stream_with_nothing_new_is_no_reason_to_connect_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nats.js.client import JetStreamContext

    # As a probe that was answered when the time was just over: the library raises Python's TimeoutError then, else its own.
    monkeypatch.setattr(JetStreamContext, "_time_until", lambda _timeout, _start: -1.0)
    monkeypatch.setattr(nats, "FETCH_S", 0.05)
    fetched = 0
    real = JetStreamContext.PullSubscription.fetch

    async def fetch(*given: Any, **named: Any) -> Any:
        nonlocal fetched
        fetched += 1
        return await real(*given, **named)

    monkeypatch.setattr(JetStreamContext.PullSubscription, "fetch", fetch)
    connected: list[str] = []
    was_connected = QueueSource.connected

    def connect(source: QueueSource) -> None:
        connected.append(source.name)
        was_connected(source)

    monkeypatch.setattr(QueueSource, "connected", connect)
    peer = NatsPeer(tmp_path)
    peer.start()
    topic = peer.topic()
    try:
        await peer.create(topic)
        async with system(messaging=peer.settings(topic)) as ours:
            await until(lambda: _is(fetched >= 5), "some fetches")
            assert (source_of(ours).why_away, connected) == ("", ["nats"])
    finally:
        peer.stop()


@pytest.mark.asyncio
async def test_members_of_a_kafka_group_share_its_partitions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_short_sessions(monkeypatch)
    peer = KafkaPeer(tmp_path)
    peer.start()
    topic = peer.topic()
    names = {f"Down{number}" for number in range(40)}
    await peer.create(topic)
    try:
        async with system(messaging=peer.settings(topic, collectors=2)) as ours:

            async def both_have_some() -> bool:
                return all(source_of(ours, each).lanes for each in ("collector-0", "collector-1"))

            # Before there is anything to read: the mock cluster never ends a rebalance of a group that is at work.
            await until(both_have_some, "both have partitions")
            for number in range(30):
                await peer.publish(topic, [body(alert(f"Down{number}"))], key=str(number))
            if peer.is_real:
                await end(ours, "collector-1")
            for number in range(30, 40):
                await peer.publish(topic, [body(alert(f"Down{number}"))], key=str(number))

            await until(are_there(ours, names), "all alerts")
            await until(is_empty(peer, topic), "all acknowledged")
            once = decided(ours)
            assert once["OPENED"] + once["JOINED"] == len(names) and not once["REPEATED"], once
    finally:
        peer.stop()


@pytest.mark.asyncio
async def test_a_header_of_the_senders_own_hides_no_message(peer: Peer) -> None:
    topic = peer.topic()
    await peer.create(topic)
    async with system(messaging=peer.settings(topic)) as ours:
        for status in ("firing", "404", "409"):
            await peer.publish(topic, [body(alert(f"Down{status}"))], headers={"Status": status})
        await peer.publish(topic, [body(alert("Next"))])
        await until(are_there(ours, {"Downfiring", "Down404", "Down409", "Next"}), "all alerts")
        await until(is_empty(peer, topic), "all acknowledged")


@pytest.mark.asyncio
async def test_a_kafka_header_whose_name_is_no_text_holds_nobody_up(tmp_path: Path) -> None:
    peer = KafkaPeer(tmp_path)
    peer.start()
    topic = peer.topic()
    try:
        await peer.create(topic)
        async with system(messaging=peer.settings(topic)) as ours:
            # As many as it takes for Python to specialise the call that reads them: only then did a hole end the process.
            odd = [body(alert("Odd"))] * 50
            await asyncio.to_thread(peer.publish_raw_header, topic, odd, b"caf\xe9")
            await peer.publish(topic, [body(alert("Next"))])
            await until(are_there(ours, {"Odd", "Next"}), "all alerts")
            await until(is_empty(peer, topic), "all acknowledged")
    finally:
        peer.stop()


def table(*entries: bytes) -> bytes:
    return struct.pack(">I", sum(map(len, entries))) + b"".join(entries)


def text(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


#: A header of each type that says nothing to us, and one that does.
_OF_ALL_TYPES = table(
    b"\x01tt\1\x01bb\1\x01BB\1\x01ss\0\1\x01uu\0\1\x01II\0\0\0\1\x01ii\0\0\0\1\x01ll\0\0\0\0\0\0\0\1",
    b"\x01ff\0\0\0\0\x01dd\0\0\0\0\0\0\0\0\x01DD\2\0\0\0\1\x01TT\0\0\0\0\0\0\0\1\x01VV",
    b"\x01AA" + table(b"I\0\0\0\1"),
    b"\x01FF" + table(b"\x01aS" + text(b"b")),
    b"\x01xx" + text(b"\xff"),
    b"\x06formatS" + text(b"v1"),
)
_DEEP = b"S" + text(b"deep")
for _ in range(5000):
    _DEEP = b"F" + table(b"\x01a" + _DEEP)
#: Properties of a message as they are written, and its routing key.
ODD: dict[str, tuple[bytes, bytes]] = {
    "Name": (b"\x20\0" + table(b"\x04caf\xe9S" + text(b"x")), b""),
    "Value": (b"\x20\0" + table(b"\x01aS" + text(b"caf\xe9")), b""),
    "Types": (b"\x20\0" + _OF_ALL_TYPES, b""),
    "Deep": (b"\x20\0" + table(b"\x01a" + _DEEP), b""),
    "ContentType": (b"\x80\0\x04caf\xe9", b""),
    "Id": (b"\0\x80\x04caf\xe9", b""),
    "Timestamp": (b"\0\x40" + b"\x7f" + 7 * b"\xff", b""),
    "Key": (b"\0\0", b"caf\xe9"),
    "Mode": (b"\x10\0\x07", b""),
}


@pytest.mark.asyncio
async def test_nothing_that_a_rabbitmq_message_says_of_itself_holds_up_or_loses_any(peer: Peer) -> None:
    if not isinstance(peer, RabbitPeer):
        pytest.skip("RabbitMQ's own")
    topic = peer.topic()
    await peer.create(topic)
    async with system(messaging=peer.settings(topic)) as ours:
        taken = set()
        for name, (properties, key) in ODD.items():
            if await peer.publish_raw(topic, body(alert(name)), properties, key):
                taken.add(name)
            await peer.publish(topic, [body(alert(f"After{name}"))])
        # RabbitMQ 3 takes no message with a delivery mode of its own.
        assert taken | {"Mode"} == {*ODD}
        await until(are_there(ours, {*taken, *(f"After{name}" for name in ODD)}), "all alerts")
        await until(is_empty(peer, topic), "all acknowledged")
        assert not await ours.dead_letters.page(0, 10)


def test_what_librdkafka_says_is_said_in_plain_words() -> None:
    from confluent_kafka import KafkaError

    settings = Settings.model_validate(
        {"messaging": {"backend": "kafka", "brokers": ["kafka-1"], "user": "eve", "password": "s3cr3t"}}
    )
    words = partial(in_words, settings.messaging, topic=settings.messaging.ingest)

    assert "kafka-1:9092 does not accept user 'eve' with this password" in words(
        KafkaError(KafkaError._AUTHENTICATION)
    )
    assert words(KafkaError(KafkaError._ALL_BROKERS_DOWN)) == "can't reach kafka-1:9092"
    assert "there is no topic incidents.ingest" in words(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
    assert "may not read the topic" in words(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    assert "may not use the consumer group" in words(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED))
