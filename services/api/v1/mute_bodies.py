"""What mutes an incident, as /v1 shows it. Used by bodies.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from models.alerts.muted import IncidentMutes
from services.api.v1.fields import Time, says
from services.times import timestamp


@dataclass(frozen=True, slots=True)
class MuteBody:
    """What mutes alerts of an incident: a silence, or an alert that inhibits them."""

    alerts: Annotated[int, says("How many of its alerts this mutes, of the first 2,000.")]
    silence: Annotated[UUID | None, says("The id of the silence; null: it is inhibition.")]
    until: Annotated[Time | None, says("When the silence ends.")]
    by: Annotated[str, says("Who made the silence.")]
    comment: Annotated[str, says("The comment of the silence.")]
    rule: Annotated[str, says("The inhibition rule; empty: it is a silence.")]
    fingerprint: Annotated[str, says("The alert that inhibits them.")]
    title: Annotated[str, says("The title of that alert.")]


@dataclass(frozen=True, slots=True)
class MutedBody:
    """What mutes an incident."""

    alerts: Annotated[int, says("How many of its own firing alerts are muted.")]
    is_muted: Annotated[bool, says("Whether all of them are, so that nobody is notified.")]
    withheld: Annotated[str, says("The notification that is withheld: `opened` ...; empty: none.")]
    by: Annotated[list[MuteBody], says("What mutes them.")]


def muted_body(mutes: IncidentMutes) -> MutedBody:
    """The body of an incident's mutes."""
    return MutedBody(
        mutes.alerts,
        mutes.is_muted,
        mutes.withheld,
        [
            MuteBody(
                each.alerts,
                UUID(each.silence) if each.silence else None,
                timestamp(each.until) if each.until else None,
                each.by,
                each.comment,
                each.rule,
                each.fingerprint,
                each.title,
            )
            for each in mutes.by
        ],
    )
