"""A shard that recovers in place while answers to what it owed are still on their way: none is taken for another state's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any
from uuid import UUID

import msgspec
import pytest

from actors.responder import ResponderActor
from actors.shard import IncidentShard
from models.errors import Unavailable
from models.incidents.verbs import Comment
from models.ports import ActionResult, ArchivedIncident
from models.shard.messages import Command, encode
from tests.api.gateway_in_process import System, alert, system
from tests.api.test_pressure import until
from tests.api.test_responder import Receiver

pytestmark = pytest.mark.asyncio


class Held:
    """Calls of one method of a store, each held until it is let go or fails."""

    def __init__(self, owner: object, name: str) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.is_on = True
        self._do: Callable[..., Awaitable[None]] = getattr(owner, name)
        self._turns: list[asyncio.Future[None]] = []
        setattr(owner, name, self._wait)

    async def _wait(self, *given: Any) -> None:
        if self.is_on:
            turn = asyncio.get_running_loop().create_future()
            self.calls.append(given)
            self._turns.append(turn)
            await turn
        await self._do(*given)

    def let_go(self, call: int) -> None:
        self._turns[call].set_result(None)

    def fail(self, call: int) -> None:
        self._turns[call].set_exception(Unavailable("the disk went away"))

    def off(self) -> None:
        """Nothing is held any more, and what is held goes on."""
        self.is_on = False
        for turn in self._turns:
            if not turn.done():
                turn.set_result(None)


async def closed(ours: System) -> str:
    """A closed incident."""
    made = await ours.post("/v1/incidents", {"service": "api", "title": "by hand"})
    path = made.headers["location"]
    for verb in ("resolve", "close"):
        assert (await ours.post(f"{path}/{verb}", {})).status == 200
    return path


async def timeline(ours: System, path: str) -> list[dict[str, str]]:
    items: list[dict[str, str]] = json.loads((await ours.get(f"{path}/timeline")).body)["items"]
    return items


async def comments(ours: System, path: str) -> list[str]:
    return [
        each["description"] for each in await timeline(ours, path) if each["event_type"] == "CommentAdded"
    ]


def the_shard(ours: System) -> IncidentShard:
    shard = ours.cluster.get(ours.shards[0])
    assert isinstance(shard, IncidentShard)
    return shard


def ahead(ours: System, path: str, text: str) -> asyncio.Future[bytes]:
    """A comment that nobody sends again when it fails."""
    identity = UUID(path.rpartition("/")[2]).bytes
    command = Command(b"ahead".ljust(16), "default", "ann", identity, Comment(text))
    payload = msgspec.msgpack.encode([encode(command)])
    return asyncio.ensure_future(ours.cluster.call(ours.shards[0], "tell", payload, 10.0))


async def second_waits_while_a_comment_is_under_way(
    ours: System, shard: IncidentShard, puts: Held
) -> tuple[str, Held, asyncio.Future[bytes]]:
    """A closed incident whose turn at the archive comes while a comment on it is decided but not stored yet."""
    await closed(ours)
    await until(lambda: puts.calls)
    second = await closed(ours)
    appends = Held(shard.event_log, "append")
    comment = ahead(ours, second, "never stored")
    await until(lambda: appends.calls)
    puts.let_go(0)
    await asyncio.sleep(0.05)
    return second, appends, comment


async def recovers(ours: System, appends: Held, comment: asyncio.Future[bytes]) -> None:
    appends.is_on = False
    appends.fail(0)
    with pytest.raises(Unavailable):
        await comment
    await ours.ready()


async def test_a_comment_made_after_a_failed_append_is_not_lost_to_an_older_answer_of_the_archive() -> None:
    async with system() as ours:
        shard = the_shard(ours)
        puts = Held(shard.archive, "put")
        second, appends, comment = await second_waits_while_a_comment_is_under_way(ours, shard, puts)
        await recovers(ours, appends, comment)

        assert (await ours.post(f"{second}/comment", {"text": "kept"})).status == 200
        puts.off()
        await until(lambda: not shard.shard.state.incidents)

        assert await comments(ours, second) == ["kept"]


async def test_what_is_put_into_the_archive_is_in_the_log() -> None:
    async with system() as ours:
        shard = the_shard(ours)
        puts = Held(shard.archive, "put")
        second, appends, comment = await second_waits_while_a_comment_is_under_way(ours, shard, puts)

        stored: list[ArchivedIncident] = [each for (entries,) in puts.calls for each in entries]
        await recovers(ours, appends, comment)
        puts.off()
        await until(lambda: not shard.shard.state.incidents)

        assert not [each for each in stored if b"never stored" in each.record]
        assert await comments(ours, second) == []


async def test_a_notification_under_way_while_the_shard_recovers_is_sent_once_and_its_outcome_counts() -> (
    None
):
    hook = {"enabled": True, "webhook": {"url": "http://127.0.0.1:1/"}}
    async with system(notify=hook) as ours:
        shard, responder = the_shard(ours), ours.cluster.get("responder-0")
        receiver = Receiver()
        receiver.gate.clear()
        assert isinstance(responder, ResponderActor)
        responder._receivers = {"webhook": receiver}
        asked = 0
        send = responder._send

        def counted(*given: Any) -> Coroutine[Any, Any, ActionResult]:
            nonlocal asked
            asked += 1
            return send(*given)

        responder._send = counted  # type: ignore[assignment]
        answer = await ours.post("/v1/alerts", [alert("Down", severity="critical")])
        path = f"/v1/incidents/{answer.items[0]['incident_id']}"
        await until(lambda: receiver.told)

        appends = Held(shard.event_log, "append")
        comment = ahead(ours, path, "never stored")
        await until(lambda: appends.calls)
        await recovers(ours, appends, comment)
        # By the recovered shard: it joins the one under way.
        await until(lambda: asked == 2)
        receiver.gate.set()
        await until(
            lambda: not shard.shard.state.incidents[UUID(path[-36:]).bytes].notification_of("webhook").reason
        )

        assert len(receiver.told) == 1
        assert [each["event_type"] for each in await timeline(ours, path)].count("NotificationSent") == 1


async def test_a_snapshot_is_due_after_so_many_events_however_few_frames_they_lie_in() -> None:
    """A frame holds the alerts of all requests that came together: by frames, or packed bytes, a recovery had no bound."""
    async with system(state={"snapshot_every_events": 100, "snapshot_every_frames": 1_000_000}) as ours:
        log = ours.stores.log("shard/0000")
        assert await log.marks() == []
        await ours.post("/v1/alerts", [alert(f"A{number}") for number in range(200)])
        async with asyncio.timeout(10):
            while not await log.marks():
                await asyncio.sleep(0.01)
        (mark, *_older) = await log.marks()
        assert mark.seq < 20


async def test_a_flood_of_new_series_never_leaves_more_behind_a_snapshot_than_twice_the_pace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A slice a group is less than a group of new series makes: each snapshot took longer than the one before."""
    monkeypatch.setattr("actors.snapshots.SLICE_BYTES", 1024)
    each, every = 20, 400
    async with system(state={"snapshot_every_events": every, "snapshot_every_frames": 1_000_000}) as ours:
        log = ours.stores.log("shard/0000")
        snapshots = the_shard(ours).snapshots
        decided: list[int] = []  # events up to each frame
        decide = snapshots.decided

        def counted(events: int) -> None:
            decided.append((decided or [0])[-1] + events)
            decide(events)

        monkeypatch.setattr(snapshots, "decided", counted)
        first = await log.last_seq() + 1
        behind = 0
        for group in range(100):
            await ours.post("/v1/alerts", [alert(f"A{group}-{number}") for number in range(each)])
            marks = await log.marks()
            # A tick beside it may make frames of its own: a few more or less don't matter.
            place = min(marks[0].seq - first, len(decided) - 1) if marks else -1
            up_to = decided[place] if place >= 0 else 0
            behind = max(behind, decided[-1] - up_to)

    assert len(decided) > 100
    # Twice the pace and a group or two, with room for those; it was 7,654 while each snapshot took longer than the one before.
    assert behind < 5 * every + 400
