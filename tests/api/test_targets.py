"""A target that fails is left alone for a while and then tried with one call; nothing that is owed to it is lost, and nobody
else waits for it. Through a real responder, and as people see it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import structlog.testing

from actors.responder import ResponderActor
from actors.targets import TARGETS_MAX, Targets, decode_views, receiver_target
from models.metrics import Meter
from models.ports import ActionResult
from models.response.breaker import BreakerRule
from models.response.target import Limits, NotNow
from models.settings.all import Settings
from models.settings.processes import RESPONDER
from tests.api.gateway_in_process import System, alert, system
from tests.api.test_notifying import a_receiver, notify, until
from tests.api.test_responder import HOST, Receiver, act, count, outcome
from tests.clock import ManualClock

pytestmark = pytest.mark.asyncio

LIMITS = Limits(breaker=BreakerRule(failures=2, share=0.0, open_s=5.0, open_max_s=20.0))


class Failing(Receiver):
    """Fails while it `fails`."""

    def __init__(self) -> None:
        super().__init__()
        self.fails = True

    async def act(self, key: str, facts: Any, trace: str | None = None) -> ActionResult:
        await super().act(key, facts, trace)
        return ActionResult(ok=not self.fails, detail="answered 503" if self.fails else "done")


def a_responder(clock: ManualClock, receiver: Receiver, limits: Limits = LIMITS) -> ResponderActor:
    targets = Targets(clock, limits=limits, receivers=["webhook"])
    receivers = dict.fromkeys(("webhook", "dead", "alive"), receiver)
    return ResponderActor(HOST, receivers, targets=targets)


async def test_a_broken_target_is_not_called_and_the_shard_is_told_when_to_try_again() -> None:
    clock, receiver = ManualClock(1000.0), Failing()
    responder = a_responder(clock, receiver)

    said = [outcome(await responder.act(act(f"k{n}"))) for n in range(4)]

    assert len(receiver.told) == 2
    assert [one.reached for one in said] == [True, True, False, False]
    assert (said[3].ok, said[3].final, said[3].retry_after_s) == (False, False, 5.0)
    assert "2 failures in a row; the last error: answered 503" in said[3].detail
    assert (
        await count(responder, "llm_im_target_calls_refused_total", target="receiver:webhook", why="open")
        == 2
    )
    assert await count(responder, "llm_im_target_opened_total", target="receiver:webhook") == 1


async def test_of_all_that_come_when_it_may_be_tried_one_is_sent() -> None:
    clock, receiver = ManualClock(1000.0), Failing()
    responder = a_responder(clock, receiver)
    for n in range(2):
        await responder.act(act(f"k{n}"))
    clock.forward(5.0)
    receiver.fails = False
    receiver.gate.clear()

    probe = asyncio.create_task(responder.act(act("probe")))
    await asyncio.sleep(0)
    others = [outcome(await responder.act(act(f"other{n}"))) for n in range(5)]
    receiver.gate.set()

    assert outcome(await probe).ok
    assert len(receiver.told) == 3
    assert all(not one.ok and not one.reached and one.retry_after_s for one in others)
    assert outcome(await responder.act(act("after"))).ok


async def test_a_refusal_of_one_body_says_nothing_about_its_target() -> None:
    class Refusing(Receiver):
        async def act(self, key: str, facts: Any, trace: str | None = None) -> ActionResult:
            await super().act(key, facts, trace)
            return ActionResult(ok=False, detail="answered 400", final=True)

    receiver = Refusing()
    responder = a_responder(ManualClock(1000.0), receiver)

    for n in range(10):
        assert outcome(await responder.act(act(f"k{n}"))).final

    assert len(receiver.told) == 10


async def test_one_target_that_fails_is_no_others_fault() -> None:
    receiver = Failing()
    responder = a_responder(ManualClock(1000.0), receiver)
    for n in range(3):
        await responder.act(act(f"k{n}", target="dead"))
    receiver.fails = False

    assert not outcome(await responder.act(act("x", target="dead"))).ok
    assert outcome(await responder.act(act("y", target="alive"))).ok


async def test_one_that_is_called_too_often_is_called_later_and_nothing_is_lost() -> None:
    clock, receiver = ManualClock(1000.0), Receiver()
    responder = a_responder(clock, receiver, Limits(rate_per_s=0.2))

    said = [outcome(await responder.act(act(f"k{n}"))) for n in range(4)]
    clock.forward(said[2].retry_after_s)
    again = outcome(await responder.act(act("k2", attempt=2)))

    assert [one.ok for one in said] == [True, True, False, False]
    assert 0 < said[2].retry_after_s < said[3].retry_after_s
    assert again.ok


async def test_changes_are_told_once_in_the_log_and_bear_no_secret() -> None:
    clock, receiver = ManualClock(1000.0), Failing()
    responder = a_responder(clock, receiver)

    with structlog.testing.capture_logs() as lines:
        for n in range(30):
            await responder.act(act(f"k{n}"))
            clock.forward(1.0)
        receiver.fails = False
        clock.forward(20.0)
        await responder.act(act("good"))

    told = [(each["event"], each["target"]) for each in lines if "target" in each]
    assert told == [
        ("target fails, not calling it for a while", "receiver:webhook"),
        ("target works again", "receiver:webhook"),
    ]


async def test_a_call_that_ends_with_its_process_holds_nothing() -> None:
    receiver = Receiver()
    receiver.gate.clear()
    responder = a_responder(ManualClock(1000.0), receiver)
    call = asyncio.create_task(responder.act(act("k")))
    await asyncio.sleep(0)

    await responder.stop()
    await asyncio.gather(call, return_exceptions=True)

    (view,) = decode_views(await responder.targets(b""))
    assert (view.target, view.in_flight, view.failures) == ("receiver:webhook", 0, 0)


async def test_targets_that_templates_make_up_are_forgotten_before_they_are_too_many() -> None:
    targets = Targets(ManualClock(1000.0), receivers=["pager"])
    pager = targets.may_i(receiver_target("pager"))
    for n in range(TARGETS_MAX * 2):
        period = targets.may_i(f"host:h{n}:443")
        assert not isinstance(period, NotNow)
        targets.over(f"host:h{n}:443", period, ActionResult(ok=True, detail=""))
    meter = Meter("r")
    targets.measure(meter)

    names = [view.target for view in targets.views()]
    assert len(names) == TARGETS_MAX and "receiver:pager" in names and pager is not None
    assert len(meter.read().gauges) < 1000


async def test_the_call_of_an_action_goes_through_its_target() -> None:
    clock = ManualClock(1000.0)
    targets = Targets(clock, limits=LIMITS)

    async def fails() -> ActionResult:
        return ActionResult(ok=False, detail="answered 500")

    async def raises() -> ActionResult:
        raise asyncio.CancelledError

    assert [(await targets.call("host:a:80", fails)).reached for _ in range(3)] == [True, True, False]
    assert "answered 500" in targets.why_broken("host:a:80")
    assert targets.why_broken("host:b:80") == ""
    with pytest.raises(asyncio.CancelledError):
        await targets.call("host:b:80", raises)
    assert [view.in_flight for view in targets.views()] == [0, 0]


async def test_people_see_what_fails_and_the_notification_arrives_when_it_works_again() -> None:
    outbound = {"breaker": {"failures": 2, "open": 0.3, "open_max": 0.3}}
    async with a_receiver(*[503] * 3) as receiver, system(notify=notify(receiver), outbound=outbound) as ours:
        [before] = (await _targets(ours))["items"]
        await ours.post("/v1/alerts", [alert("Down", severity="critical")])
        await until(lambda: len(receiver.refused) == 2)
        [during] = (await _targets(ours))["items"]
        await until(lambda: receiver.got)
        [after] = (await _targets(ours))["items"]

    assert (before["target"], before["responder"], before["state"]) == (
        "receiver:webhook",
        "responder-0",
        "closed",
    )
    assert (during["state"], during["failures"]) == ("open", 2)
    assert during["last_error"].endswith("answered 503") and during["retry_at"] and during["broken_since"]
    assert (after["state"], after["failures"], after["broken_since"]) == ("closed", 0, None)
    assert receiver.reasons() == ["opened"]


async def test_a_receiver_may_have_bounds_of_its_own() -> None:
    receivers: dict[str, dict[str, object]] = {
        "slow": {"type": "webhook", "url": "http://127.0.0.1:1/", "rate": "60/m", "max_in_flight": 2},
        "other": {"type": "webhook", "url": "http://127.0.0.1:1/"},
    }
    settings = Settings.model_validate(
        {"notify": {"receivers": receivers, "route": {"receivers": ["other"]}}}
    )
    given = settings.given_to(RESPONDER)

    targets = Targets.of(given, ManualClock(1000.0), ["slow", "other"])
    before = {each.target: (each.max_in_flight, each.rate_per_s) for each in targets.views()}
    receivers["other"]["max_in_flight"] = 1
    targets.take(
        Settings.model_validate(
            {"notify": {"receivers": receivers, "route": {"receivers": ["other"]}}}
        ).given_to(RESPONDER)
    )
    after = {each.target: each.max_in_flight for each in targets.views()}

    assert before == {"receiver:slow": (2, 1.0), "receiver:other": (32, 50.0)}
    assert after == {"receiver:slow": 2, "receiver:other": 1}


async def test_a_responder_that_does_not_answer_is_named() -> None:
    async with a_receiver() as receiver, system(notify=notify(receiver, responders=2)) as ours:
        # Only the first is started here.
        found = await _targets(ours)

    assert found["silent"] == ["responder-1"]
    assert [each["responder"] for each in found["items"]] == ["responder-0"]


async def _targets(ours: System) -> dict[str, Any]:
    answer = await ours.get("/v1/targets")
    assert answer.status == 200
    return dict(json.loads(answer.body))
