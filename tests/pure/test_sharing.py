"""What an incident says of its alerts: the labels, annotations and title that all of them share, and word of those that joined."""

from __future__ import annotations

import itertools
import random

import msgspec
import pytest

from models.alerts.alert import Content
from models.alerts.grouping import TITLE_MAX_CHARS, title_of
from models.incidents.filters import IncidentFilter
from models.incidents.incident import Incident, IncidentState, Severity
from models.incidents.query import ListAlerts, ListIncidents
from models.incidents.summaries import summary_of
from models.incidents.verbs import Acknowledge, Assign, Label, Merge, Resolve, Split
from models.incidents.views import answer
from models.partition.checkpoint import record_key
from models.shard.common import Shared
from models.shard.effects import Act, Classify
from models.shard.messages import Decision
from models.shard.shard import Shard
from models.shard.sharing import (
    COUNTED_EVERY_S,
    JOINED_EVERY_S,
    JOINED_LINES_MAX,
    AlertsJoined,
    IncidentDescribed,
    Sharing,
)
from models.shard.state import INCIDENT
from tests.scenario import SETTINGS, Alert, Story, at


def pod(name: str, *, cluster: str = "eu1", summary: str = "", **labels: str) -> Alert:
    """An alert of one pod, the way Kubernetes' rules write them."""
    its = {"alertname": "PodCrash", "service": "api", "cluster": cluster, "pod": name, **labels}
    notes = {"summary": summary or f"Pod {name} crashes", "runbook": "https://wiki/pods"}
    return Alert({name: value for name, value in its.items() if value}, notes)


def story(*alerts: Alert, group_by: tuple[str, ...] = ("alertname",)) -> Story:
    """The alerts fire since second 0, and the receiver heard of them."""
    told = Story(msgspec.structs.replace(SETTINGS, group_by=group_by))
    if alerts:
        told.push(at(0), *alerts)
        told.classify(at(0), Severity.P1)
        told.receive(at(0))
    return told


# -- what they share ---------------------------------------------------------------------------------------------


def test_an_incident_has_the_labels_and_annotations_that_all_its_alerts_share() -> None:
    told = story(pod("1"), pod("2"), pod("3"))

    assert told.incident.labels == {"alertname": "PodCrash", "service": "api", "cluster": "eu1"}
    assert told.incident.annotations == {"runbook": "https://wiki/pods"}


def test_a_single_alert_speaks_for_itself() -> None:
    told = story(pod("1"))

    assert told.incident.labels["pod"] == "1"
    assert told.incident.title == "Pod 1 crashes (api)"


def test_the_title_of_several_fits_all_of_them() -> None:
    assert story(pod("1"), pod("2"), pod("3")).incident.title == "PodCrash (api) (3 pods)"


def test_a_summary_that_all_share_is_the_title() -> None:
    told = story(pod("1", summary="api crashes"), pod("2", summary="api crashes"))

    assert told.incident.title == "api crashes (2 pods)"


def test_alerts_that_differ_in_more_than_one_label_are_counted_as_alerts() -> None:
    told = story(pod("1"), pod("2", cluster="eu2"))

    assert told.incident.title == "PodCrash (api) (2 alerts)"


def test_alerts_of_which_one_lacks_a_label_are_counted_as_alerts() -> None:
    assert story(pod("1"), pod("")).incident.title == "PodCrash (api) (2 alerts)"
    assert story(pod(""), pod("1")).incident.title == "PodCrash (api) (2 alerts)"


@pytest.mark.parametrize(
    ("label", "many"),
    [
        ("pod", "3 pods"),
        ("address", "3 addresses"),
        ("replica_proxy", "3 replica_proxies"),
        ("gateway", "3 gateways"),
        ("k8s.pod.name", "3 k8s.pod.names"),
        ("y" * 60, "3 alerts"),
    ],
)
def test_what_differs_is_named_in_the_plural(label: str, many: str) -> None:
    assert title_of({"alertname": "Down"}, {}, "api", 3, label) == f"Down (api) ({many})"


def test_a_long_title_is_cut_before_its_count() -> None:
    title = title_of({}, {"summary": "api " + "x" * 300}, "api", 12, "pod")

    assert len(title) == TITLE_MAX_CHARS
    assert title.endswith("... (12 pods)")


