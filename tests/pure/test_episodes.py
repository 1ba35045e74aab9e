"""When an incident opened, was answered and over, each time: from its record and timeline."""

from __future__ import annotations

from models.incidents.episodes import Episode, episodes
from models.incidents.incident import (
    Handling,
    Incident,
    IncidentState,
    IncidentType,
    Resolution,
    Severity,
    TimelineEntry,
    Verdict,
)


def line(at: float, kind: str, actor: str = "system", **details: str) -> TimelineEntry:
    return TimelineEntry(at, kind, actor, "", details)


def incident(*timeline: TimelineEntry, **more: object) -> Incident:
    made = Incident(
        bytes(16),
        0,
        "default",
        "api",
        "g",
        {},
        "down",
        "",
        "test",
        {},
        {},
        100.0,
        100.0,
        timeline=list(timeline),
    )
    for name, value in more.items():
        setattr(made, name, value)
    return made


def handled(answered_at: float) -> Handling:
    return Handling(Verdict(Severity.P2, IncidentType.UNKNOWN, ""), answered_at=answered_at)


def test_one_that_nobody_touched_is_open_since_it_was_created() -> None:
    assert episodes(incident(line(100, "Created"))) == [Episode(100.0)]


def test_each_reopening_begins_another_with_times_of_its_own() -> None:
    found = episodes(
        incident(
            line(100, "Created"),
            line(105, "NotificationSent"),
            line(110, "NotificationSent"),
            line(130, "Acknowledged", "ana"),
            line(140, "AssignmentChanged", "bob"),
            line(200, "Resolved", "ana", method="Manual"),
            line(260, "StateChanged", before="Resolved", after="Triaged"),
            line(275, "AssignmentChanged", "bob"),
            line(300, "Resolved", "system", method="Automated"),
            line(400, "StateChanged", before="Resolved", after="Closed"),
            handling=handled(275.0),
            opened_at=260.0,
            resolved_at=300.0,
            reopened=1,
            state=IncidentState.CLOSED,
            resolution=Resolution(300.0, "system", "Automated", ""),
        )
    )

    assert found == [
        Episode(100.0, 105.0, 130.0, "ana", 200.0, "ana", "Manual"),
        Episode(260.0, 0.0, 275.0, "bob", 300.0, "system", "Automated"),
    ]
    assert [each.acknowledge_s for each in found] == [30.0, 15.0]
    assert [each.resolve_s for each in found] == [100.0, 40.0]
    assert [each.notify_s for each in found] == [5.0, None]


def test_a_reopening_whose_line_is_no_longer_kept_is_known_from_the_record() -> None:
    found = episodes(incident(line(100, "Created"), opened_at=500.0, resolved_at=560.0, reopened=3))

    assert [(each.opened_at, each.resolved_at) for each in found] == [(100.0, 0.0), (500.0, 560.0)]


def test_who_was_on_it_already_answers_a_reopening_at_once() -> None:
    found = episodes(
        incident(
            line(100, "Created"),
            line(110, "Acknowledged", "ana"),
            line(200, "Resolved", "ana"),
            line(260, "StateChanged", before="Resolved", after="Investigating"),
            handling=handled(260.0),
            opened_at=260.0,
        )
    )

    assert (found[-1].acknowledge_s, found[-1].answered_by) == (0.0, "")


def test_an_answer_after_the_end_is_none_of_that_time() -> None:
    found = episodes(
        incident(
            line(100, "Created"),
            line(200, "Resolved"),
            line(210, "AssignmentChanged", "ana"),
            resolved_at=200.0,
        )
    )

    assert found[0].answered_at == 0.0
