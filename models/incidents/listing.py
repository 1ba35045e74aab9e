"""Lists and counts of a shard's incidents, a bounded stretch at a time. Called by views.py for queries of models/incidents/query.py.

A shard answers between two batches of alerts, so no answer looks at more than INCIDENT_SCAN_MAX incidents: it returns
what it found and where it stopped, and the caller continues from there.
"""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable

from models.incidents.filters import IncidentFilter, Position, compile_filter, place_of
from models.incidents.incident import Incident
from models.incidents.query import (
    INCIDENT_SCAN_MAX,
    PAGE_MAX,
    CountIncidents,
    FindIncidents,
    IncidentCounts,
    IncidentPage,
    IncidentPlaces,
    IncidentView,
    ListIncidents,
    Looked,
)
from models.shard.core import Core
from models.shard.messages import Decision
from models.shard.mutes import Mutes
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
    )


def list_incidents(shard: Core, query: ListIncidents) -> IncidentPage:
    """A page in an order that the shard keeps."""
    holds = _holds(query.tenant, query.wanted)
    limit = max(1, min(query.limit, PAGE_MAX))
    low, high = _created_between(shard, query.wanted)
    if query.sort.goes_down:
        if query.after is not None:
            high = min(high, bisect_left(shard.state.order, query.after[1:]))
        places = range(high - 1, low - 1, -1)
    else:
        if query.after is not None:
            low = max(low, bisect_right(shard.state.order, query.after[1:]))
        places = range(low, high)
    items: list[IncidentView] = []
    size = 0
    for looked_at, place in enumerate(places, 1):
        incident = shard.state.incidents[shard.state.order[place][1]]
        if holds(incident):
            items.append(incident_view(shard, incident))
            size += incident.held_bytes
        if len(items) == limit or looked_at == INCIDENT_SCAN_MAX or size >= INCIDENT_PAGE_BYTES_MAX:
            return IncidentPage(items, place_of(incident, query.sort) if looked_at < len(places) else None)
    return IncidentPage(items)


def find_incidents(shard: Core, query: FindIncidents) -> IncidentPlaces:
    """The first places of one stretch, in any order."""
    holds = _holds(query.tenant, query.wanted)
    stretch, looked = _stretch(shard, query.wanted, query.looked)
    sort, after = query.sort, query.after
    found: list[Position] = []
    for incident in stretch:
        if holds(incident):
            place = place_of(incident, sort)
            if after is None or sort.comes_after(place, after):
                found.append(place)
    first = heapq.nlargest if sort.goes_down else heapq.nsmallest
    return IncidentPlaces(first(max(1, min(query.limit, PAGE_MAX)), found), looked)


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


def _created_between(shard: Core, wanted: IncidentFilter) -> tuple[int, int]:
    """The places in `order` of all that were created when the filter says."""
    low = bisect_left(shard.state.order, (wanted.created_after, b"")) if wanted.created_after else 0
    high = (
        bisect_left(shard.state.order, (wanted.created_before, b""))
        if wanted.created_before
        else len(shard.state.order)
    )
    return low, high


def _stretch(
    shard: Core, wanted: IncidentFilter, looked: Looked | None
) -> tuple[list[Incident], Looked | None]:
    """The next incidents to look at, newest first, and where they end; None when there are no more."""
    low, high = _created_between(shard, wanted)
    if looked is not None:
        high = min(high, bisect_left(shard.state.order, looked))
    first = max(low, high - INCIDENT_SCAN_MAX)
    stretch = [shard.state.incidents[identity] for _at, identity in reversed(shard.state.order[first:high])]
    return stretch, shard.state.order[first] if first > low and high > first else None
