"""Several receivers are told of an incident, each by itself: whom routes choose, what each hears, and when."""

from __future__ import annotations

import msgspec
import pytest

from models.control.silences import Silence
from models.incidents.incident import Incident, IncidentType, Notification, Severity
from models.incidents.verbs import Acknowledge, Label, Merge, Reclassify, Resend, Resolve
from models.routes.route import ReceiverRow, Route
from models.shard.effects import Act
from models.shard.events import (
    ActionFailed,
    NotificationDiscarded,
    NotificationDropped,
    NotificationOwed,
    NotificationWithheld,
)
from models.shard.known_silences import SilencesChanged
from models.shard.notifications import Notifications
from models.shard.settings import ShardSettings
from tests.pure import test_mutes
from tests.scenario import SETTINGS, Refusal, Story, alert, at


def silence(instance: str = ".*", ends: float = 100.0) -> Silence:
    matchers = (("service", "=", "llm-api"), ("instance", "=~", instance))
    return test_mutes.silence(matchers=matchers, ends=ends)


RECEIVERS = {name: ReceiverRow() for name in ("ops", "pager", "db", "boss")}
URGENT = Route(
    name="urgent",
    severities=(Severity.P0, Severity.P1),
    receivers=("pager",),
    continues=True,
    escalate_to=("boss",),
    interval_s=10.0,
)
DB = Route(name="db", services=("vector-db",), receivers=("db",), interval_s=10.0)
NOISE = Route(name="noise", matchers=(("alertname", "=", "Watchdog"),), receivers=(), discards=True)
REST = Route(name="rest", receivers=("ops",), interval_s=10.0)


def settings(
    *routes: Route, receivers: dict[str, ReceiverRow] = RECEIVERS, **others: object
) -> ShardSettings:
    root = Route(receivers=("ops",), routes=routes or (NOISE, URGENT, DB, REST))
    return msgspec.structs.replace(
        SETTINGS, route=root, receivers=receivers, acknowledge_within_s=(60.0,) * 5, **others
    )


def opened(severity: Severity = Severity.P0, service: str = "llm-api", **others: object) -> Story:
    """An incident of which everybody was told that should be."""
    story = Story(settings(**others))  # type: ignore[arg-type]
    story.push(at(0), alert(service, "Down"))
    story.classify(at(0), severity)
    return story


def test_each_receiver_that_routes_choose_is_told_by_a_key_of_its_own() -> None:
    story = opened(Severity.P0, "vector-db")

    acts = [effect for _when, effect in story.asked if isinstance(effect, Act)]

    assert [(each.target, each.facts.receiver, each.facts.reason) for each in acts] == [
        ("pager", "pager", "opened"), ("db", "db", "opened")
    ]  # fmt: skip
    assert len({each.key for each in acts}) == 2 and all(each.target in each.key for each in acts)
    assert [event.route for event in story.named(NotificationOwed)] == ["urgent", "db"]


def test_the_webhook_of_before_has_the_key_it_always_had() -> None:
    story = Story()
    story.push(at(0), alert("llm-api", "Down"))
    story.classify(at(0), Severity.P0)

    [act] = [effect for _when, effect in story.asked if isinstance(effect, Act)]

    assert act.target == "webhook" and act.key.count("-") == 4 + 2


def test_one_receiver_that_fails_holds_up_no_other_and_is_tried_again_alone() -> None:
    story = opened()

    story.receive(at(1), by="pager", ok=False, reached=False)
    story.told(at(1))
    story.ticks(at(2), at(9))

    assert [act.target for _when, act in story.asked if isinstance(act, Act)] == ["pager"]
    assert story.incident.notification_of("ops").sure == "firing"
    assert story.incident.notification_of("pager").attempt == 1


def test_a_resolve_reaches_whoever_was_told_and_nobody_else() -> None:
    story = opened()
    story.receive(at(1), by="ops")
    story.receive(at(1), by="pager", ok=False, final=True, reached=False)

    story.push(at(20), alert("llm-api", "Down").ended(20))

    assert story.told(at(21)) == [("ops", "resolved")]


