"""Figures of incidents, compared with what was worked out by hand; docs/analytics.md has the definitions."""

from __future__ import annotations

import pytest

from models.analytics.figures import COMPARED_MIN, By, Group, at_percent, figures
from models.analytics.rows import Row, row_of
from models.incidents.incident import (
    AUTOMATED,
    MANUAL,
    Handling,
    Incident,
    IncidentState,
    IncidentType,
    Notification,
    Resolution,
    Severity,
    TimelineEntry,
    Verdict,
)
from models.incidents.query import IncidentView
from models.shard.run_lines import SHADOW
from services.cli.commands import analytics as command
from services.cli.commands.incidents import export

#: 2026-01-01, a Thursday of the first week.
DAY = 1767225600.0


def line(at: float, kind: str, actor: str = "system", **details: str) -> TimelineEntry:
    return TimelineEntry(DAY + at, kind, actor, "", details)


def incident(
    *lines: TimelineEntry,
    at: float = 0.0,
    service: str = "api",
    severity: Severity = Severity.P2,
    answered_at: float = 0.0,
    resolved_at: float = 0.0,
    method: str = AUTOMATED,
    told: bool = False,
    **more: object,
) -> Row:
    made = Incident(
        bytes(16), 0, "default", service, "g", {}, "down", "", "test", {}, {}, DAY + at, DAY + at,
        severity=severity, timeline=[line(at, "Created"), *lines],
    )  # fmt: skip
    if answered_at:
        made.handling = Handling(Verdict(severity, IncidentType.UNKNOWN, ""), answered_at=DAY + answered_at)
    if resolved_at:
        made.resolved_at, made.state = DAY + resolved_at, IncidentState.RESOLVED
        made.resolution = Resolution(DAY + resolved_at, "ana" if method == MANUAL else "system", method, "")
    if told:
        made.notifications = {"pager": Notification(told=True)}
    for name, value in more.items():
        setattr(made, name, value)
    return row_of(IncidentView(made, 3))


def run(
    at: float, *, status: str = "succeeded", action: str = "service_restart", began: str = ""
) -> list[TimelineEntry]:
    """A run that did something and is over. `began` is what its first line says."""
    return [
        TimelineEntry(DAY + at - 2, "PlaybookStarted", "system", began, {"run": str(at)}),
        line(at - 1, "ActionExecuted", "playbook restart", status="succeeded", action=action, run=str(at)),
        line(at, "PlaybookCompleted", "playbook restart", status=status, run=str(at)),
    ]


def reopened(at: float) -> TimelineEntry:
    return line(at, "StateChanged", before="Resolved", after="Triaged")


#: Told after 5 s, answered by a person after 30 s, resolved by her after 100 s.
HANDLED = incident(
    line(5, "NotificationSent"), line(30, "Acknowledged", "ana"), line(100, "Resolved", "ana", method=MANUAL),
    answered_at=30, resolved_at=100, method=MANUAL, told=True, began_at=DAY - 60,
)  # fmt: skip
#: Came and went within 20 s; somebody was told of it.
NOISE = incident(
    line(1, "NotificationSent"), line(20, "Resolved", method=AUTOMATED), resolved_at=20, told=True
)
#: Open for 10 s, for 20 s, and for 30 s, by itself each time.
FLAPPING = incident(
    line(10, "Resolved", method=AUTOMATED), reopened(60), line(80, "Resolved", method=AUTOMATED), reopened(100),
    line(130, "Resolved", method=AUTOMATED),
    resolved_at=130, reopened=2, opened_at=DAY + 100, service="db", severity=Severity.P1, labels={"team": "x"},
)  # fmt: skip
#: A playbook repaired it within 50 s.
REPAIRED = incident(
    *run(48), line(50, "Resolved", method=AUTOMATED), resolved_at=50, service="db",
)  # fmt: skip
#: It ended by itself, but somebody wrote about it.
COMMENTED = incident(
    line(5, "CommentAdded", "bob"), line(90_030, "Resolved", method=AUTOMATED), at=90_000, resolved_at=90_030
)
#: Muted, and open still, a week later.
MUTED = incident(line(7 * 86_400 + 1, "NotificationWithheld"), at=7 * 86_400)
ALL = [HANDLED, NOISE, FLAPPING, REPAIRED, COMMENTED, MUTED]


