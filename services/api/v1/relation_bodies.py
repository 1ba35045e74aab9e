"""Situations and probable causes as /v1 shows them. Used by bodies.py and situations.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from models.incidents.relation import Cause, Part, Relation
from services.api.v1.fields import Time, says
from services.times import timestamp


@dataclass(frozen=True, slots=True)
class CauseBody:
    """A probable cause."""

    service: Annotated[str, says("The service.")]
    incident: Annotated[UUID | None, says("Its first incident; null: it has none of its own.")]
    title: Annotated[str, says("The title of that incident.")]
    score: Annotated[float, says("How probable, 0 to 1. For comparing with the others.")]
    reasons: Annotated[list[str], says("Why, in words.")]


@dataclass(frozen=True, slots=True)
class SituationOfBody:
    """The situation that an incident is part of."""

    id: Annotated[UUID, says("Its id: `/v1/situations/ID`.")]
    part: Annotated[
        Part,
        says(
            "`cause`: it is the most probable one. `symptom`: its service depends on a probable cause. `related`: neither."
        ),
    ]
    incidents: Annotated[int, says("How many incidents the situation has.")]
    symptom_of: Annotated[UUID | None, says("The incident whose symptom it probably is; null: none.")]
    muted_until: Annotated[
        Time | None, says("Nobody is notified of it until then, as a symptom; null: it is not muted so.")
    ]


def cause_body(cause: Cause) -> CauseBody:
    return CauseBody(
        cause.service,
        UUID(bytes=cause.incident_id) if cause.incident_id else None,
        cause.title,
        cause.score,
        cause.reasons,
    )


def situation_of_body(relation: Relation) -> SituationOfBody:
    return SituationOfBody(
        UUID(bytes=relation.situation),
        relation.part,
        relation.members,
        UUID(bytes=relation.symptom_of) if relation.symptom_of else None,
        timestamp(relation.mute_until) if relation.mute_until else None,
    )