def test_a_resolve_reaches_who_was_told_though_it_is_silenced_and_routed_elsewhere_by_then() -> None:
    story = opened()
    story.told(at(1))
    story.tell(at(2), SilencesChanged(1, [silence()], whole=True))
    story.tick(at(3))
    assert story.shard.withholds(story.incident)
    story.shard.take_settings(settings(Route(name="other", receivers=("db",))))

    story.push(at(20), alert("llm-api", "Down").ended(20))

    assert sorted(story.told(at(21))) == [("ops", "resolved"), ("pager", "resolved")]


def test_a_rise_in_severity_is_told_at_once_and_reaches_whom_routes_choose_now() -> None:
    story = opened(Severity.P3)
    story.ticks(at(1), at(25))
    assert story.told(at(26)) == [("ops", "opened")]

    story.do(at(27), Reclassify(Severity.P0), story.incident)

    assert story.told(at(27)) == [("pager", "opened"), ("ops", "severity changed")]


def test_who_was_told_goes_on_hearing_of_it_when_it_gets_milder() -> None:
    story = opened()
    story.told(at(1))
    story.do(at(2), Reclassify(Severity.P3), story.incident)
    assert story.told(at(3)) == []

    story.push(at(20), alert("llm-api", "Down").ended(20))

    assert sorted(story.told(at(21))) == [("ops", "resolved"), ("pager", "resolved")]


# -- growing --------------------------------------------------------------------------------------------------


def test_a_growing_incident_is_told_of_again_after_the_interval_with_what_is_new() -> None:
    story = opened(Severity.P3, receivers=RECEIVERS | {"ops": ReceiverRow(max_alerts=2)})
    story.ticks(at(1), at(20))
    story.told(at(21))
    story.push(at(22), *[alert("llm-api", "Down", each) for each in "bc"])
    story.push(at(24), alert("llm-api", "Down", "d"))
    story.ticks(at(25), at(29))
    assert story.sent() == []

    story.tick(at(31))

    [(_when, act)] = story.asked
    assert isinstance(act, Act) and (act.facts.reason, act.facts.new, act.facts.total) == (
        "more alerts",
        3,
        4,
    )
    assert {each.labels["instance"] for each in act.facts.alerts} <= set("bcd")
    story.told(at(32))
    story.ticks(at(33), at(60))
    assert story.sent() == []


def test_alerts_that_repeat_or_fire_again_are_nothing_new() -> None:
    story = opened(Severity.P3)
    story.push(at(1), alert("llm-api", "Down", "b"))
    story.ticks(at(2), at(20))
    story.told(at(21))

    story.push(at(22), alert("llm-api", "Down"))
    story.push(at(23), alert("llm-api", "Down", "b").ended(23))
    story.push(at(24), alert("llm-api", "Down", "b"))
    story.ticks(at(25), at(55))

    assert story.sent() == []


def test_what_joins_and_is_muted_is_no_news_until_it_is_muted_no_more() -> None:
    story = opened(Severity.P3)
    story.ticks(at(1), at(20))
    story.told(at(21))
    quiet = silence("b", ends=50)
    story.tell(at(22), SilencesChanged(1, [quiet], whole=True))

    story.push(at(23), alert("llm-api", "Down", "b"))
    story.ticks(at(24), at(49))
    assert story.sent() == []

    story.ticks(at(50), at(54))
    assert story.told(at(55)) == [("ops", "more alerts")]


def test_a_snapshot_of_before_does_not_make_every_open_incident_a_grown_one() -> None:
    story = opened(Severity.P3)
    story.ticks(at(1), at(20))
    story.told(at(21))
    story.incident.notification_of("ops").seen = -1

    assert story.shard.of(Notifications).next_at(story.incident) == 0.0


