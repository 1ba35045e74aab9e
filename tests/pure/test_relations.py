"""What a shard does with what the correlator says of its incidents: it shows it, and may let symptoms wait for a while."""

from __future__ import annotations

import msgspec
import pytest

from models.control.silences import Silence
from models.incidents.incident import Severity
from models.incidents.relation import Cause, Part, Relation
from models.incidents.verbs import Resend
from models.partition.sharding import TENANT
from models.people.policy import Outline
from models.routes.route import Route
from models.shard.effects import Act
from models.shard.escalation import Escalations, Page, PoliciesChanged
from models.shard.escalation_state import PAUSED
from models.shard.known_silences import KnownSilences, SilencesChanged
from models.shard.relations import (
    LINES_MAX,
    PATIENCE_S,
    SETTLE_S,
    IncidentRelated,
    Related,
    RelationHeard,
    Relations,
)
from models.shard.settings import ShardSettings
from services.actions.wording import Wording
from tests.scenario import SETTINGS, ZERO, Refusal, Story, alert, at

MUTING = msgspec.structs.replace(SETTINGS, mute_symptoms=True, mute_symptoms_for_s=1000.0)
SITUATION = b"s" * 16
DB = Cause("db", 0.9, ["it began 40 s before the others"], b"d" * 16, "db is slow")


def symptom(mute: float = 0.0, **fields: object) -> Relation:
    """A symptom of db, which waits until that second (0: it does not)."""
    found = Relation(SITUATION, Part.SYMPTOM, 2, [DB], DB.incident_id, at(mute) if mute else 0.0)
    return msgspec.structs.replace(found, **fields)


class Told(Story):
    number = 0

    def relate(self, when: float, relation: Relation, number: int | None = None) -> None:
        self.number += 1
        incident = self.incident
        self.tell(when, Related(TENANT, incident.id, self.number if number is None else number, relation))

    @property
    def relations(self) -> Relations:
        return self.shard.of(Relations)

    @property
    def reasons(self) -> list[str]:
        return [reason for _at, reason, _attempt in self.sent()]

    def lines(self, kind: str) -> list[str]:
        return [each.text for each in self.incident.timeline if each.kind == kind]


def opened(settings: ShardSettings = MUTING, severity: Severity = Severity.P2) -> Told:
    """An incident of api that opened at second 0; nobody is told before second 10."""
    story = Told(settings)
    story.push(at(0), alert("api", "Slow"))
    story.classify(at(0), severity)
    return story


# -- what is shown -------------------------------------------------------------------------------------------


def test_an_incident_says_what_it_is_likely_a_symptom_of() -> None:
    story = opened(SETTINGS)
    story.relate(at(1), symptom())

    assert story.lines("IncidentRelated") == ["probably a symptom of db: it began 40 s before the others"]
    known = story.relations.known(story.incident)
    assert known is not None
    assert known.symptom_of_service == "db"


def test_an_older_word_never_wins() -> None:
    story = opened(SETTINGS)
    story.relate(at(1), symptom(), number=7)
    story.relate(at(2), symptom(part=Part.RELATED, symptom_of=b""), number=6)
    story.relate(at(3), symptom(part=Part.RELATED, symptom_of=b""), number=7)

    assert story.relations.kept[story.incident.id].relation.part is Part.SYMPTOM
    assert len(story.named(IncidentRelated)) == 1


def test_the_same_word_again_is_no_line_and_moves_the_number() -> None:
    story = opened(SETTINGS)
    story.relate(at(1), symptom(), number=1)
    story.relate(at(2), symptom(), number=3)
    story.relate(at(3), symptom(part=Part.CAUSE), number=2)

    assert [each.number for each in story.named(RelationHeard)] == [3]
    assert len(story.lines("IncidentRelated")) == 1


def test_causes_that_take_turns_push_nothing_else_out_of_the_timeline() -> None:
    story = opened(SETTINGS)
    before = [each for each in story.incident.timeline if each.kind != "IncidentRelated"]
    for second in range(1, 601):
        story.relate(at(second), symptom(symptom_of=b"%016d" % second))

    assert len(story.lines("IncidentRelated")) == LINES_MAX
    assert [each for each in story.incident.timeline if each.kind != "IncidentRelated"] == before


def test_another_score_is_kept_and_no_line() -> None:
    story = opened(SETTINGS)
    story.relate(at(1), symptom())
    story.relate(at(2), symptom(causes=[msgspec.structs.replace(DB, score=0.5)]))

    assert len(story.named(IncidentRelated)) == 2
    assert len(story.lines("IncidentRelated")) == 1


def test_word_of_an_incident_that_is_not_here_or_not_this_tenants_is_nothing() -> None:
    story = opened(SETTINGS)

    step = story.tell(at(1), Related(TENANT, b"x" * 16, 1, symptom()))
    other = story.tell(at(1), Related("other", story.incident.id, 1, symptom()))

    assert step.events == other.events == []


