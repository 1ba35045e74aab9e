"""What people do to an incident: every verb, what it refuses, and what follows from it."""

from __future__ import annotations

import pytest

from models.incidents.incident import IncidentState, IncidentType, Severity
from models.incidents.verbs import (
    ASSIGNEES_MAX,
    LABELS_MAX,
    NAME_MAX,
    TEXT_MAX,
    WRITTEN_LINES_MAX,
    Acknowledge,
    AnyVerb,
    Assign,
    Close,
    Comment,
    Create,
    Label,
    Reclassify,
    Reopen,
    Resolve,
    Unacknowledge,
    Update,
)
from models.shard.lifecycle import STILL_FIRING_S
from models.shard.messages import Archived, Decision, encode
from models.shard.settings import ShardSettings
from tests.scenario import SETTINGS, Refusal, Story, alert, at

DOWN = alert("llm-api", "Down")


@pytest.fixture
def story() -> Story:
    """One incident, P2, not yet told of."""
    story = Story()
    story.push(at(0), DOWN)
    story.classify(at(1), Severity.P2)
    return story


def test_an_acknowledged_incident_is_investigated_and_says_by_whom(story: Story) -> None:
    incident = story.do(at(5), Acknowledge(), story.incident, by="ann")

    assert incident.state is IncidentState.INVESTIGATING
    assert incident.handling is not None and incident.handling.acknowledged is not None
    assert incident.handling.acknowledged.by == "ann"
    assert story.kinds(incident)[-2:] == ["Acknowledged", "StateChanged"]


def test_acknowledging_twice_changes_nothing(story: Story) -> None:
    version = story.do(at(5), Acknowledge(), story.incident).version

    assert story.do(at(6), Acknowledge(), story.incident).version == version


def test_an_acknowledgement_that_runs_out_is_taken_back_and_told_of(story: Story) -> None:
    story.ticks(at(2), at(12))
    story.receive(at(13))
    story.do(at(14), Acknowledge(until=at(20)), story.incident)

    story.ticks(at(15), at(21))

    assert story.incident.handling is not None
    assert story.incident.handling.acknowledged is None
    assert story.sent() == [(20, "acknowledgement expired", 0)]


def test_an_acknowledgement_can_be_taken_back(story: Story) -> None:
    story.do(at(5), Acknowledge(), story.incident)

    incident = story.do(at(6), Unacknowledge(), story.incident)

    assert incident.handling is not None and incident.handling.acknowledged is None


def test_who_is_assigned_investigates(story: Story) -> None:
    verb = Assign(add=["bob", "eve"], roles={"commander": "eve", "scribe": "bob"})

    incident = story.do(at(5), verb, story.incident)

    assert incident.assignees == ["bob", "eve"]
    assert incident.handling is not None and incident.handling.roles == {"commander": "eve", "scribe": "bob"}
    assert incident.state is IncidentState.INVESTIGATING


def test_a_role_is_given_back_with_an_empty_name(story: Story) -> None:
    story.do(at(5), Assign(add=["bob"], roles={"commander": "eve"}), story.incident)

    incident = story.do(at(6), Assign(remove=["bob"], roles={"commander": ""}), story.incident)

    assert incident.handling is not None
    assert (incident.assignees, incident.handling.roles) == ([], {})


def test_a_persons_severity_wins_until_it_is_cleared(story: Story) -> None:
    story.do(at(5), Reclassify(severity=Severity.P0), story.incident)
    story.push(at(6), alert("llm-api", "Down", "b", severity="warning"))
    story.classify(at(7), Severity.P3)
    assert story.severities() == [Severity.P0]

    story.do(at(8), Reclassify(clear=["severity"]), story.incident)

    assert story.incident.severity is Severity.P3


def test_a_severity_that_a_person_raises_is_told_of_at_once(story: Story) -> None:
    story.ticks(at(2), at(12))
    story.receive(at(13))

    story.do(at(14), Reclassify(severity=Severity.P0), story.incident)

    assert story.sent() == [(14, "severity changed", 0)]


