"""How a shard's questions come to a classifier: together, and of each incident the newest. What is put away."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
import structlog.testing

from actors.answerers import ARCHIVE_SLICE, Answer, Answerers
from actors.lanes import LANES, Errands, Lane
from actors.responder import ResponderActor
from actors.runtime.host import Host
from actors.runtime.local import LocalCluster
from models.errors import Unavailable
from models.incidents.incident import IncidentType, Severity
from models.incidents.notification import Facts, Note
from models.incidents.verbs import Close, Reopen
from models.metrics import Meter
from models.ports import ActionResult, ArchivedIncident
from models.shard.assembly import COMPONENTS
from models.shard.effects import Act, Archive, Classify, Forget
from models.shard.messages import ActionOutcome, Archived, Classification, Classified, Message, encode
from models.shard.settings import ShardSettings
from models.shard.shard import Shard
from models.wire import Wire
from services.stores.memory.archive import MemoryArchive
from services.stores.memory.store import MemoryStore
from tests.facts import some_facts
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
async def test_a_classifier_that_does_not_answer_is_replaced_and_asked_again() -> None:
    class Silent(Peers):
        async def call(self, name: str, method: str, payload: bytes, timeout_s: float) -> bytes:
            try:
                async with asyncio.timeout(timeout_s):
                    return await super().call(name, method, payload, timeout_s)
            except TimeoutError:
                raise Unavailable("did not answer") from None

    rows = [dataclasses.replace(lane, timeout_s=0.05, again_s=0.0) for lane in LANES]
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
        lanes=rows,
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

    judged = [
        verdict.incident_id[0]
        for each in answered
        if isinstance(each, Classified)
        for verdict in each.verdicts
    ]
    assert sorted(judged) == [1, 2, 3, 4, 5]


@pytest.mark.asyncio
async def test_what_is_to_be_forgotten_goes_some_at_a_time_until_all_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("actors.answerers.FORGET_BATCH", 2)
    monkeypatch.setattr("actors.answerers.FORGET_PAUSE_S", 0.0)
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


# -- places ---------------------------------------------------------------------------------------------------


def act(target: str, number: int, urgency: int = 3) -> Act:
    return Act(b"i" * 16, number, 0, "page", target, f"{target}-{number}", some_facts(), urgency)


class Receivers:
    """An action whose receiver named "dead" hangs until it is let go; the others answer."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.let_go = asyncio.Event()

    def render(self, facts: Facts) -> bytes:
        return b""

    async def act(self, key: str, facts: Facts, trace: str | None = None) -> ActionResult:
        target = key.partition("-")[0]
        self.begun[target] += 1
        if target == "dead":
            await self.let_go.wait()
        return ActionResult(ok=True, detail="")

    async def say(self, key: str, note: Note, trace: str | None = None) -> ActionResult:
        return ActionResult(ok=True, detail="said")

    async def close(self) -> None:
        self.let_go.set()


@pytest.mark.asyncio
async def test_one_dead_receiver_takes_its_own_places_and_another_is_told_of_everything_meanwhile() -> None:
    cluster, receivers, done = LocalCluster(), Receivers(), Counter[str]()
    responder = ResponderActor(
        Host("responder-0", cluster, lambda why: None), {"dead": receivers, "alive": receivers}
    )
    await cluster.start("responder-0", lambda _host: responder)

    def answered(message: Message) -> None:
        assert isinstance(message, ActionOutcome)
        done["alive" if message.number < 100 else "dead"] += 1

    errands = Errands(
        "shard-0000-a",
        cluster,
        MemoryArchive(MemoryStore(), "shard/0000"),
        Meter("shard-0000-a"),
        classifiers=[],
        responders=["responder-0"],
        replace=nobody,
        shard_of=lambda _identity: "shard-0000-a",
        settled=settled,
        answered=answered,
        undelivered=lambda _effect: None,
    )

    errands.owe([act("dead", number, urgency=0) for number in range(100, 1100)])
    await asyncio.sleep(0)
    errands.owe([act("alive", number) for number in range(100)])
    async with asyncio.timeout(30):
        while done["alive"] < 100:
            await asyncio.sleep(0.001)

    (lane,) = (lane for lane in LANES if lane.effect is Act)
    assert done["dead"] == 0 and receivers.begun == {"dead": lane.places, "alive": 100}
    await errands.stop()
    await cluster.stop()


