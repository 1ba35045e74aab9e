"""One incident as one row: what figures and exports are made of. docs/analytics.md says what each field means."""

from __future__ import annotations

import msgspec

from models.incidents.episodes import episodes
from models.incidents.incident import (
    AUTOMATED,
    Incident,
    IncidentState,
    IncidentType,
    Severity,
    TimelineEntry,
)
from models.incidents.query import IncidentView
from models.playbook.catalog import CATALOG
from models.shard.run_lines import SHADOW

_COMMENT = "CommentAdded"
_WITHHELD = "NotificationWithheld"
_RUN_BEGAN, _DONE = "PlaybookStarted", "ActionExecuted"
_RUN_ENDED = "PlaybookCompleted"
_SUCCEEDED = "succeeded"


class Row(msgspec.Struct, frozen=True, gc=False):
    """An incident. Times are seconds since the epoch, 0 is not reached; lengths are in seconds, None is not known.

    detect_s   from when the alert that opened it began, by its sender's clock
    notify_s, acknowledge_s   from its first opening
    resolve_s   how long it was open in all, once it is over
    """

    id: bytes
    title: str
    service: str
    severity: Severity
    type: IncidentType
    state: IncidentState
    created_at: float
    resolved_at: float
    closed_at: float
    detect_s: float | None
    notify_s: float | None
    acknowledge_s: float | None
    resolve_s: float | None
    alerts: int
    reopened: int
    answered: bool
    told: bool
    muted: bool
    method: str
    repaired_by: str
    labels: dict[str, str]

    @property
    def is_over(self) -> bool:
        return self.resolve_s is not None

    @property
    def ended_alone(self) -> bool:
        """Over without a person or a playbook."""
        return self.is_over and self.method == AUTOMATED and not self.repaired_by

    @property
    def is_noise(self) -> bool:
        """It came and went, and nobody did anything about it."""
        return self.ended_alone and not self.answered

    @property
    def flaps(self) -> bool:
        """It reopened twice or more."""
        return self.reopened >= FLAPS


#: Reopenings that make an incident a flapping one. One may be a repair that did not hold.
FLAPS = 2


def row_of(view: IncidentView) -> Row:
    """The row of an incident."""
    incident = view.incident
    found = episodes(incident)
    first = found[0]
    kinds = {line.kind for line in incident.timeline}
    told = any(each.told for each in incident.notifications.values())
    return Row(
        incident.id,
        incident.title,
        incident.service,
        incident.severity,
        incident.type,
        incident.state,
        incident.created_at,
        incident.resolved_at,
        incident.closed_at,
        max(0.0, incident.created_at - incident.began_at) if incident.began_at else None,
        first.notify_s,
        first.acknowledge_s,
        sum(each.resolve_s or 0.0 for each in found) if incident.resolved_at else None,
        view.alerts,
        incident.reopened,
        _COMMENT in kinds or any(each.answered_at for each in found),
        told,
        not told and (_WITHHELD in kinds or bool(incident.withheld)),
        incident.resolution.method if incident.resolution is not None else "",
        _repaired_by(incident, found[-1].opened_at),
        incident.labels,
    )


def _repaired_by(incident: Incident, since: float) -> str:
    """The playbook whose run succeeded last, after it had changed something, the last time that the incident was open; "" if none
    did."""
    if not incident.resolved_at:
        return ""
    lines = [line for line in incident.timeline if line.at >= since]
    shadows = {line.details.get("run") for line in lines if line.kind == _RUN_BEGAN and SHADOW in line.text}
    changed = {line.details.get("run") for line in lines if _changes(line)} - shadows
    for line in reversed(lines):
        if (
            line.kind == _RUN_ENDED
            and line.details.get("status") == _SUCCEEDED
            and line.details.get("run") in changed
        ):
            return line.actor.removeprefix("playbook ")
    return ""


def _changes(line: TimelineEntry) -> bool:
    if line.kind != _DONE or line.details.get("status") != _SUCCEEDED:
        return False
    spec = CATALOG.get(line.details.get("action", ""))
    # Of one that another package brought nothing is known.
    return spec is None or spec.changes
