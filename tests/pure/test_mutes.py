"""What a shard tells nobody of: series that are muted, when that begins and ends, and what is told then."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from models.alerts.alert import SERIES_ID_BYTES
from models.alerts.inhibition import InhibitRule
from models.alerts.matchers import MatcherTuple
from models.alerts.muted import MutedBy
from models.control.silences import Silence
from models.incidents.incident import IncidentState, Severity
from models.incidents.query import GetIncident, IncidentPage, ListAlerts
from models.incidents.verbs import Resolve, Split
from models.incidents.views import answer
from models.shard import mutes
from models.shard.effects import Act
from models.shard.events import NotificationOwed, NotificationWithheld
from models.shard.inhibitors import Inhibitors, InhibitorsChanged, InhibitorsHeard, SendInhibitors
from models.shard.known_silences import KnownSilences, SilencesChanged, SilencesKnown
from models.shard.messages import Failed
from models.shard.mutes import Mutes, SeriesMuted, SeriesUnmuted
from models.shard.shard import Shard
from tests.scenario import SETTINGS, ZERO, Story, alert, at

PARTITIONS = ("shard/0000", "shard/0001")
API: list[MatcherTuple] = [("service", "=", "api")]
RULE = InhibitRule("down", (("alertname", "=", "Down"),), (("alertname", "!=", "Down"),), ("instance",))


def silence(
    identity: str = "s1",
    matchers: Sequence[MatcherTuple] = API,
    starts: float = 0.0,
    ends: float = 100.0,
    comment: str = "deploy",
) -> Silence:
    return Silence(identity, tuple(matchers), ZERO + starts, ZERO + ends, "ada", comment, ZERO)


class Muted(Story):
    """A story with silences."""

    version = 0

    def silences(self, when: float, *silences: Silence, whole: bool = False) -> None:
        self.version += 1
        self.tell(when, SilencesChanged(self.version, list(silences), whole))

    @property
    def known(self) -> KnownSilences:
        return self.shard.of(KnownSilences)

    @property
    def mutes(self) -> Mutes:
        return self.shard.of(Mutes)

    @property
    def reasons(self) -> list[str]:
        return [reason for _at, reason, _attempt in self.sent()]

    def texts(self, kind: str) -> list[str]:
        return [line.text for line in self.incident.timeline if line.kind == kind]


def test_an_incident_all_of_whose_alerts_are_silenced_is_told_to_nobody() -> None:
    story = Muted()
    story.silences(at(1), silence())

    story.push(at(2), alert("api", "Slow"), alert("api", "Slow", "b"))
    story.classify(at(2), Severity.P0)
    story.ticks(at(3), at(30))

    assert story.sent() == []
    assert story.incident.notification_of("webhook").withheld == "opened"
    assert [event.reason for event in story.named(NotificationWithheld)] == ["opened"]


def test_every_mute_says_by_what() -> None:
    story = Muted()
    story.silences(at(1), silence())
    story.push(at(2), alert("api", "Slow"))
    story.classify(at(2), Severity.P0)

    words = "silenced until 2026-01-01T00:01:40Z by s1 (ada, deploy)"
    assert story.texts("AlertsMuted") == [f"1 alert {words}"]
    assert story.texts("NotificationWithheld") == [f"opened: {words}"]


def test_when_the_silence_ends_and_it_fires_still_the_response_starts_then() -> None:
    story = Muted()
    story.silences(at(1), silence(ends=50.0))
    story.push(at(2), alert("api", "Slow"))
    story.classify(at(2), Severity.P2)

    story.ticks(at(3), at(60))

    assert story.sent() == [(50, "opened", 0)]
    assert story.texts("AlertsUnmuted") == ["1 alert not muted any more"]
    assert story.incident.notification_of("webhook").withheld == ""


def test_one_that_begins_and_ends_while_it_is_muted_is_told_to_nobody() -> None:
    story = Muted()
    story.silences(at(1), silence(ends=50.0))
    story.push(at(2), alert("api", "Slow"))
    story.classify(at(2), Severity.P0)

    story.push(at(10), alert("api", "Slow").ended(10))
    story.ticks(at(11), at(80))

    assert story.sent() == []
    assert story.incident.state is IncidentState.RESOLVED


def test_an_end_is_told_to_who_was_told_of_the_beginning() -> None:
    story = Muted()
    story.push(at(2), alert("api", "Slow"))
    story.classify(at(2), Severity.P0)
    story.receive(at(3))
    story.silences(at(4), silence())

    story.push(at(10), alert("api", "Slow").ended(10))

    assert story.reasons == ["resolved"]


def test_what_is_owed_and_not_on_its_way_waits_for_the_end_of_the_mute() -> None:
    story = Muted()
    story.push(at(2), alert("api", "Slow"))
    story.classify(at(2), Severity.P2)  # told after 10 s
    story.silences(at(5), silence(ends=30.0))

    story.ticks(at(6), at(40))

    assert story.sent() == [(30, "opened", 0)]


def test_what_is_on_its_way_is_not_tried_again_while_it_is_muted() -> None:
    story = Muted()
    story.push(at(2), alert("api", "Slow"))
    story.classify(at(2), Severity.P0)
    story.silences(at(3), silence(ends=30.0))

    story.receive(at(4), ok=False, reached=False)
    story.ticks(at(5), at(29))
    during = story.sent()
    story.ticks(at(30), at(32))

    assert (during, story.reasons) == ([], ["opened"])


def test_an_incident_of_which_something_is_not_silenced_is_told_without_what_is() -> None:
    story = Muted()
    story.silences(at(1), silence(matchers=[("instance", "=", "b")]))

    story.push(at(2), alert("api", "Slow", "a"), alert("api", "Slow", "b"))
    story.classify(at(2), Severity.P0)

    (effect,) = [effect for _at, effect in story.asked if isinstance(effect, Act)]
    assert [each.labels["instance"] for each in effect.facts.alerts] == ["a"]


def test_one_that_joins_unsilenced_starts_the_response() -> None:
    story = Muted()
    story.silences(at(1), silence(matchers=[("instance", "=", "a")]))
    story.push(at(2), alert("api", "Slow", "a"))
    story.classify(at(2), Severity.P0)

    story.push(at(10), alert("api", "Slow", "b"))

    assert story.sent() == [(10, "opened", 0)]


def test_the_last_unsilenced_one_that_ends_leaves_a_muted_incident_that_is_open() -> None:
    story = Muted()
    story.silences(at(1), silence(matchers=[("instance", "=", "a")]))
    story.push(at(2), alert("api", "Slow", "a"), alert("api", "Slow", "b"))
    story.classify(at(2), Severity.P1)
    story.receive(at(3))

    story.push(at(5), alert("api", "Slow", "b").ended(5))
    story.classify(at(6), Severity.P0)
    story.ticks(at(6), at(20))

    assert story.incident.is_open and story.sent() == []
    story.push(at(30), alert("api", "Slow", "a").ended(30))
    assert story.reasons == ["resolved"]


def test_a_reopening_under_a_silence_is_told_when_it_ends() -> None:
    story = Muted()
    story.push(at(2), alert("api", "Slow"))
    story.classify(at(2), Severity.P0)
    story.receive(at(3))
    story.push(at(5), alert("api", "Slow").ended(5))
    story.receive(at(6))
    story.silences(at(7), silence(ends=50.0))

    story.push(at(10), alert("api", "Slow"))
    story.ticks(at(11), at(49))
    during = story.sent()
    story.ticks(at(50), at(52))

    assert (during, story.sent()) == ([], [(50, "reopened", 0)])


def test_a_silence_that_is_to_come_mutes_from_its_beginning() -> None:
    story = Muted()
    story.silences(at(1), silence(starts=20.0))
    story.push(at(2), alert("api", "Slow"))
    story.ticks(at(3), at(19))
    before = story.named(SeriesMuted)

    story.ticks(at(20), at(21))

    assert (before, len(story.named(SeriesMuted))) == ([], 1)


def test_one_that_is_expired_early_lets_go_at_once() -> None:
    story = Muted()
    story.silences(at(1), silence())
    story.push(at(2), alert("api", "Slow"))
    story.classify(at(2), Severity.P0)

    story.silences(at(10), silence(ends=10.0))

    assert story.sent() == [(10, "opened", 0)]
    assert story.known.all == {}


def test_one_that_is_made_longer_goes_on_without_a_word() -> None:
    story = Muted()
    story.silences(at(1), silence(ends=20.0))
    story.push(at(2), alert("api", "Slow"))
    story.classify(at(2), Severity.P0)

    story.silences(at(10), silence(ends=40.0))
    story.ticks(at(11), at(39))
    during = (story.sent(), len(story.named(SeriesMuted)), story.named(SeriesUnmuted))
    story.ticks(at(40), at(41))

    assert during == ([], 1, [])
    assert story.reasons == ["opened"]


def test_two_silences_mute_until_both_are_over() -> None:
    story = Muted()
    story.silences(at(1), silence("s1", ends=20.0), silence("s2", [("alertname", "=", "Slow")], ends=40.0))
    story.push(at(2), alert("api", "Slow"))
    story.classify(at(2), Severity.P0)

    story.ticks(at(3), at(30))
    during = story.sent()
    story.ticks(at(31), at(41))

    assert (during, story.sent()) == ([], [(40, "opened", 0)])


def test_a_version_that_is_known_makes_no_event() -> None:
    story = Muted()
    story.silences(at(1), silence())
    before = len(story.events)

    story.tell(at(2), SilencesChanged(1, [silence()]))
    story.tell(at(3), SilencesChanged(1, [silence()], whole=True))

    assert len(story.events) == before


def test_all_of_them_leave_out_what_is_gone() -> None:
    story = Muted()
    story.silences(at(1), silence("s1"), silence("s2", [("x", "=", "y")]))
    story.push(at(2), alert("api", "Slow"))
    story.classify(at(2), Severity.P0)

    story.silences(at(3), silence("s2", [("x", "=", "y")]), whole=True)

    assert list(story.known.all) == ["s2"]
    assert story.reasons == ["opened"]


def test_a_repeat_looks_at_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    story = Muted()
    story.silences(at(1), silence())
    story.push(at(2), alert("api", "Slow"))

    def asked(*_: object) -> None:
        raise AssertionError("the index was asked")

    monkeypatch.setattr(story.known._index, "of", asked)
    story.push(at(3), alert("api", "Slow"))


def test_after_a_crash_what_was_muted_is_muted_and_what_ended_meanwhile_is_told() -> None:
    story = Muted()
    story.silences(at(1), silence(ends=20.0))
    story.push(at(2), alert("api", "Slow"), alert("db", "Slow"))
    story.silences(at(3), silence("s2", [("service", "=", "db")], ends=90.0))
    story.classify(at(4), Severity.P0)

    story.restart(at(30))
    story.ticks(at(31), at(35))

    (effect,) = [effect for _at, effect in story.asked if isinstance(effect, Act)]
    assert effect.facts.common_labels["service"] == "api"


def test_nobody_is_told_before_a_new_process_knows_the_silences() -> None:
    story = Muted()
    story.known.is_told = False
    story.push(at(2), alert("api", "Slow"), alert("db", "Slow"))
    story.classify(at(2), Severity.P0)
    story.ticks(at(3), at(6))
    before = story.sent()

    story.silences(at(7), silence(), whole=True)
    story.ticks(at(8), at(9))

    assert before == []
    (effect,) = [effect for _at, effect in story.asked if isinstance(effect, Act)]
    assert effect.facts.common_labels["service"] == "db"


def test_a_large_table_is_looked_at_in_stretches_and_nobody_is_told_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mutes, "STRETCH", 3)
    story = Muted(msgspec.structs.replace(SETTINGS, wait_s=(5.0,) * 5, group_by=("instance",), max_open=100))
    story.push(at(2), *[alert("api", "Slow", f"{number}") for number in range(20)])
    story.classify(at(2), Severity.P0)
    story.silences(at(6.9), silence())
    first = len(story.named(SeriesMuted))

    story.ticks(at(7), at(20))

    assert first < 20 and len(story.named(SeriesMuted)) == 20
    assert story.sent() == []


def test_a_shard_whose_clock_was_ahead_knows_the_silences_again() -> None:
    story = Muted()
    story.silences(at(1), silence(ends=100.0))
    story.push(at(2), alert("api", "Slow"))
    story.classify(at(2), Severity.P0)
    story.tick(at(2000))
    story.receive(at(2001))

    story.tick(at(3))
    story.silences(at(4), silence(ends=100.0), whole=True)
    story.ticks(at(5), at(10))

    assert story.mutes.is_muted(story.incident)


def test_a_split_takes_its_mutes_along() -> None:
    story = Muted()
    story.silences(at(1), silence(matchers=[("instance", "=", "b")]))
    story.push(at(2), alert("api", "Slow", "a"), alert("api", "Slow", "b"))
    story.classify(at(2), Severity.P2)
    before = story.incident
    numbers = [number for number, by in story.mutes.muted.of(before.id).items() if by]

    made = story.do(at(3), Split([story.shard.state.series.keys[numbers[0]][:SERIES_ID_BYTES]]), before)

    assert story.mutes.is_muted(made) and not story.mutes.is_muted(before)
    story.ticks(at(4), at(60))
    told = [effect.incident_id for _at, effect in story.asked if isinstance(effect, Act)]
    assert told == [before.id]


def test_one_that_a_person_resolves_is_over() -> None:
    story = Muted()
    story.silences(at(1), silence(ends=30.0))
    story.push(at(2), alert("api", "Slow"))
    story.classify(at(2), Severity.P0)

    story.do(at(3), Resolve(), story.incident)
    story.push(at(4), alert("api", "Slow").ended(4))
    story.ticks(at(5), at(40))

    assert story.sent() == []


def test_an_end_names_also_the_alerts_that_are_muted_since_they_were_told_of() -> None:
    story = Muted()
    story.push(at(2), alert("api", "Slow", "a"), alert("api", "Slow", "b"))
    story.classify(at(2), Severity.P0)
    story.receive(at(3))
    story.silences(at(4), silence())

    story.do(at(5), Resolve(), story.incident)

    (effect,) = [effect for _at, effect in story.asked if isinstance(effect, Act)]
    assert (effect.facts.reason, len(effect.facts.alerts)) == ("resolved", 2)


def test_an_incident_and_its_alerts_show_what_mutes_them() -> None:
    story = Muted()
    story.silences(at(1), silence())
    story.push(at(2), alert("api", "Slow", "a"), alert("api", "Slow", "b"))
    story.classify(at(2), Severity.P0)

    page = answer(story.shard, GetIncident("default", story.incident.id))
    assert isinstance(page, IncidentPage)
    found = page.items[0].mutes
    assert found is not None
    assert (found.alerts, found.is_muted, found.withheld) == (2, True, "opened")
    (mute,) = found.by
    assert (mute.silence, mute.until, mute.by, mute.comment, mute.alerts) == (
        "s1",
        ZERO + 100,
        "ada",
        "deploy",
        2,
    )
    alerts = answer(story.shard, ListAlerts("default")).items  # type: ignore[union-attr]
    assert [each.muted.silences for each in alerts] == [("s1",), ("s1",)]  # type: ignore[union-attr]


def test_a_snapshot_holds_the_mutes() -> None:
    story = Muted()
    story.silences(at(1), silence(), silence("s2", [("x", "=", "y")], starts=50.0))
    story.push(at(2), alert("api", "Slow", "a"), alert("db", "Slow"))
    story.classify(at(2), Severity.P0)
    shard = story.shard
    shard.checkpoint.begin()
    records: dict[str, bytes] = {}
    while part := shard.checkpoint.slice(10_000):
        records.update({key: record for key, record in part if record is not None})

    again = Shard("shard/0000", SETTINGS)
    again.load(sorted(records.items()))
    again.loaded()

    assert _muted(again) == _muted(shard) and again.of(KnownSilences).all == story.known.all
    assert again.of(KnownSilences).version == story.known.version
    assert again.state.incidents == shard.state.incidents


def _muted(shard: Shard) -> dict[bytes, dict[int, MutedBy]]:
    table = shard.of(Mutes).muted
    return {identity: dict(table.of(identity)) for identity in table}


# -- inhibition --


def inhibited(rules: tuple[InhibitRule, ...] = (RULE,)) -> Muted:
    return Muted(msgspec.structs.replace(SETTINGS, inhibit=rules))


def test_an_alert_is_muted_while_another_fires_and_says_by_which() -> None:
    story = inhibited()
    story.push(at(1), alert("node", "Down"))
    story.classify(at(1), Severity.P0)
    story.push(at(2), alert("api", "Slow"))
    story.classify(at(2), Severity.P0)

    told = [each.facts.common_labels["alertname"] for _a, each in story.asked if isinstance(each, Act)]
    (muted,) = story.named(SeriesMuted)
    assert told == ["Down"]
    assert muted.text == "1 alert inhibited by Down (node) (rule down)"


def test_a_source_that_comes_later_mutes_what_fires_already_and_lets_go_when_it_ends() -> None:
    story = inhibited()
    story.push(at(1), alert("api", "Slow"))
    story.classify(at(1), Severity.P2)  # told after 10 s
    story.push(at(2), alert("node", "Down"))
    story.ticks(at(3), at(20))
    during = [each.facts.common_labels["alertname"] for _a, each in story.asked if isinstance(each, Act)]

    story.push(at(21), alert("node", "Down").ended(21))

    after = [each.facts.common_labels["alertname"] for _a, each in story.asked if isinstance(each, Act)]
    assert "Slow" not in during and "Slow" in after


def test_rules_that_change_hold_for_what_fires() -> None:
    story = inhibited(())
    story.push(at(1), alert("api", "Slow"), alert("node", "Down"))
    story.tick(at(2))

    story.shard.take_settings(msgspec.structs.replace(SETTINGS, inhibit=(RULE,)))
    story.ticks(at(3), at(4))
    muted = len(story.named(SeriesMuted))
    story.shard.take_settings(SETTINGS)
    story.ticks(at(5), at(7))

    assert (muted, len(story.named(SeriesUnmuted))) == (1, 1)


class Pair:
    """Two shards that tell each other what inhibits."""

    def __init__(self) -> None:
        settings = msgspec.structs.replace(SETTINGS, inhibit=(RULE,))
        self.one, self.other = Muted(settings), Muted(settings)
        for number, story in enumerate((self.one, self.other)):
            story.shard.partition = story.replayed.partition = PARTITIONS[number]
            story.shard.of(Inhibitors).peers = PARTITIONS

    def carry(self, when: float, *, lose_answer: bool = False) -> int:
        """Bring all that is owed; how many messages there were."""
        stories = {story.shard.partition: story for story in (self.one, self.other)}
        count = 0
        for story in stories.values():
            for effect in story._take(SendInhibitors):
                count += 1
                reply = stories[effect.to].tell(when, effect.news).reply
                if not lose_answer:
                    heard = InhibitorsHeard(effect.to, effect.news.number, isinstance(reply, Failed))
                    story.tell(when, heard)
        return count


def test_a_source_on_another_shard_mutes_as_well() -> None:
    pair = Pair()
    pair.one.push(at(1), alert("node", "Down"))
    while pair.carry(at(2)):
        pass
    pair.other.push(at(3), alert("api", "Slow"))
    pair.other.classify(at(3), Severity.P0)
    muted = pair.other.sent()

    pair.one.push(at(4), alert("node", "Down").ended(4))
    while pair.carry(at(5)):
        pass

    assert (muted, pair.other.reasons) == ([], ["opened"])


def test_word_that_comes_twice_is_one_and_word_that_was_missed_is_said_again() -> None:
    pair = Pair()
    pair.one.push(at(1), alert("node", "Down"))
    pair.carry(at(2), lose_answer=True)
    before = len(pair.other.events)

    pair.one.restart(at(3))
    pair.one.shard.partition = PARTITIONS[0]
    pair.one.shard.of(Inhibitors).peers = PARTITIONS
    pair.one.tick(at(4))
    while pair.carry(at(5)):
        pass

    inhibitors = pair.other.shard.of(Inhibitors).others["shard/0000"]
    assert [each.title for each in inhibitors.values()] == ["Down (node)"]
    assert len(pair.other.events) <= before + 1
    late = InhibitorsChanged("shard/0000", 9, 7, 8, [])
    assert isinstance(pair.other.tell(at(6), late).reply, Failed)


def test_a_shard_that_is_there_no_more_inhibits_nothing() -> None:
    pair = Pair()
    pair.one.push(at(1), alert("node", "Down"))
    while pair.carry(at(2)):
        pass
    pair.other.push(at(3), alert("api", "Slow"))

    pair.other.shard.of(Inhibitors).peers = PARTITIONS[1:]
    pair.other.shard.started("shard-0001-a", pair.other.now)

    assert pair.other.shard.of(Inhibitors).others == {}


def test_nothing_is_said_where_there_are_no_rules() -> None:
    story = Muted()
    story.shard.of(Inhibitors).peers = PARTITIONS
    story.push(at(1), alert("node", "Down"))

    assert not [each for _a, each in story.asked if isinstance(each, SendInhibitors)]
    assert not story.named(SilencesKnown) and not story.named(NotificationOwed)
