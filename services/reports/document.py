"""A report laid out for people: headings, tables and lists, which markdown.py and html.py write down each in its own way. Nothing here
is escaped: the writers do that, for every text alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from services.api.v1.bodies import TimelineBody
from services.api.v1.run_bodies import RunBody
from services.reports.report import EpisodeBody, ReportBody, TargetBody, count, span, when


@dataclass(frozen=True, slots=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph; its line ends are kept."""

    text: str


@dataclass(frozen=True, slots=True)
class Table:
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


Block = Heading | Text | Table


def document_of(report: ReportBody) -> list[Block]:
    """The whole of it, from title to tasks. Sections with nothing in them are left out."""
    return [*_blocks(report)]


def _blocks(report: ReportBody) -> Iterator[Block]:
    incident = report.incident
    yield Heading(f"{incident.severity} {incident.title}", 1)
    yield Text(report.summary)
    yield Table(("", ""), [*_facts(report)])
    if report.cause or report.notes:
        yield Heading("Cause and resolution")
        if report.cause:
            yield Text(f"Cause: {report.cause}")
        if report.notes:
            yield Text(report.notes)
    if incident.probable_causes:
        yield Heading("Probable causes")
        yield Table(
            ("Service", "Incident", "How probable", "Why"),
            [
                (each.service, each.title, f"{each.score:.0%}", "; ".join(each.reasons))
                for each in incident.probable_causes
            ],
        )
    yield Heading("Response")
    yield Table(
        ("Opened", "Notified after", "Acknowledged after", "By", "Resolved after", "By", "How"),
        [_episode(each) for each in report.episodes],
    )
    if report.people:
        yield Heading("People")
        yield Table(
            ("Name", "Roles", "Assigned", "Entries"),
            [
                (each.name, ", ".join(each.roles), "yes" if each.assigned else "", str(each.entries))
                for each in report.people
            ],
        )
    yield Heading("Timeline")
    if incident.timeline_dropped:
        yield Text(f"{incident.timeline_dropped:,} entries in between are no longer kept.")
    yield _lines(report.timeline)
    if report.alerts:
        yield Heading("Alerts")
        yield Table(
            ("Began", "Ended", "Received", "Labels"),
            [
                (
                    when(each.starts_at),
                    "fires" if each.firing else when(each.ends_at),
                    f"{each.received:,}",
                    pairs(each.labels) + (" (muted)" if each.muted else ""),
                )
                for each in report.alerts
            ],
        )
        if (more := report.alerts_total - len(report.alerts)) > 0:
            yield Text(f"And {more:,} more.")
    for run in report.runs:
        yield Heading(f"Run of {run.playbook} {run.version}")
        yield Text(_about_run(run))
        yield Table(("Step", "Action", "Status", "What came of it"), [*_deeds(run)])
    for title, lines in (("Notifications", report.notifications), ("Muted", report.muted)):
        if lines:
            yield Heading(title)
            yield _lines(lines)
    if report.updates:
        yield Heading("Stakeholder updates")
        yield Table(
            ("When", "By", "To", "Text"),
            [(when(each.at), each.by, each.audience, each.text) for each in report.updates],
        )
    if report.children or report.related:
        yield Heading("Other incidents")
        yield Table(
            ("Incident", "Is"),
            [
                *(
                    (str(each.incident), f"merged into this one ({each.severity})")
                    for each in report.children
                ),
                *((str(each), "linked") for each in report.related),
            ],
        )
    if report.tasks:
        yield Heading("To be done")
        yield Table(
            ("Until", "What", "Planned by"),
            [(when(each.due_at), each.text, each.by) for each in report.tasks],
        )
    yield Text(f"Made {when(report.generated_at)} from incident {incident.id}. Times are in UTC.")


def pairs(labels: dict[str, str]) -> str:
    """Labels in a line."""
    return ", ".join(f"{name}={value}" for name, value in sorted(labels.items()))


def _facts(report: ReportBody) -> Iterator[tuple[str, str]]:
    incident, last = report.incident, report.episodes[-1]
    yield "State", str(incident.state)
    yield "Severity", str(incident.severity)
    yield "Type", str(incident.incident_type)
    yield "Impact", incident.impact
    yield "Service", incident.service
    yield "Labels", pairs(incident.labels)
    yield "Description", incident.description
    yield "First alert began", when(report.began_at)
    yield "Detected after", span(report.detect_s)
    yield "Opened", when(incident.created_at)
    yield "Acknowledged after", _took(last.acknowledge)
    yield "Resolved after", _took(last.resolve)
    yield "Reopened", count(incident.reopened, "time") if incident.reopened else "no"


def _took(target: TargetBody) -> str:
    if target.target_s is None:
        return span(target.took_s)
    said = {True: "in time", False: "too late", None: "not due"}[target.met]
    return f"{span(target.took_s)} ({said}; target {span(target.target_s)})"


def _episode(episode: EpisodeBody) -> tuple[str, ...]:
    return (
        when(episode.opened_at),
        span(episode.notify_s),
        _took(episode.acknowledge),
        episode.acknowledged_by,
        _took(episode.resolve),
        episode.resolved_by,
        episode.resolution_method,
    )


def _lines(lines: Sequence[TimelineBody]) -> Table:
    return Table(
        ("When", "Who", "What"),
        [
            (when(each.timestamp), each.actor, f"{each.event_type}: {each.description}" + _reason(each))
            for each in lines
        ],
    )


def _reason(line: TimelineBody) -> str:
    reason = line.metadata.get("reason", "")
    return f" ({reason})" if reason and reason not in line.description else ""


def _about_run(run: RunBody) -> str:
    ended = f"ended {when(run.ended_at)}" if run.ended_at else "is under way"
    shadow = " It decided and did nothing." if run.shadow else ""
    detail = f" {run.detail}" if run.detail else ""
    return f"Started {when(run.started_at)} by {run.by} ({run.why}), {ended}: {run.status}.{detail}{shadow}"


def _deeds(run: RunBody) -> Iterator[tuple[str, ...]]:
    for step in run.steps:
        if not step.actions:
            yield step.id, "", step.status, step.detail
        for deed in step.actions:
            what = f"rollback: {deed.action}" if deed.undo else deed.action
            by = f" (approved by {', '.join(deed.approved_by)})" if deed.approved_by else ""
            yield step.id, what, deed.status, deed.detail + by
