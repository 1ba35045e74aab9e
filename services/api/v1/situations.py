"""/v1/situations: incidents that belong together, and what probably causes them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from fastapi import FastAPI, Path, Query
from fastapi.responses import Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from models.errors import NotFound
from models.incidents.incident import Severity
from models.incidents.relation import Part
from models.topology.messages import (
    GetSituation,
    ListSituations,
    SituationMember,
    SituationPage,
    SituationView,
)
from services.api.auth import READ
from services.api.topology import TopologyDesk
from services.api.v1.bodies import json_response
from services.api.v1.cursors import CURSOR_CHARS_MAX, decode_situation, encode_situation
from services.api.v1.fields import SeverityName, Time, any_case, says
from services.api.v1.incidents import PREFIX
from services.api.v1.list_params import Limit
from services.api.v1.relation_bodies import CauseBody, cause_body
from services.api.v1.route_table import Route, add_routes
from services.times import timestamp

PATH = f"{PREFIX}/situations"


@dataclass(frozen=True, slots=True)
class MemberBody:
    """An incident of a situation, as the correlator knows it."""

    incident: Annotated[UUID, says("Its id.")]
    service: Annotated[str, says("Its service.")]
    title: Annotated[str, says("Its title.")]
    severity: Annotated[SeverityName, says("Its severity.")]
    part: Annotated[Part, says("`cause`, `symptom` or `related`.")]
    symptom_of: Annotated[UUID | None, says("The incident whose symptom it probably is; null: none.")]
    began_at: Annotated[Time, says("When it opened, or last opened again.")]
    ended_at: Annotated[Time | None, says("When it was over; null while it is open.")]


@dataclass(frozen=True, slots=True)
class SituationBody:
    """Incidents that belong together."""

    id: Annotated[UUID, says("Its id.")]
    opened_at: Annotated[Time, says("When the first of them began.")]
    updated_at: Annotated[Time, says("When it last changed.")]
    ended_at: Annotated[Time | None, says("When the last of them was over; null while one is open.")]
    probable_causes: Annotated[list[CauseBody], says("The most probable first.")]
    incidents: Annotated[list[MemberBody], says("Its incidents, in the order in which they began.")]


@dataclass(frozen=True, slots=True)
class SituationsBody:
    """A page of situations, the newest first."""

    items: Annotated[list[SituationBody], says("The situations.")]
    next: Annotated[str | None, says("The cursor of the next page; null on the last one.")]


class SituationState(StrEnum):
    OPEN = "open"
    ENDED = "ended"
    ALL = "all"


class SituationParams(BaseModel):
    """A page of a filtered list."""

    model_config = ConfigDict(extra="forbid")

    state: Annotated[
        SituationState, BeforeValidator(any_case(SituationState)), Field(description="Which.")
    ] = SituationState.OPEN
    limit: Limit = 100
    cursor: Annotated[
        str | None,
        Field(max_length=CURSOR_CHARS_MAX, description='The "next" of an earlier page of the same list.'),
    ] = None


_WANTED = {SituationState.OPEN: True, SituationState.ENDED: False, SituationState.ALL: None}
_OFF = {"409": "Correlation is off: `correlation.enabled`."}
_MISSING = {"404": "No situation has this id, or it ended more than seven days ago."}


def add_situation_routes(app: FastAPI, desk: TopologyDesk) -> None:
    """The two routes."""

    async def situations(params: Annotated[SituationParams, Query()]) -> Response:
        """Situations, the newest first. One that ended is kept for seven days."""
        before = None if params.cursor is None else decode_situation(params.cursor)
        page = await desk.ask(ListSituations(params.limit, before, _WANTED[params.state]), SituationPage)
        after = None if page.next_before is None else encode_situation(*page.next_before)
        return json_response(SituationsBody([*map(_situation_body, page.items)], after))

    async def situation(
        situation_id: Annotated[UUID, Path(description="The situation's id.")],
    ) -> Response:
        """One situation."""
        page = await desk.ask(GetSituation(situation_id.bytes), SituationPage)
        if not page.items:
            raise NotFound(f"there is no situation {situation_id}")
        return json_response(_situation_body(page.items[0]))

    routes = (
        Route(PATH, situations, "GET", 200, SituationsBody, _OFF, None, READ),
        Route(
            f"{PATH}/{{situation_id}}", situation, "GET", 200, SituationBody, {**_MISSING, **_OFF}, None, READ
        ),
    )
    add_routes(app, "situations", routes)


def _situation_body(view: SituationView) -> SituationBody:
    return SituationBody(
        UUID(bytes=view.id),
        timestamp(view.opened_at),
        timestamp(view.updated_at),
        timestamp(view.ended_at) if view.ended_at else None,
        [*map(cause_body, view.causes)],
        [*map(_member_body, view.members)],
    )


def _member_body(member: SituationMember) -> MemberBody:
    news = member.news
    return MemberBody(
        UUID(bytes=news.id),
        news.service,
        news.title,
        SeverityName(Severity(news.severity).name),
        Part(member.part),
        UUID(bytes=member.symptom_of) if member.symptom_of else None,
        timestamp(news.since),
        timestamp(member.ended_at) if member.ended_at else None,
    )
