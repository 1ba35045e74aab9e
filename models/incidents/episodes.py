"""When an incident opened, was noticed, answered and over, each time that it was open: read from its record and timeline. Pure; used by
reports and analytics, so that both mean the same.
"""

from __future__ import annotations

import msgspec

from models.incidents.incident import Incident, IncidentState, TimelineEntry

_OVER = {IncidentState.RESOLVED.value, IncidentState.CLOSED.value}
_ANSWERS = frozenset({"Acknowledged", "AssignmentChanged"})


class Episode(msgspec.Struct, frozen=True):
    """One time that an incident was open. Times are seconds since the epoch, 0: not, or not known.

    notified_at   when a receiver first accepted a notification
    answered_at   when somebody first acknowledged it or was assigned; `answered_by` may be unknown ("")
    resolved_at   when it was over; `method` is Automated, Manual or AutoAssistedManual
    """

    opened_at: float
    notified_at: float = 0.0
    answered_at: float = 0.0
    answered_by: str = ""
    resolved_at: float = 0.0
    resolved_by: str = ""
    method: str = ""

    @property
    def acknowledge_s(self) -> float | None:
        """From opening to the first answer."""
        return max(0.0, self.answered_at - self.opened_at) if self.answered_at else None

    @property
    def notify_s(self) -> float | None:
        """From opening until somebody was told."""
        return max(0.0, self.notified_at - self.opened_at) if self.notified_at else None

    @property
    def resolve_s(self) -> float | None:
        """From opening until it was over."""
        return max(0.0, self.resolved_at - self.opened_at) if self.resolved_at else None


def episodes(incident: Incident) -> list[Episode]:
    """Each time that it was open, the first one first. The last is as the record has it; earlier ones as the timeline tells, which
    may have lost lines in between (`timeline_dropped`)."""
    found = [Episode(incident.created_at)]
    for line in incident.timeline:
        if _reopens(line):
            found.append(Episode(line.at))
        else:
            found[-1] = _after(found[-1], line)
    last = found[-1]
    if incident.opened_at and incident.opened_at > last.opened_at:
        # Its reopening is among the lines that were lost.
        last = Episode(incident.opened_at)
        found.append(last)
    handling, ended = incident.handling, incident.resolution
    answered_at = last.answered_at if handling is None else handling.answered_at
    found[-1] = msgspec.structs.replace(
        last,
        answered_at=answered_at,
        answered_by=last.answered_by if answered_at else "",
        resolved_at=incident.resolved_at,
        resolved_by=ended.by if ended is not None else "",
        method=ended.method if ended is not None else "",
    )
    return found


def last_episode(incident: Incident) -> Episode:
    """The present or last time that it was open."""
    return episodes(incident)[-1]


def _reopens(line: TimelineEntry) -> bool:
    before, after = line.details.get("before"), line.details.get("after")
    return line.kind == "StateChanged" and before in _OVER and after not in _OVER


def _after(episode: Episode, line: TimelineEntry) -> Episode:
    if line.kind == "NotificationSent" and not episode.notified_at:
        return msgspec.structs.replace(episode, notified_at=line.at)
    if line.kind in _ANSWERS and not episode.answered_at and not episode.resolved_at:
        return msgspec.structs.replace(episode, answered_at=line.at, answered_by=line.actor)
    if line.kind == "Resolved":
        method = line.details.get("method", "")
        return msgspec.structs.replace(episode, resolved_at=line.at, resolved_by=line.actor, method=method)
    return episode