# -- nobody on it ---------------------------------------------------------------------------------------------


def repeating(**others: object) -> Story:
    rest = msgspec.structs.replace(REST, repeat_s=30.0)
    story = Story(settings(rest, **others))  # type: ignore[arg-type]
    story.push(at(0), alert("llm-api", "Down"))
    story.classify(at(0), Severity.P0)
    story.told(at(1))
    return story


def test_what_nobody_acknowledged_is_told_again_after_repeat_until_somebody_is_on_it() -> None:
    story = repeating()
    story.ticks(at(2), at(30))
    assert story.sent() == []
    story.ticks(at(31), at(33))
    assert story.told(at(34)) == [("ops", "still unacknowledged")]

    story.do(at(40), Acknowledge(), story.incident)
    story.ticks(at(41), at(99))

    assert story.sent() == []


def test_without_repeat_nothing_is_told_again() -> None:
    story = opened(Severity.P3)
    story.ticks(at(1), at(20))
    story.told(at(21))

    story.ticks(at(22), at(500))

    assert [kind for _who, kind in story.told(at(501))] == []


def test_a_repeat_that_nobody_took_is_dropped_when_somebody_is_on_it() -> None:
    story = repeating()
    story.ticks(at(2), at(31))
    story.receive(at(32), ok=False, reached=False)

    story.do(at(32.1), Acknowledge(), story.incident)
    story.ticks(at(33), at(60))

    assert (
        story.sent() == [] and story.named(NotificationDropped)[-1].why == "acknowledged before it was sent"
    )


def test_whom_a_route_escalates_to_is_told_when_the_target_has_passed_and_of_what_follows() -> None:
    story = opened()
    story.told(at(1))
    story.ticks(at(2), at(58))
    assert story.sent() == []

    story.ticks(at(59), at(61))
    assert story.told(at(62)) == [("boss", "not acknowledged in time")]

    story.do(at(70), Resolve(notes="done"), story.incident)
    story.ticks(at(71), at(75))
    assert sorted(story.told(at(76))) == [("boss", "resolved"), ("ops", "resolved"), ("pager", "resolved")]


def test_nobody_is_escalated_to_when_it_was_acknowledged_in_time() -> None:
    story = opened()
    story.told(at(1))
    story.do(at(30), Acknowledge(), story.incident)

    story.ticks(at(31), at(90))

    assert story.sent() == []


def test_an_escalation_that_was_muted_is_told_when_it_is_not_any_more_unless_somebody_is_on_it() -> None:
    def muted_until(end: float) -> Story:
        story = opened()
        story.told(at(1))
        story.tell(at(50), SilencesChanged(1, [silence(ends=end)], whole=True))
        story.ticks(at(51), at(end - 1))
        assert [(each.receiver, each.reason) for each in story.named(NotificationWithheld)] == [
            ("boss", "not acknowledged in time")
        ]
        return story

    late, taken = muted_until(80), muted_until(80)
    taken.do(at(79), Acknowledge(), taken.incident)
    for story in (late, taken):
        story.ticks(at(80), at(83))

    assert late.told(at(84)) == [("boss", "not acknowledged in time")]
    assert taken.told(at(84)) == [] and taken.incident.withheld == ""


# -- discarded ------------------------------------------------------------------------------------------------


def test_what_a_route_discards_is_told_to_nobody_and_its_timeline_says_why() -> None:
    story = Story(settings())
    story.push(at(0), alert("llm-api", "Watchdog"))
    story.classify(at(0), Severity.P0)
    story.ticks(at(1), at(90))
    story.push(at(91), alert("llm-api", "Watchdog").ended(91))
    story.push(at(92), alert("llm-api", "Watchdog"))
    story.ticks(at(93), at(99))

    assert story.sent() == [] and len(story.named(NotificationDiscarded)) == 1
    [line] = [line for line in story.incident.timeline if line.kind == "NotificationDiscarded"]
    assert line.text == 'nobody is told, by route noise: alertname="Watchdog"'
    assert line.details["route"] == "noise"


