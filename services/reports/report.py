"""What a report of an incident says. Made from the same facts and words that /v1 shows; document.py lays it out for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from models.incidents.episodes import Episode, episodes
from models.incidents.incident import Incident, Severity
from models.incidents.query import AlertView, IncidentView, RunView, TaskView
from services.api.v1.bodies import (
    ChildBody,
    IncidentBody,
    StakeholderUpdateBody,
    TimelineBody,
    timeline_body,
)
from services.api.v1.fields import Time, says
from services.api.v1.repairs import TaskBody, task_body
from services.api.v1.run_bodies import RunBody, run_body
from services.times import timestamp

#: Alerts that a report lists; the rest is counted.
ALERTS_LISTED = 100
#: Kinds of lines about who was told, or was not.
TOLD = frozenset(
    {
        "NotificationSent",
        "NotificationFailed",
        "NotificationFellBack",
        "NotificationDropped",
        "NotificationDiscarded",
    }
)
MUTED = frozenset({"NotificationWithheld", "AlertsMuted", "AlertsUnmuted"})


@dataclass(frozen=True, slots=True)
class TargetBody:
    """How long something took, and how long it may."""

    took_s: Annotated[
        float | None, says("How long it took, in seconds; null: it did not happen, or not yet.")
    ]
    target_s: Annotated[
        float | None, says("How long it may take at its severity, by the settings of now; null: no target.")
    ]
    met: Annotated[
        bool | None,
        says("Whether that was in time; null: no target, or it was over before that time had passed."),
    ]


@dataclass(frozen=True, slots=True)
class EpisodeBody:
    """One time that the incident was open."""

    opened_at: Annotated[Time, says("When it opened or reopened.")]
    notified_at: Annotated[
        Time | None, says("When a receiver first accepted a notification; null: none did.")
    ]
    acknowledged_at: Annotated[
        Time | None, says("When somebody first acknowledged it or was assigned; null: nobody did.")
    ]
    acknowledged_by: Annotated[str, says("Who that was; empty: nobody, or it was on from before.")]
    resolved_at: Annotated[Time | None, says("When it was resolved; null: it is open.")]
    resolved_by: Annotated[str, says("Who resolved it, or `system`.")]
    resolution_method: Annotated[str, says("Automated, Manual or AutoAssistedManual.")]
    notify_s: Annotated[float | None, says("From opening to the first notification.")]
    acknowledge: Annotated[TargetBody, says("From opening to the first acknowledgement or assignment.")]
    resolve: Annotated[TargetBody, says("From opening to resolution.")]


@dataclass(frozen=True, slots=True)
class ReportAlertBody:
    """One alert of the incident."""

    labels: Annotated[dict[str, str], says("What it is.")]
    firing: Annotated[bool, says("Whether it fires.")]
    starts_at: Annotated[Time, says("When it began, as its sender says.")]
    ends_at: Annotated[Time | None, says("When it ended; null: unknown.")]
    received: Annotated[int, says("How often it was received.")]
    muted: Annotated[bool, says("Whether a silence or another alert mutes it.")]


@dataclass(frozen=True, slots=True)
class PersonBody:
    """Somebody who worked on the incident."""

    name: Annotated[str, says("The name.")]
    roles: Annotated[list[str], says("Roles in the incident.")]
    assigned: Annotated[bool, says("Whether it is assigned to this person.")]
    entries: Annotated[int, says("Entries of the timeline that this person made.")]


@dataclass(frozen=True, slots=True)
class ReportBody:
    """A post-incident report."""

    generated_at: Annotated[Time, says("When this report was made.")]
    summary: Annotated[str, says("What happened, in a few sentences.")]
    incident: Annotated[IncidentBody, says("The incident as `/v1/incidents/{incident_id}` shows it.")]
    began_at: Annotated[
        Time | None, says("When its first alert began, as its sender says; null: it has no alerts.")
    ]
    detect_s: Annotated[float | None, says("From then until the incident opened; null: unknown.")]
    episodes: Annotated[list[EpisodeBody], says("Each time that it was open.")]
    people: Annotated[list[PersonBody], says("Who worked on it.")]
    cause: Annotated[str, says("The root cause, if somebody gave one.")]
    notes: Annotated[str, says("How it was resolved, in the words of whoever did.")]
    timeline: Annotated[list[TimelineBody], says("All that happened, oldest first.")]
    alerts: Annotated[list[ReportAlertBody], says(f"Its first {ALERTS_LISTED} alerts.")]
    alerts_total: Annotated[int, says("How many alerts it has.")]
    runs: Annotated[list[RunBody], says("Its runs of playbooks, and what they did.")]
    notifications: Annotated[list[TimelineBody], says("Who was told, and who could not be.")]
    muted: Annotated[
        list[TimelineBody], says("What was muted, by what, and what nobody was told because of it.")
    ]
    updates: Annotated[list[StakeholderUpdateBody], says("Stakeholder updates.")]
    children: Annotated[list[ChildBody], says("Incidents that were merged into it.")]
    related: Annotated[list[UUID], says("Incidents that people linked to it.")]
    tasks: Annotated[list[TaskBody], says("What is still to be done after it.")]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a report is made of. `alerts` may be the first of more; targets are in seconds by severity, 0 is none."""

    view: IncidentView
    body: IncidentBody
    alerts: Sequence[AlertView]
    runs: Sequence[RunView]
    tasks: Sequence[TaskView]
    acknowledge_within_s: Sequence[float]
    resolve_within_s: Sequence[float]
    now: float