def test_a_description_that_only_some_have_is_not_the_incidents() -> None:
    one = Alert({"alertname": "A", "service": "s", "pod": "1"}, {"description": "of pod 1"})
    told = story(one)
    assert told.incident.description == "of pod 1"

    told.push(at(1), Alert({"alertname": "A", "service": "s", "pod": "2"}, {"description": "of pod 2"}))

    assert told.incident.description == ""


# -- kept true ---------------------------------------------------------------------------------------------------


def test_labels_narrow_when_another_joins_and_widen_when_it_ends() -> None:
    told = story(pod("1"))

    told.push(at(1), pod("2", cluster="eu2"))
    assert told.incident.labels == {"alertname": "PodCrash", "service": "api"}
    told.push(at(2), pod("2", cluster="eu2").ended(2))

    assert told.incident.labels == {"alertname": "PodCrash", "service": "api", "cluster": "eu1", "pod": "1"}
    assert told.incident.title == "Pod 1 crashes (api)"


def test_labels_narrow_again_when_an_ended_alert_fires_again() -> None:
    told = story(pod("1"), pod("2"))
    told.push(at(1), pod("2").ended(1))

    told.push(at(2), pod("2"))

    assert told.decisions == [Decision.REFIRED]
    assert told.incident.title == "PodCrash (api) (2 pods)"


def test_annotations_follow_an_alert_that_says_something_else() -> None:
    told = story(pod("1", summary="same"), pod("2", summary="same"), pod("3", summary="same"))

    told.push(at(1), pod("2", summary="other"))
    assert "summary" not in told.incident.annotations
    told.push(at(2), pod("2", summary="same"))

    assert told.incident.annotations["summary"] == "same"


def test_a_resolved_incident_says_what_the_alerts_of_its_last_life_shared() -> None:
    told = story(pod("1"), pod("2"))
    told.push(at(1), pod("1").ended(1))
    told.push(at(2), pod("2").ended(2))
    assert told.incident.state is IncidentState.RESOLVED
    assert told.incident.title == "PodCrash (api) (2 pods)"

    told.push(at(10), pod("2"))
    told.push(at(20), pod("2").ended(20))

    assert told.incident.title == "Pod 2 crashes (api)"
    assert told.incident.labels["pod"] == "2"


def test_alerts_that_end_by_their_time_count_as_ended() -> None:
    told = story(pod("1"), Alert(pod("2").labels, pod("2").annotations, ends=5.0))

    told.tick(at(6))

    assert told.incident.labels["pod"] == "1"


def test_one_step_describes_an_incident_once() -> None:
    told = story(pod("0"))
    before = len(told.named(IncidentDescribed))

    told.push(at(1), *[pod(str(number)) for number in range(1, 200)])

    assert len(told.named(IncidentDescribed)) == before + 1
    assert told.incident.title == "PodCrash (api) (200 pods)"


def test_repeats_say_nothing_new() -> None:
    told = story(pod("1"), pod("2"))

    step = told.push(at(1), pod("1"), pod("2"))

    assert not [event for event in step.events if isinstance(event, IncidentDescribed)]


def test_a_change_of_what_alerts_share_makes_no_new_version() -> None:
    told = story(pod("1"))
    version = told.incident.version

    told.push(at(1), pod("2"))

    assert told.incident.version == version


def test_all_orders_of_ends_and_joins_keep_an_incident_true() -> None:
    """Story looks after each step whether labels, annotations and title are those of the firing alerts."""
    pods = [pod("1"), pod("2"), pod("3", cluster="eu2"), pod("4", zone="a")]
    for joins in itertools.permutations(range(4)):
        told = story()
        for second, place in enumerate(joins):
            told.push(at(second), pods[place])
        for second, place in enumerate(joins[2:] + joins[:2], 10):
            told.push(at(second), pods[place].ended(second))


