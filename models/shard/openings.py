"""The incident that a new series belongs to: one that is open, one that may go on, or a new one. Called by
models/shard/intake.py. Past max_concurrent_incidents it is the overflow incident of its service.
"""

from __future__ import annotations

from models.alerts.alert import Content
from models.alerts.grouping import group_of, overflow_group_of, overflow_title, title_of
from models.alerts.room import text_bytes
from models.incidents.incident import Incident, IncidentType, Severity, incident_id
from models.incidents.lines import Around, Description, Line
from models.partition.event import Event
from models.partition.sharding import slot_of
from models.shard import classification, lifecycle
from models.shard.changes import Opened
from models.shard.component import Component, on
from models.shard.core import Core
from models.shard.events import IncidentOpened
from models.shard.messages import Classification, Decision

#: Severity words remembered for each incident: more bring nothing new.
SIGNALS_MAX = 8
#: Groups listed in an overflow incident; `overflow_count` counts all that joined.
OVERFLOW_LISTED = 1000


class OverflowMemberAdded(Event, frozen=True):
    """A group that found no room of its own was joined to an overflow incident."""

    incident_id: bytes
    group_key: str
    title: str


def _line(event: IncidentOpened, _around: Around) -> Line:
    return Line("Created", event.created_by, event.title)


class Openings(Component):
    name = "openings"

    def _fold_opened(self, event: IncidentOpened, now: float) -> None:
        self.shard.enter(
            Incident(
                id=event.incident_id,
                slot=event.slot,
                tenant=event.tenant,
                service=event.service,
                group_key=event.group_key,
                group_labels=event.group_labels,
                title=event.title,
                description=event.description,
                source=event.source,
                labels=event.labels,
                annotations=event.annotations,
                created_at=now,
                updated_at=now,
                overflow=[] if event.is_overflow else None,
                created_by=event.created_by,
                opened_at=now,
                began_at=event.began_at,
            )
        )

    def _fold_overflow(self, event: OverflowMemberAdded, now: float) -> None:
        incident = self.state.changing(event.incident_id)
        incident.overflow_count += 1
        if incident.overflow is None:
            incident.overflow = []
        if len(incident.overflow) < OVERFLOW_LISTED and event.group_key not in incident.overflow:
            incident.overflow.append(event.group_key)
            size = text_bytes([event.group_key])
            incident.held_bytes += size
            self.state.series.room.take(incident.created_by, size)

    events = (
        on(IncidentOpened, _fold_opened, Description(("Created",), _line)),
        on(OverflowMemberAdded, _fold_overflow),
    )


def incident_for(
    shard: Core,
    tenant: str,
    service: str,
    group: tuple[str, dict[str, str]],
    content: Content,
    number: int,
    now: float,
) -> tuple[Incident, Decision]:
    """The incident of a series that is to get this number, opened or reopened if it must be, and what was decided."""
    state = shard.state
    incident = state.by_group.get((tenant, group[0]))
    if state.other_groupings and (incident is None or not incident.is_open):
        incident = _open_in_other_grouping(shard, tenant, content.labels, service) or incident
    if incident is not None and incident.is_open:
        return incident, Decision.JOINED
    if incident is not None and lifecycle.may_reopen(shard, incident, now):
        lifecycle.reopen(shard, incident, now, shard.actor)
        return incident, Decision.REOPENED
    if state.open_count < shard.settings.max_open:
        return _open(shard, tenant, service, group, content, number, now), Decision.OPENED
    return _overflow(shard, tenant, service, group[0], content, number, now), Decision.OVERFLOWED


def _open_in_other_grouping(
    shard: Core, tenant: str, labels: dict[str, str], service: str
) -> Incident | None:
    """The open incident of an alert by the group_by that was in force when it opened: an ongoing outage must not notify
    a second time because somebody, or an upgrade, changed that setting."""
    for names in shard.state.other_groupings:
        key, _labels = group_of(labels, service, names)
        found = shard.state.by_group.get((tenant, key))
        if found is not None and found.is_open:
            return found
    return None


def _open(
    shard: Core,
    tenant: str,
    service: str,
    group: tuple[str, dict[str, str]],
    content: Content,
    number: int,
    now: float,
    is_overflow: bool = False,
) -> Incident:
    key, labels = group
    slot = slot_of(tenant, service)
    # The series number tells apart two incidents of one group that are opened by the same frame.
    identity = incident_id(slot, now, shard.epoch, shard.seq, f"{key}#{number}")
    title = overflow_title(service) if is_overflow else title_of(content.labels, content.annotations, service)
    shard.do(
        IncidentOpened(
            identity,
            slot,
            tenant,
            service,
            key,
            labels,
            title,
            content.annotations.get("description", ""),
            content.source,
            content.labels,
            content.annotations,
            is_overflow,
            shard.actor,
            content.starts_at if content.starts_at <= now else 0.0,
        ),
        now,
    )
    incident = shard.state.incidents[identity]
    shard.report(Opened(incident, content), now)
    return incident


def _overflow(
    shard: Core, tenant: str, service: str, group: str, content: Content, number: int, now: float
) -> Incident:
    overflow = overflow_group_of(service)
    incident = shard.state.by_group.get((tenant, overflow[0]))
    if incident is not None and not incident.is_open and lifecycle.may_reopen(shard, incident, now):
        lifecycle.reopen(shard, incident, now, shard.actor)
    elif incident is None or not incident.is_open:
        incident = _open(shard, tenant, service, overflow, content, number, now, is_overflow=True)
        verdict = Classification(
            incident.id,
            Severity.P1,
            IncidentType.UNKNOWN,
            "major",
            "max_concurrent_incidents",
            1.0,
            SIGNALS_MAX,
        )
        classification.judge(shard, verdict, now)
    title = title_of(content.labels, content.annotations, service)
    shard.do(OverflowMemberAdded(incident.id, group, title), now)
    return incident