def test_a_type_that_a_person_gives_leaves_the_severity_alone(story: Story) -> None:
    incident = story.do(at(5), Reclassify(type=IncidentType.SECURITY), story.incident)

    assert (incident.type, incident.severity) == (IncidentType.SECURITY, Severity.P2)


def test_an_incident_resolved_by_hand_is_not_reopened_by_repeats(story: Story) -> None:
    story.do(at(5), Resolve(notes="rolled back"), story.incident, by="ann")

    story.push(at(6), DOWN)

    assert story.decisions == [Decision.REPEATED]
    assert story.incident.state is IncidentState.RESOLVED
    assert story.incident.resolution is not None
    assert (story.incident.resolution.by, story.incident.resolution.notes) == ("ann", "rolled back")


def test_an_incident_resolved_by_hand_is_reopened_by_a_new_series(story: Story) -> None:
    story.do(at(5), Resolve(), story.incident)

    story.push(at(6), alert("llm-api", "Down", "b"))

    assert story.decisions == [Decision.REOPENED]
    assert story.incident.state is IncidentState.TRIAGED


def test_an_incident_resolved_by_hand_is_reopened_when_it_still_fires_half_an_hour_later(
    story: Story,
) -> None:
    story.do(at(5), Acknowledge(), story.incident)
    story.do(at(6), Resolve(), story.incident)

    story.tick(at(1805))
    assert story.states() == [IncidentState.RESOLVED]
    story.tick(at(1806))

    assert story.incident.state is IncidentState.INVESTIGATING
    assert story.incident.reopened == 1


def test_an_incident_resolved_by_hand_whose_alerts_end_stays_resolved(story: Story) -> None:
    story.do(at(5), Resolve(), story.incident)
    story.push(at(6), DOWN.ended(6))

    story.tick(at(1806))

    assert story.states() == [IncidentState.CLOSED]


def test_an_incident_whose_alerts_fire_is_not_closed(story: Story) -> None:
    story.do(at(5), Resolve(), story.incident)

    with pytest.raises(Refusal, match="1 of its alerts still fire"):
        story.do(at(6), Close(), story.incident)
    story.tick(at(900))

    assert story.incident.state is IncidentState.RESOLVED


def test_a_person_closes_and_reopens(story: Story) -> None:
    story.push(at(5), DOWN.ended(5))
    story.do(at(6), Close(), story.incident)
    assert story.states() == [IncidentState.CLOSED]

    story.do(at(7), Reopen(), story.incident)

    assert story.incident.state is IncidentState.TRIAGED
    assert story.incident.closed_at == 0.0


def test_a_closed_incident_that_is_reopened_is_not_archived(story: Story) -> None:
    story.push(at(5), DOWN.ended(5))
    story.do(at(6), Close(), story.incident)
    story.do(at(7), Reopen(), story.incident)

    story.archive(at(8))

    assert story.states() == [IncidentState.TRIAGED]


def test_a_comment_on_its_way_to_the_archive_is_not_lost(story: Story) -> None:
    incident = story.incident
    story.push(at(5), DOWN.ended(5))
    story.do(at(6), Close(), incident)
    version = incident.version
    story.do(at(7), Comment("what we learned"), incident)

    story.tell(at(8), Archived([incident.id], [version]))
    assert incident.id in story.shard.state.incidents
    story.archive(at(9))

    assert incident.id not in story.shard.state.incidents


def test_an_incident_is_not_reopened_beside_another_of_its_group(story: Story) -> None:
    first = story.incident
    story.push(at(5), DOWN.ended(5))
    story.do(at(6), Close(), first)
    story.push(at(7), DOWN)

    with pytest.raises(Refusal, match="of the same group is open") as refused:
        story.do(at(8), Reopen(), first)

    assert refused.value.kind == "Conflict"


