"""/v1/people, /v1/schedules and /v1/escalations: makes, changes, lists and removes people, schedules with their overrides, and escalation
policies. Who is on call by them: oncall.py."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Path, Request
from fastapi.responses import Response

from models.errors import Malformed, NotFound
from models.people.person import Person
from models.people.policy import PERSON, SCHEDULE, Policy
from models.people.roster import OVERRIDE, POLICY, Entry
from models.people.schedule import Override, Schedule
from services.api.auth import ADMIN, READ, RESPOND, Caller, requires
from services.api.people import PeopleDesk
from services.api.v1.bodies import etag, json_response
from services.api.v1.fields import duration_of, time_of
from services.api.v1.incidents import PREFIX
from services.api.v1.people_bodies import (
    OverrideBody,
    OverrideRequest,
    OverridesBody,
    PeopleBody,
    PersonBody,
    PersonRequest,
    PoliciesBody,
    PolicyBody,
    PolicyRequest,
    ScheduleBody,
    ScheduleRequest,
    SchedulesBody,
    override_body,
    person_body,
    policy_body,
    schedule_body,
)
from services.api.v1.requests import (
    BodyKind,
    BodyReader,
    IdempotencyKey,
    IfMatch,
    asks_for,
    describe_bodies,
    versions_of,
)
from services.api.v1.route_table import Route, add_routes

PEOPLE, SCHEDULES, ESCALATIONS = f"{PREFIX}/people", f"{PREFIX}/schedules", f"{PREFIX}/escalations"
OVERRIDES = f"{SCHEDULES}/{{name}}/overrides"

Name = Annotated[str, Path(max_length=100, description="Its name.")]
_Id = Annotated[str, Path(max_length=100, description="The override's id.")]
_May = Annotated[Caller, Depends(requires(RESPOND))]
_Admin = Annotated[Caller, Depends(requires(ADMIN))]
_Reader = Annotated[Caller, Depends(requires(READ))]
_MISSING = {"404": "There is none of this name."}
_STALE = {"412": "Its version is not the one in If-Match: read it again."}
_BAD = {
    "400": "A field is wrong, named in `errors` or in the detail.",
    "413": "It is too large, or there are too many.",
}
_USED = {"409": "It names what does not exist, or is named itself; the detail says by what."}


@dataclass(frozen=True, slots=True)
class _Kind:
    """People, schedules or policies: how they are read, made and shown."""

    path: str
    kind: str
    request: Any
    body: type
    bodies: type
    entries: Callable[[Any], dict[str, Any]]
    shown: Callable[[Any, int, bool], object]
    example: dict[str, object]


_KINDS = (
    _Kind(
        PEOPLE,
        PERSON,
        PersonRequest,
        PersonBody,
        PeopleBody,
        lambda roster: roster.people,
        lambda found, version, whole: person_body(found, version, whole=whole),
        {
            "full_name": "Ana Alvarez",
            "time_zone": "Europe/Madrid",
            "contacts": [{"receiver": "mail", "address": "ana@example.org"}],
        },
    ),
    _Kind(
        SCHEDULES,
        SCHEDULE,
        ScheduleRequest,
        ScheduleBody,
        SchedulesBody,
        lambda roster: roster.schedules,
        lambda found, version, _whole: schedule_body(found, version),
        {
            "time_zone": "Europe/Berlin",
            "layers": [
                {"name": "week", "people": ["ana", "ben"], "every": "1w", "starts": "2026-11-30T09:00"}
            ],
        },
    ),
    _Kind(
        ESCALATIONS,
        POLICY,
        PolicyRequest,
        PolicyBody,
        PoliciesBody,
        lambda roster: roster.policies,
        lambda found, version, _whole: policy_body(found, version),
        {"levels": [{"tell": ["schedule:primary"], "timeout": "5m"}], "repeat": 2},
    ),
)


def add_people_routes(app: FastAPI, desk: PeopleDesk, bodies: BodyReader) -> None:
    """Four routes of each kind, and those of overrides."""
    for kind in _KINDS:
        _add_kind(app, desk, bodies, kind)
    _add_overrides(app, desk, bodies)
    describe_bodies(app, PersonRequest, ScheduleRequest, PolicyRequest, OverrideRequest)


def _add_kind(app: FastAPI, desk: PeopleDesk, bodies: BodyReader, kind: _Kind) -> None:
    reads: BodyKind[Any] = BodyKind(kind.request)

    async def every(caller: _Reader) -> Response:
        whole = RESPOND in caller.scopes
        found = sorted(kind.entries(await desk.roster()).items())
        return json_response(
            kind.bodies([kind.shown(each, desk.version_of(each), whole) for _name, each in found])
        )

    async def one(name: Name, caller: _Reader) -> Response:
        found = await desk.find(kind.kind, name)
        return _answer(kind, found.entry, found.version, RESPOND in caller.scopes)

    async def put(name: Name, caller: _Admin, request: Request, if_match: IfMatch = None) -> Response:
        wanted: Entry = (await bodies.read(request, reads)).made(name)
        known, is_new = await desk.put(wanted, caller.name, versions_of(if_match))
        return _answer(kind, known.entry, known.version, True, 201 if is_new else 200)

    async def delete(name: Name, caller: _Admin, if_match: IfMatch = None) -> Response:
        await desk.remove(kind.kind, name, caller.name, versions_of(if_match))
        return Response(status_code=204)

    what = {PERSON: "person", SCHEDULE: "schedule", POLICY: "escalation policy"}[kind.kind]
    many = {PERSON: "people", SCHEDULE: "schedules", POLICY: "escalation policies"}[kind.kind]
    article = "an" if what[0] == "e" else "a"
    named = f"{kind.path}/{{name}}"
    routes = (
        Route(kind.path, every, "GET", 200, kind.bodies, {}, None, READ, f"All {many}, by name."),
        Route(named, one, "GET", 200, kind.body, _MISSING, None, READ, f"One {what}."),
        Route(
            named,
            put,
            "PUT",
            200,
            kind.body,
            {**_BAD, **_USED, **_STALE},
            asks_for(kind.request, kind.example),
            ADMIN,
            f"Make {article} {what}, or change the one of this name; what the body leaves out is as in a new one.",
        ),
        Route(
            named,
            delete,
            "DELETE",
            204,
            None,
            {**_MISSING, **_USED, **_STALE},
            None,
            ADMIN,
            f"Remove {article} {what} that nothing names any more.",
        ),
    )
    add_routes(app, "people", routes)


def _add_overrides(app: FastAPI, desk: PeopleDesk, bodies: BodyReader) -> None:
    reads = BodyKind(OverrideRequest)

    async def overrides(name: Name) -> Response:
        """Overrides of a schedule that are not over, by their start."""
        await desk.schedule(name)
        now = desk.clock.now()
        found = [each for each in (await desk.roster()).overrides_of(name) if each.ends_at > now]
        found.sort(key=lambda each: (each.starts_at, each.id))
        return json_response(OverridesBody([override_body(each) for each in found]))

    async def add(
        name: Name, caller: _May, request: Request, idempotency_key: IdempotencyKey = None
    ) -> Response:
        """Have somebody else be on call for a while, from now on or from a time to come."""
        wanted = await bodies.read(request, reads)
        await desk.schedule(name)
        now = desk.clock.now()
        starts_at = now if wanted.starts_at is None else time_of(wanted.starts_at, "starts_at")
        made = Override(
            _id_of(caller.name, name, idempotency_key),
            name,
            wanted.person,
            starts_at,
            _end_of(wanted, starts_at, now),
            now,
            caller.name,
            wanted.reason,
        )
        await desk.put(made, caller.name)
        return json_response(override_body(made), 201)

    async def delete(name: Name, override: _Id, caller: _May) -> Response:
        """Take an override back: from now on the layers count again. Safe to repeat."""
        found = (await desk.roster()).overrides.get(override)
        if found is None or found.schedule != name:
            raise NotFound(f"schedule {name[:100]!r} has no override {override[:100]!r}")
        await desk.remove(OVERRIDE, override, caller.name)
        return Response(status_code=204)

    asks = asks_for(OverrideRequest, {"person": "ben", "ends_in": "8h", "reason": "dentist"})
    routes = (
        Route(OVERRIDES, overrides, "GET", 200, OverridesBody, _MISSING, None, READ),
        Route(OVERRIDES, add, "POST", 201, OverrideBody, {**_BAD, **_MISSING, **_USED}, asks, RESPOND),
        Route(f"{OVERRIDES}/{{override}}", delete, "DELETE", 204, None, _MISSING, None, RESPOND),
    )
    add_routes(app, "people", routes)


def _answer(kind: _Kind, entry: Any, version: int, whole: bool, status: int = 200) -> Response:
    assert isinstance(entry, Person | Schedule | Policy)
    answer = json_response(kind.shown(entry, version, whole), status)
    answer.headers["ETag"] = etag(version)
    return answer


def _id_of(actor: str, schedule: str, key: str | None) -> str:
    """The same for the same request, sent again."""
    if key is None:
        return uuid.uuid4().hex[:16]
    return hashlib.blake2b(f"{actor}\n{schedule}\n{key}".encode(), digest_size=8).hexdigest()


def _end_of(wanted: OverrideRequest, starts_at: float, now: float) -> float:
    if (wanted.ends_at is None) == (wanted.ends_in is None):
        raise Malformed("ends_at: give ends_at or ends_in, one of them")
    if wanted.ends_in is not None:
        return starts_at + duration_of(wanted.ends_in, "ends_in")
    ends_at = time_of(wanted.ends_at or "", "ends_at")
    if ends_at <= now:
        raise Malformed("ends_at: expected a time in the future")
    return ends_at
