"""What a shard shows: answers to models/query.py from its state. Reads make no events and change nothing."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING

from models.alert import Content
from models.heads import head_of
from models.incident import Incident
from models.matchers import compile_matchers
from models.messages import Decision
from models.query import (
    PAGE_MAX,
    AlertPage,
    AlertView,
    Answer,
    GetHeads,
    GetIncident,
    GetIncidents,
    HeadPage,
    IncidentAlerts,
    IncidentPage,
    IncidentView,
    ListAlerts,
    ListIncidents,
    Probe,
    Query,
)
from models.series import FIRING, FREE, SeriesTable

if TYPE_CHECKING:
    from models.shard import Shard

#: Series looked at for one page of alerts: at 2 us a series a page with a rare match holds up a batch for 8 ms.
SCAN_MAX = 4000


def answer(shard: Shard, query: Query) -> Answer:
    """The answer to a query about `shard` as it is now."""
    match query:
        case ListIncidents():
            return _list_incidents(shard, query)
        case GetIncident():
            incident = shard.incidents.get(query.incident_id)
            found = incident is not None and incident.tenant == query.tenant
            return IncidentPage(
                [_incident_view(shard, incident)] if incident is not None and found else [], False
            )
        case GetIncidents():
            asked = [shard.incidents.get(identity) for identity in query.incident_ids[:PAGE_MAX]]
            here = [each for each in asked if each is not None and each.tenant == query.tenant]
            return IncidentPage([_incident_view(shard, each) for each in here], False)
        case GetHeads():
            asked = [shard.incidents.get(identity) for identity in query.incident_ids[:PAGE_MAX]]
            here = [each for each in asked if each is not None and each.tenant == query.tenant]
            return HeadPage(shard.seq, [head_of(each) for each in here])
        case Probe():
            return IncidentPage([], False)
        case IncidentAlerts():
            incident = shard.incidents.get(query.incident_id)
            if incident is None or incident.tenant != query.tenant:
                return AlertPage([], None)
            numbers = shard.members[query.incident_id]
            return _alert_page(shard, numbers, query.after, min(query.limit, PAGE_MAX))
        case ListAlerts():
            return _list_alerts(shard, query)


def alert_view(series: SeriesTable, number: int, content: Content | None = None) -> AlertView:
    """One series as people see it. `content` is series.content(number), from who has read it already."""
    content = content or series.content(number)
    incident = series.incidents[number]
    ends = series.ends[number]
    opened, seen = series.opened[number], series.seen[number]
    decisions = [(series.how[number], 1, opened, opened)]
    if series.repeats[number]:
        decisions.append((int(Decision.REPEATED), series.repeats[number], opened, seen))
    decisions.extend(
        (note.decision, note.count, note.first_at, note.last_at) for note in series.notes.get(number, ())
    )
    return AlertView(
        b"" if incident is None else incident.id,
        content.labels,
        content.annotations,
        content.generator_url,
        content.source,
        series.starts[number],
        0.0 if math.isinf(ends) else ends,
        seen,
        series.status[number] == FIRING,
        decisions,
    )


def _incident_view(shard: Shard, incident: Incident) -> IncidentView:
    return IncidentView(incident, len(shard.members[incident.id]))


def _list_incidents(shard: Shard, query: ListIncidents) -> IncidentPage:
    limit = max(1, min(query.limit, PAGE_MAX))
    place = len(shard.order) if query.before is None else bisect_left(shard.order, query.before)
    states, severities = frozenset(query.states), frozenset(query.severities)
    types, services = frozenset(query.types), frozenset(query.services)
    items: list[IncidentView] = []
    while place > 0:
        place -= 1
        incident = shard.incidents[shard.order[place][1]]
        if (
            incident.tenant != query.tenant
            or (states and incident.state not in states)
            or (severities and incident.severity not in severities)
            or (types and incident.type not in types)
            or (services and incident.service not in services)
        ):
            continue
        if len(items) == limit:
            return IncidentPage(items, True)
        items.append(_incident_view(shard, incident))
    return IncidentPage(items, False)


def _list_alerts(shard: Shard, query: ListAlerts) -> AlertPage:
    series = shard.series
    matches = compile_matchers(query.matchers)
    limit = max(1, min(query.limit, PAGE_MAX))
    numbers = _candidates(shard, query)
    items: list[AlertView] = []
    looked_at = 0
    place = bisect_left(numbers, query.after + 1)
    while place < len(numbers):
        number = numbers[place]
        place += 1
        status = series.status[number]
        if status == FREE or (query.firing_only and status != FIRING):
            continue
        looked_at += 1
        incident = series.incidents[number]
        if incident is not None and incident.tenant == query.tenant:
            content = series.content(number)
            if matches(content.labels):
                items.append(alert_view(series, number, content))
        if len(items) == limit or looked_at == SCAN_MAX:
            return AlertPage(items, number if place < len(numbers) else None)
    return AlertPage(items, None)


def _candidates(shard: Shard, query: ListAlerts) -> range | array[int]:
    """The series that can match: those of the incidents whose group labels do, when a matcher asks for equality."""
    best: dict[bytes, None] | None = None
    for name, operator, value in query.matchers:
        if operator != "=" or not value:
            continue
        if name == "service":
            # The group's service is this label only when no other label is asked before it.
            if shard.settings.service_labels[:1] != ("service",):
                continue
        elif name not in shard.settings.group_by:
            continue
        found = shard.by_label.get((name, value), {})
        if best is None or len(found) < len(best):
            best = found
    if best is None:
        return range(shard.series.used)
    # An overflow incident holds series of any group.
    numbers = array("I")
    for identity in {*best, *shard.overflows}:
        numbers.extend(shard.members[identity])
    return array("I", sorted(numbers))


def _alert_page(shard: Shard, numbers: array[int], after: int, limit: int) -> AlertPage:
    ordered = sorted(numbers)
    place = bisect_left(ordered, after + 1)
    shown = ordered[place : place + limit]
    more = place + limit < len(ordered)
    return AlertPage(
        [alert_view(shard.series, number) for number in shown], shown[-1] if more and shown else None
    )
