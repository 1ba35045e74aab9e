"""An incident as GraphQL shows it: what /v1 shows, and what belongs to it under the same roof. Used by schema.py and
mutations.py."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

from models.incidents.incident import Notification
from models.incidents.query import IncidentView
from services.api.graphql.asked import Asked
from services.api.reads import Counted
from services.api.v1.bodies import IncidentBody, incident_body
from services.api.v1.fields import Time, says
from services.times import timestamp

#: What people wrote, in a timeline.
COMMENT = "CommentAdded"


@dataclass(frozen=True, slots=True)
class NoteBody:
    """What a person wrote about an incident."""

    at: Annotated[Time, says("When, RFC 3339 in UTC.")]
    by: Annotated[str, says("Who wrote it.")]
    text: Annotated[str, says("The text.")]


@dataclass(frozen=True, slots=True)
class NotificationBody:
    """What one receiver knows of an incident, and what it is still to be told."""

    receiver: Annotated[str, says("Its name.")]
    route: Annotated[str, says("The route that chose it last; empty: unknown.")]
    told: Annotated[bool, says("Whether it may have been told of the incident.")]
    knows: Annotated[
        str, says("What it surely knows: `firing` or `resolved`; empty: nothing, or it is not certain.")
    ]
    heard_at: Annotated[Time | None, says("When it may last have received something; null: never.")]
    count: Annotated[int, says("How many notifications were made for it.")]
    owed: Annotated[
        str, says("Why it is still to be told something: `opened`, `resolved` ...; empty: it is not.")
    ]
    due_at: Annotated[Time | None, says("When that is sent; null: nothing is to be sent.")]
    attempt: Annotated[int, says("How often that was tried.")]
    given_up: Annotated[bool, says("Whether the last notification was given up.")]
    withheld: Annotated[
        str, says("Why it would be told, were the incident not muted; empty: nothing is held back.")
    ]
    ref: Annotated[str, says("What the receiver calls what it made; empty: it did not say.")]


class IncidentNode:
    """An incident, whose body is made when somebody asks for it."""

    def __init__(self, view: IncidentView, counted: Counted) -> None:
        self.view = view
        self._counted = counted

    @cached_property
    def body(self) -> IncidentBody:
        return incident_body(self.view, self._counted)

    @property
    def id(self) -> bytes:
        return self.view.incident.id

    @property
    def notes(self) -> list[NoteBody]:
        return [
            NoteBody(timestamp(each.at), each.actor, each.text)
            for each in self.view.incident.timeline
            if each.kind == COMMENT
        ]

    @property
    def notifications(self) -> list[NotificationBody]:
        return [
            notification_body(receiver, each)
            for receiver, each in sorted(self.view.incident.notifications.items())
        ]


@dataclass(frozen=True, slots=True)
class IncidentPageBody:
    """A page of incidents. It may be short, even empty, and still have a next one."""

    items: Annotated[list[IncidentNode], says("In the requested order.")]
    next: Annotated[str | None, says("The cursor of the next page (`after`); null on the last one.")]


@dataclass(frozen=True, slots=True)
class IncidentChangeBody:
    """What became of a change."""

    incident: Annotated[
        IncidentNode, says("The incident afterwards; the new one, if the change made another.")
    ]
    changed: Annotated[bool, says("False if nothing needed to change.")]
    settled: Annotated[
        bool, says("False if the other incident's shard has not answered yet; it is asked until it does.")
    ]


def notification_body(receiver: str, told: Notification) -> NotificationBody:
    """What is known of one receiver."""
    owed = told.reason or ""
    return NotificationBody(
        receiver,
        told.route,
        told.told,
        told.sure,
        _time(told.heard_at),
        told.number,
        owed,
        _time(told.due_at) if owed else None,
        told.attempt if owed else 0,
        told.given_up,
        told.withheld,
        told.ref,
    )


async def nodes(asked: Asked, views: list[IncidentView]) -> list[IncidentNode]:
    """Incidents with their alerts counted. Raises Unavailable."""
    counted = await asked.ground.reads.counted(views)
    return [IncidentNode(*each) for each in zip(views, counted, strict=True)]


def _time(at: float) -> str | None:
    return timestamp(at) if at else None
