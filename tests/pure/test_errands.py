"""How a shard's questions come to a classifier: together, and of each incident the newest. What is put away."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from actors.lanes import ARCHIVE_SLICE, Errands
from models.errors import Unavailable
from models.incidents.incident import IncidentType, Severity
from models.incidents.verbs import Close, Reopen
from models.metrics import Meter
from models.ports import ArchivedIncident
from models.shard.effects import Archive, Classify, Forget
from models.shard.messages import Archived, Classification, Classified, Message, encode
from models.shard.settings import ShardSettings
from models.shard.shard import Shard
from services.stores.memory.stores import MemoryArchive, MemoryStore
from tests.scenario import Story, alert, at

SHARD = Shard("shard/0000", ShardSettings())


class Peers:
    """A classifier that answers when it is let."""

    def __init__(self) -> None:
        self.asked: list[list[Classify]] = []
        self.may_answer = asyncio.Event()

    async def call(self, name: str, method: str, payload: bytes, timeout_s: float) -> bytes:
        questions = msgspec.msgpack.decode(payload, type=list[Classify])
        self.asked.append(questions)
        await self.may_answer.wait()
        return encode(
            Classified(
                [
                    Classification(
                        each.incident_id, Severity.P2, IncidentType.UNKNOWN, "minor", "test", 1.0, each.asked
                    )
                    for each in questions
                ]
            )
        )


async def settled() -> Shard:
    return SHARD


async def nobody(name: str) -> None:
    raise AssertionError(f"{name} is to be replaced")


def question(incident: int, asked: int = 1) -> Classify:
    return Classify(bytes([incident]) * 16, "default", "s", "test", "t", "", {}, {}, ["x"] * asked, asked)


@pytest.mark.asyncio
async def test_questions_gather_while_one_is_answered_and_an_incidents_newest_is_asked() -> None:
    peers = Peers()
    answered: list[Message] = []
    errands = Errands(
        "shard-0000-a",
        peers,
        MemoryArchive(MemoryStore(), "shard/0000"),
        Meter("shard-0000-a"),
        classifiers=["classifier-0"],
        responders=[],
        replace=nobody,
        shard_of=lambda _identity: "shard-0000-a",
        settled=settled,
        answered=answered.append,
        undelivered=lambda _effect: None,
    )

    errands.owe([question(1)])
    await asyncio.sleep(0)
    errands.owe([question(2), question(3)])
    errands.owe([question(2, asked=2)])
    await asyncio.sleep(0)
    under_way = [*peers.asked]
    peers.may_answer.set()
    while errands.waiting:
        await asyncio.sleep(0.001)

    assert under_way == [[question(1)]]
    assert peers.asked[1:] == [[question(2, asked=2), question(3)]]
    assert [len(each.verdicts) for each in answered if isinstance(each, Classified)] == [1, 2]


@pytest.mark.asyncio
@pytest.mark.parametrize("meanwhile", ["nothing", "reopened", "archived"])
async def test_an_incident_that_is_reopened_or_gone_while_its_alerts_are_read_is_not_put_away(
    meanwhile: str,
) -> None:
    story = Story()
    alerts = [alert("llm-api", "Down", str(number)) for number in range(ARCHIVE_SLICE + 1)]
    story.push(at(0), *alerts)
    story.push(at(1), *[each.ended(1) for each in alerts])
    incident = story.do(at(2), Close(), story.incident)
    archive = MemoryArchive(MemoryStore(), "shard/0000")
    answered: list[Message] = []

    async def of_the_story() -> Shard:
        return story.shard

    errands = Errands(
        "shard-0000-a",
        Peers(),
        archive,
        Meter("shard-0000-a"),
        classifiers=[],
        responders=[],
        replace=nobody,
        shard_of=lambda _identity: "shard-0000-a",
        settled=of_the_story,
        answered=answered.append,
        undelivered=lambda _effect: None,
    )

    errands.owe([Archive([incident.id])])
    await asyncio.sleep(0)
    if meanwhile == "reopened":
        story.do(at(3), Reopen(), incident)
    elif meanwhile == "archived":
        story.tell(at(3), Archived([incident.id], [incident.version]))
    while errands.waiting:
        await asyncio.sleep(0.001)

    put = [incident.id] if meanwhile == "nothing" else []
    assert answered == [Archived(put, [incident.version] * len(put))]
    assert await archive.count() == len(put)


@pytest.mark.asyncio
async def test_what_could_not_be_delivered_by_a_bug_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Peers):
        async def call(self, name: str, method: str, payload: bytes, timeout_s: float) -> bytes:
            raise KeyError("a bug")

    monkeypatch.setattr("actors.lanes.AGAIN_AFTER_BUG_S", 0.0)
    again: list[object] = []
    errands = Errands(
        "shard-0000-a",
        Broken(),
        MemoryArchive(MemoryStore(), "shard/0000"),
        Meter("shard-0000-a"),
        classifiers=["classifier-0"],
        responders=[],
        replace=nobody,
        shard_of=lambda _identity: "shard-0000-a",
        settled=settled,
        answered=lambda _message: None,
        undelivered=again.append,
    )

    errands.owe([question(1)])
    while errands.waiting:
        await asyncio.sleep(0.001)

    assert again == [question(1)]


@pytest.mark.asyncio
async def test_a_classifier_that_does_not_answer_is_replaced_and_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Silent(Peers):
        async def call(self, name: str, method: str, payload: bytes, timeout_s: float) -> bytes:
            try:
                async with asyncio.timeout(timeout_s):
                    return await super().call(name, method, payload, timeout_s)
            except TimeoutError:
                raise Unavailable("did not answer") from None

    monkeypatch.setattr("actors.lanes.CLASSIFY_TIMEOUT_S", 0.05)
    monkeypatch.setattr("actors.lanes.AGAIN_S", 0.0)
    peers, replaced, meter = Silent(), [], Meter("shard-0000-a")
    answered: list[Message] = []

    async def replace(name: str) -> None:
        replaced.append(name)

    errands = Errands(
        "shard-0000-a",
        peers,
        MemoryArchive(MemoryStore(), "shard/0000"),
        meter,
        classifiers=["classifier-0"],
        responders=[],
        replace=replace,
        shard_of=lambda _identity: "shard-0000-a",
        settled=settled,
        answered=answered.append,
        undelivered=lambda effect: errands.owe([effect]),
    )

    errands.owe([question(1)])
    while len(peers.asked) < 3:
        await asyncio.sleep(0.001)
    peers.may_answer.set()
    while errands.waiting:
        await asyncio.sleep(0.001)

    assert replaced == ["classifier-0"], "once, although it was silent twice within a minute"
    assert [each.verdicts[0].incident_id for each in answered if isinstance(each, Classified)] == [b"\1" * 16]
    assert any(each.name == "llm_im_classifiers_replaced_total" for each in meter.read().counters)


@pytest.mark.asyncio
async def test_what_a_classifier_did_not_come_to_is_asked_again() -> None:
    class Slow(Peers):
        async def call(self, name: str, method: str, payload: bytes, timeout_s: float) -> bytes:
            first = msgspec.msgpack.decode(payload, type=list[Classify])[:2]
            return await super().call(name, method, msgspec.msgpack.encode(first), timeout_s)

    peers = Slow()
    peers.may_answer.set()
    answered: list[Message] = []
    errands = Errands(
        "shard-0000-a",
        peers,
        MemoryArchive(MemoryStore(), "shard/0000"),
        Meter("shard-0000-a"),
        classifiers=["classifier-0"],
        responders=[],
        replace=nobody,
        shard_of=lambda _identity: "shard-0000-a",
        settled=settled,
        answered=answered.append,
        undelivered=lambda effect: errands.owe([effect]),
    )

    errands.owe([question(number) for number in range(1, 6)])
    while errands.waiting:
        await asyncio.sleep(0.001)

    judged = [verdict.incident_id[0] for each in answered for verdict in each.verdicts]  # type: ignore[union-attr]
    assert sorted(judged) == [1, 2, 3, 4, 5]


@pytest.mark.asyncio
async def test_what_is_to_be_forgotten_goes_some_at_a_time_until_all_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("actors.lanes.FORGET_BATCH", 2)
    monkeypatch.setattr("actors.lanes.FORGET_PAUSE_S", 0.0)
    archive = MemoryArchive(MemoryStore(), "shard/0000")
    await archive.put(
        [
            ArchivedIncident(
                bytes([number]), "default", "s", "Closed", 2, "t", 1.0, float(number), 1.0, b"", b""
            )
            for number in range(9)
        ]
    )
    answered: list[Message] = []
    errands = Errands(
        "shard-0000-a",
        Peers(),
        archive,
        Meter("shard-0000-a"),
        classifiers=["classifier-0"],
        responders=[],
        replace=nobody,
        shard_of=lambda _identity: "shard-0000-a",
        settled=settled,
        answered=answered.append,
        undelivered=lambda _effect: None,
    )

    errands.owe([Forget(3.0), Forget(7.0)])
    while errands.waiting:
        await asyncio.sleep(0.001)

    assert [each.closed_at for each in await archive.read(b"")] == [7.0, 8.0]
    assert answered == []
