"""One alert (series) as people see it, from a shard's table. Used for what a shard shows, sends and archives."""

from __future__ import annotations

import math

from models.alerts.alert import Content
from models.alerts.muted import MutedBy
from models.alerts.series import FIRING, SeriesTable
from models.incidents.query import AlertView
from models.shard.messages import Decision


def alert_view(
    series: SeriesTable, number: int, content: Content | None = None, muted: MutedBy | None = None
) -> AlertView:
    """One series as people see it. `content` is series.content(number), from who has read it already; `muted` by what it is."""
    content = content or series.content(number)
    incident = series.incidents[number]
    ends = series.ends[number]
    opened, seen = series.opened[number], series.seen[number]
    decisions = [(series.how[number], 1, opened, opened)]
    senders = [series.openers[number]]
    if series.repeats[number]:
        # The sender of a repeat is not recorded: that path must be quick.
        decisions.append((int(Decision.REPEATED), series.repeats[number], opened, seen))
        senders.append("")
    for note in series.notes.get(number, ()):
        decisions.append((note.decision, note.count, note.first_at, note.last_at))
        senders.append(note.sender)
    return AlertView(
        b"" if incident is None else incident.id,
        content.labels,
        content.annotations,
        content.generator_url,
        content.source,
        # By one clock it never begins after it ends; by its sender's and ours it may.
        min(series.starts[number], ends),
        0.0 if math.isinf(ends) else ends,
        seen,
        series.status[number] == FIRING,
        decisions,
        series.senders[number],
        senders,
        muted or None,
    )
