"""/v1/oncall, shifts and calendars: who is on call, when that changes, and what would keep somebody from being told; and /v1/roster, which
takes all of it from one file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI, Path, Query, Request
from fastapi.responses import Response

from models.errors import Malformed
from models.people.oncall import Duty, Shift
from services.api.auth import ADMIN, READ, Caller, requires
from services.api.ical import CALENDAR_TYPE, calendar
from services.api.people import Now, PeopleDesk
from services.api.problems import AWAY, REFUSED, problems
from services.api.v1.bodies import json_response
from services.api.v1.fields import Time, WrittenTime, says, time_of
from services.api.v1.incidents import PREFIX
from services.api.v1.people import PEOPLE, SCHEDULES, Name
from services.api.v1.people_bodies import PlanBody, RosterRequest
from services.api.v1.requests import BodyKind, BodyReader, asks_for, describe_bodies
from services.times import timestamp

ONCALL, ROSTER = f"{PREFIX}/oncall", f"{PREFIX}/roster"
#: What a stretch without an end shows, and the longest one: a quarter.
STRETCH_DEFAULT_S, STRETCH_MAX_S = 14 * 86400.0, 92 * 86400.0
#: What a calendar shows: a week that was and a quarter to come.
BEHIND_S = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class ShiftBody:
    """A stretch of time in which the same person is on call."""

    starts_at: Annotated[Time, says("From when.")]
    ends_at: Annotated[Time, says("Until when.")]
    person: Annotated[str | None, says("Who; null: nobody.")]
    layer: Annotated[str | None, says("By which layer.")]
    override: Annotated[str | None, says("By which override.")]


@dataclass(frozen=True, slots=True)
class ShiftsBody:
    """Who is on call in a schedule, without holes."""

    items: Annotated[list[ShiftBody], says("In their order.")]


@dataclass(frozen=True, slots=True)
class OnCallBody:
    """Who is on call in a schedule at a moment."""

    schedule: Annotated[str, says("The schedule.")]
    person: Annotated[str | None, says("Who; null: nobody.")]
    layer: Annotated[str | None, says("By which layer.")]
    override: Annotated[str | None, says("By which override.")]
    until: Annotated[Time | None, says("Until when; null: for two weeks at least.")]
    next: Annotated[str | None, says("Who is next; null: nobody, or not within two weeks.")]
    time_zone: Annotated[str, says("The schedule's time zone.")]
    problem: Annotated[str | None, says("Why it can't be said who is on call; null: it can.")] = None


@dataclass(frozen=True, slots=True)
class OnCallsBody:
    """Who is on call, by schedule."""

    at: Annotated[Time, says("The moment.")]
    items: Annotated[list[OnCallBody], says("By schedule.")]


@dataclass(frozen=True, slots=True)
class ProblemsBody:
    """What would keep somebody from being told."""

    items: Annotated[list[str], says("In words; none when all is well.")]


_From = Annotated[WrittenTime | None, Query(alias="from", description="From when; default now.")]
_Until = Annotated[
    WrittenTime | None, Query(description="Until when; default two weeks later, at most 92 days.")
]
_At = Annotated[WrittenTime | None, Query(description="The moment; default now.")]
_Person = Annotated[str, Path(max_length=100, description="The person's name.")]
_Admin = Annotated[Caller, Depends(requires(ADMIN))]


def add_oncall_routes(app: FastAPI, desk: PeopleDesk, bodies: BodyReader) -> None:
    """The six routes."""
    file = BodyKind(RosterRequest)

    async def on_call(at: _At = None) -> Response:
        """Who is on call in each schedule, and who is next."""
        moment = desk.clock.now() if at is None else time_of(at, "at")
        return json_response(OnCallsBody(timestamp(moment), [_now(each) for each in await desk.now(moment)]))

    async def check(until: _Until = None) -> Response:
        """What would keep somebody from being told: gaps in schedules, people without contacts, names of what there is not."""
        _from, end = _stretch(desk, None, until)
        return json_response(ProblemsBody(await desk.problems(end)))

    async def shifts(name: Name, starts: _From = None, until: _Until = None) -> Response:
        """Who is on call in a schedule over a stretch of time, without holes: where nobody is, a shift says so."""
        begin, end = _stretch(desk, starts, until)
        return json_response(ShiftsBody([_shift(each) for each in await desk.shifts(name, begin, end)]))

    async def schedule_calendar(name: Name) -> Response:
        """The shifts of a schedule as iCalendar, for calendar programs: from a week ago until a quarter ahead."""
        now = desk.clock.now()
        found = await desk.shifts(name, now - BEHIND_S, now + STRETCH_MAX_S)
        return _calendar(f"On call: {name}", [(name, each) for each in found], now)

    async def person_calendar(person: _Person) -> Response:
        """The shifts of a person in all schedules, as iCalendar."""
        await desk.find("person", person)
        now = desk.clock.now()
        found = [
            (name, each)
            for name in sorted((await desk.roster()).schedules)
            for each in await desk.shifts(name, now - BEHIND_S, now + STRETCH_MAX_S)
            if each.duty is not None and each.duty.person == person
        ]
        return _calendar(f"{person} on call", found, now)

    async def apply(request: Request, caller: _Admin) -> Response:
        """Make people, schedules and escalation policies as the body says, all at once or not at all. The same body again changes
        nothing."""
        wanted = await bodies.read(request, file)
        plan = await desk.apply(wanted.made(), caller.name, prune=wanted.prune, dry_run=wanted.dry_run)
        found = [] if wanted.dry_run else await desk.problems(desk.clock.now() + STRETCH_DEFAULT_S)
        return json_response(PlanBody(plan.created, plan.changed, plan.removed, plan.unchanged, found))

    missing = {"404": "There is none of this name."}
    bad = {
        "400": "A field is wrong, named in `errors` or in the detail.",
        "409": "Something is named that does not exist, or removed and still named; the detail says where.",
        "413": "The body is over 256 KiB, or there is too much of something.",
    }
    asks = asks_for(RosterRequest, {"people": {"ana": {"contacts": [{"receiver": "ops"}]}}, "dry_run": True})
    ics = {"content": {CALENDAR_TYPE: {"schema": {"type": "string"}}}}
    for path, endpoint, method, body, failures, said, scope in (
        (ONCALL, on_call, "GET", OnCallsBody, {}, None, READ),
        (f"{ONCALL}/check", check, "GET", ProblemsBody, {}, None, READ),
        (f"{SCHEDULES}/{{name}}/shifts", shifts, "GET", ShiftsBody, missing, None, READ),
        (f"{SCHEDULES}/{{name}}/calendar.ics", schedule_calendar, "GET", None, missing, None, READ),
        (f"{PEOPLE}/{{person}}/calendar.ics", person_calendar, "GET", None, missing, None, READ),
        (ROSTER, apply, "PUT", PlanBody, bad, asks, ADMIN),
    ):
        described = problems(REFUSED, failures, AWAY)
        if path.endswith(".ics"):
            described[200] = {"description": "iCalendar (RFC 5545).", **ics}
        app.add_api_route(
            path,
            endpoint,
            methods=[method],
            response_model=body,
            responses=described,
            dependencies=[Depends(requires(scope))],
            openapi_extra=said,
            tags=["people"],
        )
    describe_bodies(app, RosterRequest)


def _stretch(desk: PeopleDesk, starts: str | None, until: str | None) -> tuple[float, float]:
    begin = desk.clock.now() if starts is None else time_of(starts, "from")
    end = begin + STRETCH_DEFAULT_S if until is None else time_of(until, "until")
    if not 0 < end - begin <= STRETCH_MAX_S:
        raise Malformed("until: expected a time after `from`, at most 92 days later")
    return begin, end


def _now(found: Now) -> OnCallBody:
    return OnCallBody(
        found.schedule.name,
        *_of(found.duty),
        timestamp(found.until) if found.until else None,
        None if found.next is None or found.next.duty is None else found.next.duty.person,
        found.schedule.time_zone,
        found.problem or None,
    )


def _shift(shift: Shift) -> ShiftBody:
    return ShiftBody(timestamp(shift.starts_at), timestamp(shift.ends_at), *_of(shift.duty))


def _of(duty: Duty | None) -> tuple[str | None, str | None, str | None]:
    return (None, None, None) if duty is None else (duty.person, duty.layer or None, duty.override or None)


def _calendar(name: str, found: list[tuple[str, Shift]], now: float) -> Response:
    return Response(calendar(name, found, now), media_type=CALENDAR_TYPE)