@pytest.mark.parametrize("seed", range(20))
def test_whatever_alerts_come_to_say_an_incident_stays_true(seed: int) -> None:
    """Again by what Story looks at after each step."""
    chance = random.Random(seed)
    names = [str(number) for number in range(chance.choice([2, 3, 6]))]
    told = story(*[pod(name, summary="crashed") for name in names])
    for second in range(1, 60):
        some = chance.sample(names, chance.randint(1, len(names)))
        said = chance.choice(["crashed", "crashed again", "", "crashed {} times"])
        alerts = [pod(name, summary=said.format(chance.choice([name, second]))) for name in some]
        told.push(at(second), *[each.ended(second) if chance.random() < 0.1 else each for each in alerts])
        if chance.random() < 0.1:
            told.restart(at(second))


def test_a_restart_knows_what_alerts_share() -> None:
    told = story(pod("1"), pod("2"), pod("3"))
    told.restart(at(1))

    told.push(at(2), pod("1").ended(2))

    assert told.incident.title == "PodCrash (api) (2 pods)"


def test_an_overflow_incident_keeps_its_title() -> None:
    told = story(*[Alert({"alertname": f"A{number}", "service": "api"}) for number in range(5)])

    overflow = next(each for each in told.shard.state.incidents.values() if each.overflow is not None)

    assert overflow.title == "Too many incidents: overflow of api"
    assert overflow.labels == {"service": "api"}


# -- counted anew ------------------------------------------------------------------------------------------------


def test_a_storm_counts_a_title_anew_once_a_second() -> None:
    told = story(pod("0"), pod("1"))
    before = len(told.named(IncidentDescribed))

    for number in range(2, 102):
        told.push(at(1 + number / 50), pod(str(number)))

    assert len(told.named(IncidentDescribed)) - before == 2
    told.tick(at(4))
    assert told.incident.title == "PodCrash (api) (102 pods)"


def test_alerts_that_end_one_after_the_other_count_a_title_anew_once_a_second() -> None:
    told = story(*[pod(str(number)) for number in range(50)])
    before = len(told.named(IncidentDescribed))

    for number in range(40):
        told.push(at(1 + number / 100), pod(str(number)).ended(1))
    told.tick(at(3))

    assert told.incident.title == "PodCrash (api) (10 pods)"
    # One more each time that the alert ends with which the others are compared.
    assert len(told.named(IncidentDescribed)) - before < 12


def test_a_title_is_counted_anew_though_nothing_more_happens() -> None:
    told = story(pod("1"), pod("2"))
    told.push(at(0.125), pod("3"))
    told.push(at(0.25), pod("4"))
    assert told.incident.title == "PodCrash (api) (3 pods)"

    told.tick(at(0.125 + COUNTED_EVERY_S))

    assert told.incident.title == "PodCrash (api) (4 pods)"
    assert told.shard.of(Sharing).next_at(told.incident) == at(0.125 + JOINED_EVERY_S)


def test_a_title_is_counted_anew_after_a_restart() -> None:
    told = story(pod("1"), pod("2"))
    told.push(at(0.1), pod("3"))
    told.push(at(0.2), pod("4"))

    told.restart(at(5))
    told.tick(at(5))

    assert told.incident.title == "PodCrash (api) (4 pods)"


@pytest.mark.parametrize("joins", [1, 2])
def test_one_alert_or_several_is_said_at_once(joins: int) -> None:
    told = story(pod("1"))

    told.push(at(0.1), *[pod(f"more-{number}") for number in range(joins)])
    assert told.incident.title == f"PodCrash (api) ({1 + joins} pods)"
    told.push(at(0.2), *[pod(f"more-{number}").ended(0.2) for number in range(joins)])

    assert told.incident.title == "Pod 1 crashes (api)"


def test_what_alerts_share_is_said_at_once() -> None:
    told = story(pod("1"), pod("2"))

    told.push(at(0.1), pod("3", cluster="eu2"))

    assert "cluster" not in told.incident.labels
    assert told.incident.title == "PodCrash (api) (3 alerts)"


def test_a_page_says_how_many_fire_when_it_is_sent() -> None:
    told = Story(msgspec.structs.replace(SETTINGS, group_by=("alertname",)))
    told.push(at(0), pod("1"), pod("2"))
    told.push(at(0.1), pod("3"))
    told.classify(at(0.2), Severity.P0)

    (sent,) = [effect for _at, effect in told.asked if isinstance(effect, Act)]

    assert told.incident.title == "PodCrash (api) (2 pods)"
    assert sent.facts.title == "PodCrash (api) (3 pods)"


