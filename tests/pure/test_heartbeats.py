"""Heartbeats: how they are made and changed in the control partition, and what a shard does about one that stays away."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from models.control import heartbeating
from models.control.control import ControlState, decode_message, encode_message
from models.control.heartbeating import Heartbeats
from models.control.heartbeats import (
    Heartbeat,
    HeartbeatHeard,
    PauseHeartbeat,
    RemoveHeartbeat,
    SetHeartbeat,
    SyncHeartbeats,
)
from models.control.section import ONLY
from models.errors import Conflict, Malformed, NotFound, TooLarge
from models.incidents.incident import IncidentState, Severity
from models.incidents.verbs import Resolve
from models.shard.events import SeriesOpened, SeriesRefired, SeriesResolved
from models.shard.heartbeats import (
    LISTENS_EVERY_S,
    NOTED_EVERY_S,
    Beats,
    BeatsHeard,
    HeartbeatsChanged,
    HeartbeatsOfShard,
)
from models.shard.messages import Decision, Done, Failed, Tick
from models.shard.shard import Shard
from tests.scenario import SETTINGS, Story, alert, at

HOUR = 3600.0


def heartbeat(
    name: str = "backup", interval_s: float = HOUR, grace_s: float = 60.0, **more: Any
) -> Heartbeat:
    fields: dict[str, Any] = {"service": "db", "severity": Severity.P1, **more}
    return Heartbeat(name, interval_s, grace_s, **fields)


# -- what people decide --


def section() -> Heartbeats:
    return Heartbeats(lambda _key: None)


def done(made: Heartbeats, message: Any, now: float = 100.0) -> list[str]:
    message = decode_message(encode_message(message))
    events = made.decide(message, now)
    for event in events:
        made.apply(event, now)
    return [type(event).__name__ for event in events]


def test_one_is_made_changed_and_removed_and_a_repeat_changes_nothing() -> None:
    made = section()

    said = [
        done(made, SetHeartbeat(heartbeat(), "ann")),
        done(made, SetHeartbeat(heartbeat(), "ann")),
        done(made, SetHeartbeat(heartbeat(interval_s=60.0), "ann")),
        done(made, RemoveHeartbeat("backup", "ann")),
        done(made, RemoveHeartbeat("backup", "ann")),
    ]

    assert said == [["HeartbeatSet"], [], ["HeartbeatSet"], ["HeartbeatRemoved"], []]
    assert not made.all


def test_that_it_began_outlives_its_changes() -> None:
    made = section()
    done(made, SetHeartbeat(heartbeat(), "ann"))
    first, again = done(made, HeartbeatHeard("backup")), done(made, HeartbeatHeard("backup"))
    done(made, SetHeartbeat(heartbeat(interval_s=60.0), "ann"))
    done(made, PauseHeartbeat("backup", True, "ann"))

    found = made.find("backup")
    assert (first, again) == (["HeartbeatBegan"], [])
    assert (found.began, found.paused, found.interval_s) == (True, True, 60.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "night ly"}, "name: expected"),
        ({"name": "../x"}, "name: expected"),
        ({"interval_s": 1.0}, "interval: expected 5s to 366d"),
        ({"interval_s": float("nan")}, "interval: expected"),
        ({"grace_s": -1.0}, "grace: expected"),
        ({"service": ""}, "service: expected"),
        ({"service": "a\nb"}, "service: expected printable"),
        ({"labels": {"heartbeat": "other"}}, "labels: 'heartbeat' can't be set"),
        ({"matchers": (("alertname", "=~", "("),)}, "matchers: "),
        ({"matchers": (("severity", "!=", "none"),)}, "matchers: at least one"),
    ],
)
def test_what_is_wrong_with_one_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(Malformed, match=words.replace("(", r"\(")):
        done(section(), SetHeartbeat(msgspec.structs.replace(heartbeat(), **change), "ann"))


def test_there_is_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeating, "HEARTBEATS_MAX", 1)
    made = section()
    done(made, SetHeartbeat(heartbeat(), "ann"))

    with pytest.raises(TooLarge, match="already"):
        done(made, SetHeartbeat(heartbeat("other"), "ann"))


def test_the_settings_win_over_people_and_leave_them_pausing() -> None:
    made = section()
    done(made, SetHeartbeat(heartbeat("mine"), "ann"))
    done(made, SetHeartbeat(heartbeat("both"), "ann"))
    done(made, HeartbeatHeard("both"))
    done(made, SyncHeartbeats([heartbeat("both", 60.0), heartbeat("file")]))

    done(made, PauseHeartbeat("file", True, "ann"))
    assert done(made, SyncHeartbeats([heartbeat("both", 60.0), heartbeat("file")])) == []
    with pytest.raises(Conflict, match="settings"):
        done(made, SetHeartbeat(heartbeat("both"), "ann"))
    with pytest.raises(Conflict, match="settings"):
        done(made, RemoveHeartbeat("file", "ann"))
    assert (made.find("both").interval_s, made.find("both").began, made.find("file").paused) == (
        60.0,
        True,
        True,
    )

    assert done(made, SyncHeartbeats([])) == ["HeartbeatRemoved", "HeartbeatRemoved"]
    assert [each.name for each in made.shown()] == ["mine"]


def test_followers_are_told_what_changed_or_to_ask_for_all() -> None:
    made = section()
    done(made, SetHeartbeat(heartbeat("a"), "ann"))
    done(made, SetHeartbeat(heartbeat("b"), "ann"))
    version = made.version
    done(made, SetHeartbeat(heartbeat("a", 60.0), "ann"))

    changed = made.since(version)
    done(made, RemoveHeartbeat("b", "ann"))

    assert changed is not None and [each.name for each in changed] == ["a"]
    assert made.since(version) is None


def test_a_snapshot_gives_what_the_log_gives() -> None:
    state = ControlState()
    for message in (
        SetHeartbeat(heartbeat("a", matchers=(("alertname", "=", "Watchdog"),)), "ann"),
        SetHeartbeat(heartbeat("b"), "ann"),
        HeartbeatHeard("b"),
        RemoveHeartbeat("a", "ann"),
        SetHeartbeat(heartbeat("a", matchers=(("alertname", "=", "Watchdog"),)), "ann"),
    ):
        state.handle(message, 100.0)
    made, loaded = state.of(Heartbeats), section()

    for key in (ONLY, *(its.encode() for its in made.all)):
        record = made.capture(key)
        assert record is not None
        loaded.load(key, record)
    loaded.loaded()

    assert (loaded.all, loaded.version, loaded.by_alert) == (made.all, made.version, made.by_alert)
    with pytest.raises(NotFound):
        loaded.find("c")


# -- what a shard does --


class Watched(Story):
    """A shard that is told of heartbeats, and beats."""

    def watch(self, when: float, *heartbeats: Heartbeat, whole: bool = True) -> None:
        assert self.tell(at(when), HeartbeatsChanged([*heartbeats], whole)).reply == Done()

    def beat(self, when: float, *names: str, **more: Any) -> object:
        return self.tell(at(when), Beats("default", [*names] or ["backup"], **more)).reply

    def missed(self) -> list[str]:
        """Names of the heartbeats that are missed."""
        part = self.shard.of(HeartbeatsOfShard)
        return [each.heartbeat.name for each in part.pulses.values() if part.missed(each) is not None]

    def due_in(self, name: str = "backup") -> float:
        part = self.shard.of(HeartbeatsOfShard)
        return part.due_at(part.pulses[f"default/{name}"]) - at(0)

    def counted(self, *kinds: type) -> int:
        return sum(isinstance(event, kinds) for _when, event in self.events)


def begun(*heartbeats: Heartbeat) -> Watched:
    """A shard that heard them at 0."""
    story = Watched()
    story.restart(at(-1))
    given = heartbeats or (heartbeat(),)
    story.watch(0, *given)
    story.beat(0, *(each.name for each in given))
    return story


def test_one_that_comes_in_time_opens_nothing() -> None:
    story = begun()

    for hour in range(1, 6):
        story.tick(at(hour * HOUR + 59))
        assert story.beat(hour * HOUR + 59) == Done()

    assert not story.shard.state.incidents


def test_one_that_stays_away_opens_one_incident_and_its_return_resolves_it() -> None:
    story = begun()
    story.tick(at(HOUR + 59))
    assert not story.shard.state.incidents

    story.ticks(at(HOUR + 61), at(HOUR + 65))
    incident = story.incident
    assert incident.is_open and story.missed() == ["backup"]
    assert (incident.service, incident.title) == ("db", "Heartbeat backup is missed (db)")
    assert (
        "No beat since 2026-01-01T00:00:00Z; one is expected every 1h, and missed 1m later."
        in incident.description
    )
    assert incident.labels["heartbeat"] == "backup" and incident.labels["alertname"] == "HeartbeatMissed"

    story.beat(HOUR + 70)
    assert incident.state is IncidentState.RESOLVED and not story.missed()
    assert story.counted(SeriesOpened) == 1 and story.counted(SeriesResolved) == 1


def test_it_pages_by_its_severity() -> None:
    story = begun(heartbeat(runbook="https://runbooks/backup"))
    story.tick(at(HOUR + 61))
    content = story.shard.state.series.content(0)

    assert content.annotations["severity"] == "P1"
    assert content.annotations["runbook_url"] == "https://runbooks/backup"


def test_one_that_was_never_heard_is_not_missed() -> None:
    story = Watched()
    story.watch(0, heartbeat())

    story.tick(at(100 * HOUR))

    assert not story.shard.state.incidents


def test_one_that_began_elsewhere_is_waited_for_from_when_the_shard_hears_of_it() -> None:
    story = Watched()
    story.watch(0, heartbeat(began=True))

    story.tick(at(HOUR + 61))

    assert story.missed() == ["backup"]


def test_a_change_of_its_interval_takes_effect_at_once() -> None:
    story = begun()

    story.watch(130, heartbeat(interval_s=60.0))
    story.tick(at(131))

    assert story.missed() == ["backup"]


def test_pausing_resolves_what_is_open_and_it_is_missed_again_an_interval_after_it_goes_on() -> None:
    story = begun()
    story.tick(at(HOUR + 61))
    story.watch(HOUR + 70, heartbeat(paused=True))
    assert story.states() == [IncidentState.RESOLVED]
    story.tick(at(10 * HOUR))
    assert not story.missed()

    story.watch(10 * HOUR, heartbeat())
    story.tick(at(11 * HOUR + 59))
    assert not story.missed()
    story.tick(at(11 * HOUR + 61))
    assert story.missed() == ["backup"]


def test_deleting_resolves_what_is_open() -> None:
    story = begun()
    story.tick(at(HOUR + 61))

    story.watch(HOUR + 70)

    assert story.states() == [IncidentState.RESOLVED]
    assert not story.shard.of(HeartbeatsOfShard).pulses


def test_other_labels_end_the_old_alert_and_it_fires_with_the_new_ones() -> None:
    story = begun()
    story.tick(at(HOUR + 61))

    story.watch(HOUR + 70, heartbeat(labels={"team": "storage"}))
    story.tick(at(HOUR + 71))

    series = story.shard.state.series
    assert [series.labels(each).get("team") for each in series.firing.values()] == ["storage"]
    assert story.counted(SeriesResolved) == 1


def test_a_failure_that_is_reported_opens_at_once_and_the_next_beat_resolves_it() -> None:
    story = begun()

    story.beat(10, failed=True, note="exit status 2")
    story.beat(11, failed=True, note="exit status 2")
    assert story.incident.title == "Heartbeat backup reports a failure (db)"
    assert story.incident.description == "exit status 2"
    assert story.counted(SeriesOpened) == 1

    story.beat(20)
    assert story.states() == [IncidentState.RESOLVED]


def test_beats_are_noted_once_a_minute_and_all_of_them_count() -> None:
    story = begun(heartbeat(interval_s=10.0, grace_s=5.0))

    for second in range(1, 300, 5):
        story.beat(second)
        story.tick(at(second + 1))

    assert story.counted(BeatsHeard) == 1 + 300 // NOTED_EVERY_S - 1
    assert not story.shard.state.incidents


def test_a_heartbeat_that_is_not_known_yet_is_asked_for_again_and_the_others_count() -> None:
    story = begun()

    reply = story.beat(100, "unheard-of", "backup")

    assert isinstance(reply, Failed) and reply.kind == "Busy"
    assert story.due_in() == 100 + HOUR + 60


def test_two_of_a_service_are_one_incident_with_two_alerts() -> None:
    story = begun(heartbeat("backup"), heartbeat("vacuum"))
    story.tick(at(HOUR + 61))

    assert story.incident.firing == 2
    story.beat(HOUR + 70, "vacuum")
    assert story.incident.is_open and story.missed() == ["backup"]


def test_a_person_resolves_it_and_it_comes_back_while_it_stays_away() -> None:
    story = begun()
    story.tick(at(HOUR + 61))
    story.do(at(HOUR + 70), Resolve(), story.incident)

    story.ticks(at(HOUR + 70 + 1800), at(HOUR + 70 + 1802))

    assert story.incident.is_open


def test_an_end_that_somebody_else_sends_lasts_a_minute() -> None:
    story = begun()
    story.tick(at(HOUR + 61))
    series = story.shard.state.series
    labels = series.labels(0)
    somebody = alert("x", "y", ends=HOUR + 61)
    somebody = type(somebody)(labels, {}, float("nan"), HOUR + 61)
    story.push(at(HOUR + 62), somebody)
    assert story.decisions == [Decision.RESOLVED]

    story.ticks(at(HOUR + 63), at(HOUR + 125))

    assert story.missed() == ["backup"] and story.counted(SeriesRefired) == 1


def test_what_there_is_no_room_for_is_tried_again() -> None:
    story = Watched(msgspec.structs.replace(SETTINGS, max_bytes=1))
    story.watch(0, heartbeat())
    story.beat(0)
    story.tick(at(HOUR + 61))
    assert not story.missed()

    story.shard.take_settings(SETTINGS)
    story.tick(at(HOUR + 125))

    assert story.missed() == ["backup"]


# -- while nobody could be heard --


def test_nothing_is_missed_in_a_gap_nor_before_the_grace_after_it() -> None:
    story = begun()

    story.tick(at(HOUR + 61), in_gap=True)
    story.hear(at(HOUR + 100), at(HOUR))
    story.tick(at(HOUR + 129))

    assert not story.missed()


def test_one_that_may_have_beaten_in_a_gap_has_an_interval_more() -> None:
    story = begun()

    story.hear(at(HOUR + 10), at(HOUR - 10))
    story.tick(at(2 * HOUR + 69))
    assert not story.missed()

    story.tick(at(2 * HOUR + 71))
    assert story.missed() == ["backup"]


def test_a_short_gap_right_after_a_beat_takes_nothing_from_the_time_it_is_waited_for() -> None:
    story = begun()

    story.hear(at(600), at(590))

    assert story.due_in() == HOUR + 60


def test_after_a_recovery_nothing_is_missed_that_was_heard_and_not_noted() -> None:
    story = begun(heartbeat(interval_s=30.0, grace_s=10.0))
    for second in (15, 30, 45):
        story.beat(second)

    story.restart(at(100))
    story.tick(at(130))
    assert not story.missed()

    story.tick(at(141))
    assert story.missed() == ["backup"]


def test_a_shard_that_restarts_again_and_again_still_misses_one() -> None:
    story = begun()

    second = 0.0
    while not story.missed() and second < 10 * HOUR:
        second += 900.0
        for ticked in range(int(second) - 890, int(second), 10):
            story.tick(at(ticked))
        if not story.missed():
            story.restart(at(second))

    assert HOUR < second <= 3.5 * HOUR


def test_a_long_outage_is_not_held_against_anybody() -> None:
    story = begun()

    story.restart(at(50 * HOUR))
    story.tick(at(51 * HOUR + 59))
    assert not story.missed()

    story.tick(at(51 * HOUR + 61))
    assert story.missed() == ["backup"]


def test_that_somebody_listens_is_noted_now_and_then() -> None:
    story = begun()

    for minute in range(1, 60):
        story.tick(at(60.0 * minute))

    assert story.counted(BeatsHeard) == 1 + HOUR // LISTENS_EVERY_S - 1


def test_a_clock_that_was_ahead_misses_nothing_when_it_is_right_again() -> None:
    story = begun()
    story.beat(50 * HOUR)

    story.beat(100)

    assert story.due_in() == 100 + HOUR + 60
    story.tick(at(2 * HOUR))
    assert story.missed() == ["backup"]


def test_ten_thousand_are_missed_in_some_ticks_and_return_in_one_step() -> None:
    many = [heartbeat(f"job-{each}", service=f"service-{each}") for each in range(2000)]
    story = Shard("shard/0000", msgspec.structs.replace(SETTINGS, max_open=100_000))
    story.handle(HeartbeatsChanged(many, True), at(0))
    story.handle(Beats("default", [each.name for each in many]), at(0))
    ticks = 0
    while len(story.state.series.firing) < len(many) and ticks < 100:
        ticks += 1
        story.handle(Tick(), at(HOUR + 61 + ticks / 10))
    story.handle(Beats("default", [each.name for each in many]), at(2 * HOUR))

    assert ticks == 4 and not story.state.series.firing


@given(
    st.lists(
        st.tuples(st.sampled_from(["beat", "tick", "gap", "restart", "pause", "go on"]), st.integers(1, 400)),
        max_size=40,
    )
)
@given_settings(max_examples=60, deadline=None)
def test_one_that_beats_in_time_whenever_it_can_be_heard_is_never_missed(
    steps: list[tuple[str, int]],
) -> None:
    """Between any two steps it beats every 40 s; only in gaps it is not heard. Replay equals live after each (Story)."""
    story = begun(heartbeat(interval_s=60.0, grace_s=20.0))
    now = 0
    for what, seconds in steps:
        now += 1
        until = now + seconds
        if what in ("gap", "restart"):
            (story.hear(at(until), at(now)) if what == "gap" else story.restart(at(until)))
            now = until
        elif what in ("pause", "go on"):
            story.watch(now, heartbeat(interval_s=60.0, grace_s=20.0, paused=what == "pause", began=True))
        while now < until:
            now = min(until, now + 40)
            story.tick(at(now))
            story.beat(now)
        story.tick(at(now))
        assert not story.missed()