def test_the_cause_says_what_it_causes() -> None:
    story = opened(SETTINGS)
    own = msgspec.structs.replace(DB, service="api", incident_id=story.incident.id)
    story.relate(at(1), Relation(SITUATION, Part.CAUSE, 4, [own]))

    assert story.lines("IncidentRelated") == [
        "probably the cause of 3 more: api: it began 40 s before the others"
    ]


def test_a_notification_names_the_cause() -> None:
    story = opened(SETTINGS)
    story.relate(at(1), symptom())
    story.ticks(at(2), at(11))

    [act] = [effect for _when, effect in story.asked if isinstance(effect, Act)]

    assert act.facts.cause == "probably a symptom of db: it began 40 s before the others"
    said = Wording({}).of(act.facts)
    assert ("Looks like", act.facts.cause) in said.fields


# -- symptoms that wait --------------------------------------------------------------------------------------


def test_a_symptom_whose_cause_was_told_waits_and_says_so() -> None:
    story = opened()
    story.relate(at(1), symptom(300))
    story.ticks(at(2), at(200))

    assert story.sent() == []
    assert story.incident.notification_of("webhook").withheld == "opened"
    assert story.lines("NotificationWithheld") == ["opened: a symptom of db"]
    assert story.lines("IncidentRelated")[0].endswith("; nobody is notified while that is so")


def test_it_is_told_when_the_lease_ends_that_nobody_renews() -> None:
    story = opened()
    story.relate(at(1), symptom(300))
    story.ticks(at(2), at(400))

    assert story.sent() == [(300, "opened", 0)]
    assert story.lines("SymptomMuteEnded") == [
        "not muted as a symptom any more: its cause is over, or the correlator is away"
    ]


def test_however_often_a_lease_is_renewed_it_ends() -> None:
    story = opened()
    for second in range(1, 2000, 100):
        story.relate(at(second), symptom(second + 300))
        story.ticks(at(second + 1), at(second + 99))

    assert [when for when, _reason, _attempt in story.sent()] == [1001]
    assert story.lines("SymptomMuteEnded") == [
        "not muted as a symptom any more: it waited as long as a symptom may"
    ]


def test_when_its_cause_is_over_it_has_a_moment_to_end_by_itself() -> None:
    story = opened()
    story.relate(at(1), symptom(900))
    story.relate(at(100), symptom())
    story.ticks(at(101), at(400))

    assert [when for when, _reason, _attempt in story.sent()] == [100 + SETTLE_S]


def test_one_that_ends_meanwhile_is_told_to_nobody() -> None:
    story = opened()
    story.relate(at(1), symptom(900))
    story.ticks(at(2), at(50))
    story.push(at(51), alert("api", "Slow").ended(51))
    story.ticks(at(52), at(1200))

    assert story.sent() == []


def test_an_end_is_delivered_to_who_was_told_of_it_before() -> None:
    story = opened()
    story.ticks(at(1), at(11))
    story.receive(at(11))
    assert story.reasons == []
    story.relate(at(12), symptom(900))

    story.push(at(100), alert("api", "Slow").ended(100))
    story.ticks(at(101), at(110))

    assert story.reasons == ["resolved"]


def test_what_turns_out_to_be_the_cause_is_told_at_once() -> None:
    story = opened()
    story.relate(at(1), symptom(900))
    story.ticks(at(2), at(50))
    own = msgspec.structs.replace(DB, service="api", incident_id=story.incident.id)
    story.relate(at(51), Relation(SITUATION, Part.CAUSE, 2, [own]))

    assert story.sent() == [(51, "opened", 0)]


@pytest.mark.parametrize("severity", [Severity.P0, Severity.P1])
def test_what_is_severe_never_waits(severity: Severity) -> None:
    story = opened(severity=severity)
    story.relate(at(0.5), symptom(900))
    story.ticks(at(1), at(5))

    assert len(story.sent()) == 1


def test_what_gets_severe_while_it_waits_is_told_at_once() -> None:
    story = opened()
    story.relate(at(1), symptom(900))
    story.ticks(at(2), at(50))

    story.push(at(51), alert("api", "Slow", "b", severity="critical"))
    story.classify(at(51), Severity.P0)

    assert [when for when, _reason, _attempt in story.sent()] == [51]
    assert "by its severity it does not wait" in story.lines("SymptomMuteEnded")[0]


def test_nobody_waits_where_the_settings_do_not_want_it() -> None:
    story = opened(SETTINGS)
    story.relate(at(1), symptom(900))
    story.ticks(at(2), at(12))

    assert story.reasons == ["opened"]


def test_settings_that_do_not_want_it_any_more_hold_at_once() -> None:
    story = opened()
    story.relate(at(1), symptom(900))
    story.ticks(at(2), at(50))

    story.shard.take_settings(SETTINGS)
    story.tick(at(51))

    assert story.sent() == [(51, "opened", 0)]


