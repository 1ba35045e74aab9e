"""The feed in Redis: what programs outside read and hear is what the API shows, whatever was lost, killed or away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import structlog
from redis import Redis
from redis.exceptions import NoPermissionError

from models.incidents.lines import CHANGED
from models.partition.frames import digest_of
from models.partition.sharding import TENANT
from services.api.v1.verb_table import VERBS
from services.feed import publish_shard
from services.feed.publish_bodies import FIELDS
from services.stores.redis import feed
from tests.api.for_verbs import opened, ready_for
from tests.api.gateway_in_process import (
    FIRST_SHARD_SERVICE,
    SECOND_SHARD_SERVICE,
    MemoryStores,
    SqliteStores,
    System,
    alert,
    another_gateway,
    system,
)
from tests.contract.conftest import NUMBERS
from tests.contract.feed_reader import (
    Reader,
    counted,
    kill,
    publish,
    same,
    shown_by_api,
    until,
)
from tests.contract.proxy import Proxy
from tests.contract.redis_peers import Server
from tests.ports import free_port

pytestmark = pytest.mark.asyncio

RESETS = "llm_im_publish_resets_total"


@pytest_asyncio.fixture
async def ours() -> AsyncIterator[System]:
    async with system() as found:
        yield found


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (
        ("POLL_S", 0.02), ("CHECK_S", 0.1), ("RETRY_S", 0.05), ("RETRY_MAX_S", 0.1), ("OTHER_S", 0.3),
    ):  # fmt: skip
        monkeypatch.setattr(publish_shard, name, seconds)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A Redis that the test may break, and that keeps nothing."""
    server = Server(tmp_path / "redis", "--save", "").start()
    yield server
    server.stop(signal.SIGKILL)


def a_prefix() -> str:
    return f"feed-{next(NUMBERS)}"


async def do(ours: System, identity: str, verb: str, body: object = None) -> None:
    answer = await ours.post(f"/v1/incidents/{identity}/{verb}", body or {})
    assert answer.status in (200, 201), answer


async def told_kinds(reader: Reader, identity: str) -> list[str]:
    return [
        each["kind"] for each in reader.told if each["event"] == "incident" and each["incident"]["id"] == identity
    ]  # fmt: skip


async def test_a_reader_has_what_the_api_shows_after_every_verb(ours: System, redis_server: Server) -> None:
    prefix = a_prefix()
    before = await opened(ours)
    await publish(ours, redis_server.url, prefix)

    async with Reader(redis_server.port, prefix).reading() as reader:
        await same(reader, ours)
        # What a resend does needs receivers, and changes nothing that a feed shows.
        for verb in [each for each in VERBS if each.name != "resend"]:
            one, other, name = await ready_for(ours, verb.name)
            example = dict(verb.example)
            if "incident" in example:
                example["incident"] = other
            if "alerts" in example:
                example["alerts"] = [name]
            await do(ours, one, verb.name, example)
        shown = await same(reader, ours)

        kinds = Counter(each["kind"] for each in reader.told if each["event"] == "incident")
        assert before in shown and len(shown) > len(VERBS)
        assert kinds["Merged"] == 4 and kinds["AssignmentChanged"] == 1 and kinds["Resolved"] >= 3
        parts = [each for each in reader.picture.values() if each["merged_into"]]
        assert len(parts) == 1 and parts[0]["merged_into"] in shown


@pytest.mark.parametrize("tenant", [TENANT, "acme"])
async def test_a_feed_shows_one_tenants_incidents_and_all_of_them(
    ours: System, redis_server: Server, tenant: str
) -> None:
    async with another_gateway(ours, "acme") as others:
        at, foreign = (ours, others) if tenant == TENANT else (others, ours)
        prefix = a_prefix()
        kept, unseen = await opened(at), await opened(foreign)
        await publish(ours, redis_server.url, prefix, tenant=tenant)
        async with Reader(redis_server.port, prefix).reading() as reader:
            await same(reader, at)
            for one, door in ((unseen, foreign), (kept, at)):
                await do(door, one, "comment", {"text": "looking"})
                await do(door, one, "resolve")
                await opened(door)
            shown = await same(reader, at)

            assert kept in shown and unseen not in shown and len(shown) == 2
            kinds = await told_kinds(reader, kept)
            assert [kind for kind in kinds if kind != CHANGED] == ["CommentAdded", "Resolved"]
            assert {each["incident"]["id"] for each in reader.told if each["event"] == "incident"} <= set(
                shown
            )