def report_of(facts: Facts) -> ReportBody:
    """The report."""
    incident, body = facts.view.incident, facts.body
    found = episodes(incident)
    lines = [timeline_body(each) for each in incident.timeline]
    began_at = incident.began_at or min(
        (each.starts_at for each in facts.alerts if each.starts_at), default=0.0
    )
    resolution = incident.resolution
    return ReportBody(
        generated_at=timestamp(facts.now),
        summary=_summary(facts, found),
        incident=body,
        began_at=_time(began_at),
        detect_s=_round(max(0.0, incident.created_at - began_at)) if began_at else None,
        episodes=[_episode(each, incident.severity, facts) for each in found],
        people=_people(incident),
        cause="" if resolution is None else resolution.root_cause or "",
        notes="" if resolution is None else resolution.notes,
        timeline=lines,
        alerts=[_alert(each) for each in facts.alerts[:ALERTS_LISTED]],
        alerts_total=body.alerts,
        runs=[run_body(each) for each in facts.runs],
        notifications=[each for each in lines if each.event_type in TOLD],
        muted=[each for each in lines if each.event_type in MUTED],
        updates=body.updates,
        children=body.parts,
        related=body.related_incidents,
        tasks=[task_body(each) for each in facts.tasks],
    )


def span(seconds: float | None) -> str:
    """A length of time as people say it: 42 s, 4 min 10 s, 1 h 12 min, 2 d 3 h."""
    if seconds is None:
        return "-"
    whole = round(seconds)
    for size, unit, part, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def when(at: str | None) -> str:
    """A moment to the second, as people write it."""
    return "-" if at is None else at[:19].replace("T", " ")


def count(number: int, what: str) -> str:
    """1 alert, 2 alerts."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _summary(facts: Facts, found: Sequence[Episode]) -> str:
    incident, last = facts.view.incident, found[-1]
    kind = "" if incident.type == "Unknown" else f" {incident.type}"
    said = [
        f"{incident.severity.name}{kind} incident of {incident.service}, opened {when(timestamp(incident.created_at))}."
    ]
    if incident.reopened:
        said.append(
            f"It reopened {count(incident.reopened, 'time')}, last {when(timestamp(last.opened_at))}."
        )
    if last.answered_at:
        by = f" by {last.answered_by}" if last.answered_by else ""
        said.append(f"It was acknowledged{by} after {span(last.acknowledge_s)}.")
    else:
        said.append("Nobody acknowledged it.")
    if last.resolved_at:
        said.append(f"It was resolved by {last.resolved_by} after {span(last.resolve_s)}.")
    else:
        said.append(f"It is open, for {span(max(0.0, facts.now - last.opened_at))} now.")
    counts = [count(facts.body.alerts, "alert")]
    if facts.runs:
        counts.append(count(len(facts.runs), "run") + " of playbooks")
    if incident.children:
        counts.append(count(len(incident.children), "incident") + " merged into it")
    said.append(f"It has {', '.join(counts)}.")
    return " ".join(said)


def _episode(episode: Episode, severity: Severity, facts: Facts) -> EpisodeBody:
    elapsed_s = max(0.0, (episode.resolved_at or facts.now) - episode.opened_at)
    return EpisodeBody(
        timestamp(episode.opened_at),
        _time(episode.notified_at),
        _time(episode.answered_at),
        episode.answered_by,
        _time(episode.resolved_at),
        episode.resolved_by,
        episode.method,
        _round(episode.notify_s),
        _target(episode.acknowledge_s, facts.acknowledge_within_s[severity], elapsed_s),
        _target(episode.resolve_s, facts.resolve_within_s[severity], elapsed_s),
    )


def _target(took_s: float | None, within_s: float, elapsed_s: float) -> TargetBody:
    if not within_s:
        return TargetBody(_round(took_s), None, None)
    late = (elapsed_s if took_s is None else took_s) > within_s
    # What did not happen and was not yet due is neither met nor missed.
    return TargetBody(_round(took_s), within_s, False if late else None if took_s is None else True)


def _people(incident: Incident) -> list[PersonBody]:
    roles: dict[str, list[str]] = {}
    for role, name in {} if incident.handling is None else incident.handling.roles.items():
        roles.setdefault(name, []).append(role)
    entries: dict[str, int] = {}
    for line in incident.timeline:
        entries[line.actor] = entries.get(line.actor, 0) + 1
    made = {
        name for name in entries if name not in ("system", "anonymous") and not name.startswith("playbook ")
    }
    if not incident.is_by_hand and entries.get(incident.created_by) == 1:
        made.discard(incident.created_by)  # whose alert opened it
    names = sorted({*roles, *incident.assignees, *made} - {""})
    return [
        PersonBody(name, sorted(roles.get(name, ())), name in incident.assignees, entries.get(name, 0))
        for name in names
    ]


def _alert(view: AlertView) -> ReportAlertBody:
    received = sum(count for _decision, count, _first, _last in view.decisions)
    return ReportAlertBody(
        view.labels,
        view.firing,
        timestamp(view.starts_at),
        _time(view.ends_at),
        received,
        view.muted is not None,
    )


def _time(at: float) -> str | None:
    return timestamp(at) if at else None


def _round(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