def test_one_whose_mute_ends_before_silences_are_known_is_told_once_they_are() -> None:
    story = opened()
    story.relate(at(1), symptom(300))
    story.ticks(at(2), at(298))
    story.shard.of(KnownSilences).is_told = False
    story.ticks(at(299), at(310))
    assert story.lines("SymptomMuteEnded") and story.sent() == []

    story.tell(at(311), SilencesChanged(1, []))
    story.ticks(at(312), at(315))

    assert story.reasons == ["opened"]


def test_a_crash_forgets_no_mute_and_no_end_of_one() -> None:
    story = opened()
    story.relate(at(1), symptom(300))
    story.ticks(at(2), at(50))

    story.restart(at(60))
    story.ticks(at(61), at(299))
    assert story.sent() == []
    story.ticks(at(300), at(301))

    assert story.reasons == ["opened"]


def test_settings_that_change_right_before_the_next_word_lose_no_page() -> None:
    story = opened()
    story.relate(at(1), symptom(900))
    story.ticks(at(2), at(50))

    story.shard.take_settings(SETTINGS)
    story.relate(at(50.05), symptom())
    story.tick(at(51))

    assert story.reasons == ["opened"]
    assert "by its severity it does not wait" in story.lines("SymptomMuteEnded")[0]


def test_who_is_on_call_is_paged_though_the_wait_ends_before_silences_are_heard_of() -> None:
    by_policy = msgspec.structs.replace(MUTING, route=Route(escalation="critical"))
    story = Told(by_policy)
    story.tell(at(0), PoliciesChanged(1, [Outline("critical", (60.0,), repeat=0, falls_back=False)]))
    story.push(at(0), alert("api", "Slow"))
    story.classify(at(0), Severity.P2)
    story.relate(at(1), symptom(300))
    story.ticks(at(2), at(299))
    assert story.shard.of(Escalations).store.all[story.incident.id].status == PAUSED

    story.shard.of(KnownSilences).is_told = False  # as after a start
    story.ticks(at(300), at(302))
    story.tell(at(303), SilencesChanged(1, []))
    story.ticks(at(304), at(306))

    assert [effect.level for _when, effect in story.asked if isinstance(effect, Page)] == [0]


def test_a_symptom_that_a_silence_mutes_too_is_told_when_both_are_over() -> None:
    for silenced_until, leased_until in ((300.0, 500.0), (500.0, 300.0)):
        story = opened()
        silence = Silence("s1", (("service", "=", "api"),), ZERO, ZERO + silenced_until, "ada", "", ZERO)
        story.tell(at(0.5), SilencesChanged(1, [silence]))
        story.relate(at(1), symptom(leased_until))
        story.ticks(at(2), at(600))

        assert [(when, reason) for when, reason, _attempt in story.sent()] == [(500, "opened")]


def test_who_wants_it_told_now_hears_what_it_waits_for() -> None:
    story = opened()
    story.relate(at(1), symptom(300))

    with pytest.raises(Refusal, match="it is muted, a symptom of db"):
        story.do(at(2), Resend(), story.incident)


# -- word that is awaited ------------------------------------------------------------------------------------


def test_what_opened_just_now_waits_a_moment_for_the_correlator() -> None:
    at_once = msgspec.structs.replace(MUTING, wait_s=(0.0, 0.0, 0.0, 0.0, 0.0))
    story = opened(at_once)
    story.ticks(at(0.1), at(PATIENCE_S - 0.1))
    assert story.sent() == []

    story.ticks(at(PATIENCE_S), at(PATIENCE_S + 1))

    assert story.reasons == ["opened"]


def test_what_the_correlator_knows_in_time_is_not_told_first() -> None:
    at_once = msgspec.structs.replace(MUTING, wait_s=(0.0, 0.0, 0.0, 0.0, 0.0))
    story = opened(at_once)
    story.relate(at(1), symptom(300))
    story.ticks(at(2), at(100))

    assert story.sent() == []


def test_what_is_severe_is_told_at_once_when_it_opens_again() -> None:
    at_once = msgspec.structs.replace(MUTING, wait_s=(0.0, 0.0, 0.0, 0.0, 0.0), reopen_window_s=60.0)
    story = opened(at_once, Severity.P1)
    story.tick(at(4))
    story.receive(at(4))
    story.push(at(10), alert("api", "Slow").ended(10))
    story.receive(at(11))

    story.push(at(20), alert("api", "Slow", starts=20))

    assert story.sent() == [(20, "reopened", 0)]


def test_a_clock_that_was_ahead_makes_no_wait_longer() -> None:
    story = opened()
    story.relate(at(86_400), symptom(86_700))
    story.relate(at(86_401), symptom(part=Part.CAUSE))

    story.tick(at(100))  # the clock is right again
    for second in range(101, 2000, 100):
        story.relate(at(second), symptom(second + 300))
        story.ticks(at(second + 1), at(second + 99))

    kept = story.relations.kept[story.incident.id]
    assert not kept.mute_until


def test_nothing_waits_for_it_where_symptoms_are_told() -> None:
    story = opened(msgspec.structs.replace(SETTINGS, wait_s=(0.0, 0.0, 0.0, 0.0, 0.0)))

    assert story.reasons == ["opened"]