async def test_open_incidents_are_listed_by_severity_and_by_service(
    ours: System, redis_server: Server
) -> None:
    prefix = a_prefix()
    one, other = await opened(ours), await opened(ours, SECOND_SHARD_SERVICE)
    await publish(ours, redis_server.url, prefix)
    async with Reader(redis_server.port, prefix).reading() as reader:
        await same(reader, ours)

        await do(ours, one, "reclassify", {"severity": "P0"})
        await do(ours, other, "reclassify", {"severity": "P3"})
        await do(ours, await opened(ours), "resolve")
        await same(reader, ours)

        assert [each["id"] for each in await reader.listed("open")] == [one, other]
        assert [each["id"] for each in await reader.listed("open:severity:P0")] == [one]
        assert [each["id"] for each in await reader.listed("open:severity:P3")] == [other]
        assert [each["id"] for each in await reader.listed(f"open:service:{FIRST_SHARD_SERVICE}")] == [one]
        assert await reader.listed("open:severity:P2") == []


async def test_each_incident_is_told_of_in_order_and_once(
    ours: System, redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish_shard, "PUT_MAX", 3)
    prefix = a_prefix()
    await publish(ours, redis_server.url, prefix)
    async with Reader(redis_server.port, prefix).reading() as reader:
        await same(reader, ours)
        await ours.post("/v1/alerts", [alert(f"Many{number}") for number in range(40)])
        shown = await same(reader, ours)
        await until(lambda: _classified(ours), "classification")
        await same(reader, ours)

        versions: dict[str, list[int]] = {}
        for each in reader.told:
            if each["event"] == "incident":
                versions.setdefault(each["incident"]["id"], []).append(each["incident"]["version"])
        assert len(shown) == len(versions) == 40
        assert all(found == sorted(set(found)) for found in versions.values())


async def _all_began(reader: Reader) -> bool:
    """Whether the feed has its place in the log of each of the two shards."""
    return (
        sum(str(field).startswith("at:") for field in await reader.client.hkeys(f"{reader.base}state")) == 2
    )


async def _heard(reader: Reader, identity: str, kind: str, times: int = 1) -> bool:
    """A picture may be read from the keys before the message about it comes."""
    return (await told_kinds(reader, identity)).count(kind) == times


async def _classified(ours: System) -> bool:
    return all(each["state"] != "Detected" for each in (await shown_by_api(ours)).values())


async def test_a_change_that_is_no_line_of_the_timeline_is_told_too(
    ours: System, redis_server: Server
) -> None:
    prefix = a_prefix()
    whole, part = await opened(ours), await opened(ours, SECOND_SHARD_SERVICE)
    await publish(ours, redis_server.url, prefix)
    async with Reader(redis_server.port, prefix).reading() as reader:
        await do(ours, whole, "merge", {"incident": part})
        await do(ours, part, "label", {"set": {"a": "b"}})
        shown = await same(reader, ours)

        assert list(shown) == [whole]
        # That the other shard agreed changes the version, and is no line.
        assert (await told_kinds(reader, whole))[-1] == "Changed"


async def test_a_closed_incident_can_be_read_for_a_while(ours: System, redis_server: Server) -> None:
    prefix = a_prefix()
    await publish(ours, redis_server.url, prefix, keep_closed_s=1.0)
    async with Reader(redis_server.port, prefix).reading() as reader:
        made = await ours.post("/v1/incidents", {"service": "api", "title": "by hand"})
        identity = made.headers["location"].rpartition("/")[2]
        await do(ours, identity, "resolve")
        await do(ours, identity, "close")
        await until(lambda: told_as(reader, identity, "Closed"), "told of its close")

        [record] = await reader.listed("closed")
        assert record["state"] == "Closed" and record["closed_at"] is not None
        await until(lambda: _is_gone(reader, identity), "its key expires")
        assert await reader.client.hexists(reader.base + "where", identity) is False