def test_a_title_that_says_no_number_is_not_counted_anew() -> None:
    told = story(pod("1"), pod("2"), pod("3"))
    made = told.do(at(1), Split([pod("1").key[:16], pod("2").key[:16]], title="The two"), told.incident)

    assert told.shard.of(Sharing).next_at(made) == 0.0


def test_a_title_of_before_it_was_known_what_it_counts_is_counted_anew() -> None:
    told = story(pod("1"), pod("2"), pod("3"))
    told.events = [
        (when, msgspec.structs.replace(event, counted=0) if isinstance(event, IncidentDescribed) else event)
        for when, event in told.events
    ]
    told.replayed = Shard("shard/0000", told.settings)
    for when, event in told.events:
        told.replayed.apply(event, when)
    told.restart(at(0.5))
    assert told.incident.counted == 0

    # As many as before, so its title stays.
    told.push(at(1), pod("1").ended(1), pod("4"))
    assert told.incident.title == "PodCrash (api) (3 pods)"
    told.push(at(1.1), pod("5"))
    told.tick(at(3))

    assert told.incident.title == "PodCrash (api) (4 pods)"


# -- what people said --------------------------------------------------------------------------------------------


def test_labels_that_a_person_set_or_removed_stay_as_they_said() -> None:
    told = story(pod("1"))
    told.do(at(1), Label({"team": "ml", "cluster": "all"}, ["service"]), told.incident)

    told.push(at(2), pod("2"))
    told.push(at(3), pod("2").ended(3))

    assert told.incident.labels == {"alertname": "PodCrash", "pod": "1", "team": "ml", "cluster": "all"}


def test_a_title_that_a_person_gave_stays() -> None:
    told = story(pod("1"), pod("2"), pod("3"))
    made = told.do(at(1), Split([pod("1").key[:16], pod("2").key[:16]], title="The two"), told.incident)
    assert made.labels == {"alertname": "PodCrash", "service": "api", "cluster": "eu1"}

    told.push(at(2), pod("1").ended(2))

    assert made.title == "The two"
    assert made.labels["pod"] == "2"
    other = next(each for each in told.shard.state.incidents.values() if each is not made)
    assert other.title == "Pod 3 crashes (api)"


def test_a_split_off_incident_keeps_the_labels_that_people_set() -> None:
    told = story(pod("1"), pod("2"))
    told.do(at(1), Label({"team": "ml"}, []), told.incident)

    made = told.do(at(2), Split([pod("1").key[:16]]), told.incident)

    assert made.labels["team"] == "ml"


def test_an_incident_of_an_earlier_snapshot_keeps_the_labels_that_people_set() -> None:
    """0.2.0 had the labels of the first alert, and wrote down what they came to, not who said what."""
    told = story(pod("1"), pod("2"))
    told.do(at(1), Label({"team": "ml"}, ["cluster"]), told.incident)
    old = msgspec.structs.replace(told.incident)
    assert old.handling is not None
    old.handling = msgspec.structs.replace(old.handling, labels=None)
    old.labels = {"alertname": "PodCrash", "service": "api", "pod": "1", "team": "ml"}

    state = _loaded(told, old)

    found = state.state.incidents[old.id].handling
    assert found is not None
    assert found.labels == {"team": "ml", "cluster": None}


def _loaded(told: Story, incident: Incident) -> Shard:
    """The story's shard out of a snapshot that has this record."""
    told.shard.checkpoint.begin()
    records: dict[str, bytes] = {}
    while written := told.shard.checkpoint.slice(1_000_000):
        records.update((key, record) for key, record in written if record is not None)
    records[record_key(INCIDENT, incident.id)] = msgspec.msgpack.encode(incident)
    state = Shard("shard/0000", told.settings)
    state.load(sorted(records.items()))
    state.loaded()
    return state


# -- who sees it -------------------------------------------------------------------------------------------------