def test_what_was_discarded_is_told_when_routes_choose_somebody_by_then() -> None:
    low = Route(name="low", severities=(Severity.P4,), receivers=(), discards=True)
    story = Story(settings(low, REST))
    story.push(at(0), alert("llm-api", "Down"))
    story.classify(at(0), Severity.P4)
    assert story.incident.discarded == "low"

    story.do(at(1), Reclassify(Severity.P0), story.incident)

    assert story.told(at(2)) == [("ops", "opened")] and story.incident.discarded == ""


def test_a_classifier_that_is_down_prevents_nothing_and_what_it_would_say_counts_as_p1() -> None:
    story = Story(settings())
    story.push(at(0), alert("llm-api", "Down"), alert("llm-api", "Watchdog"))

    story.ticks(at(1), at(6))

    assert sorted(story.told(at(7))) == [("ops", "opened"), ("pager", "opened")]
    assert len(story.named(NotificationDiscarded)) == 1


def test_what_was_discarded_by_a_label_is_told_when_an_alert_joins_that_has_not_got_it() -> None:
    test = Route(name="test", matchers=(("severity", "=", "none"),), receivers=(), discards=True)
    story = Story(settings(test, REST))
    story.push(at(0), alert("llm-api", "Down", severity="none"))
    story.classify(at(0), Severity.P3)
    story.ticks(at(1), at(30))
    assert story.sent() == []

    story.push(at(31), alert("llm-api", "Down", "b", severity="real"))
    story.ticks(at(32), at(52))

    assert story.told(at(53)) == [("ops", "opened")]


def test_a_label_that_a_person_sets_brings_in_whom_routes_choose_by_it() -> None:
    db = Route(name="db", matchers=(("team", "=", "db"),), receivers=("db",))
    story = Story(settings(db, REST))
    story.push(at(0), alert("llm-api", "Down"))
    story.classify(at(0), Severity.P0)
    story.told(at(1))

    story.do(at(2), Label({"team": "db"}), story.incident)

    assert story.told(at(3)) == [("db", "opened")]


# -- ends -----------------------------------------------------------------------------------------------------


def endless() -> Story:
    """The receiver `ops` is not told of ends."""
    return opened(Severity.P0, receivers=RECEIVERS | {"ops": ReceiverRow(sends_resolved=False)})


def test_who_is_told_of_no_ends_hears_of_the_next_opening() -> None:
    story = endless()
    story.told(at(1))

    story.push(at(20), alert("llm-api", "Down").ended(20))
    assert story.told(at(21)) == [("pager", "resolved")]
    story.push(at(40), alert("llm-api", "Down"))
    story.ticks(at(41), at(42))

    assert sorted(story.told(at(43))) == [("ops", "reopened"), ("pager", "reopened")]
    # It is no line of the timeline: nothing happened to anybody.
    assert "NotificationDropped" not in story.kinds(story.incident)


def test_who_is_told_of_no_ends_hears_nothing_of_an_incident_that_only_blinked() -> None:
    story = endless()
    story.told(at(1))

    story.push(at(3), alert("llm-api", "Down").ended(3))
    story.push(at(5), alert("llm-api", "Down"))
    story.ticks(at(6), at(30))

    assert story.sent() == []


def test_an_end_that_nobody_is_told_of_is_settled_though_the_shard_died_before_it_was_due() -> None:
    story = endless()
    story.told(at(1))
    story.push(at(3), alert("llm-api", "Down").ended(3))

    story.restart(at(20))
    story.ticks(at(21), at(22))

    assert story.told(at(23)) == [("pager", "resolved")]
    assert not story.incident.is_owed_notification