async def told_as(reader: Reader, identity: str, state: str) -> bool:
    return reader.picture.get(identity, {}).get("state") == state


async def _is_gone(reader: Reader, identity: str) -> bool:
    return not await reader.client.exists(f"{reader.base}incident:{identity}")


async def test_of_too_many_closed_incidents_the_newest_are_kept(
    ours: System, redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "CLOSED_MAX", 2)
    prefix = a_prefix()
    await publish(ours, redis_server.url, prefix)
    async with Reader(redis_server.port, prefix).reading() as reader:
        made = []
        for number in range(4):
            answer = await ours.post("/v1/incidents", {"service": "api", "title": f"by hand {number}"})
            made.append(answer.headers["location"].rpartition("/")[2])
            await do(ours, made[-1], "resolve")
            await do(ours, made[-1], "close")
        await until(lambda: told_as(reader, made[-1], "Closed"), "told of the last")

        assert [each["id"] for each in await reader.listed("closed")] == made[2:]
        assert await reader.client.keys(f"{reader.base}incident:*") != []
        assert all([await _is_gone(reader, each) for each in made[:2]])


async def test_a_feed_that_was_flushed_is_made_anew_while_nothing_happens(
    ours: System, own_server: Server
) -> None:
    prefix = a_prefix()
    await opened(ours)
    await publish(ours, own_server.url, prefix)
    async with Reader(own_server.port, prefix).reading() as reader:
        before = await same(reader, ours)
        heard = len(reader.told)

        own_server.client().flushall()
        await until(lambda: _resets(reader, heard), "told that it was made anew")

        assert await same(reader, ours) == before


async def _resets(reader: Reader, after: int) -> bool:
    return sum(1 for each in reader.told[after:] if each["event"] == "reset") >= 2


async def test_a_redis_that_was_away_and_forgot_all_is_caught_up(ours: System, own_server: Server) -> None:
    prefix = a_prefix()
    await opened(ours)
    await publish(ours, own_server.url, prefix)
    async with Reader(own_server.port, prefix).reading() as reader:
        await same(reader, ours)
        with structlog.testing.capture_logs() as lines:
            own_server.stop(signal.SIGKILL)
            identity = await opened(ours)
            await until(lambda: _away(ours, 1.0), "counted as away")
            assert (await ours.get("/health/ready")).status == 200
            own_server.start()
            shown = await same(reader, ours)
            await until(lambda: _away(ours, 0.0), "counted as back")

        assert identity in shown
        told = [each["event"] for each in lines if each["event"].startswith("the feed's Redis")]
        assert told == [
            "the feed's Redis is unreachable, nothing else is affected",
            "the feed's Redis is back",
        ]


async def _away(ours: System, is_it: float) -> bool:
    return await counted(ours, "llm_im_publish_away") == {"": is_it}


async def test_what_happened_while_the_publisher_was_dead_is_told_and_nothing_twice(
    ours: System, redis_server: Server
) -> None:
    prefix = a_prefix()
    one = await opened(ours)
    await publish(ours, redis_server.url, prefix)
    async with Reader(redis_server.port, prefix).reading() as reader:
        await until(lambda: _all_began(reader), "a cursor in every log")
        await do(ours, one, "label", {"set": {"round": "1"}})
        await same(reader, ours)
        await until(lambda: _heard(reader, one, "LabelsChanged"), "what was done before")
        heard = len(reader.told)

        await kill(ours)
        await do(ours, one, "acknowledge")
        await do(ours, one, "comment", {"text": "on it"})
        other = await opened(ours, SECOND_SHARD_SERVICE)
        await publish(ours, redis_server.url, prefix)
        await same(reader, ours)

        kinds = [each["kind"] for each in reader.told[heard:] if each["incident"]["id"] == one]
        assert kinds == ["Acknowledged", "StateChanged", "CommentAdded"] or kinds == [
            "Acknowledged", "CommentAdded",
        ]  # fmt: skip
        assert (await told_kinds(reader, other))[0] == "Created"
        assert await counted(ours, RESETS) == {}


