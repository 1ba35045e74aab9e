"""What /v1 shows: incidents, their alerts and their history. The first fields of an incident are the plan's (Appendix A).

The bodies are dataclasses: msgspec writes them, FastAPI reads the same ones for OpenAPI.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import repeat
from typing import Annotated
from uuid import UUID

import msgspec
from fastapi.responses import Response

from models.alerts.alert import fingerprint
from models.incidents.incident import (
    Handling,
    Incident,
    IncidentState,
    IncidentType,
    Severity,
    TimelineEntry,
    Verdict,
)
from models.incidents.query import AlertView, IncidentView
from models.shard.messages import REASONS, Decision
from services.api.reads import Counted
from services.api.v1.escalation_body import EscalationBody, escalation_body
from services.api.v1.fields import SeverityName, Time, says
from services.api.v1.mute_bodies import MutedBody, muted_body
from services.api.v1.relation_bodies import CauseBody, SituationOfBody, cause_body, situation_of_body
from services.times import timestamp


@dataclass(frozen=True, slots=True)
class TimelineBody:
    """One line of an incident's history."""

    timestamp: Annotated[Time, says("When, RFC 3339 in UTC.")]
    event_type: Annotated[str, says("What happened: docs/concepts.md, timeline kinds.")]
    actor: Annotated[
        str, says("Who did it: the name of a person or of a sender's token, `anonymous` or `system`.")
    ]
    description: Annotated[str, says("What happened, in words.")]
    metadata: Annotated[dict[str, str], says("Details for programs: `reason`, `trace_id` ...")]


@dataclass(frozen=True, slots=True)
class ResolutionBody:
    """How an incident ended."""

    resolved_at: Annotated[Time, says("When, RFC 3339 in UTC.")]
    resolved_by: Annotated[str, says("Who resolved it, or `system`.")]
    resolution_method: Annotated[str, says("Automated, Manual or AutoAssistedManual.")]
    root_cause: Annotated[str | None, says("The root cause, if somebody gave one.")]
    notes: Annotated[str, says("Notes on how it was resolved.")]


@dataclass(frozen=True, slots=True)
class OverflowBody:
    """What an overflow incident stands for: groups that met max_concurrent_incidents."""

    members: Annotated[list[str], says("Group keys; the list may be cut.")]
    count: Annotated[int, says("How many groups; never cut.")]


@dataclass(frozen=True, slots=True)
class AcknowledgedBody:
    """Who acknowledged an incident."""

    by: Annotated[str, says("Who acknowledged it.")]
    at: Annotated[Time, says("Since when, RFC 3339 in UTC.")]
    until: Annotated[Time | None, says("Until when; null: until the incident ends.")]


@dataclass(frozen=True, slots=True)
class DueBody:
    """When something must have been done about it, by the response targets of its severity."""

    acknowledge_due_at: Annotated[
        Time | None, says("When it must be acknowledged or assigned; null: it is already, or has no target.")
    ]
    resolve_due_at: Annotated[
        Time | None, says("When it must be resolved; null: it is already, or has no target.")
    ]


@dataclass(frozen=True, slots=True)
class OverrideBody:
    """The overrides that people set; null where there is none and the classification counts."""

    severity: Annotated[SeverityName | None, says("P0 to P4.")]
    incident_type: Annotated[IncidentType | None, says("What kind.")]
    impact: Annotated[str | None, says("Its impact: who is affected, and how.")]


@dataclass(frozen=True, slots=True)
class JudgedBody:
    """The classification, whatever people set."""

    severity: Annotated[SeverityName, says("P0 to P4.")]
    incident_type: Annotated[IncidentType, says("What kind.")]
    impact: Annotated[str, says("Its impact: who is affected, and how.")]


@dataclass(frozen=True, slots=True)
class ChildBody:
    """A child: an incident that was merged into this one, with the state it last reported."""

    incident: Annotated[UUID, says("Its id.")]
    is_open: Annotated[bool, says("Whether it is still going on; a pending one counts as open.")]
    severity: Annotated[SeverityName, says("Its own severity, P0 to P4.")]
    pending: Annotated[
        str, says("`merge` or `unmerge` while its shard has not confirmed it yet, else empty.")
    ]