@pytest.mark.asyncio
async def test_of_a_receivers_places_some_are_kept_for_what_is_urgent() -> None:
    (lane,) = (lane for lane in LANES if lane.effect is Act)
    under_way: list[Act] = []

    async def hangs(_with: Answerers, acts: Sequence[Act], _timeout_s: float) -> Answer:
        under_way.extend(acts)
        await asyncio.Event().wait()
        return Answer()

    errands = some_errands(dataclasses.replace(lane, answer=hangs))

    errands.owe([act("one", number) for number in range(100)])
    await asyncio.sleep(0)
    small = len(under_way)
    errands.owe([act("one", 1000, urgency=0), act("one", 1001, urgency=1)])
    await asyncio.sleep(0)

    assert small == lane.places - lane.kept
    assert [each.number for each in under_way[small:]] == [1000, 1001]
    await errands.stop()


@pytest.mark.asyncio
async def test_an_effect_is_answered_by_its_row_and_one_without_a_row_is_named() -> None:
    class Greet(Wire, frozen=True):
        whom: str

    greeted: list[list[str]] = []

    async def greet(_with: Answerers, effects: Sequence[Greet], _timeout_s: float) -> Answer:
        greeted.append([effect.whom for effect in effects])
        return Answer()

    errands = some_errands(Lane(Greet, greet, key=lambda _with, effect: effect.whom[0], batch=2))

    with structlog.testing.capture_logs() as logs:
        errands.owe([Greet("anna"), Greet("bob"), Greet("abel"), Greet("ada"), Forget(1.0)])  # type: ignore[list-item]
        while errands.waiting:
            await asyncio.sleep(0)

    assert sorted(greeted) == [["ada"], ["anna", "abel"], ["bob"]]
    assert [(each["event"], each["effect"]) for each in logs] == [("no actor handles this effect", "Forget")]


@pytest.mark.asyncio
async def test_every_effect_has_a_row() -> None:
    assert {lane.effect for lane in LANES} == {
        effect for component in COMPONENTS for effect in component.effects
    }


@pytest.mark.asyncio
async def test_an_answer_to_what_was_asked_before_a_recovery_is_dropped() -> None:
    let_go, answers = asyncio.Event(), list[Message]()

    async def slow(_with: Answerers, effects: Sequence[Archive], _timeout_s: float) -> Answer:
        await let_go.wait()
        return Answer(Archived(effects[0].incident_ids, [1]), effects)

    (lane,) = (lane for lane in LANES if lane.effect is Archive)
    errands = some_errands(dataclasses.replace(lane, answer=slow), answered=answers)

    errands.owe([Archive([b"a" * 16]), Archive([b"b" * 16])])
    await asyncio.sleep(0)
    errands.begin_anew()
    errands.owe([Archive([b"c" * 16])])
    await asyncio.sleep(0)
    let_go.set()
    while errands.waiting:
        await asyncio.sleep(0)

    assert [each.incident_ids for each in answers if isinstance(each, Archived)] == [[b"c" * 16]]


def some_errands(*rows: Lane[Any], answered: list[Message] | None = None) -> Errands:
    """With these rows only."""
    return Errands(
        "shard-0000-a",
        Peers(),
        MemoryArchive(MemoryStore(), "shard/0000"),
        Meter("shard-0000-a"),
        classifiers=[],
        responders=[],
        replace=nobody,
        shard_of=lambda _identity: "shard-0000-a",
        settled=settled,
        answered=([] if answered is None else answered).append,
        undelivered=lambda _effect: None,
        lanes=rows,
    )