def test_an_end_that_nobody_is_told_of_stays_untold_when_the_clock_is_set_back() -> None:
    story = endless()
    story.told(at(1000))
    story.push(at(1003), alert("llm-api", "Down").ended(1003))

    story.restart(at(500))
    story.ticks(at(501), at(520))

    assert "ops" not in {who for who, _reason in story.told(at(521))}


# -- receivers come and go -------------------------------------------------------------------------------------


def without(*names: str) -> ShardSettings:
    """The settings after these receivers went."""
    left = {name: row for name, row in RECEIVERS.items() if name not in names}
    return settings(REST, receivers=left)


def test_what_is_still_to_be_told_to_a_receiver_that_went_is_dropped_and_said() -> None:
    story = opened()
    story.receive(at(1), by="ops")
    story.receive(at(1), by="pager", ok=False, reached=False)

    story.shard.take_settings(without("pager"))
    story.ticks(at(2), at(9))

    assert story.sent() == []
    [dropped] = story.named(NotificationDropped)
    assert (dropped.receiver, dropped.why) == ("pager", "receiver pager is not configured any more")


def test_a_receiver_that_went_is_told_the_end_of_what_it_was_told_and_of_nothing_else() -> None:
    story = opened()
    story.told(at(1))
    story.shard.take_settings(without("pager"))
    story.do(at(2), Reclassify(Severity.P1), story.incident)
    story.do(at(3), Reclassify(Severity.P0), story.incident)
    assert story.told(at(4)) == [("ops", "severity changed")]

    story.push(at(20), alert("llm-api", "Down").ended(20))

    assert sorted(story.told(at(21))) == [("ops", "resolved"), ("pager", "resolved")]


def test_an_end_that_a_receiver_that_went_can_not_be_told_is_dropped_for_good() -> None:
    story = opened()
    story.told(at(1))
    story.shard.take_settings(without("pager"))
    story.push(at(20), alert("llm-api", "Down").ended(20))

    story.receive(at(21), by="pager", ok=False, reached=False)
    story.told(at(21))
    story.replayed.take_settings(without("pager"))
    story.restart(at(22))
    story.ticks(at(23), at(40))

    [dropped] = story.named(NotificationDropped)
    assert dropped.why.startswith("receiver pager is not configured any more: ") and story.sent() == []
    assert not story.named(ActionFailed) and not story.shard.of(Notifications).given_up


def test_a_receiver_that_came_is_told_of_what_is_open_urgent_and_nobodys_at_the_next_start() -> None:
    story = opened()
    story.told(at(1))

    story.replayed.take_settings(settings(Route(name="new", receivers=("ops", "db"))))
    story.restart(at(30))
    story.ticks(at(31), at(32))

    assert story.told(at(33)) == [("db", "opened")]


def test_what_was_held_back_goes_to_whom_routes_choose_when_it_is_not_muted_any_more() -> None:
    story = Story(settings())
    story.tell(at(0), SilencesChanged(1, [silence(ends=20)], whole=True))
    story.push(at(1), alert("llm-api", "Down"))
    story.classify(at(1), Severity.P0)
    assert {each.receiver for each in story.named(NotificationWithheld)} == {"pager", "ops"}

    story.shard.take_settings(settings(Route(name="new", receivers=("ops", "db"))))
    story.ticks(at(2), at(23))

    assert sorted(story.told(at(24))) == [("db", "opened"), ("ops", "opened")]
    assert [each.why for each in story.named(NotificationDropped)] == ["routes choose others by now"]


# -- what receivers call it ------------------------------------------------------------------------------------


def test_what_a_receiver_calls_what_it_made_comes_back_with_what_follows() -> None:
    story = opened()
    story.told(at(1), ref="T-1")
    story.do(at(2), Reclassify(Severity.P1), story.incident)
    story.do(at(3), Reclassify(Severity.P0), story.incident)

    acts = [effect for _when, effect in story.asked if isinstance(effect, Act)]

    assert {each.target: each.facts.ref for each in acts} == {"pager": "pager/T-1", "ops": "ops/T-1"}


