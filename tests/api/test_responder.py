"""The responder and classifier actors, called as the shard calls them: bytes in, bytes out."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from actors.classifier import ClassifierActor
from actors.responder import ResponderActor
from actors.runtime.clock import SystemClock
from actors.runtime.host import Host
from actors.runtime.local import LocalCluster
from actors.targets import Targets, decode_views
from models.classification.rules import Classifier
from models.errors import Busy, Malformed
from models.incidents.incident import Severity
from models.incidents.notification import Facts, Note
from models.metrics import decode as decode_metrics
from models.ports import ActionResult
from models.response.breaker import BreakerRule
from models.response.target import Limits
from models.shard.assembly import decode_message
from models.shard.effects import Act, Classify
from models.shard.messages import ActionOutcome, Classification, Classified
from tests.facts import some_facts

pytestmark = pytest.mark.asyncio


HOST = Host("test-0", LocalCluster(), lambda why: None)


class Receiver:
    """An action whose answers wait for `gate`, and which remembers what it was told."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.told: list[tuple[str, Facts]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.said: list[tuple[str, Note]] = []
        self.closed = 0
        self.answer = ActionResult(ok=True, detail="done")

    def render(self, facts: Facts) -> bytes:
        return facts.title.encode()

    async def act(self, key: str, facts: Facts, trace: str | None = None) -> ActionResult:
        self.told.append((key, facts))
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return self.answer

    async def say(self, key: str, note: Note, trace: str | None = None) -> ActionResult:
        self.said.append((key, note))
        if self.failure is not None:
            raise self.failure
        return ActionResult(ok=True, detail="said")

    async def close(self) -> None:
        self.closed += 1


def act(
    key: str = "k", action: str = "webhook", number: int = 1, attempt: int = 1, target: str = "webhook"
) -> bytes:
    effect = Act(b"i" * 16, number, attempt, action, target, key, some_facts())
    return msgspec.msgpack.encode(effect)


def outcome(data: bytes) -> ActionOutcome:
    message = decode_message(data)
    assert isinstance(message, ActionOutcome)
    return message


async def count(actor: ResponderActor | ClassifierActor, metric: str, **labels: str) -> float:
    """What the actor has counted under a name, over all series that carry `labels`."""
    said = decode_metrics(await actor.metrics(b""))
    return sum(
        each.value for each in said.counters if each.name == metric and labels.items() <= each.labels.items()
    )


async def test_the_address_of_a_person_is_in_nothing_that_is_kept_of_a_failure() -> None:
    """GET /v1/targets shows the last error to anybody who reads, a log line has it, and it is said to the next one."""
    receiver = Receiver()
    receiver.answer = ActionResult(ok=False, detail="answered 503: 34600123456 can't be reached")
    limits = Limits(breaker=BreakerRule(failures=1))
    responder = ResponderActor(HOST, {"webhook": receiver}, targets=Targets(SystemClock(), limits=limits))
    facts = msgspec.structs.replace(some_facts(), to="+34600123456")
    paged = msgspec.msgpack.encode(Act(b"i" * 16, 1, 0, "page", "webhook", "k1", facts))

    said = outcome(await responder.act(paged))
    next_one = outcome(await responder.act(act("k2")))

    (view,) = decode_views(await responder.targets(b""))
    assert view.last_error == said.detail == "answered 503: *** can't be reached"
    assert "***" in next_one.detail and "34600123456" not in next_one.detail


async def test_an_outcome_echoes_incident_number_and_attempt() -> None:
    receiver = Receiver()
    responder = ResponderActor(HOST, {"webhook": receiver})

    said = outcome(await responder.act(act("k1", number=3, attempt=2)))

    assert receiver.told == [("k1", some_facts())]
    assert said == ActionOutcome(b"i" * 16, 3, 2, ok=True, detail="done", final=False)
    assert await count(responder, "llm_im_actions_total", outcome="succeeded") == 1


async def test_an_unknown_action_is_a_failure_that_names_it_and_reaches_nobody() -> None:
    said = outcome(await ResponderActor(HOST, {"webhook": Receiver()}).act(act(target="pager")))

    assert (said.ok, said.final, said.reached) == (False, False, False)
    assert "'pager'" in said.detail and "webhook" in said.detail


async def test_the_same_key_while_under_way_is_sent_once_and_answered_twice() -> None:
    receiver = Receiver()
    receiver.gate.clear()
    responder = ResponderActor(HOST, {"webhook": receiver}, concurrency=1)

    calls = [asyncio.create_task(responder.act(act("same"))) for _ in range(3)]
    await asyncio.sleep(0.01)
    receiver.gate.set()
    said = [outcome(await call) for call in calls]

    assert len(receiver.told) == 1
    assert all(one.ok for one in said)


async def test_the_same_key_afterwards_is_sent_again() -> None:
    receiver = Receiver()
    responder = ResponderActor(HOST, {"webhook": receiver})

    await responder.act(act("same"))
    await responder.act(act("same"))

    assert len(receiver.told) == 2


async def test_past_the_bound_a_call_is_refused_as_busy() -> None:
    receiver = Receiver()
    receiver.gate.clear()
    responder = ResponderActor(HOST, {"webhook": receiver}, concurrency=2)
    running = [asyncio.create_task(responder.act(act(f"k{n}"))) for n in range(2)]
    await asyncio.sleep(0.01)

    with pytest.raises(Busy) as refused:
        await responder.act(act("one more"))
    receiver.gate.set()
    await asyncio.gather(*running)
    afterwards = outcome(await responder.act(act("one more")))

    assert refused.value.retry_after_s > 0
    assert afterwards.ok
    assert [key for key, _ in receiver.told] == ["k0", "k1", "one more"]


