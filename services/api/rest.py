"""Our own reads, /v1: incidents with all that led to them. Every error is a problem document (RFC 9457).

The bodies are dataclasses: msgspec writes them, FastAPI reads the same ones for OpenAPI.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, TypeVar
from uuid import UUID

import msgspec
from fastapi import Depends, FastAPI, Path, Query
from fastapi.responses import Response
from pydantic import BeforeValidator, Field

from models.alert import fingerprint
from models.errors import (
    Busy,
    Conflict,
    Forbidden,
    IncidentManagerError,
    Malformed,
    NotFound,
    TooLarge,
    Unavailable,
)
from models.incident import Incident, IncidentState, IncidentType, Severity, TimelineEntry
from models.messages import REASONS, Decision
from models.query import PAGE_MAX, AlertView, IncidentView
from services.api.alertmanager import timestamp
from services.api.auth import READ, requires
from services.api.reads import IncidentFilter, Reads
from services.api.traced import current_id

#: The prefix of every path here.
PREFIX = "/v1"
#: Incidents or alerts on a page when the caller names no limit.
PAGE_DEFAULT = 100
#: Values of one filter; the longest natural list is all services of a team.
FILTER_VALUES_MAX = 100

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


@dataclass(frozen=True, slots=True)
class TimelineBody:
    """One line of an incident's history."""

    timestamp: Time
    event_type: str
    actor: str
    description: str
    metadata: dict[str, str]


@dataclass(frozen=True, slots=True)
class ResolutionBody:
    """How an incident ended."""

    resolved_at: Time
    resolved_by: str
    resolution_method: str
    root_cause: str | None
    notes: str


@dataclass(frozen=True, slots=True)
class OverflowBody:
    """What an overflow incident stands for: groups that met max_concurrent_incidents. `members` may be cut,
    `count` is not."""

    members: list[str]
    count: int


@dataclass(frozen=True, slots=True)
class IncidentBody:
    """An incident. The first sixteen fields are the plan's (Appendix A), the rest says how it came about."""

    id: UUID
    created_at: Time
    updated_at: Time
    state: IncidentState
    severity: str
    incident_type: IncidentType
    source: str
    title: str
    description: str
    affected_resources: list[str]
    labels: dict[str, str]
    related_incidents: list[UUID]
    active_playbook: UUID | None
    resolution: ResolutionBody | None
    timeline: list[TimelineBody]
    assignees: list[str]
    service: str
    group_key: str
    group_labels: dict[str, str]
    annotations: dict[str, str]
    impact: str
    classified_by: str
    confidence: float
    alerts: int
    alerts_firing: int
    reopened: int
    resolved_at: Time | None
    closed_at: Time | None
    overflow: OverflowBody | None
    timeline_dropped: int


@dataclass(frozen=True, slots=True)
class IncidentsBody:
    """A page of incidents, newest first. `next` is the cursor of the page after it."""

    items: list[IncidentBody]
    next: str | None


@dataclass(frozen=True, slots=True)
class WhyBody:
    """One decision about an alert, how often it was taken, and when first and last."""

    decision: str
    reason: str
    count: int
    first_at: Time
    last_at: Time


@dataclass(frozen=True, slots=True)
class AlertBody:
    """One alert of an incident, and why it is there."""

    fingerprint: str
    incident_id: UUID | None
    firing: bool
    labels: dict[str, str]
    annotations: dict[str, str]
    generator_url: str
    source: str
    starts_at: Time
    ends_at: Time | None
    last_seen_at: Time
    why: list[WhyBody]


@dataclass(frozen=True, slots=True)
class AlertsBody:
    """A page of an incident's alerts, in the order they joined. `next` is the cursor of the page after it."""

    items: list[AlertBody]
    next: str | None


@dataclass(frozen=True, slots=True)
class TimelinesBody:
    """An incident's history, oldest first. `dropped` entries stood before it."""

    items: list[TimelineBody]
    dropped: int


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """What is wrong with one field of a request."""

    field: str
    detail: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem document (RFC 9457). `errors` names the fields, when it is about fields. `trace_id` is there when the
    request belongs to a trace: our log lines about it bear the same."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[FieldProblem]
    trace_id: str = ""


_E = TypeVar("_E", bound=StrEnum)


def any_case(kind: type[_E]) -> Callable[[object], object]:
    """Reads a name of `kind` however it is written; what is none is left for the check that comes after."""
    by_lower = {member.value.lower(): member for member in kind}

    def read(value: object) -> object:
        return by_lower.get(value.lower(), value) if isinstance(value, str) else value

    return read