@pytest.mark.parametrize("trouble", ["before", "after"])
async def test_a_put_that_was_cut_is_told_once(
    ours: System, redis_server: Server, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    monkeypatch.setattr(publish_shard, "PUT_MAX", 4)
    prefix = a_prefix()
    async with Proxy(redis_server.port) as proxy, Reader(redis_server.port, prefix).reading() as reader:
        await publish(ours, f"redis://127.0.0.1:{proxy.port}/0", prefix)
        await same(reader, ours)
        proxy.hurt(trouble, "Cut6")

        await ours.post("/v1/alerts", [alert(f"Cut{number}") for number in range(10)])
        await asyncio.wait_for(proxy.hit.wait(), 10)
        await until(lambda: _classified(ours), "classification")
        await same(reader, ours)

        created = [each["incident"]["title"] for each in reader.told if each.get("kind") == "Created"]
        assert created == [f"Cut{number} (api)" for number in range(10)]


async def test_a_put_that_arrives_late_changes_nothing(ours: System, redis_server: Server) -> None:
    prefix = a_prefix()
    async with Proxy(redis_server.port) as proxy, Reader(redis_server.port, prefix).reading() as reader:
        await publish(ours, f"redis://127.0.0.1:{proxy.port}/0", prefix)
        identity = await opened(ours)
        await same(reader, ours)
        proxy.hurt("late", "first word")
        await do(ours, identity, "label", {"set": {"said": "first word"}})
        await asyncio.wait_for(proxy.hit.wait(), 10)
        await until(lambda: _is_labelled(reader, identity, "first word"), "put again")
        await do(ours, identity, "label", {"set": {"said": "last word"}})
        await until(lambda: _is_labelled(reader, identity, "last word"), "told")

        await proxy.deliver()

        shown = await same(reader, ours)
        assert shown[identity]["labels"]["said"] == "last word"
        assert (await told_kinds(reader, identity)).count("LabelsChanged") == 2


async def _is_labelled(reader: Reader, identity: str, word: str) -> bool:
    record = reader.picture.get(identity)
    return record is not None and record["labels"].get("said") == word


async def test_a_publisher_killed_between_two_puts_of_a_frame_goes_on_within_it(
    ours: System, redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish_shard, "PUT_MAX", 4)
    prefix = a_prefix()
    async with Proxy(redis_server.port) as proxy, Reader(redis_server.port, prefix).reading() as reader:
        await publish(ours, f"redis://127.0.0.1:{proxy.port}/0", prefix)
        await same(reader, ours)
        proxy.hurt("before", "Half6")
        await ours.post("/v1/alerts", [alert(f"Half{number}") for number in range(10)])
        await asyncio.wait_for(proxy.hit.wait(), 10)

        await kill(ours)
        await publish(ours, redis_server.url, prefix)
        await until(lambda: _classified(ours), "classification")
        await same(reader, ours)

        created = Counter(each["incident"]["title"] for each in reader.told if each.get("kind") == "Created")
        assert created == {f"Half{number} (api)": 1 for number in range(10)}


async def test_what_was_truncated_before_it_was_told_is_made_up_for_by_a_reset(
    ours: System, redis_server: Server
) -> None:
    prefix = a_prefix()
    gone = await opened(ours)
    await publish(ours, redis_server.url, prefix)
    async with Reader(redis_server.port, prefix).reading() as reader:
        await same(reader, ours)
        await kill(ours)
        kept = await opened(ours)
        await do(ours, gone, "merge", {"incident": kept})
        for number in range(5):
            await do(ours, gone, "label", {"set": {"round": str(number)}})
        truncate(ours, "shard/0000")
        await publish(ours, redis_server.url, prefix)
        shown = await same(reader, ours)

        assert list(shown) == [gone]
        assert await counted(ours, RESETS) == {"truncated": 1}
        [reset] = [
            each for each in reader.told if (each["event"], each.get("reason")) == ("reset", "truncated")
        ]
        assert reset["partition"] == "shard/0000"


async def test_times_by_a_clock_that_was_ahead_are_put_right_in_the_feed_too(
    ours: System, redis_server: Server
) -> None:
    ours.clock.heard_s += 3600
    await opened(ours)
    await publish(ours, redis_server.url, prefix := a_prefix())
    async with Reader(redis_server.port, prefix).reading() as reader:
        await same(reader, ours)

        ours.clock.heard_s -= 3600

        await until(lambda: reset_by_clock(reader), "a reset")
        await same(reader, ours)


async def reset_by_clock(reader: Reader) -> bool:
    return any(each.get("reason") == "clock" for each in reader.told)


def truncate(ours: System, partition: str) -> None:
    """Drop all appends but the last, as a shard does behind its snapshots."""
    assert isinstance(ours.stores, MemoryStores)
    kept = ours.stores.store.partition(partition)
    while len(kept.appends) > 1:
        dropped = kept.appends.pop(0)
        assert dropped.frames is not None
        kept.anchor_seq, kept.anchor_digest = dropped.last_seq, digest_of(dropped.frames[-1])


async def test_what_another_system_left_there_is_forgotten(redis_server: Server, tmp_path: Path) -> None:
    prefix = a_prefix()
    async with system() as first:
        for _number in range(3):
            await opened(first)
        await publish(first, redis_server.url, prefix)
        async with Reader(redis_server.port, prefix).reading() as reader:
            left = await same(reader, first)

    async with system(SqliteStores(tmp_path)) as second:
        for _number in range(6):  # its log is longer: that it is another one, only the digests say
            await opened(second)
        await publish(second, redis_server.url, prefix)
        async with Reader(redis_server.port, prefix).reading() as reader:
            shown = await same(reader, second)

            assert len(shown) == 6 and not set(shown) & set(left)
            assert (await counted(second, RESETS))["unknown"] == 2


async def test_what_was_published_before_services_moved_to_other_shards_is_made_anew(
    ours: System, redis_server: Server
) -> None:
    prefix = a_prefix()
    await opened(ours)
    await publish(ours, redis_server.url, prefix)
    async with Reader(redis_server.port, prefix).reading() as reader:
        before = await same(reader, ours)
        await kill(ours)
        await reader.client.hset(reader.base + "state", "slots", "0")
        # Of a partition that is no more.
        await reader.client.hset(reader.base + "where", "x", "shard/0099 api")
        await reader.client.zadd(reader.base + "open", {"x": 1.0})
        await reader.client.set(reader.base + "incident:x", json.dumps(dict.fromkeys(FIELDS)))
        await publish(ours, redis_server.url, prefix)

        assert await same(reader, ours) == before
        assert await counted(ours, RESETS) == {"new": 2}


async def test_a_redis_that_went_back_in_time_is_told_again_what_it_forgot(
    ours: System, own_server: Server
) -> None:
    prefix = a_prefix()
    one = await opened(ours)
    await publish(ours, own_server.url, prefix)
    async with Reader(own_server.port, prefix).reading() as reader:
        await until(lambda: _all_began(reader), "a cursor in every log")
        await do(ours, one, "label", {"set": {"round": "kept"}})
        await same(reader, ours)
        own_server.client().save()
        await do(ours, one, "label", {"set": {"round": "forgotten"}})
        await same(reader, ours)
        await until(lambda: _heard(reader, one, "LabelsChanged", 2), "what was done before")
        heard = len(reader.told)

        own_server.stop(signal.SIGKILL)  # as a failover does to a replica that had not got it
        own_server.start()
        await until(lambda: _heard_again(reader, heard), "told again")
        await same(reader, ours)

        assert [each["incident"]["labels"]["round"] for each in reader.told[heard:]] == ["forgotten"]


async def _heard_again(reader: Reader, after: int) -> bool:
    return len(reader.told) > after


async def test_a_writer_that_another_one_superseded_writes_nothing_until_its_turn(
    redis_server: Server,
) -> None:
    prefix = a_prefix()
    async with system() as one, Reader(redis_server.port, prefix).reading() as reader:
        await publish(one, redis_server.url, prefix)
        await same(reader, one)
        with structlog.testing.capture_logs() as lines:
            await reader.client.hset(reader.base + "state", "writer", "another")
            await until(lambda: _is_told(lines, "another writer took the feed"), "told of it")
            identity = await opened(one)
            shown = await same(reader, one)

        assert identity in shown


async def _is_told(lines: Sequence[Mapping[str, Any]], start: str) -> bool:
    return any(str(each["event"]).startswith(start) for each in lines)


async def test_a_full_redis_changes_nothing_by_half_and_is_caught_up_when_there_is_room(
    ours: System, own_server: Server
) -> None:
    prefix = a_prefix()
    await publish(ours, own_server.url, prefix)
    async with Reader(own_server.port, prefix).reading() as reader:
        await same(reader, ours)
        own_server.client().config_set("maxmemory", 1)
        await opened(ours)
        await until(lambda: _away(ours, 1.0), "counted as away")
        assert await reader.client.keys(f"{reader.base}incident:*") == []
        own_server.client().config_set("maxmemory", 0)

        assert len(await same(reader, ours)) == 1


async def test_a_put_that_redis_gave_up_in_the_middle_is_told_when_it_can_be(
    ours: System, own_server: Server
) -> None:
    prefix = a_prefix()
    await publish(ours, own_server.url, prefix)
    async with Reader(own_server.port, prefix).reading() as reader:
        await same(reader, ours)
        # As a list whose key is on its way to another node of a cluster: the script ends where it is touched.
        await reader.client.set(f"{reader.base}open:severity:P0", "no list")
        await opened(ours)
        await until(lambda: _away(ours, 1.0), "counted as away")
        await reader.client.delete(f"{reader.base}open:severity:P0")

        assert len(await same(reader, ours)) == 1
        assert len(reader.told) >= 1


async def test_only_keys_of_the_feed_are_touched(ours: System, redis_server: Server) -> None:
    prefix = a_prefix()
    client = redis_server.client()
    theirs = {f"{prefix}:{{shard/0000}}:log".encode(): b"1", f"{prefix}:incident:x".encode(): b"2"}
    client.mset(theirs)
    before = set(client.keys("*"))
    await opened(ours)
    await publish(ours, redis_server.url, prefix)
    async with Reader(redis_server.port, prefix).reading() as reader:
        await same(reader, ours)

        new: set[Any] = set(client.keys("*")) - before
        assert new and all(each.startswith(reader.base.encode()) for each in new)
        assert {key: client.get(key) for key in theirs} == theirs


async def test_nobody_waits_for_a_redis_that_was_never_there_and_its_password_is_not_told(
    ours: System,
) -> None:
    url = f"redis://feeder:very-secret@127.0.0.1:{free_port()}/0"
    with structlog.testing.capture_logs() as lines:
        await publish(ours, url, "llm-im")
        answer = await ours.post("/v1/alerts", [alert("Down")])
        await until(lambda: _away(ours, 1.0), "counted as away")

    assert answer.status == 202
    assert (await ours.get("/health/ready")).status == 200
    assert "very-secret" not in json.dumps(lines, default=str)


async def test_a_wrong_password_is_told_without_it(ours: System, own_server: Server) -> None:
    own_server.client().config_set("requirepass", "right-word")
    with structlog.testing.capture_logs() as lines:
        await publish(ours, f"redis://:wrong-word@127.0.0.1:{own_server.port}/0", "llm-im")
        await until(lambda: _away(ours, 1.0), "counted as away")

    [line] = [each for each in lines if each["event"].startswith("the feed's Redis is unreachable")]
    assert "Authentication" in line["why"] or "WRONGPASS" in line["why"]
    assert "wrong-word" not in json.dumps(lines, default=str)


# --- docs/redis-feed.md ---

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "redis-feed.md").read_text("utf-8")