@dataclass(frozen=True, slots=True)
class StakeholderUpdateBody:
    """A stakeholder update."""

    at: Annotated[Time, says("When, RFC 3339 in UTC.")]
    by: Annotated[str, says("Who posted it.")]
    audience: Annotated[str, says("Who it was for.")]
    text: Annotated[str, says("The text.")]
    next_due_at: Annotated[Time | None, says("When the next one was promised; null: none was.")]


@dataclass(frozen=True, slots=True)
class IncidentBody:
    """An incident. The first sixteen fields are those of the incident schema; the rest is how it came about and what
    people did about it."""

    id: Annotated[UUID, says("UUIDv7.")]
    created_at: Annotated[Time, says("When it opened, RFC 3339 in UTC.")]
    updated_at: Annotated[Time, says("When anything but its counts last changed, RFC 3339 in UTC.")]
    state: Annotated[IncidentState, says("Its state.")]
    severity: Annotated[
        SeverityName,
        says(
            "The severity that counts: the override of a person, else the worst of its classification and its open children."
        ),
    ]
    incident_type: Annotated[
        IncidentType, says("Its type: the override of a person, else its classification.")
    ]
    source: Annotated[str, says("Who reported it first.")]
    title: Annotated[str, says("What is wrong, in one line.")]
    description: Annotated[str, says("What is known about it.")]
    affected_resources: Annotated[list[str], says("Its service.")]
    labels: Annotated[dict[str, str], says("What its firing alerts have in common, as people changed them.")]
    related_incidents: Annotated[list[UUID], says("Incidents that people linked to it.")]
    active_playbook: Annotated[
        UUID | None, says("The run of a playbook that is under way for it (`/v1/runs`); null: none is.")
    ]
    resolution: Annotated[ResolutionBody | None, says("How it ended; null while it is open.")]
    timeline: Annotated[list[TimelineBody], says("Its history, oldest first.")]
    assignees: Annotated[list[str], says("Who works on it.")]
    service: Annotated[str, says("The affected service.")]
    group_key: Annotated[str, says("Its group key; empty if it was created by hand.")]
    group_labels: Annotated[dict[str, str], says("Its group key, as labels.")]
    annotations: Annotated[dict[str, str], says("What its firing alerts have in common.")]
    impact: Annotated[str, says("Its impact: the override of a person, else its classification.")]
    classified_by: Annotated[
        str, says("Which rules or model classified it, and by which words; empty: it is not classified yet.")
    ]
    confidence: Annotated[float, says("How sure the classifier was, 0 to 1.")]
    alerts: Annotated[int, says("How many alerts it has, its children's included, firing or ended.")]
    alerts_firing: Annotated[int, says("How many of those fire.")]
    reopened: Annotated[int, says("How often it was reopened.")]
    resolved_at: Annotated[Time | None, says("When it was resolved; null while it is open.")]
    closed_at: Annotated[Time | None, says("When it was closed; null before.")]
    overflow: Annotated[OverflowBody | None, says("For an overflow incident, the groups it stands for.")]
    timeline_dropped: Annotated[int, says("How many timeline entries are no longer kept.")]
    version: Annotated[
        int, says("Increases with every change that people can make. In quotes it is the ETag, for If-Match.")
    ]
    created_by: Annotated[
        str, says("Who created it, or whose alert opened it: the name of a token, `anonymous` or `system`.")
    ]
    acknowledged: Annotated[
        AcknowledgedBody | None, says("Its acknowledgement; null: nobody acknowledged it.")
    ]
    roles: Annotated[dict[str, str], says("Who has which role.")]
    due: Annotated[DueBody, says("Response targets.")]
    said: Annotated[OverrideBody, says("Severity, type and impact as people set them.")]
    judged: Annotated[JudgedBody, says("Severity, type and impact as classified.")]
    merged_into: Annotated[UUID | None, says("Its parent, if it was merged into another incident.")]
    parts: Annotated[list[ChildBody], says("Its children: the incidents merged into it.")]
    split_from: Annotated[UUID | None, says("The incident it was split from.")]
    updates: Annotated[list[StakeholderUpdateBody], says("Stakeholder updates, oldest first.")]
    update_due_at: Annotated[
        Time | None, says("When the next stakeholder update is due; null: none was promised.")
    ]
    muted: Annotated[MutedBody | None, says("What mutes its alerts; null: nothing.")]
    escalation: Annotated[
        EscalationBody | None, says("Who of those on call was paged, and who is next; null: nobody is to be.")
    ]
    situation: Annotated[
        SituationOfBody | None, says("The situation that it is part of; null: it stands by itself.")
    ]
    probable_causes: Annotated[
        list[CauseBody], says("What probably causes that situation, the most probable first.")
    ]
    began_at: Annotated[
        Time | None,
        says("When the alert that opened it began, as its sender says; null: no alert did, or not known."),
    ]