def test_an_incident_is_not_reopened_beside_one_of_its_group_that_may_go_on_by_itself(story: Story) -> None:
    first = story.incident
    story.push(at(5), DOWN.ended(5))
    story.push(at(70), DOWN)
    [second] = story.open_incidents()
    story.do(at(71), Resolve(), second)

    with pytest.raises(Refusal, match="of the same group") as refused:
        story.do(at(72), Reopen(), first)

    assert refused.value.kind == "Conflict"
    story.tick(at(71 + STILL_FIRING_S))
    assert (first.is_open, second.is_open) == (False, True)


def test_an_incident_made_by_hand_is_ended_by_a_person_only(story: Story) -> None:
    verb = Create("billing", "Invoices are wrong", severity=Severity.P1, assignees=["bob"])
    made = story.do(at(5), verb, by="ann")
    assert (made.severity, made.assignees, made.created_by) == (Severity.P1, ["bob"], "ann")
    assert made.state is IncidentState.INVESTIGATING

    story.push(at(6), alert("billing", "Invoices are wrong"))
    story.tick(at(7))

    assert made.firing == 0 and made.is_open


def test_an_incident_made_by_hand_without_a_severity_is_classified(story: Story) -> None:
    made = story.do(at(5), Create("billing", "Invoices are wrong"))

    story.classify(at(6), Severity.P1)

    assert (made.severity, made.state) == (Severity.P1, IncidentState.TRIAGED)


def test_two_incidents_made_by_hand_at_the_same_time_are_two(story: Story) -> None:
    first = story.do(at(5), Create("billing", "Invoices are wrong"))
    second = story.do(at(5), Create("billing", "Invoices are wrong"))

    assert first.id != second.id
    story.restart(at(6))


def test_a_promised_update_that_does_not_come_is_noted(story: Story) -> None:
    story.do(at(5), Update("customers", "We are looking at it", next_due_at=at(10)), story.incident)

    story.ticks(at(6), at(11))

    assert story.kinds(story.incident)[-1] == "UpdateMissed"


def test_a_promised_update_that_comes_is_no_matter(story: Story) -> None:
    story.do(at(5), Update("customers", "We are looking at it", next_due_at=at(10)), story.incident)
    story.do(at(9), Update("customers", "It is fixed"), story.incident)

    story.ticks(at(10), at(20))

    assert "UpdateMissed" not in story.kinds(story.incident)


def test_labels_are_set_and_removed(story: Story) -> None:
    story.do(at(5), Label(set={"team": "ml", "region": "eu"}), story.incident)

    incident = story.do(at(6), Label(set={"team": "core"}, remove=["region"]), story.incident)

    assert incident.labels["team"] == "core" and "region" not in incident.labels


def test_what_people_wrote_outlives_what_the_system_wrote(story: Story) -> None:
    story.do(at(5), Comment("It began with the deployment."), story.incident)
    for second in range(600):
        story.do(at(6), Label(set={"n": str(second)}), story.incident)

    kinds = story.kinds(story.incident)

    assert kinds[0] == "Created" and "CommentAdded" in kinds
    assert len(kinds) == 501 and story.incident.timeline_dropped > 90


def test_a_verb_with_an_old_version_is_refused(story: Story) -> None:
    version = story.incident.version
    story.do(at(5), Acknowledge(), story.incident, by="ann", if_version=version)

    with pytest.raises(Refusal) as refused:
        story.do(at(6), Resolve(), story.incident, by="bob", if_version=version)

    assert refused.value.kind == "Stale"


def test_a_repeated_call_is_answered_alike_and_done_once(story: Story) -> None:
    story.do(at(5), Comment("once"), story.incident, call=b"c" * 16)
    story.do(at(6), Comment("once"), story.incident, call=b"c" * 16)

    assert story.kinds(story.incident).count("CommentAdded") == 1