class SeverityName(StrEnum):
    """models.incident.Severity as people write it."""

    P0 = "P0"
    P1 = "P1"
    P2 = "P2"
    P3 = "P3"
    P4 = "P4"


_State = Annotated[IncidentState, BeforeValidator(any_case(IncidentState))]
_SeverityName = Annotated[SeverityName, BeforeValidator(any_case(SeverityName))]
_Type = Annotated[IncidentType, BeforeValidator(any_case(IncidentType))]

_Limit = Annotated[int, Query(ge=1, le=PAGE_MAX, description="Items on the page.")]
_Cursor = Annotated[
    str | None, Query(max_length=64, description='The "next" of an earlier page of the same list.')
]
_Id = Annotated[UUID, Path(description="The incident's id.")]
_States = Annotated[
    list[_State], Query(max_length=FILTER_VALUES_MAX, description="Any of these, in any case.")
]
_Severities = Annotated[list[_SeverityName], Query(max_length=FILTER_VALUES_MAX, description="Any of these.")]
_Types = Annotated[list[_Type], Query(max_length=FILTER_VALUES_MAX, description="Any of these, in any case.")]
_Services = Annotated[list[str], Query(max_length=FILTER_VALUES_MAX, description="Any of these, exactly.")]

_PROBLEM_CONTENT = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


def add_rest_routes(app: FastAPI, reads: Reads) -> None:
    """GET /v1/incidents, one incident, its alerts, its timeline."""

    async def incidents(
        state: _States = [],  # noqa: B006 - FastAPI reads the default and never changes it
        severity: _Severities = [],  # noqa: B006
        type: _Types = [],  # noqa: B006
        service: _Services = [],  # noqa: B006
        limit: _Limit = PAGE_DEFAULT,
        cursor: _Cursor = None,
    ) -> Response:
        """Incidents, newest first. Filters that are repeated mean any of them; different ones must all
        hold."""
        wanted = IncidentFilter(
            tuple(state), tuple(Severity[name.value] for name in severity), tuple(type), tuple(service)
        )
        page = await reads.incidents(wanted, limit=limit, cursor=cursor)
        return _json(IncidentsBody([incident_body(view) for view in page.items], page.next))

    async def incident(incident_id: _Id) -> Response:
        """One incident."""
        found = await reads.incident(incident_id.bytes)
        if found is None:
            raise NoSuchIncident(incident_id)
        return _json(incident_body(found.view))

    async def incident_alerts(
        incident_id: _Id, limit: _Limit = PAGE_DEFAULT, cursor: _Cursor = None
    ) -> Response:
        """An incident's alerts, firing and ended, each with the decisions that put it there."""
        page = await reads.incident_alerts(incident_id.bytes, limit=limit, cursor=cursor)
        if page is None:
            raise NoSuchIncident(incident_id)
        return _json(AlertsBody([alert_body(view) for view in page.items], page.next))

    async def timeline(incident_id: _Id) -> Response:
        """An incident's history, oldest first."""
        found = await reads.timeline(incident_id.bytes)
        if found is None:
            raise NoSuchIncident(incident_id)
        entries, dropped = found
        return _json(TimelinesBody([timeline_body(entry) for entry in entries], dropped))

    one = f"{PREFIX}/incidents/{{incident_id}}"
    for path, endpoint, body, misses in (
        (f"{PREFIX}/incidents", incidents, IncidentsBody, False),
        (one, incident, IncidentBody, True),
        (f"{one}/alerts", incident_alerts, AlertsBody, True),
        (f"{one}/timeline", timeline, TimelinesBody, True),
    ):
        failures = {"4XX": "The request is refused; the problem names the field."}
        if misses:
            failures["404"] = "No incident has this id."
        failures["503"] = "A shard or the archive cannot answer; the problem names it."
        app.add_api_route(
            path,
            endpoint,
            methods=["GET"],
            response_model=body,
            dependencies=[Depends(requires(READ))],
            responses={
                code: {"description": text, "content": _PROBLEM_CONTENT} for code, text in failures.items()
            },
            tags=["incidents"],
        )


class NoSuchIncident(Exception):
    """Neither a shard nor the archive has an incident of this id."""

    def __init__(self, incident_id: UUID) -> None:
        super().__init__(f"there is no incident {incident_id}")