@dataclass(frozen=True, slots=True)
class IncidentsBody:
    """A page of incidents. It may be short, even empty, and still have a next one."""

    items: Annotated[list[IncidentBody], says("In the requested order.")]
    next: Annotated[str | None, says("The cursor of the next page; null on the last one.")]


@dataclass(frozen=True, slots=True)
class WhyBody:
    """One decision about an alert."""

    decision: Annotated[str, says("docs/concepts.md, decisions; in lower case.")]
    reason: Annotated[str, says("The decision in words.")]
    count: Annotated[int, says("How often.")]
    sender: Annotated[
        str | None,
        says(
            "Who sent the last of these alerts: the name of a token, or `anonymous`; null: nobody, or not recorded."
        ),
    ]
    first_at: Annotated[Time, says("When first, RFC 3339 in UTC.")]
    last_at: Annotated[Time, says("When last, RFC 3339 in UTC.")]


@dataclass(frozen=True, slots=True)
class AlertBody:
    """One alert, and why it is where it is."""

    fingerprint: Annotated[str, says("Alertmanager's, 16 hexadecimal digits.")]
    incident_id: Annotated[UUID | None, says("The incident that it belongs to.")]
    firing: Annotated[bool, says("Whether it fires.")]
    labels: Annotated[dict[str, str], says("What it is.")]
    annotations: Annotated[dict[str, str], says("Its annotations.")]
    generator_url: Annotated[str, says("A link to where it comes from.")]
    source: Annotated[str, says("Who sent it, in its own words.")]
    sender: Annotated[
        str | None,
        says(
            "Who sent its present content: the name of a token, or `anonymous`; null: sent before this was recorded."
        ),
    ]
    starts_at: Annotated[Time, says("When it began, RFC 3339 in UTC.")]
    ends_at: Annotated[Time | None, says("When it ended or will end; null: unknown.")]
    last_seen_at: Annotated[Time, says("When it was last sent, RFC 3339 in UTC.")]
    why: Annotated[list[WhyBody], says("Every kind of decision about it, oldest first.")]
    silenced_by: Annotated[list[str], says("The ids of the silences that mute it.")]
    inhibited_by: Annotated[str, says("The fingerprint of the alert that inhibits it; empty: none.")]


@dataclass(frozen=True, slots=True)
class AlertsBody:
    """A page of alerts. It may be short, even empty, and still have a next one."""

    items: Annotated[list[AlertBody], says("In the order they joined.")]
    next: Annotated[str | None, says("The cursor of the next page; null on the last one.")]


@dataclass(frozen=True, slots=True)
class TimelinesBody:
    """An incident's history."""

    items: Annotated[list[TimelineBody], says("Oldest first.")]
    dropped: Annotated[int, says("How many earlier entries are no longer kept.")]


