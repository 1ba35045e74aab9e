"""/v1/heartbeats: makes, changes, lists, pauses and deletes heartbeats. Beats themselves come by services/ingest/formats/heartbeat.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Depends, FastAPI, Path, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from models.alerts.matchers import write_matcher
from models.control.heartbeats import (
    GRACE_DEFAULT_S,
    LABELS_MAX,
    MATCHERS_MAX,
    Heartbeat,
    check,
)
from models.control.heartbeats import TEXT_MAX as CHARS_MAX
from models.durations import duration_text
from models.incidents.incident import Severity
from services.api.auth import READ, RESPOND, Caller, requires
from services.api.heartbeats import HeartbeatDesk, HeartbeatState, Shown
from services.api.v1.bodies import json_response
from services.api.v1.fields import (
    LINE,
    SeverityName,
    SeverityWord,
    Time,
    WrittenDuration,
    any_case,
    duration_of,
    says,
)
from services.api.v1.incidents import PREFIX
from services.api.v1.list_params import MATCHER_CHARS_MAX, matchers_of
from services.api.v1.requests import BodyKind, BodyReader, asks_for, describe_bodies
from services.api.v1.route_table import Route, add_routes
from services.times import timestamp

PATH = f"{PREFIX}/heartbeats"
#: Heartbeats of one answer: 500 bytes each.
LIMIT_DEFAULT, LIMIT_MAX = 1000, 5000


@dataclass(frozen=True, slots=True)
class HeartbeatBody:
    """What must be heard from regularly."""

    name: Annotated[str, says("Its name.")]
    state: Annotated[
        HeartbeatState,
        says(
            "`new`: never heard, so nobody misses it. `up`: heard in time. `late`: within `grace`. `missed`: it stayed away, or "
            "reported a failure, and its incident is open. `paused`: nobody misses it."
        ),
    ]
    interval: Annotated[str, says("It must be heard at least this often.")]
    grace: Annotated[str, says("So much later it is missed.")]
    service: Annotated[str, says("The service of its incident.")]
    severity: Annotated[SeverityName, says("The severity of its incident.")]
    labels: Annotated[dict[str, str], says("Further labels of its alert.")]
    runbook: Annotated[str, says("What to do when it is missed: a link.")]
    matchers: Annotated[list[str], says("An alert that all of these match is a beat.")]
    last_beat_at: Annotated[Time | None, says("When it was heard last; null: never.")]
    due_at: Annotated[
        Time | None, says("When it is missed unless it is heard before; null: nobody waits for it.")
    ]
    missed_at: Annotated[Time | None, says("Since when it is missed; null: it is not.")]
    incident_id: Annotated[UUID | None, says("The incident about it, while it is missed.")]
    from_settings: Annotated[bool, says("The settings have it, and it is changed there.")]
    changed_at: Annotated[Time, says("When it was made or last changed.")]
    changed_by: Annotated[str, says("By whom.")]


@dataclass(frozen=True, slots=True)
class HeartbeatsBody:
    """A page of heartbeats, by name."""

    items: Annotated[list[HeartbeatBody], says("The heartbeats.")]
    next: Annotated[str | None, says("`after` of the next page; null on the last one.")]


class HeartbeatRequest(BaseModel):
    """A heartbeat as it is to be."""

    model_config = ConfigDict(extra="forbid")

    interval: Annotated[
        WrittenDuration,
        Field(description="It must be heard at least this often, 5s to 366d.", examples=["1d"]),
    ]
    grace: Annotated[
        WrittenDuration | None,
        Field(description=f"So much later it is missed; null: {duration_text(GRACE_DEFAULT_S)}."),
    ] = None
    service: Annotated[
        str | None,
        Field(
            max_length=CHARS_MAX, pattern=LINE, description="The service of its incident; null: its own name."
        ),
    ] = None
    severity: Annotated[SeverityWord, Field(description="The severity of its incident.")] = SeverityName.P2
    labels: Annotated[
        dict[str, str],
        Field(max_length=LABELS_MAX, description="Further labels of its alert, for routes and silences."),
    ] = {}
    runbook: Annotated[
        str, Field(max_length=CHARS_MAX, pattern=LINE, description="What to do when it is missed: a link.")
    ] = ""
    matchers: Annotated[
        list[Annotated[str, Field(max_length=MATCHER_CHARS_MAX)]],
        Field(
            max_length=MATCHERS_MAX,
            description="An alert that all of these match is a beat, and opens no incident.",
            examples=[['alertname="Watchdog"']],
        ),
    ] = []
    paused: Annotated[bool | None, Field(description="Nobody misses it; null: as it is.")] = None


class HeartbeatParams(BaseModel):
    """A page of a filtered list."""

    model_config = ConfigDict(extra="forbid")

    state: Annotated[
        list[Annotated[HeartbeatState, BeforeValidator(any_case(HeartbeatState))]],
        Field(max_length=len(HeartbeatState), description="Any of these; default all."),
    ] = []
    limit: Annotated[int, Field(ge=1, le=LIMIT_MAX, description="How many at most.")] = LIMIT_DEFAULT
    after: Annotated[str, Field(max_length=100, description='The "next" of the page before.')] = ""


_Name = Annotated[str, Path(max_length=100, description="The heartbeat's name.")]
_May = Annotated[Caller, Depends(requires(RESPOND))]
_List = Annotated[HeartbeatParams, Query()]
_MISSING = {"404": "There is no heartbeat of this name."}
_SETTINGS = {"409": "The settings have it (`heartbeats.expected`): change it there."}
_BAD = {
    "400": "A field is wrong, named in `errors` or in the detail.",
    "413": "The body is over 256 KiB, or there are too many heartbeats.",
}


def add_heartbeat_routes(app: FastAPI, desk: HeartbeatDesk, bodies: BodyReader) -> None:
    """The six routes."""
    kind = BodyKind(HeartbeatRequest)

    async def heartbeats(params: _List) -> Response:
        """Heartbeats, by name."""
        return json_response(await heartbeats_page(desk, params))

    async def heartbeat(name: _Name) -> Response:
        """One heartbeat."""
        return json_response(_body(await desk.find(name)))

    async def put(name: _Name, caller: _May, request: Request) -> Response:
        """Make a heartbeat, or change the one of this name; what the body leaves out is as in a new one. A new one is missed only after it was
        heard once. A change of its interval takes effect at once."""
        wanted = await bodies.read(request, kind)
        before = await desk.known(name)
        paused = before is not None and before.paused if wanted.paused is None else wanted.paused
        grace_s = GRACE_DEFAULT_S if wanted.grace is None else duration_of(wanted.grace, "grace")
        made = Heartbeat(
            name,
            duration_of(wanted.interval, "interval"),
            grace_s,
            wanted.service or name,
            Severity[wanted.severity.value],
            wanted.labels,
            wanted.runbook,
            tuple(matchers_of(wanted.matchers)),
            paused,
        )
        check(made)
        return json_response(_body(await desk.set(made, caller.name)), 201 if before is None else 200)

    async def delete(name: _Name, caller: _May) -> Response:
        """Delete a heartbeat. If it is missed, its incident is resolved."""
        await desk.remove(name, caller.name)
        return Response(status_code=204)

    async def pause(name: _Name, caller: _May) -> Response:
        """Nobody misses it until it goes on. If it is missed, its incident is resolved. Safe to repeat."""
        return json_response(_body(await desk.pause(name, True, caller.name)))

    async def resume(name: _Name, caller: _May) -> Response:
        """Wait for it again, a whole interval from now on. Safe to repeat."""
        return json_response(_body(await desk.pause(name, False, caller.name)))

    one = f"{PATH}/{{name}}"
    asks = asks_for(HeartbeatRequest, {"interval": "1d", "grace": "1h", "service": "db", "severity": "P1"})
    routes = (
        Route(PATH, heartbeats, "GET", 200, HeartbeatsBody, {}, None, READ),
        Route(one, heartbeat, "GET", 200, HeartbeatBody, _MISSING, None, READ),
        Route(one, put, "PUT", 200, HeartbeatBody, {**_BAD, **_SETTINGS}, asks, RESPOND),
        Route(one, delete, "DELETE", 204, None, {**_MISSING, **_SETTINGS}, None, RESPOND),
        Route(f"{one}/pause", pause, "POST", 200, HeartbeatBody, _MISSING, None, RESPOND),
        Route(f"{one}/resume", resume, "POST", 200, HeartbeatBody, _MISSING, None, RESPOND),
    )
    add_routes(app, "heartbeats", routes)
    describe_bodies(app, HeartbeatRequest)


async def heartbeats_page(desk: HeartbeatDesk, params: HeartbeatParams) -> HeartbeatsBody:
    """A page of heartbeats, by name."""
    states = set(params.state)
    found = [
        each
        for each in await desk.all()
        if each.heartbeat.name > params.after and (not states or each.state in states)
    ]
    page = found[: params.limit]
    after = page[-1].heartbeat.name if len(page) < len(found) else None
    return HeartbeatsBody([_body(each) for each in page], after)


def _body(shown: Shown) -> HeartbeatBody:
    heartbeat, pulse = shown.heartbeat, shown.pulse
    return HeartbeatBody(
        heartbeat.name,
        shown.state,
        duration_text(heartbeat.interval_s),
        duration_text(heartbeat.grace_s),
        heartbeat.service,
        SeverityName(heartbeat.severity.name),
        heartbeat.labels,
        heartbeat.runbook,
        [write_matcher(each) for each in heartbeat.matchers],
        _time(pulse.last_at),
        _time(pulse.due_at),
        _time(pulse.missed_at),
        UUID(bytes=pulse.incident_id) if pulse.incident_id else None,
        heartbeat.from_file,
        timestamp(heartbeat.changed_at),
        heartbeat.changed_by,
    )


def _time(at: float) -> str | None:
    return timestamp(at) if at else None