def blocks(kind: str) -> list[str]:
    """The blocks of the page of this kind, in their order."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


async def test_what_the_page_tells_to_type_shows_what_it_says(own_server: Server) -> None:
    whole, severe, subscribed = blocks("sh")
    publisher, reader = users_of_the_page(own_server)
    async with system() as ours:
        one = await opened(ours, service="llm-api")
        await do(ours, one, "reclassify", {"severity": "P0"})
        await publish(ours, publisher, "llm-im")
        await until(lambda: _typed(severe, reader), "published")

        count, newest, record = (await _typed(whole, reader)).splitlines()
        assert (count, newest, json.loads(record)["id"]) == ("1", one, one)
        record, count = (await _typed(severe, reader)).splitlines()
        assert (json.loads(record)["severity"], count) == ("P0", "1")
        async with typing(["bash", "-c", subscribed], reader) as lines:
            await until(lambda: _says(lines, "subscribe"), "subscribed")
            await do(ours, one, "acknowledge")
            await until(lambda: _says(lines, '"kind":"Acknowledged"'), "heard")


async def test_the_reader_of_the_page_shows_what_is_open_also_after_its_redis_was_away(
    own_server: Server,
) -> None:
    [program] = blocks("python")
    async with system() as ours:
        one = await opened(ours)
        await publish(ours, own_server.url, "llm-im")
        async with typing([sys.executable, "-c", program], own_server.url) as lines:
            await until(lambda: _ends_with(lines, "1 open: "), "shows the first")
            own_server.stop(signal.SIGKILL)
            await opened(ours)
            own_server.start()
            await until(lambda: _ends_with(lines, "2 open: "), "shows both")
            await do(ours, one, "resolve")
            await until(lambda: _ends_with(lines, "1 open: "), "shows the other")


async def test_the_pages_reader_may_change_nothing(own_server: Server) -> None:
    _publisher, reader = users_of_the_page(own_server)

    with Redis.from_url(reader) as client:
        assert client.get("llm-im:{feed}:incident:x") is None
        with pytest.raises(NoPermissionError):
            client.set("llm-im:{feed}:incident:x", "1")
        with pytest.raises(NoPermissionError):
            client.publish("llm-im:{feed}:changes", "1")
        with pytest.raises(NoPermissionError):
            client.get("llm-im:{shard/0000}:log")


async def test_the_page_shows_a_record_and_a_message_as_they_are() -> None:
    record, message = (json.loads(block) for block in blocks("json"))

    assert tuple(record) == FIELDS
    assert tuple(message) == (
        "event",
        "at",
        "kind",
        "incident",
        "actor",
        "text",
        "reason",
        "details",
        "trace_id",
    )


def users_of_the_page(server: Server) -> list[str]:
    """Makes the users of the page; the URL of each."""
    lines = re.findall(r"^ACL SETUSER (.*)$", PAGE, flags=re.MULTILINE)
    for line in lines:
        server.client().execute_command("ACL", "SETUSER", *line.replace("PASSWORD", "word").split())
    return [f"redis://{line.split()[0]}:word@127.0.0.1:{server.port}/0" for line in lines]


async def _typed(block: str, url: str) -> str:
    """What a block says, empty when it failed."""
    shell = await asyncio.create_subprocess_exec(
        "bash", "-euo", "pipefail", "-c", block,
        env={**os.environ, "FEED_URL": url}, stdout=PIPE, stderr=DEVNULL,
    )  # fmt: skip
    said, _error = await shell.communicate()
    return said.decode() if shell.returncode == 0 and b"{" in said else ""


@contextlib.asynccontextmanager
async def typing(command: list[str], url: str) -> AsyncIterator[list[str]]:
    """A program that never ends by itself; the lines that it says."""
    lines: list[str] = []
    shell = await asyncio.create_subprocess_exec(
        *command, env={**os.environ, "FEED_URL": url}, stdout=PIPE, start_new_session=True
    )

    async def read() -> None:
        assert shell.stdout is not None
        async for line in shell.stdout:
            lines.append(line.decode().strip())

    task = asyncio.create_task(read())
    try:
        yield lines
    finally:
        os.killpg(shell.pid, signal.SIGKILL)
        await task
        await shell.wait()


async def _says(lines: list[str], text: str) -> bool:
    """Whether a line so far has this."""
    return any(text in line for line in lines)


async def _ends_with(lines: list[str], text: str) -> bool:
    """Whether the last line has this."""
    return bool(lines) and text in lines[-1]