def test_a_row_says_what_became_of_one_incident() -> None:
    assert (HANDLED.notify_s, HANDLED.acknowledge_s, HANDLED.resolve_s) == (5.0, 30.0, 100.0)
    assert [each.detect_s for each in ALL] == [60.0, None, None, None, None, None]
    assert (FLAPPING.notify_s, FLAPPING.acknowledge_s, FLAPPING.resolve_s) == (None, None, 60.0)
    assert (MUTED.resolve_s, MUTED.muted, MUTED.told) == (None, True, False)
    assert REPAIRED.repaired_by == "restart"
    assert [each.is_noise for each in ALL] == [False, True, True, False, False, False]
    assert [each.ended_alone for each in ALL] == [False, True, True, False, True, False]
    assert [each.answered for each in ALL] == [True, False, False, False, True, False]


def test_all_of_them_together() -> None:
    [total] = figures(ALL, By.NOTHING)

    assert (total.incidents, total.over, total.answered, total.told, total.muted) == (6, 5, 2, 2, 1)
    assert (total.alone, total.noise, total.reopened, total.flapping, total.repaired) == (3, 2, 1, 1, 1)
    assert total.alerts == 18
    assert total.detect_s == [60.0]
    assert sorted(total.notify_s) == [1.0, 5.0]
    assert total.acknowledge_s == [30.0]
    assert sorted(total.resolve_s) == [20.0, 30.0, 50.0, 60.0, 100.0]


def test_groups_are_in_their_own_order_or_the_largest_first() -> None:
    def keys(by: By, label: str = "") -> list[tuple[str, int]]:
        return [(each.key, each.incidents) for each in figures(ALL, by, label)]

    assert keys(By.SEVERITY) == [("P1", 1), ("P2", 5)]
    assert keys(By.SERVICE) == [("api", 4), ("db", 2)]
    assert keys(By.TYPE) == [("Unknown", 6)]
    assert keys(By.LABEL, "team") == [("", 5), ("x", 1)]
    assert keys(By.DAY) == [("2026-01-01", 4), ("2026-01-02", 1), ("2026-01-08", 1)]
    assert keys(By.WEEK) == [("2026-W01", 5), ("2026-W02", 1)]


def test_percentiles_are_by_nearest_rank() -> None:
    assert [at_percent([5.0, 1.0, 4.0, 2.0, 3.0], percent) for percent in (1, 50, 90, 99)] == [
        1.0,
        3.0,
        5.0,
        5.0,
    ]
    assert at_percent([7.0], 50) == 7.0


def test_what_repairs_saved_compares_medians_of_the_same_severity() -> None:
    group = Group("")
    for number in range(COMPARED_MIN):
        group.add(incident(
            *run(9), line(10 + number, "Resolved", method=AUTOMATED), resolved_at=10 + number,
        ))  # fmt: skip
        group.add(
            incident(line(110 + number, "Resolved", method=MANUAL), resolved_at=110 + number, method=MANUAL)
        )
    few = Group("")
    few.add(REPAIRED)

    assert group.saved_s == COMPARED_MIN * 100.0
    assert few.saved_s is None


@pytest.mark.parametrize(
    "lines",
    [
        run(48, status="failed"),
        run(48, action="logs_capture"),
        run(48, began=f"restart 1: matches{SHADOW}"),
        # It did not hold.
        [*run(20), line(22, "Resolved"), reopened(30)],
    ],
    ids=["failed", "only looked", "shadow", "before it reopened"],
)
def test_a_run_that_repaired_nothing_is_no_repair(lines: list[TimelineEntry]) -> None:
    row = incident(*lines, line(50, "Resolved"), resolved_at=50)

    assert (row.repaired_by, row.is_noise) == ("", True)


def test_the_command_line_knows_the_same_words() -> None:
    from services.api.v1.analytics import GroupBody, RowBody

    assert [*command.By] == [*By]
    assert list(export.FIELDS) == [*RowBody.__dataclass_fields__]
    body = set(GroupBody.__dataclass_fields__)
    assert {"noise_share", "flapping", "repaired", "saved_s", "alerts_per_incident"} <= body
