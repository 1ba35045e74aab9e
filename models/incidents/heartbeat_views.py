"""What a shard shows of its heartbeats. Called by views.py for a query of models/incidents/query.py."""

from __future__ import annotations

import heapq

from models.incidents.query import PAGE_MAX, ListPulses, PulsePage, PulseView
from models.shard.core import Core
from models.shard.heartbeats import HeartbeatsOfShard, Pulse


def list_pulses(shard: Core, query: ListPulses) -> PulsePage:
    """A page of them, by name."""
    watched = shard.of(HeartbeatsOfShard)
    limit = max(1, min(query.limit, PAGE_MAX))
    found = {
        pulse.heartbeat.name: pulse
        for pulse in watched.pulses.values()
        if pulse.heartbeat.tenant == query.tenant
        and pulse.heartbeat.name > query.after
        and query.name in ("", pulse.heartbeat.name)
    }
    page = heapq.nsmallest(limit, found)
    items = [_view(shard, watched, found[name]) for name in page]
    return PulsePage(items, page[-1] if len(page) < len(found) else None)


def _view(shard: Core, watched: HeartbeatsOfShard, pulse: Pulse) -> PulseView:
    number, series = watched.missed(pulse), shard.state.series
    incident = None if number is None else series.incidents[number]
    return PulseView(
        pulse.heartbeat.name,
        watched.last_at(pulse),
        watched.due_at(pulse),
        0.0 if number is None else series.starts[number],
        b"" if incident is None else incident.id,
    )
