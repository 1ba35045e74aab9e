"""How far the escalation of an incident got, as /v1 shows it. Used by bodies.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from models.incidents.query import EscalationView
from services.api.v1.fields import Time, says
from services.times import timestamp


@dataclass(frozen=True, slots=True)
class EscalationBody:
    """How far the escalation of an incident got."""

    policy: Annotated[str, says("The policy.")]
    status: Annotated[
        str,
        says(
            "`running`; `paused` while it is muted; `stopped` by an acknowledgement or its end; `ended`: nobody acknowledged; `unknown`: there is no such policy."
        ),
    ]
    level: Annotated[int, says("The level that is told next, from 1.")]
    round: Annotated[int, says("The how manyth time all levels are gone through.")]
    next_at: Annotated[Time | None, says("When that level is told; null: it is not.")]
    told: Annotated[list[str], says("Who was told, and by which receiver: `ana by mail`.")]
    why: Annotated[str, says("Why it began, or what stopped it.")]


def escalation_body(view: EscalationView) -> EscalationBody:
    return EscalationBody(
        view.policy,
        view.status,
        view.level,
        view.round,
        timestamp(view.next_at) if view.next_at else None,
        view.told,
        view.why,
    )