def incident_body(view: IncidentView, counted: Counted) -> IncidentBody:
    """An incident as /v1 shows it."""
    incident = view.incident
    handling = incident.handling or Handling(_judged(incident))
    said, judged = handling.override, handling.verdict
    return IncidentBody(
        id=UUID(bytes=incident.id),
        created_at=timestamp(incident.created_at),
        updated_at=timestamp(incident.updated_at),
        state=incident.state,
        severity=_severity(incident.severity),
        incident_type=incident.type,
        source=incident.source,
        title=incident.title,
        description=incident.description,
        affected_resources=[incident.service],
        labels=incident.labels,
        related_incidents=[UUID(bytes=each) for each in handling.related],
        active_playbook=UUID(bytes=view.active_run) if view.active_run else None,
        resolution=_resolution_body(incident),
        timeline=[timeline_body(entry) for entry in incident.timeline],
        assignees=incident.assignees,
        service=incident.service,
        group_key=incident.group_key,
        group_labels=incident.present_group_labels,
        annotations=incident.annotations,
        impact=incident.impact,
        classified_by=incident.classified_by,
        confidence=incident.confidence,
        alerts=counted.alerts,
        alerts_firing=counted.firing,
        reopened=incident.reopened,
        resolved_at=_time_or_none(incident.resolved_at),
        closed_at=_time_or_none(incident.closed_at),
        overflow=None
        if incident.overflow is None
        else OverflowBody(incident.overflow, max(incident.overflow_count, len(incident.overflow))),
        timeline_dropped=incident.timeline_dropped,
        version=incident.version,
        created_by=incident.created_by,
        acknowledged=None
        if handling.acknowledged is None
        else AcknowledgedBody(
            handling.acknowledged.by,
            timestamp(handling.acknowledged.at),
            _time_or_none(handling.acknowledged.until),
        ),
        roles=handling.roles,
        due=DueBody(_time_or_none(view.acknowledge_due_at), _time_or_none(view.resolve_due_at)),
        said=OverrideBody(
            None if said.severity is None else _severity(said.severity), said.type, said.impact
        ),
        judged=JudgedBody(_severity(judged.severity), judged.type, judged.impact),
        merged_into=UUID(bytes=handling.merged_into) if handling.merged_into else None,
        parts=[
            ChildBody(UUID(bytes=each), child.is_open, _severity(child.severity), child.pending)
            for each, child in handling.children.items()
        ],
        split_from=UUID(bytes=handling.split_from) if handling.split_from else None,
        updates=[
            StakeholderUpdateBody(
                timestamp(each.at), each.by, each.audience, each.text, _time_or_none(each.next_due_at)
            )
            for each in handling.updates
        ],
        update_due_at=_time_or_none(handling.update_due_at),
        muted=None if view.mutes is None else muted_body(view.mutes),
        escalation=None if view.escalation is None else escalation_body(view.escalation),
        situation=None if view.relation is None else situation_of_body(view.relation),
        probable_causes=[] if view.relation is None else [*map(cause_body, view.relation.causes)],
        began_at=_time_or_none(incident.began_at),
    )


def alert_body(view: AlertView) -> AlertBody:
    """An alert as /v1 shows it."""
    return AlertBody(
        fingerprint=fingerprint(view.labels),
        incident_id=UUID(bytes=view.incident_id) if view.incident_id else None,
        firing=view.firing,
        labels=view.labels,
        annotations=view.annotations,
        generator_url=view.generator_url,
        source=view.source,
        sender=view.sender or None,
        starts_at=timestamp(view.starts_at),
        ends_at=_time_or_none(view.ends_at),
        last_seen_at=timestamp(view.last_seen_at),
        # Archived before senders were kept, it has none.
        why=[
            _why_body(made, sender)
            for made, sender in zip(view.decisions, view.senders or repeat(""), strict=False)
        ],
        silenced_by=[] if view.muted is None else list(view.muted.silences),
        inhibited_by="" if view.muted is None else view.muted.fingerprint,
    )


def timeline_body(entry: TimelineEntry) -> TimelineBody:
    """A line of an incident's history as /v1 shows it."""
    return TimelineBody(timestamp(entry.at), entry.kind, entry.actor, entry.text, entry.details)


def json_response(body: object, status: int = 200) -> Response:
    """An answer of /v1."""
    return Response(_encoder.encode(body), status, media_type="application/json")


def etag(version: int) -> str:
    """The ETag of an incident of this version."""
    return f'"{version}"'


def _judged(incident: Incident) -> Verdict:
    # Nobody overrode it: the classification counts.
    return Verdict(incident.severity, incident.type, incident.impact)


def _severity(severity: Severity) -> SeverityName:
    return SeverityName(severity.name)


def _resolution_body(incident: Incident) -> ResolutionBody | None:
    found = incident.resolution
    if found is None:
        return None
    return ResolutionBody(timestamp(found.at), found.by, found.method, found.root_cause, found.notes)


def _why_body(made: tuple[int, int, float, float], sender: str) -> WhyBody:
    number, count, first_at, last_at = made
    try:
        name, reason = Decision(number).name.lower(), REASONS[Decision(number)]
    except ValueError:
        # Written by a newer version than this gateway, during an upgrade.
        name, reason = f"decision {number}", "not known to this version"
    return WhyBody(name, reason, count, sender or None, timestamp(first_at), timestamp(last_at))


def _time_or_none(at: float) -> str | None:
    return timestamp(at) if at else None


_encoder = msgspec.json.Encoder(order="deterministic")