def test_a_receiver_that_says_nothing_the_second_time_keeps_what_it_said_the_first() -> None:
    story = opened()
    story.told(at(1), ref="T-1")
    story.push(at(20), alert("llm-api", "Down").ended(20))
    story.told(at(21))

    assert story.incident.notification_of("ops").ref == "ops/T-1"


# -- again, because a person wants it --------------------------------------------------------------------------


def test_a_person_has_everybody_told_again_at_once_or_one_receiver() -> None:
    story = opened()
    story.told(at(1))

    story.do(at(2), Resend(), story.incident)
    assert sorted(story.told(at(3))) == [("ops", "sent again"), ("pager", "sent again")]
    story.do(at(4), Resend("db"), story.incident)
    assert story.told(at(5)) == [("db", "sent again")]


@pytest.mark.parametrize(
    ("prepare", "kind", "says"),
    [
        (
            lambda story: story.do(at(2), Resolve(), story.incident),
            "Conflict",
            "it is Resolved: only an open",
        ),
        (
            lambda story: (
                story.tell(at(2), SilencesChanged(1, [silence()], whole=True)),
                story.tick(at(2.5)),
            ),
            "Conflict",
            "it is muted, ",
        ),
        (
            lambda story: story.shard.take_settings(settings(notify=False)),
            "Conflict",
            "notifications are off",
        ),
        (lambda _story: None, "Malformed", "there is no receiver 'nobody'; there are boss, db, ops, pager"),
    ],
)
def test_what_can_not_be_sent_again_is_refused_with_the_reason(prepare, kind: str, says: str) -> None:  # type: ignore[no-untyped-def]
    story = opened()
    story.told(at(1))
    prepare(story)

    with pytest.raises(Refusal) as raised:
        story.do(at(3), Resend("nobody" if kind == "Malformed" else ""), story.incident)

    assert raised.value.kind == kind and says in str(raised.value)


def test_a_childs_receivers_hear_of_its_end_only() -> None:
    story = opened()
    story.push(at(1), alert("vector-db", "Down"))
    story.classify(at(1), Severity.P1)
    story.told(at(2))
    whole, part = story.open_incidents()
    story.do(at(3), Merge(part.id), whole)
    story.carry(at(3))
    assert story.told(at(4)) == []

    with pytest.raises(Refusal, match="it was merged into incident"):
        story.do(at(5), Resend(), part)
    story.do(at(20), Resolve(), whole)
    story.carry(at(20))
    story.ticks(at(21), at(25))

    told = story.told(at(26))
    assert sorted(told) == sorted(
        [("ops", "resolved"), ("pager", "resolved")] + [("db", "resolved"), ("pager", "resolved")]
    )


# -- records of before -----------------------------------------------------------------------------------------


def test_a_record_of_before_there_were_several_has_that_of_the_webhook() -> None:
    story = Story()
    story.push(at(0), alert("llm-api", "Down"))
    story.classify(at(0), Severity.P0)
    story.told(at(1))
    found = story.incident
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(found))
    place = Incident.__struct_fields__.index("to_webhook")
    before = Incident.__struct_fields__.index("notifications")
    fields[place] = msgspec.to_builtins(found.notification_of("webhook"))[
        : Notification.__struct_fields__.index("route")
    ]

    read = msgspec.msgpack.decode(msgspec.msgpack.encode(fields[:before]), type=Incident)

    known = read.notification_of("webhook")
    assert (known.told, known.sure, known.number, known.seen) == (True, "firing", 1, -1)
    assert read.to_webhook is None and set(read.notifications) == {"webhook"}


def test_routes_ask_for_the_type_too() -> None:
    story = Story(settings(Route(name="apps", types=(IncidentType.APPLICATION,), receivers=("db",)), REST))
    story.push(at(0), alert("llm-api", "Down"))
    story.classify(at(0), Severity.P0)

    assert story.told(at(1)) == [("db", "opened")]