async def test_the_bound_is_each_targets_own() -> None:
    receiver = Receiver()
    receiver.gate.clear()
    responder = ResponderActor(HOST, {"dead": receiver, "alive": receiver}, concurrency=1)
    dead = asyncio.create_task(responder.act(act("a", target="dead")))
    await asyncio.sleep(0.01)

    alive = asyncio.create_task(responder.act(act("b", target="alive")))
    await asyncio.sleep(0.01)
    with pytest.raises(Busy, match="dead: 1 calls are under way"):
        await responder.act(act("c", target="dead"))
    receiver.gate.set()

    assert outcome(await dead).ok and outcome(await alive).ok


async def test_a_caller_that_goes_away_does_not_stop_what_was_begun() -> None:
    receiver = Receiver()
    receiver.gate.clear()
    responder = ResponderActor(HOST, {"webhook": receiver})
    first = asyncio.create_task(responder.act(act("same")))
    second = asyncio.create_task(responder.act(act("same")))
    await asyncio.sleep(0.01)

    first.cancel()
    await asyncio.sleep(0)
    receiver.gate.set()

    assert outcome(await second).ok
    assert len(receiver.told) == 1


async def test_an_action_that_breaks_its_promise_is_a_failure_without_its_words() -> None:
    said = outcome(await ResponderActor(HOST, {"webhook": Receiver(RuntimeError("token=s3cr3t"))}).act(act()))

    assert (said.ok, said.final) == (False, False)
    assert "RuntimeError" in said.detail and "s3cr3t" not in said.detail


async def test_an_action_that_never_ends_meets_the_deadline_and_frees_its_place() -> None:
    receiver = Receiver()
    receiver.gate.clear()
    responder = ResponderActor(HOST, {"webhook": receiver}, concurrency=1, deadline_s=0.05)

    first = outcome(await responder.act(act("a")))
    second = outcome(await responder.act(act("b")))

    assert "no result within 0.05 s" in first.detail
    assert not second.ok


async def test_what_is_no_act_is_malformed() -> None:
    with pytest.raises(Malformed, match="Act"):
        await ResponderActor(HOST, {}).act(b"\xc1nonsense")


async def test_closing_stops_what_is_under_way_and_closes_the_actions() -> None:
    receiver = Receiver()
    receiver.gate.clear()
    responder = ResponderActor(HOST, {"webhook": receiver})
    call = asyncio.create_task(responder.act(act()))
    await asyncio.sleep(0.01)

    await responder.stop()
    await responder.stop()

    with pytest.raises(asyncio.CancelledError):
        await call
    assert receiver.closed >= 1


# The classifier.


def question(incident_id: bytes, title: str = "llm-api is down", asked: int = 1) -> Classify:
    return Classify(
        incident_id=incident_id,
        tenant="default",
        service="llm-api",
        source="",
        title=title,
        description="",
        labels={},
        annotations={},
        signals=["critical"],
        asked=asked,
    )


def verdicts(data: bytes) -> list[Classification]:
    message = decode_message(data)
    assert isinstance(message, Classified)
    return message.verdicts


async def test_a_batch_is_answered_in_order() -> None:
    actor = ClassifierActor(HOST, Classifier())
    ids = [bytes([n % 256]) * 16 for n in range(600)]

    said = verdicts(
        await actor.classify(msgspec.msgpack.encode([question(one, asked=n) for n, one in enumerate(ids)]))
    )

    assert [verdict.incident_id for verdict in said] == ids
    assert [verdict.asked for verdict in said] == list(range(600))
    assert {verdict.severity for verdict in said} == {Severity.P1}
    assert await count(actor, "llm_im_classified_total") == 600


async def test_one_unreadable_question_fails_only_itself() -> None:
    broken = msgspec.to_builtins(question(b"b" * 16))
    broken[1] = b"b" * 16
    broken[7] = "labels should be a map"
    items = [question(b"a" * 16), broken, question(b"c" * 16), ["Classify"], 7]
    actor = ClassifierActor(HOST, Classifier())

    said = verdicts(await actor.classify(msgspec.msgpack.encode(items)))

    assert [verdict.incident_id[:1] for verdict in said] == [b"a", b"b", b"c"]
    assert said[1].by.startswith("error: ValidationError")
    assert (said[1].confidence, said[1].asked) == (0.0, 1)
    assert await count(actor, "llm_im_classify_failed_total") > 0


async def test_one_question_that_breaks_the_judge_fails_only_itself() -> None:
    class Moody:
        def classify(self, effect: Classify) -> Classification:
            if effect.title == "break":
                raise RecursionError
            return Classifier().classify(effect)

    items = [question(b"a" * 16), question(b"b" * 16, "break", asked=4), question(b"c" * 16)]

    said = verdicts(await ClassifierActor(HOST, Moody()).classify(msgspec.msgpack.encode(items)))

    assert [verdict.by.startswith("error") for verdict in said] == [False, True, False]
    assert (said[1].by, said[1].asked) == ("error: RecursionError", 4)


async def test_what_is_no_list_is_malformed() -> None:
    with pytest.raises(Malformed, match="list of Classify"):
        await ClassifierActor(HOST, Classifier()).classify(msgspec.msgpack.encode({"a": 1}))