def test_lists_summaries_and_notifications_say_the_same() -> None:
    told = story(pod("1"), pod("2"))
    told.push(at(1), pod("1").ended(1))

    def found(name: str, value: str) -> int:
        wanted = IncidentFilter(matchers=[(name, "=", value)])
        return len(answer(told.shard, ListIncidents("default", wanted=wanted)).items)  # type: ignore[union-attr]

    assert (found("pod", "2"), found("pod", "1"), found("cluster", "eu1")) == (1, 0, 1)
    assert summary_of(told.incident).labels == told.incident.labels
    told.push(at(2), pod("2").ended(2))
    sent = [effect for _at, effect in told.asked if isinstance(effect, Act)]
    assert sent[-1].facts.title == "PodCrash (api) (2 pods)"


def test_a_rule_is_asked_about_the_first_alerts_own_labels() -> None:
    told = story()
    told.push(at(0), pod("1", severity="warning"), pod("2", severity="critical"))

    asked = [effect for _at, effect in told.asked if isinstance(effect, Classify)]

    assert (asked[-1].labels["pod"], asked[-1].title) == ("1", "Pod 1 crashes (api)")
    assert asked[-1].signals == ["warning", "critical"]


def test_a_rule_is_asked_about_labels_that_people_set() -> None:
    told = story(pod("1", severity="warning"))
    told.do(at(1), Label({"team": "ml"}, []), told.incident)

    told.push(at(2), pod("2", severity="critical"))

    asked = [effect for _at, effect in told.asked if isinstance(effect, Classify)]
    assert (asked[-1].labels["pod"], asked[-1].labels["team"]) == ("1", "ml")


