"""Lists and counts of a shard's incidents, a bounded stretch at a time. Called by views.py for queries of models/incidents/query.py.

A shard answers between two batches of alerts, so no answer looks at more than INCIDENT_SCAN_MAX incidents: it returns
what it found and where it stopped, and the caller continues from there.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from itertools import islice

from models.incidents.filters import IncidentFilter, Position, Sort, compile_filter, place_of
from models.incidents.incident import Incident
from models.incidents.query import (
    INCIDENT_SCAN_MAX,
    PAGE_MAX,
    CountIncidents,
    IncidentCounts,
    IncidentPage,
    IncidentView,
    ListIncidents,
    Looked,
)
from models.shard.core import Core
from models.shard.escalation import Escalations
from models.shard.messages import Decision
from models.shard.mutes import Mutes
from models.shard.relations import Relations
from models.shard.runs import Runs
from models.shard.targets import acknowledge_due, resolve_due

#: Bytes of the incidents on one page (models/alerts/room.py): a thousand common ones have 3.4 MB.
INCIDENT_PAGE_BYTES_MAX = 8 * 1024 * 1024


def incident_view(shard: Core, incident: Incident) -> IncidentView:
    """One incident as people see it."""
    settings = shard.settings
    return IncidentView(
        incident,
        len(shard.state.members[incident.id]),
        acknowledge_due(incident, settings),
        resolve_due(incident, settings),
        shard.of(Mutes).shown(incident),
        shard.of(Runs).active_run(incident),
        shard.of(Escalations).shown(incident),
        shard.of(Relations).known(incident),
    )


def list_incidents(shard: Core, query: ListIncidents) -> IncidentPage:
    """A page, in any order."""
    holds = _holds(query.tenant, query.wanted)
    limit = max(1, min(query.limit, PAGE_MAX))
    identities = _walk(shard, query.sort, query.wanted, query.after)
    items: list[IncidentView] = []
    size = 0
    for looked_at, identity in enumerate(identities, 1):
        incident = shard.state.incidents[identity]
        if holds(incident):
            items.append(incident_view(shard, incident))
            size += incident.held_bytes
        if len(items) == limit or looked_at == INCIDENT_SCAN_MAX or size >= INCIDENT_PAGE_BYTES_MAX:
            goes_on = next(identities, None) is not None
            return IncidentPage(items, place_of(incident, query.sort) if goes_on else None)
    return IncidentPage(items)


def count_incidents(shard: Core, query: CountIncidents) -> IncidentCounts:
    """The counts of one stretch."""
    holds = _holds(query.tenant, query.wanted)
    stretch, looked = _stretch(shard, query.wanted, query.looked)
    settings = shard.settings
    states: dict[str, int] = {}
    severities: dict[int, int] = {}
    types: dict[str, int] = {}
    services: dict[str, int] = {}
    acknowledged = unassigned = overdue = opened = 0
    acknowledged_s, resolved_s = array("d"), array("d")
    for incident in stretch:
        if not holds(incident) or incident.merged_into:
            continue
        states[incident.state] = states.get(incident.state, 0) + 1
        opened += incident.created_at >= query.since
        handling = incident.handling
        if handling is not None and handling.answered_at >= query.since and handling.answered_at:
            acknowledged_s.append(max(0.0, handling.answered_at - began_at(incident)))
        if incident.is_open:
            severities[incident.severity] = severities.get(incident.severity, 0) + 1
            types[incident.type] = types.get(incident.type, 0) + 1
            services[incident.service] = services.get(incident.service, 0) + 1
            acknowledged += handling is not None and handling.acknowledged is not None
            unassigned += not incident.assignees and (handling is None or not handling.roles)
            overdue += (
                0 < acknowledge_due(incident, settings) <= query.now
                or 0 < resolve_due(incident, settings) <= query.now
            )
        elif incident.resolved_at >= query.since:
            resolved_s.append(max(0.0, incident.resolved_at - began_at(incident)))
    decided = (
        {
            int(decision): shard.state.decided[decision]
            for decision in Decision
            if shard.state.decided[decision]
        }
        if query.looked is None
        else {}
    )
    return IncidentCounts(
        states, severities, types, services, acknowledged, unassigned, overdue, opened,
        acknowledged_s.tobytes(), resolved_s.tobytes(), decided, looked,
    )  # fmt: skip


def began_at(incident: Incident) -> float:
    """When its present run began: it opened or last reopened. Records of 0.1.0 have only the first."""
    return incident.opened_at or incident.created_at


def _holds(tenant: str, wanted: IncidentFilter) -> Callable[[Incident], bool]:
    holds = compile_filter(wanted)
    return lambda incident: incident.tenant == tenant and holds(incident)


def _walk(shard: Core, sort: Sort, wanted: IncidentFilter, after: Position | None) -> Iterator[bytes]:
    state = shard.state
    # The order of creation is always as of now.
    needs_places = not sort.is_by_creation or wanted.severities
    return (state.placed() if needs_places else state.places).walk(sort, wanted, after)


def _stretch(
    shard: Core, wanted: IncidentFilter, looked: Looked | None
) -> tuple[list[Incident], Looked | None]:
    """The next incidents to look at, newest first, and where they end; None when there are no more."""
    after = None if looked is None else (looked[0], *looked)
    identities = _walk(shard, Sort.NEWEST, wanted, after)
    stretch = [shard.state.incidents[each] for each in islice(identities, INCIDENT_SCAN_MAX)]
    goes_on = next(identities, None) is not None
    return stretch, (stretch[-1].created_at, stretch[-1].id) if goes_on else None
