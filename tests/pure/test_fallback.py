"""A receiver that can't be told: its fallback is told in its place, once."""

from __future__ import annotations

import msgspec
import pytest
from pydantic import ValidationError

from models.incidents.incident import Severity
from models.incidents.verbs import Resolve
from models.routes.route import ReceiverRow, Route
from models.settings.all import Settings
from models.shard.effects import Act
from models.shard.events import NotificationFellBack, NotificationOwed
from models.shard.known_silences import SilencesChanged
from tests.pure.test_telling import silence
from tests.scenario import SETTINGS, Story, alert, at

RECEIVERS = {
    "pager": ReceiverRow(fallback="mail", fallback_after_s=60.0),
    "mail": ReceiverRow(fallback="phone", fallback_after_s=60.0),
    "phone": ReceiverRow(),
    "ops": ReceiverRow(),
}


def story(receivers: dict[str, ReceiverRow] = RECEIVERS, told: tuple[str, ...] = ("pager",)) -> Story:
    """An incident that a route's receivers are asked to tell of."""
    route = Route(receivers=("ops",), routes=(Route(name="all", receivers=told, interval_s=10.0),))
    made = Story(msgspec.structs.replace(SETTINGS, route=route, receivers=receivers))
    made.push(at(0), alert("llm-api", "Down"))
    made.classify(at(0), Severity.P0)
    return made


def targets(told: Story) -> list[tuple[str, str]]:
    return [(act.target, act.facts.reason) for _when, act in told.asked if isinstance(act, Act)]


def fails_until(told: Story, last: float, by: str = "pager") -> None:
    """All that is asked of a receiver fails, for so long."""
    while told.now < at(last):
        if by in [name for name, _reason in targets(told)]:
            told.receive(told.now, by=by, ok=False, reached=False)
        told.tick(told.now + 1)


def test_one_that_is_given_up_is_stood_in_for_at_once() -> None:
    told = story()

    told.receive(at(1), by="pager", ok=False, final=True, reached=False)

    assert targets(told) == [("mail", "opened")]
    [line] = [line for line in told.incident.timeline if line.kind == "NotificationFellBack"]
    assert line.text == "opened to mail, because pager can't be told: it was given up"


def test_one_that_fails_for_long_is_stood_in_for_once_and_goes_on_being_tried() -> None:
    told = story()

    fails_until(told, 59)
    before = told.named(NotificationFellBack)
    fails_until(told, 62)
    assert ("mail", "opened") in targets(told)
    told.receive(told.now, by="mail")
    fails_until(told, 600)

    assert before == []
    [fell] = told.named(NotificationFellBack)
    assert (fell.receiver, fell.to, fell.why) == ("pager", "mail", "not for 1m")
    assert [each.receiver for each in told.named(NotificationOwed)].count("mail") == 1
    assert told.incident.notification_of("pager").reason == "opened", "it is still tried"


def test_a_receiver_that_comes_back_in_time_needs_nobody() -> None:
    told = story()
    fails_until(told, 50)

    told.ticks(told.now, at(58))
    told.told(told.now)
    told.ticks(told.now, at(300))

    assert told.named(NotificationFellBack) == []


def test_the_fallback_hears_what_comes_later_and_the_end() -> None:
    told = story()
    told.receive(at(1), by="pager", ok=False, final=True, reached=False)
    told.told(at(2))

    told.push(at(30), alert("llm-api", "Down").ended(30))
    ends = [name for name, reason in targets(told) if reason == "resolved"]

    assert ends == ["mail"]


def test_who_stands_in_is_stood_in_for_in_turn_and_that_ends_somewhere() -> None:
    told = story()

    for name in ("pager", "mail", "phone"):
        assert targets(told) == [(name, "opened")]
        told.receive(told.now + 1, by=name, ok=False, final=True, reached=False)

    assert targets(told) == []
    assert [(each.receiver, each.to) for each in told.named(NotificationFellBack)] == [
        ("pager", "mail"),
        ("mail", "phone"),
    ]


def test_two_that_name_each_other_do_not_go_round_and_round() -> None:
    told = story(
        {"pager": ReceiverRow(fallback="mail"), "mail": ReceiverRow(fallback="pager"), "ops": ReceiverRow()}
    )

    for _ in range(10):
        for name, _reason in targets(told):
            told.receive(told.now + 1, by=name, ok=False, final=True, reached=False)

    assert len(told.named(NotificationFellBack)) == 1


def test_one_that_routes_chose_anyway_is_told_once() -> None:
    told = story(RECEIVERS | {"pager": ReceiverRow(fallback="ops")}, told=("pager", "ops"))

    told.receive(at(1), by="pager", ok=False, final=True, reached=False)
    told.told(at(2))

    assert told.named(NotificationFellBack) == []
    assert [each.receiver for each in told.named(NotificationOwed)].count("ops") == 1


def test_a_resolve_that_nobody_takes_falls_back_on_nobody() -> None:
    told = story()
    told.told(at(1))
    told.push(at(30), alert("llm-api", "Down").ended(30))

    told.receive(at(31), by="pager", ok=False, final=True, reached=False)

    assert targets(told) == [] and told.named(NotificationFellBack) == []


def test_when_it_begins_again_the_fallback_hears_of_it_again() -> None:
    told = story()
    told.receive(at(1), by="pager", ok=False, final=True, reached=False)
    told.told(at(2))
    told.push(at(30), alert("llm-api", "Down").ended(30))
    told.told(at(31))

    told.push(at(60), alert("llm-api", "Down"))
    told.receive(at(61), by="pager", ok=False, final=True, reached=False)

    assert targets(told) == [("mail", "reopened")]


def test_what_was_muted_meanwhile_is_told_by_who_stands_in_when_it_is_over() -> None:
    told = story()
    told.receive(at(1), by="pager", ok=False, final=True, reached=False)
    told.receive(at(2), by="mail", ok=False, reached=False)
    told.tell(at(2.5), SilencesChanged(1, [silence(ends=20.0)], whole=True))
    told.ticks(at(3), at(30))

    assert ("mail", "opened") in targets(told)


def test_settings_name_a_receiver_that_there_is_and_no_circle() -> None:
    def settings(**fallbacks: str) -> None:
        receivers = {
            name: {"type": "webhook", "url": "http://127.0.0.1:1/", "fallback": to}
            for name, to in fallbacks.items()
        }
        Settings.model_validate({"notify": {"receivers": receivers, "route": {"receivers": ["a"]}}})

    settings(a="b", b="c", c="")
    for wrong, words in (
        ({"a": "x"}, "there is no receiver 'x'; there are a"),
        ({"a": "a"}, "expected another than itself"),
        ({"a": "b", "b": "c", "c": "a"}, "expected another than itself"),
    ):
        with pytest.raises(ValidationError, match=words):
            settings(**wrong)


def test_a_person_who_resolves_it_ends_the_waiting_too() -> None:
    told = story()
    told.receive(at(1), by="pager", ok=False, final=True, reached=False)

    told.do(at(2), Resolve(), told.incident)

    assert all(reason != "opened" or name != "phone" for name, reason in targets(told))