def test_an_idempotency_key_stands_for_one_command(story: Story) -> None:
    story.do(at(5), Comment("once"), story.incident, delivery="key")
    before = encode(story.done)

    story.do(at(6), Comment("once"), story.incident, delivery="key", before=before)
    with pytest.raises(Refusal, match="was used before for another request"):
        story.do(at(7), Comment("twice"), story.incident, delivery="key", before=before)

    assert story.kinds(story.incident).count("CommentAdded") == 1


def test_targets_are_told_at_half_and_at_all_of_their_time() -> None:
    story = Story(_targets((0, 0, 40, 0, 0), (0, 0, 100, 0, 0)))
    story.push(at(0), DOWN)
    story.classify(at(0), Severity.P2)

    story.ticks(at(1), at(110))

    lines = [
        (line.at - at(0), line.details["target"])
        for line in story.incident.timeline
        if line.kind == "TargetPassed"
    ]
    assert lines == [(20, "acknowledge"), (40, "acknowledge"), (50, "resolve"), (100, "resolve")]


def test_deadlines_that_were_overtaken_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.partition.timers.SLACK", 10)
    story = Story(_targets((0, 0, 0, 0, 0), (500, 600, 700, 800, 900)))
    story.push(at(0), DOWN)
    for second in range(1, 100):
        story.do(at(second), Reclassify(severity=Severity(second % 5)), story.incident)

    assert len(story.shard.timers) <= 13
    story.tick(at(1000))
    assert story.kinds(story.incident).count("TargetPassed") == 2


def test_a_target_that_was_met_is_not_told() -> None:
    story = Story(_targets((0, 0, 40, 0, 0), (0, 0, 100, 0, 0)))
    story.push(at(0), DOWN)
    story.classify(at(0), Severity.P2)
    story.do(at(10), Acknowledge(), story.incident)
    story.do(at(30), Resolve(), story.incident)

    story.ticks(at(31), at(110))

    assert "TargetPassed" not in story.kinds(story.incident)


def test_targets_begin_anew_when_an_incident_is_reopened() -> None:
    story = Story(_targets((0, 0, 0, 0, 0), (0, 0, 40, 0, 0)))
    story.push(at(0), DOWN)
    story.classify(at(0), Severity.P2)
    story.push(at(10), DOWN.ended(10))
    story.push(at(30), DOWN)

    story.ticks(at(31), at(49))
    assert "TargetPassed" not in story.kinds(story.incident)
    story.tick(at(50))

    assert story.kinds(story.incident)[-1] == "TargetPassed"


@pytest.mark.parametrize(
    ("verb", "kind", "words"),
    [
        (Acknowledge(until=at(1)), "Malformed", "until: expected a time in the future"),
        (Assign(add=["x" * (NAME_MAX + 1)]), "TooLarge", "add: expected a name of at most"),
        (Assign(add=[" "]), "Malformed", "add: expected a name, not an empty one"),
        (Assign(add=["a\nb"]), "Malformed", "add: expected a name of printable characters"),
        (Assign(add=[f"p{n}" for n in range(ASSIGNEES_MAX + 1)]), "TooLarge", "add: an incident has at most"),
        (Assign(roles={f"r{n}": "x" for n in range(30)}), "TooLarge", "roles: an incident has at most"),
        (Comment("x" * (TEXT_MAX + 1)), "TooLarge", "text: expected at most"),
        (Comment("  "), "Malformed", "text: must not be empty"),
        (Label(set={f"l{n}": "x" for n in range(LABELS_MAX + 1)}), "TooLarge", "set: an incident has at most"),
        (Label(set={"a": "1"}, remove=["a"]), "Malformed", "remove: 'a' is set in the same request"),
        (Reclassify(clear=["title"]), "Malformed", "clear: expected one or more of"),
        (Reclassify(severity=Severity.P1, clear=["severity"]), "Malformed", "clear: severity is given"),
        (Resolve(method="Magic"), "Malformed", "method: expected one of"),
        (Close(), "Conflict", "resolve it first"),
        (Update("", "text"), "Malformed", "audience: expected a name"),
        (Update("all", "text", next_due_at=at(0)), "Malformed", "next_due_at: expected a time"),
    ],
)  # fmt: skip
def test_what_can_not_be_done_is_refused_and_changes_nothing(
    story: Story, verb: AnyVerb, kind: str, words: str
) -> None:
    before, events = story.incident.version, len(story.events)

    with pytest.raises(Refusal, match=words) as refused:
        story.do(at(5), verb, story.incident)

    assert refused.value.kind == kind
    assert (story.incident.version, len(story.events)) == (before, events)