# -- what it costs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["first in, first out", "last in, first out", "mixed"])
def test_ends_of_a_large_incident_seldom_look_at_all_its_alerts(
    order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = 2000
    compared = 0
    add = Shared.add

    def counted(self: Shared, content: Content, by: int = 1) -> None:
        nonlocal compared
        compared += 1
        add(self, content, by)

    monkeypatch.setattr(Shared, "add", counted)
    told = story()
    monkeypatch.setattr(told, "_took", lambda step, _when: step)  # or each step is compared with its replay
    pods = [pod(str(number)) for number in range(many)]
    told.push(at(0), *pods)
    if order == "last in, first out":
        pods.reverse()
    elif order == "mixed":
        pods = pods[::2] + pods[1::2]
    compared = 0
    for number, each in enumerate(pods, 1):
        told.push(at(number), each.ended(number))

    # One each, a few times all that are left, and once all for what the last life shared.
    assert compared < 20 * many


def test_an_alert_that_changes_all_the_time_does_not_cost_a_look_at_all_the_others_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = story(*[pod(str(number)) for number in range(500)])
    compared = 0
    add = Shared.add

    def counted(self: Shared, content: Content, by: int = 1) -> None:
        nonlocal compared
        compared += 1
        add(self, content, by)

    monkeypatch.setattr(Shared, "add", counted)
    (sample,) = [shared.content.labels["pod"] for shared in told.shard.of(Sharing)._known.values()]

    for turn in range(40):
        told.push(at(1 + turn), pod(sample, summary=f"crashed {turn} times"))

    assert compared < 3 * 500


def test_alerts_that_all_change_all_the_time_are_not_compared_with_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many = 200
    told = story(*[pod(str(number)) for number in range(many)])
    compared = 0
    add = Shared.add

    def counted(self: Shared, content: Content, by: int = 1) -> None:
        nonlocal compared
        compared += 1
        add(self, content, by)

    monkeypatch.setattr(Shared, "add", counted)
    monkeypatch.setattr(told, "_took", lambda step, _when: step)  # or each step is compared with its replay
    for turn in range(5):
        for number in range(many):
            told.push(at(1 + turn), pod(str(number), summary=f"crashed {turn}.{number} times"))

    assert compared < 3 * many


# -- those that join ---------------------------------------------------------------------------------------------


def joined(told: Story) -> list[str]:
    return [line.text for line in told.incident.timeline if line.kind == "AlertsJoined"]


def test_a_second_outage_that_joins_an_acknowledged_incident_is_told() -> None:
    told = story(pod("1"))
    told.do(at(1), Acknowledge(), told.incident)

    told.push(at(60), *[pod(name, cluster="eu2") for name in "abc"])

    assert joined(told) == ["3 new alerts joined, 4 fire now: cluster=eu2"]
    [event] = told.named(AlertsJoined)
    assert isinstance(event, AlertsJoined)
    assert (event.count, event.firing) == (3, 4)


def test_a_single_one_is_told_with_all_that_tells_it_apart() -> None:
    told = story(pod("1"))

    told.push(at(60), pod("2", cluster="eu2"))

    assert joined(told) == ["1 new alert joined, 2 fire now: cluster=eu2, pod=2"]


def test_alerts_that_share_nothing_of_their_own_are_named_by_what_differs() -> None:
    told = story(pod("0"))

    told.push(at(60), *[pod(str(number)) for number in range(1, 9)])

    [text] = joined(told)
    assert text.startswith("8 new alerts joined, 9 fire now: pod=")
    assert text.endswith(" and 3 more")


def test_nothing_is_told_while_nobody_knows_of_the_incident() -> None:
    told = story()
    told.push(at(0), pod("1"))

    told.push(at(1), pod("2"))
    told.ticks(at(2), at(30))

    assert not joined(told)


@pytest.mark.parametrize("verb", [Acknowledge(), Assign(["bob"]), Assign([], [], {"commander": "bob"})])
def test_whoever_looks_after_an_incident_hears_of_it(verb: Acknowledge | Assign) -> None:
    told = story()
    told.push(at(0), pod("1"))
    told.do(at(1), verb, told.incident)

    told.push(at(2), pod("2"))

    assert len(joined(told)) == 1


def test_a_storm_is_told_in_a_few_lines() -> None:
    told = story(pod("x"))

    for second in range(1, 31):
        told.push(at(second), pod(f"{second}a"), pod(f"{second}b"))
    told.ticks(at(31), at(60))

    counts = [event.count for event in told.named(AlertsJoined) if isinstance(event, AlertsJoined)]
    assert sum(counts) == 60
    assert len(counts) <= 30 / JOINED_EVERY_S + 1


def test_what_joined_is_told_after_a_while_though_nothing_else_happens() -> None:
    told = story(pod("x"))
    told.push(at(1), pod("1"))

    told.push(at(2), pod("2"))
    assert len(joined(told)) == 1
    told.ticks(at(3), at(12))

    assert len(joined(told)) == 2


def test_what_joined_is_told_before_the_end_is_forgotten() -> None:
    told = story(pod("x"))
    told.push(at(1), pod("1"))
    told.push(at(2), pod("2"))

    told.push(at(3), *[pod(name).ended(3) for name in "x12"])

    assert told.incident.state is IncidentState.RESOLVED
    assert len(joined(told)) == 2


def test_what_joined_is_told_after_a_restart() -> None:
    told = story(pod("x"))
    told.push(at(1), pod("1"))
    told.push(at(2), pod("2"))
    told.restart(at(3))

    told.ticks(at(4), at(12))

    assert len(joined(told)) == 2


def test_what_joined_a_part_or_ended_again_is_no_flood() -> None:
    told = story(pod("x"))
    for second in range(100, 100 + 20 * (JOINED_LINES_MAX + 10), 20):
        told.push(at(second), pod(str(second)))

    assert len(joined(told)) == JOINED_LINES_MAX
    assert told.incident.timeline[0].kind == "Created"
    assert told.incident.timeline_dropped == 10


def test_alerts_that_fire_again_are_no_news() -> None:
    told = story(pod("1"), pod("2"))
    told.push(at(1), pod("2").ended(1))

    told.push(at(2), pod("2"))

    assert not joined(told)


def test_a_part_tells_of_what_joined_it() -> None:
    told = story()
    told.push(at(0), pod("1"), Alert({"alertname": "Other", "service": "api"}))
    part, whole = told.shard.state.incidents.values()
    told.do(at(1), Merge(part.id), whole)
    told.carry(at(1))

    told.push(at(2), pod("2"))

    assert "AlertsJoined" in told.kinds(part)


def test_a_resolved_incident_that_fires_on_is_joined_in_its_new_life() -> None:
    told = story(pod("1"))
    told.do(at(1), Resolve(), told.incident)

    told.push(at(2), pod("2"))

    assert told.decisions == [Decision.REOPENED]
    assert not joined(told)


# -- groups of a changed group_by --------------------------------------------------------------------------------


def upgraded(told: Story, second: float, *group_by: str) -> None:
    """The same shard, started with another group_by."""
    told.settings = msgspec.structs.replace(told.settings, group_by=group_by)
    told.replayed = type(told.replayed)("shard/0000", told.settings)
    for then, event in told.events:
        told.replayed.apply(event, then)
    told.restart(at(second))


NEW = ("alertname", "cluster", "namespace")


def test_clusters_and_namespaces_have_incidents_of_their_own() -> None:
    told = story(pod("1"), pod("2"), pod("1", cluster="eu2"), group_by=SETTINGS.group_by)

    assert SETTINGS.group_by == NEW
    assert sorted(each.firing for each in told.open_incidents()) == [1, 2]


def test_a_label_of_the_group_that_no_alert_has_is_not_shown() -> None:
    told = story(pod("1"), group_by=NEW)

    assert told.incident.present_group_labels == {"service": "api", "alertname": "PodCrash", "cluster": "eu1"}


def test_a_firing_series_keeps_its_incident_when_group_by_changes() -> None:
    told = story(pod("1"), pod("1", cluster="eu2"))
    upgraded(told, 1, *NEW)

    told.push(at(2), pod("1"), pod("1", cluster="eu2"))
    assert told.decisions == [Decision.REPEATED, Decision.REPEATED]
    told.push(at(3), pod("1").ended(3))
    told.push(at(4), pod("1"))

    assert told.decisions == [Decision.REFIRED]
    assert len(told.open_incidents()) == 1


def test_a_new_series_joins_the_open_incident_of_its_old_group() -> None:
    told = story(pod("1"))
    upgraded(told, 1, *NEW)

    told.push(at(2), pod("2"), pod("1", cluster="eu2"))

    assert told.decisions == [Decision.JOINED, Decision.JOINED]


def test_once_the_old_groups_incident_is_over_new_series_are_grouped_anew() -> None:
    told = story(pod("1"))
    upgraded(told, 1, *NEW)
    told.push(at(2), pod("1").ended(2))

    told.push(at(3), pod("2"), pod("2", cluster="eu2"))

    assert told.decisions == [Decision.OPENED, Decision.OPENED]


def test_a_series_that_fires_again_reopens_the_incident_of_its_old_group() -> None:
    told = story(pod("1"))
    upgraded(told, 1, *NEW)
    told.push(at(2), pod("1").ended(2))

    told.push(at(3), pod("1"))

    assert told.decisions == [Decision.REOPENED]


def test_an_alert_without_the_new_labels_is_not_taken_for_one_of_an_old_group() -> None:
    """An incident of the new grouping whose alerts lack cluster is not one of all clusters."""
    told = story(pod("1", cluster=""), group_by=NEW)

    told.push(at(1), pod("1", cluster="eu2"))

    assert told.decisions == [Decision.OPENED]


def test_a_coarser_group_by_keeps_open_incidents_too() -> None:
    told = story(pod("1"), pod("1", cluster="eu2"), group_by=NEW)
    upgraded(told, 1, "alertname")

    told.push(at(2), pod("2"), pod("1", cluster="eu3"))

    assert told.decisions == [Decision.JOINED, Decision.OPENED]


def test_reads_find_alerts_of_old_groups() -> None:
    told = story(pod("1"), pod("1", cluster="eu2"))
    upgraded(told, 1, *NEW)
    told.push(at(2), Alert({"alertname": "Other", "service": "api", "cluster": "eu2"}))

    page = answer(told.shard, ListAlerts("default", matchers=[("cluster", "=", "eu2")]))

    assert len(page.items) == 2  # type: ignore[union-attr]


def test_what_is_forgotten_is_no_old_group_any_more() -> None:
    told = story(pod("1"))
    upgraded(told, 1, *NEW)
    assert told.shard.state.other_groupings
    told.push(at(2), pod("1").ended(2))
    told.receive(at(3))
    told.ticks(at(120), at(130))

    told.archive(at(131))

    assert not told.shard.state.incidents
    assert not told.shard.state.other_groupings
    assert not told.shard.state.loose