def incident_body(view: IncidentView) -> IncidentBody:
    """An incident as /v1 shows it."""
    incident = view.incident
    return IncidentBody(
        id=UUID(bytes=incident.id),
        created_at=timestamp(incident.created_at),
        updated_at=timestamp(incident.updated_at),
        state=incident.state,
        severity=incident.severity.name,
        incident_type=incident.type,
        source=incident.source,
        title=incident.title,
        description=incident.description,
        affected_resources=[incident.service],
        labels=incident.labels,
        related_incidents=[],
        active_playbook=None,
        resolution=_resolution_body(incident),
        timeline=[timeline_body(entry) for entry in incident.timeline],
        assignees=incident.assignees,
        service=incident.service,
        group_key=incident.group_key,
        group_labels=incident.group_labels,
        annotations=incident.annotations,
        impact=incident.impact,
        classified_by=incident.classified_by,
        confidence=incident.confidence,
        alerts=view.alerts,
        alerts_firing=incident.firing,
        reopened=incident.reopened,
        resolved_at=_time_or_none(incident.resolved_at),
        closed_at=_time_or_none(incident.closed_at),
        overflow=None
        if incident.overflow is None
        else OverflowBody(incident.overflow, max(incident.overflow_count, len(incident.overflow))),
        timeline_dropped=incident.timeline_dropped,
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
        starts_at=timestamp(view.starts_at),
        ends_at=_time_or_none(view.ends_at),
        last_seen_at=timestamp(view.last_seen_at),
        why=[_why_body(*decision) for decision in view.decisions],
    )


def timeline_body(entry: TimelineEntry) -> TimelineBody:
    """A line of an incident's history as /v1 shows it."""
    return TimelineBody(timestamp(entry.at), entry.kind, entry.actor, entry.text, entry.details)


def problem(
    status: int, kind: str, title: str, detail: str, path: str, fields: Sequence[FieldProblem] = ()
) -> Response:
    """A problem document as an answer. `kind` names it within our own problem types."""
    body = Problem(
        f"urn:llm-im:problem:{kind}", title, status, detail, path, list(fields), current_id() or ""
    )
    document = msgspec.to_builtins(body)
    if not body.trace_id:
        del document["trace_id"]
    return Response(_encoder.encode(document), status, media_type="application/problem+json")


def problem_of(error: IncidentManagerError, path: str) -> Response:
    """The problem document of one of our errors: what the caller can change is 4xx, what passes is 503."""
    match error:
        case Malformed():
            field, colon, why = str(error).partition(": ")
            fields = [FieldProblem(field, why)] if colon and field.isidentifier() else []
            return problem(400, "malformed", "The request cannot be read", str(error), path, fields)
        case TooLarge():
            return problem(400, "too-large", "The request asks for too much", str(error), path)
        case Forbidden():
            return problem(403, "forbidden", "The token has not the scope for this", str(error), path)
        case NotFound():
            return problem(404, "not-found", "Not found", str(error), path)
        case Conflict():
            return problem(409, "conflict", "This cannot be done now", str(error), path)
        case Busy():
            response = problem(503, "busy", "Busy", str(error), path)
            response.headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
            return response
        case Unavailable():
            response = problem(503, "unavailable", "A part of the system cannot answer", str(error), path)
            response.headers["Retry-After"] = "1"
            return response
        case _:
            return problem(500, "broken", "This is a fault of ours", type(error).__name__, path)


def _resolution_body(incident: Incident) -> ResolutionBody | None:
    found = incident.resolution
    if found is None:
        return None
    return ResolutionBody(timestamp(found.at), found.by, found.method, found.root_cause, found.notes)


def _why_body(number: int, count: int, first_at: float, last_at: float) -> WhyBody:
    try:
        decision = Decision(number)
    except ValueError:
        # Written by a newer version than this gateway's, during an upgrade.
        return WhyBody(
            f"decision {number}", "not known to this version", count, timestamp(first_at), timestamp(last_at)
        )
    return WhyBody(decision.name.lower(), REASONS[decision], count, timestamp(first_at), timestamp(last_at))


def _time_or_none(at: float) -> str | None:
    return timestamp(at) if at else None


_encoder = msgspec.json.Encoder(order="deterministic")


def _json(body: IncidentsBody | IncidentBody | AlertsBody | TimelinesBody) -> Response:
    return Response(_encoder.encode(body), media_type="application/json")