def test_another_tenants_incident_is_not_there(story: Story) -> None:
    with pytest.raises(Refusal) as refused:
        story.do(at(5), Comment("hello"), story.incident, tenant="other")

    assert refused.value.kind == "NotFound"


def test_comments_have_an_end(story: Story) -> None:
    for _ in range(WRITTEN_LINES_MAX):
        story.do(at(5), Comment("+1"), story.incident)

    with pytest.raises(Refusal, match="continue in a linked incident"):
        story.do(at(6), Comment("+1"), story.incident)


def _targets(acknowledge: tuple[float, ...], resolve: tuple[float, ...]) -> ShardSettings:
    return ShardSettings(
        reopen_window_s=SETTINGS.reopen_window_s,
        close_after_s=SETTINGS.close_after_s,
        acknowledge_within_s=acknowledge,
        resolve_within_s=resolve,
    )


# -- nobody looks after it any more --------------------------------------------------------------------------------


def test_an_acknowledgement_that_is_taken_back_leaves_it_triaged(story: Story) -> None:
    story.do(at(5), Acknowledge(), story.incident)

    incident = story.do(at(6), Unacknowledge(), story.incident, by="bob")

    assert incident.state is IncidentState.TRIAGED
    assert incident.timeline[-1].text == "Investigating -> Triaged: acknowledgement withdrawn by bob"


def test_an_acknowledgement_that_runs_out_leaves_it_triaged(story: Story) -> None:
    story.do(at(5), Acknowledge(until=at(10)), story.incident)

    story.ticks(at(6), at(11))

    assert story.incident.state is IncidentState.TRIAGED


def test_an_incident_that_nobody_is_assigned_to_any_more_is_triaged(story: Story) -> None:
    story.do(at(5), Assign(["ann"], [], {"commander": "bob"}), story.incident)

    story.do(at(6), Assign([], ["ann"]), story.incident)
    assert story.states() == [IncidentState.INVESTIGATING]
    story.do(at(7), Assign([], [], {"commander": ""}), story.incident)

    assert story.incident.state is IncidentState.TRIAGED


def test_somebody_who_is_assigned_goes_on_investigating(story: Story) -> None:
    story.do(at(5), Assign(["ann"]), story.incident)
    story.do(at(6), Acknowledge(), story.incident)

    story.do(at(7), Unacknowledge(), story.incident)

    assert story.incident.state is IncidentState.INVESTIGATING


# -- what is told of it ----------------------------------------------------------------------------------------------


def test_a_verb_that_finds_all_done_says_so(story: Story) -> None:
    changed = []
    for second, verb in ((5, Reopen()), (6, Acknowledge()), (7, Acknowledge())):
        story.do(at(second), verb, story.incident)
        changed.append(story.done.changed)

    assert changed == [False, True, False]


def test_the_timeline_has_root_cause_reason_and_until_when(story: Story) -> None:
    story.do(at(5), Acknowledge(until=at(3600)), story.incident, reason="mine")
    story.do(at(6), Reclassify(Severity.P1), story.incident, reason="customers see it")
    story.do(at(7), Resolve(notes="built anew", root_cause="an old index"), story.incident)

    details = {line.kind: line.details for line in story.incident.timeline}
    assert details["Acknowledged"]["until"] == "2026-01-01T01:00:00Z"
    assert details["Reclassified"]["reason"] == "customers see it"
    assert details["Resolved"]["root_cause"] == "an old index"
