"""/v1/silences: makes, lists, extends and ends silences, and says what one would mute. Alertmanager's API for the same silences
is services/api/alertmanager/silences.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import Depends, FastAPI, Path, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from models.alerts.matchers import MatcherTuple, write_matcher
from models.control.silences import MATCHERS_MAX, SetSilence, Silence, SilenceState, check, wanted_of
from models.errors import Conflict, Malformed
from models.settings.all import Settings
from services.api.alertmanager.silences import has_matchers
from services.api.auth import READ, RESPOND, Caller, requires
from services.api.reads import Reads
from services.api.silences import SilenceDesk
from services.api.v1.bodies import json_response
from services.api.v1.cursors import CURSOR_CHARS_MAX, decode_silence, encode_silence
from services.api.v1.fields import (
    TextOrNone,
    Time,
    WrittenDuration,
    WrittenTime,
    any_case,
    says,
    time_of,
    time_to_come,
)
from services.api.v1.incidents import PREFIX
from services.api.v1.list_params import FILTER_VALUES_MAX, MATCHER_CHARS_MAX, PAGE_DEFAULT, Limit, matchers_of
from services.api.v1.requests import (
    BodyKind,
    BodyReader,
    IdempotencyKey,
    asks_for,
    describe_bodies,
    digest_of,
    origin_of,
)
from services.api.v1.route_table import Route, add_routes
from services.times import timestamp

PATH = f"{PREFIX}/silences"
#: Incidents that a preview names; the rest is counted.
PREVIEW_SHOWN = 20
#: Labels that a silence may be annotated with.
ANNOTATIONS_MAX = 64


@dataclass(frozen=True, slots=True)
class SilenceBody:
    """A silence: it mutes every alert that all of its matchers match."""

    id: Annotated[UUID, says("Its id, the same as in Alertmanager's API.")]
    state: Annotated[SilenceState, says("Not started yet, muting, or over.")]
    matchers: Annotated[list[str], says("All of them must match.")]
    starts_at: Annotated[Time, says("When it starts to mute.")]
    ends_at: Annotated[Time, says("When it ends.")]
    created_by: Annotated[str, says("Who made it or last changed it.")]
    comment: Annotated[str, says("Why.")]
    updated_at: Annotated[Time, says("When it was made or last changed.")]
    annotations: Annotated[dict[str, str], says("Annotations of the silence itself.")]


@dataclass(frozen=True, slots=True)
class SilencesBody:
    """A page of silences, most recently changed first."""

    items: Annotated[list[SilenceBody], says("The silences.")]
    next: Annotated[str | None, says("The cursor of the next page; null on the last one.")]


@dataclass(frozen=True, slots=True)
class MutedIncidentBody:
    """An incident with alerts that would be muted."""

    id: Annotated[UUID, says("Its id.")]
    title: Annotated[str, says("Its title.")]
    muted: Annotated[int, says("How many of its alerts would be muted.")]
    firing: Annotated[int, says("How many of its alerts fire; if all are muted, nobody is notified.")]


@dataclass(frozen=True, slots=True)
class PreviewBody:
    """What a silence would mute now."""

    muted: Annotated[int, says("Firing alerts that would be muted.")]
    firing: Annotated[int, says("All firing alerts.")]
    needs_force: Annotated[bool, says("Whether such a silence needs `force`.")]
    incidents: Annotated[list[MutedIncidentBody], says("The 20 incidents with the most such alerts.")]
    incident_count: Annotated[int, says("How many incidents have such alerts.")]


@dataclass(frozen=True, slots=True)
class MadeBody:
    """A new silence, and how much it mutes now."""

    silence: Annotated[SilenceBody, says("The silence.")]
    muted: Annotated[int, says("Firing alerts that it matches.")]
    firing: Annotated[int, says("All firing alerts.")]


Matchers = Annotated[
    list[Annotated[str, Field(max_length=MATCHER_CHARS_MAX)]],
    Field(
        min_length=1,
        max_length=MATCHERS_MAX,
        description='Label matchers, all of which must match: `service="api"`, `pod=~"web-.+"`, operators `=` `!=` `=~` `!~`.',
        examples=[['service="llm-api"', 'severity=~"P3|P4"']],
    ),
]
EndsAt = Annotated[WrittenTime | None, Field(description="When it ends, RFC 3339; or give `duration`.")]
Lasts = Annotated[
    WrittenDuration | None, Field(description="How long it lasts, like `2h`; or give `ends_at`.")
]


class SilenceRequest(BaseModel):
    """A new silence. It starts now unless `starts_at` says otherwise, and needs `ends_at` or `duration`."""

    model_config = ConfigDict(extra="forbid")

    matchers: Matchers
    starts_at: Annotated[WrittenTime | None, Field(description="When it starts, RFC 3339; null: now.")] = None
    ends_at: EndsAt = None
    duration: Lasts = None
    comment: Annotated[TextOrNone, Field(description="Why; shown wherever it mutes something.")] = ""
    annotations: Annotated[
        dict[str, str], Field(max_length=ANNOTATIONS_MAX, description="Annotations of the silence itself.")
    ] = {}
    force: Annotated[
        bool,
        Field(description="Make it even if it mutes more than `silences.force_share` of the firing alerts."),
    ] = False


class ExtendRequest(BaseModel):
    """A new end for a silence, a new comment, or both."""

    model_config = ConfigDict(extra="forbid")

    ends_at: EndsAt = None
    duration: Annotated[
        WrittenDuration | None, Field(description="How long from now, like `2h`; or give `ends_at`.")
    ] = None
    comment: Annotated[TextOrNone | None, Field(description="The new comment; null: keep the old one.")] = (
        None
    )


class PreviewRequest(BaseModel):
    """Matchers to try out."""

    model_config = ConfigDict(extra="forbid")

    matchers: Matchers


class StateName(StrEnum):
    """models.control.silences.SilenceState."""

    PENDING = "pending"
    ACTIVE = "active"
    EXPIRED = "expired"


class SilenceParams(BaseModel):
    """A page of a filtered list."""

    model_config = ConfigDict(extra="forbid")

    state: Annotated[
        list[Annotated[StateName, BeforeValidator(any_case(StateName))]],
        Field(max_length=3, description="Any of these; default `active` and `pending`."),
    ] = []
    match: Annotated[
        list[Annotated[str, Field(max_length=MATCHER_CHARS_MAX)]],
        Field(max_length=FILTER_VALUES_MAX, description="Only silences that have exactly this matcher."),
    ] = []
    created_by: Annotated[
        str | None, Field(max_length=1024, description="Only silences made or last changed by this name.")
    ] = None
    limit: Limit = PAGE_DEFAULT
    cursor: Annotated[
        str | None,
        Field(max_length=CURSOR_CHARS_MAX, description='The "next" of an earlier page of the same list.'),
    ] = None


_Id = Annotated[UUID, Path(description="The silence's id.")]
_May = Annotated[Caller, Depends(requires(RESPOND))]
_List = Annotated[SilenceParams, Query()]
_MISSING = {"404": "No silence has this id, or it expired more than five days ago."}
_BAD = {
    "400": "A field is wrong, named in `errors`.",
    "413": "The body is over 256 KiB.",
    "422": "This Idempotency-Key was used for another request.",
}
_FORCE = {
    "409": "It would mute more than `silences.force_share` of the firing alerts, and `force` is not set."
}
_OVER = {"409": "It has expired: make a new one."}


def add_silence_routes(
    app: FastAPI, desk: SilenceDesk, reads: Reads, bodies: BodyReader, settings: Callable[[], Settings]
) -> None:
    """The six routes."""
    new, longer, asked = BodyKind(SilenceRequest), BodyKind(ExtendRequest), BodyKind(PreviewRequest)

    async def create(request: Request, caller: _May, idempotency_key: IdempotencyKey = None) -> Response:
        """Make a silence. Within a second it mutes what it matches: nobody is notified of an incident whose firing alerts are all
        muted. If they still fire when it ends, notifications go out then."""
        wanted = await bodies.read(request, new)
        matchers = matchers_of(wanted.matchers)
        starts_at = desk.now if wanted.starts_at is None else time_of(wanted.starts_at, "starts_at")
        ends_at = _end(wanted.ends_at, wanted.duration, max(starts_at, desk.now), desk.now)
        if ends_at <= starts_at:
            raise Malformed("ends_at: expected a time after starts_at")
        identity = await desk.id_for(
            origin_of(request).delivery_id, digest_of("silence", b"", wanted.model_dump())
        )
        silence = SetSilence(
            identity,
            matchers,
            starts_at,
            ends_at,
            caller.name,
            wanted.comment,
            "",
            wanted.annotations,
        )
        check(wanted_of(silence, desk.now))
        firing, found = await reads.muted_by(matchers)
        muted = sum(found.values())
        if _needs_force(muted, firing, settings()) and not wanted.force:
            raise Conflict(
                f"it would mute {muted:,} of the {firing:,} firing alerts, and more than {settings().silences.force_share:.0%} "
                "needs force: check the preview, then send it again with force (--force)"
            )
        made = await desk.set(silence)
        response = json_response(MadeBody(_body(made, desk.now), muted, firing), 201)
        response.headers["Location"] = f"{PATH}/{made.id}"
        return response

    async def silences(params: _List) -> Response:
        """Silences, most recently changed first."""
        return json_response(await silences_page(desk, params))

    async def preview(request: Request, caller: _May) -> Response:
        """What a silence with these matchers would mute now. Makes nothing."""
        wanted = await bodies.read(request, asked)
        firing, found = await reads.muted_by(matchers_of(wanted.matchers))
        most = sorted(found, key=lambda identity: (-found[identity], identity))[:PREVIEW_SHOWN]
        views = {view.incident.id: view.incident for view in await reads.listing.get(most)}
        muted = sum(found.values())
        return json_response(
            PreviewBody(
                muted,
                firing,
                _needs_force(muted, firing, settings()),
                [
                    MutedIncidentBody(
                        UUID(bytes=each), views[each].title, found[each], max(found[each], views[each].firing)
                    )
                    for each in most
                    if each in views
                ],
                len(found),
            )
        )

    async def silence(silence_id: _Id) -> Response:
        """One silence."""
        return json_response(_body(await desk.find(str(silence_id)), desk.now))

    async def extend(silence_id: _Id, caller: _May, request: Request) -> Response:
        """Move the end of a silence that has not expired, later or earlier, or change its comment."""
        wanted = await bodies.read(request, longer)
        before = await desk.find(str(silence_id))
        if before.state(desk.now) is SilenceState.EXPIRED:
            raise Conflict("the silence has expired and can't be extended: make a new one")
        ends_at = before.ends_at
        if wanted.ends_at is not None or wanted.duration is not None or wanted.comment is None:
            ends_at = _end(wanted.ends_at, wanted.duration, desk.now, desk.now)
        changed = SetSilence(
            str(uuid4()),
            list(before.matchers),
            before.starts_at,
            ends_at,
            caller.name,
            before.comment if wanted.comment is None else wanted.comment,
            before.id,
            before.annotations,
        )
        return json_response(_body(await desk.set(changed), desk.now))

    async def expire(silence_id: _Id, caller: _May) -> Response:
        """End a silence now. Safe to repeat. For alerts that still fire, notifications go out now."""
        return json_response(_body(await desk.expire(str(silence_id), caller.name), desk.now))

    one = f"{PATH}/{{silence_id}}"
    example: dict[str, object] = {"matchers": ['service="llm-api"'], "duration": "2h", "comment": "deploy"}
    asks_new = asks_for(SilenceRequest, example)
    asks_longer = asks_for(ExtendRequest, {"duration": "2h"})
    asks_preview = asks_for(PreviewRequest, {"matchers": ['service="llm-api"']})
    routes = (
        Route(PATH, create, "POST", 201, MadeBody, {**_BAD, **_FORCE}, asks_new, RESPOND),
        Route(PATH, silences, "GET", 200, SilencesBody, {}, None, READ),
        Route(f"{PATH}/preview", preview, "POST", 200, PreviewBody, _BAD, asks_preview, RESPOND),
        Route(one, silence, "GET", 200, SilenceBody, _MISSING, None, READ),
        Route(
            f"{one}/extend",
            extend,
            "POST",
            200,
            SilenceBody,
            {**_BAD, **_MISSING, **_OVER},
            asks_longer,
            RESPOND,
        ),
        Route(one, expire, "DELETE", 200, SilenceBody, _MISSING, None, RESPOND),
    )
    add_routes(app, "silences", routes)
    describe_bodies(app, SilenceRequest, ExtendRequest, PreviewRequest)


def _needs_force(muted: int, firing: int, settings: Settings) -> bool:
    bounds = settings.silences
    return muted >= bounds.force_at_least and muted > bounds.force_share * firing


def _end(ends_at: str | None, duration: str | None, begins: float, now: float) -> float:
    """Raises Malformed."""
    if duration is not None and ends_at is None:
        return time_to_come(None, duration, ("ends_at", "duration"), begins)
    at = time_to_come(ends_at, duration, ("ends_at", "duration"), now)
    if not at:
        raise Malformed("ends_at: a silence must end: give ends_at or duration, before 2100")
    return at


async def silences_page(desk: SilenceDesk, params: SilenceParams) -> SilencesBody:
    """A page of silences. Raises Malformed for a bad matcher or cursor."""
    now, wanted = desk.now, matchers_of(params.match)
    states = {str(each) for each in params.state} or {StateName.ACTIVE, StateName.PENDING}
    found = sorted(
        (
            each
            for each in await desk.all()
            if each.state(now) in states
            and has_matchers(each, wanted)
            and params.created_by in (None, each.created_by)
        ),
        key=_place,
    )
    if params.cursor is not None:
        at, identity = decode_silence(params.cursor)
        found = [each for each in found if _place(each) > (-at, identity)]
    page = found[: params.limit]
    last = encode_silence(page[-1].updated_at, page[-1].id) if len(page) < len(found) else None
    return SilencesBody([_body(each, now) for each in page], last)


def _place(silence: Silence) -> tuple[float, str]:
    return -silence.updated_at, silence.id


def _body(silence: Silence, now: float) -> SilenceBody:
    return SilenceBody(
        UUID(silence.id),
        silence.state(now),
        written(silence.matchers),
        timestamp(silence.starts_at),
        timestamp(silence.ends_at),
        silence.created_by,
        silence.comment,
        timestamp(silence.updated_at),
        silence.annotations,
    )


def written(matchers: tuple[MatcherTuple, ...]) -> list[str]:
    """Matchers as people write them."""
    return [write_matcher(each) for each in matchers]
