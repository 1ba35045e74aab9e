"""What a shard shows: answers to models/incidents/query.py from its state. Reads make no events and change nothing."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from itertools import islice

from models.alerts.matchers import compile_matchers
from models.alerts.series import FIRING, FREE
from models.alerts.view import alert_view
from models.incidents.edge_views import edge_answer
from models.incidents.heartbeat_views import list_pulses
from models.incidents.listing import count_incidents, incident_view, list_incidents
from models.incidents.query import (
    PAGE_MAX,
    AlertPage,
    AlertView,
    Answer,
    CountIncidents,
    GetIncident,
    GetIncidents,
    GetRuns,
    GetSummaries,
    IncidentAlerts,
    IncidentPage,
    ListAlerts,
    ListIncidents,
    ListPulses,
    ListRepairs,
    ListRuns,
    ListSummaries,
    MutePreview,
    PreviewMutes,
    Probe,
    Query,
    SummaryPage,
)
from models.incidents.repair_views import list_repairs
from models.incidents.run_views import get_runs, list_runs
from models.incidents.summaries import summary_of
from models.partition.ordered import behind
from models.shard.core import Core
from models.shard.mutes import Mutes

#: Bytes of the bodies of one page, so that neither a shard nor who asks it holds a thousand of the largest alerts. A
#: page of a thousand common ones has half a megabyte.
PAGE_BYTES_MAX = 4 * 1024 * 1024
#: Series looked at for one page of alerts: at 2 us a series a page with a rare match holds up a batch for 8 ms.
SCAN_MAX = 4000


def answer(shard: Core, query: Query) -> Answer:
    """The answer to a query about `shard` as it is now."""
    match query:
        case ListIncidents():
            return list_incidents(shard, query)
        case CountIncidents():
            return count_incidents(shard, query)
        case GetIncident():
            incident = shard.state.incidents.get(query.incident_id)
            found = incident is not None and incident.tenant == query.tenant
            return IncidentPage([incident_view(shard, incident)] if incident is not None and found else [])
        case GetIncidents():
            asked = [shard.state.incidents.get(identity) for identity in query.incident_ids[:PAGE_MAX]]
            here = [each for each in asked if each is not None and each.tenant == query.tenant]
            return IncidentPage([incident_view(shard, each) for each in here])
        case GetSummaries():
            asked = [shard.state.incidents.get(identity) for identity in query.incident_ids[:PAGE_MAX]]
            here = [each for each in asked if each is not None and each.tenant == query.tenant]
            return SummaryPage(shard.seq, [summary_of(each) for each in here])
        case ListSummaries():
            return _list_summaries(shard, query)
        case Probe():
            return IncidentPage([])
        case IncidentAlerts():
            incident = shard.state.incidents.get(query.incident_id)
            if incident is None or incident.tenant != query.tenant:
                return AlertPage([], None)
            numbers = shard.state.members[query.incident_id]
            if query.firing is not None:
                status = shard.state.series.status
                numbers = array("I", [each for each in numbers if (status[each] == FIRING) is query.firing])
            return _alert_page(shard, numbers, query.after, min(query.limit, PAGE_MAX))
        case ListAlerts():
            return _list_alerts(shard, query)
        case PreviewMutes():
            return _preview(shard, query)
        case GetRuns():
            return get_runs(shard, query)
        case ListRuns():
            return list_runs(shard, query)
        case ListRepairs():
            return list_repairs(shard, query)
        case ListPulses():
            return list_pulses(shard, query)
        case _:
            return edge_answer(shard, query)


def _list_summaries(shard: Core, query: ListSummaries) -> SummaryPage:
    limit = max(1, min(query.limit, PAGE_MAX))
    rest = shard.state.order.up() if query.after is None else shard.state.order.up(behind(query.after))
    page = [*islice(rest, limit)]
    here = [shard.state.incidents[identity] for _at, identity in page]
    more = next(rest, None) is not None
    items = [summary_of(each) for each in here if each.tenant == query.tenant]
    return SummaryPage(shard.seq, items, page[-1] if more else None)


def _list_alerts(shard: Core, query: ListAlerts) -> AlertPage:
    series, mutes = shard.state.series, shard.of(Mutes)
    matches = compile_matchers(query.matchers)
    limit = max(1, min(query.limit, PAGE_MAX))
    numbers = _candidates(shard, query)
    items: list[AlertView] = []
    looked_at = size = 0
    place = bisect_left(numbers, query.after + 1)
    while place < len(numbers):
        number = numbers[place]
        place += 1
        status = series.status[number]
        if (
            status == FREE
            or (query.firing_only and status != FIRING)
            or (query.ended_only and status == FIRING)
        ):
            continue
        looked_at += 1
        incident = series.incidents[number]
        if incident is not None and incident.tenant == query.tenant:
            content = series.content(number)
            if matches(content.labels):
                items.append(alert_view(series, number, content, mutes.by(number)))
                size += len(series.bodies[number])
        if len(items) == limit or looked_at == SCAN_MAX or size >= PAGE_BYTES_MAX:
            return AlertPage(items, number if place < len(numbers) else None)
    return AlertPage(items, None)


def _preview(shard: Core, query: PreviewMutes) -> MutePreview:
    series, matches = shard.state.series, compile_matchers(query.matchers)
    firing, found = 0, dict[bytes, int]()
    for number in range(query.after + 1, series.used):
        incident = series.incidents[number]
        if series.status[number] != FIRING or incident is None or incident.tenant != query.tenant:
            continue
        firing += 1
        if matches(series.labels(number)):
            found[incident.id] = found.get(incident.id, 0) + 1
        if firing == SCAN_MAX:
            return MutePreview(firing, found, number)
    return MutePreview(firing, found, None)


def _candidates(shard: Core, query: ListAlerts) -> range | array[int]:
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
        found = shard.state.by_label.get((name, value), {})
        if best is None or len(found) < len(best):
            best = found
    if best is None:
        return range(shard.state.series.used)
    numbers = array("I")
    for identity in {*best, *shard.state.loose}:
        numbers.extend(shard.state.members[identity])
    return array("I", sorted(numbers))


def _alert_page(shard: Core, numbers: array[int], after: int, limit: int) -> AlertPage:
    ordered = sorted(numbers)
    place = bisect_left(ordered, after + 1)
    items: list[AlertView] = []
    size = 0
    while place < len(ordered) and len(items) < limit and size < PAGE_BYTES_MAX:
        number = ordered[place]
        items.append(alert_view(shard.state.series, number, muted=shard.of(Mutes).by(number)))
        size += len(shard.state.series.bodies[number])
        place += 1
    return AlertPage(items, ordered[place - 1] if items and place < len(ordered) else None)
