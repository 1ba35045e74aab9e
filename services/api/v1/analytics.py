"""/v1/analytics: how fast incidents are answered and end, how many are noise, and what playbooks repair; and the rows that this is
counted from. docs/analytics.md defines each figure."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

import msgspec
from fastapi import FastAPI, Query
from fastapi.responses import Response
from pydantic import BeforeValidator, Field

from models.analytics.figures import By, Group, figures
from models.analytics.rows import Row, row_of
from models.errors import Busy, Malformed
from models.incidents.filters import IncidentFilter
from models.incidents.incident import IncidentState, IncidentType
from models.ports import Clock
from services.analytics.gather import gather
from services.api.auth import READ
from services.api.reads import Reads
from services.api.v1.bodies import json_response
from services.api.v1.fields import (
    NameOrNone,
    SeverityName,
    Time,
    WrittenDuration,
    any_case,
    duration_of,
    says,
)
from services.api.v1.incidents import PREFIX
from services.api.v1.list_params import PAGE_DEFAULT, Cursor, FilterParams, Limit
from services.api.v1.route_table import Route, add_routes
from services.api.v1.stats import WINDOW_MAX_S, TimesBody, times_of
from services.times import timestamp

INCIDENTS, ROWS = f"{PREFIX}/analytics/incidents", f"{PREFIX}/analytics/rows"
#: Groups of one answer: all services of a large installation, or a quarter of days.
GROUPS_MAX = 1000
#: Answers in the making at once in a gateway: each holds up to 25 MB of rows.
AT_ONCE = 2


class AnalyticsParams(FilterParams):
    """A window of creation, which incidents, and by what."""

    window: Annotated[
        WrittenDuration,
        Field(description='Incidents created in this time until now: "1d", "7d"; at most 92d.'),
    ] = "7d"
    by: Annotated[
        By,
        Field(
            description="`nothing`, `severity`, `type`, `service`, `label`, `day` or `week` (UTC, of creation)."
        ),
        BeforeValidator(any_case(By)),
    ] = By.NOTHING
    label: Annotated[NameOrNone, Field(description="With `by=label`: which, such as `team`.")] = ""
    limit: Annotated[
        int, Field(ge=1, le=GROUPS_MAX, description="Groups at most; `other_groups` counts the rest.")
    ] = GROUPS_MAX


class RowParams(FilterParams):
    """A page of rows."""

    window: Annotated[
        WrittenDuration | None,
        Field(description="Incidents created in this time until now; null: all that match, however old."),
    ] = None
    limit: Limit = PAGE_DEFAULT
    cursor: Cursor = None


@dataclass(frozen=True, slots=True)
class GroupBody:
    """What the incidents of one group say. Shares are of its incidents that are over, 0 to 1; null: none is."""

    key: Annotated[
        str,
        says("Which group: `P1`, `llm-api`, `2026-01-31`, `2026-W05`; empty: all, or without this label."),
    ]
    incidents: Annotated[int, says("How many were created in the window.")]
    over: Annotated[int, says("How many of those are over: resolved or closed.")]
    answered: Annotated[int, says("How many somebody acknowledged, was assigned to or commented.")]
    told: Annotated[int, says("Of how many somebody may have been notified.")]
    muted: Annotated[int, says("Of how many nobody was notified because they are muted.")]
    ended_alone: Annotated[int, says("How many ended without a person or a playbook.")]
    noise: Annotated[int, says("How many ended alone, and nobody did anything about them.")]
    noise_share: Annotated[float | None, says("`noise` of `over`.")]
    ended_alone_share: Annotated[float | None, says("`ended_alone` of `over`.")]
    reopened: Annotated[int, says("How many reopened.")]
    flapping: Annotated[int, says("How many reopened twice or more.")]
    alerts: Annotated[int, says("Alerts (series) of all of them.")]
    alerts_per_incident: Annotated[float, says("The mean.")]
    repaired: Annotated[
        int, says("How many are over after a run of a playbook changed something and succeeded.")
    ]
    saved_s: Annotated[
        float | None,
        says("About how much open time those repairs saved, in seconds; null: too few to compare."),
    ]
    time_to_detect: Annotated[
        TimesBody, says("From when the alert that opened it began, by its sender's clock, until it opened.")
    ]
    time_to_notify: Annotated[
        TimesBody, says("From the first opening until a receiver accepted a notification.")
    ]
    time_to_acknowledge: Annotated[
        TimesBody, says("From the first opening to the first acknowledgement or assignment.")
    ]
    time_to_resolve: Annotated[TimesBody, says("How long they were open, for those that are over.")]


@dataclass(frozen=True, slots=True)
class AnalyticsBody:
    """Figures of the incidents that were created in a window. Children of merged incidents are not counted, only their parents."""

    at: Annotated[Time, says("When they were gathered.")]
    since: Annotated[Time, says("When the window begins.")]
    by: Annotated[By, says("What the groups are.")]
    total: Annotated[GroupBody, says("All of them.")]
    groups: Annotated[list[GroupBody], says("In their own order, else with the most incidents first.")]
    other_groups: Annotated[int, says("How many groups were left out.")]
    complete: Annotated[
        bool, says("False when there are more incidents than are counted; the oldest are left out.")
    ]


@dataclass(frozen=True, slots=True)
class RowBody:
    """One incident, flat."""

    id: Annotated[UUID, says("Its id.")]
    title: Annotated[str, says("Its title.")]
    service: Annotated[str, says("Its service.")]
    severity: Annotated[SeverityName, says("Its severity.")]
    type: Annotated[IncidentType, says("Its type.")]
    state: Annotated[IncidentState, says("Its state.")]
    created_at: Annotated[Time, says("When it opened first.")]
    resolved_at: Annotated[Time | None, says("When it was resolved last; null: it is open.")]
    closed_at: Annotated[Time | None, says("When it was closed; null: it is not.")]
    detect_s: Annotated[
        float | None,
        says("From when the alert that opened it began, by its sender's clock; null: not known."),
    ]
    notify_s: Annotated[
        float | None, says("From its first opening until a receiver accepted a notification.")
    ]
    acknowledge_s: Annotated[
        float | None, says("From its first opening to its first acknowledgement or assignment.")
    ]
    resolve_s: Annotated[float | None, says("How long it was open in all; null: it still is.")]
    alerts: Annotated[int, says("Its alerts (series), without those of its children.")]
    reopened: Annotated[int, says("How often it reopened.")]
    answered: Annotated[bool, says("Somebody acknowledged it, was assigned or commented.")]
    told: Annotated[bool, says("Somebody may have been notified.")]
    muted: Annotated[bool, says("Nobody was notified because it is muted.")]
    noise: Annotated[bool, says("It ended alone, and nobody did anything about it.")]
    resolution_method: Annotated[str, says("Automated, Manual or AutoAssistedManual; empty: it is open.")]
    repaired_by: Annotated[
        str, says("The playbook whose run changed something and succeeded last; empty: none.")
    ]
    labels: Annotated[dict[str, str], says("Its labels.")]


@dataclass(frozen=True, slots=True)
class RowsBody:
    """A page of rows, newest first. It may be short, even empty, and still have a next one."""

    items: Annotated[list[RowBody], says("The rows.")]
    next: Annotated[str | None, says("The cursor of the next page; null on the last one.")]


def add_analytics_routes(app: FastAPI, reads: Reads, clock: Clock) -> None:
    """The two routes."""
    room = asyncio.Semaphore(AT_ONCE)

    async def incidents(params: Annotated[AnalyticsParams, Query()]) -> Response:
        """Figures of the incidents that match and were created in the window, in groups. Counted on request."""
        if (params.by is By.LABEL) != bool(params.label):
            raise Malformed("label: give it with by=label, and only then")
        now = clock.now()
        since = _since(params.window, now, longest_s=WINDOW_MAX_S)
        if room.locked():
            raise Busy(f"{AT_ONCE} of these are counted already: try again")
        async with room:
            found = await gather(reads.asking, _wanted(params, since), params.label)
            groups, [total] = await asyncio.to_thread(
                lambda: (
                    figures(found.items, params.by, params.label),
                    figures(found.items, By.NOTHING) or [Group("")],
                )
            )
        shown = [] if params.by is By.NOTHING else groups[: params.limit]
        body = AnalyticsBody(
            timestamp(now),
            timestamp(since),
            params.by,
            _group(total),
            [*map(_group, shown)],
            0 if params.by is By.NOTHING else len(groups) - len(shown),
            found.is_complete,
        )
        return json_response(body)

    async def rows(params: Annotated[RowParams, Query()]) -> Response:
        """The incidents that match as flat rows, newest first: what the figures are counted from, for spreadsheets and other
        programs. Each says of itself what it needs no other for."""
        since = 0.0 if params.window is None else _since(params.window, clock.now())
        page = await reads.listing.page(_wanted(params, since), limit=params.limit, cursor=params.cursor)
        return json_response(RowsBody([_row(row_of(view)) for view in page.items], page.next))

    routes = (
        Route(INCIDENTS, incidents, "GET", 200, AnalyticsBody, {}, None, READ),
        Route(ROWS, rows, "GET", 200, RowsBody, {}, None, READ),
    )
    add_routes(app, "analytics", routes)


def _since(window: str, now: float, longest_s: float = float("inf")) -> float:
    window_s = duration_of(window, "window")
    if not 0 < window_s <= longest_s:
        most = "" if longest_s == float("inf") else f" and at most {longest_s / 86400:g}d"
        raise Malformed(f"window: expected more than 0{most}")
    return max(0.0, now - window_s)


def _wanted(params: FilterParams, since: float) -> IncidentFilter:
    wanted = params.wanted()
    return msgspec.structs.replace(wanted, created_after=max(wanted.created_after, since))


def _group(found: Group) -> GroupBody:
    def share(part: int) -> float | None:
        return round(part / found.over, 4) if found.over else None

    return GroupBody(
        found.key,
        found.incidents,
        found.over,
        found.answered,
        found.told,
        found.muted,
        found.alone,
        found.noise,
        share(found.noise),
        share(found.alone),
        found.reopened,
        found.flapping,
        found.alerts,
        round(found.alerts / found.incidents, 2) if found.incidents else 0.0,
        found.repaired,
        None if (saved := found.saved_s) is None else round(saved, 1),
        times_of(found.detect_s),
        times_of(found.notify_s),
        times_of(found.acknowledge_s),
        times_of(found.resolve_s),
    )


def _row(row: Row) -> RowBody:
    return RowBody(
        UUID(bytes=row.id),
        row.title,
        row.service,
        SeverityName(row.severity.name),
        row.type,
        row.state,
        timestamp(row.created_at),
        _time(row.resolved_at),
        _time(row.closed_at),
        _s(row.detect_s),
        _s(row.notify_s),
        _s(row.acknowledge_s),
        _s(row.resolve_s),
        row.alerts,
        row.reopened,
        row.answered,
        row.told,
        row.muted,
        row.is_noise,
        row.method,
        row.repaired_by,
        row.labels,
    )


def _time(at: float) -> str | None:
    return timestamp(at) if at else None


def _s(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
