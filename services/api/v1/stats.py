"""GET /v1/stats: how many incidents there are, of which kind, and how fast people answer and end them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI, Query
from fastapi.responses import Response
from pydantic import Field

from models.analytics.figures import at_percent
from models.errors import Malformed
from models.incidents.incident import IncidentState, IncidentType, Severity
from models.ports import Clock
from models.shard.messages import Decision
from services.api.auth import READ, requires
from services.api.problems import AWAY, REFUSED, problems
from services.api.reads import Reads
from services.api.v1.bodies import json_response
from services.api.v1.fields import Time, WrittenDuration, duration_of
from services.api.v1.incidents import PREFIX
from services.api.v1.list_params import FilterParams
from services.api.v1.statistics import Figures, gather
from services.times import timestamp

#: Services that are named; the others are counted together.
SERVICES_TOLD = 20
#: The longest window: a quarter of a year, what the archive keeps by default.
WINDOW_MAX_S = 92 * 86400.0


@dataclass(frozen=True, slots=True)
class TimesBody:
    """How long something took, over the incidents of the window. Null when there were none."""

    count: Annotated[int, Field(description="Over how many incidents it was measured.")]
    mean_s: Annotated[float | None, Field(description="The mean, in seconds.")]
    p50_s: Annotated[float | None, Field(description="The median, in seconds.")]
    p90_s: Annotated[float | None, Field(description="The 90th percentile, in seconds.")]
    p99_s: Annotated[float | None, Field(description="The 99th percentile, in seconds.")]


@dataclass(frozen=True, slots=True)
class ServiceBody:
    """A service and its open incidents."""

    service: Annotated[str, Field(description="Its name.")]
    open: Annotated[int, Field(description="How many open incidents it has.")]


@dataclass(frozen=True, slots=True)
class AlertStatsBody:
    """Decisions about alerts since each shard last started; filters do not apply."""

    by_decision: Annotated[dict[str, int], Field(description="Alerts by decision, in lower case.")]
    dedup_ratio: Annotated[
        float | None,
        Field(description="The share that were repeats or duplicates, 0 to 1; null: there were no alerts."),
    ]


@dataclass(frozen=True, slots=True)
class StatsBody:
    """Figures about incidents. Children of merged incidents are not counted, only their parents."""

    at: Annotated[Time, Field(description="When these figures were gathered, RFC 3339 in UTC.")]
    window_s: Annotated[float, Field(description="How far back the times and `opened` reach, in seconds.")]
    open: Annotated[int, Field(description="Open incidents: neither resolved nor closed.")]
    acknowledged: Annotated[int, Field(description="Open incidents that somebody acknowledged.")]
    unassigned: Annotated[
        int, Field(description="Open incidents that nobody is assigned to or has a role in.")
    ]
    overdue: Annotated[int, Field(description="Open incidents past one of their response targets.")]
    by_state: Annotated[
        dict[str, int],
        Field(
            description="Incidents by state. `Closed` counts those still in a shard and those archived in the window."
        ),
    ]
    by_severity: Annotated[dict[str, int], Field(description="Open incidents by severity.")]
    by_type: Annotated[dict[str, int], Field(description="Open incidents by type.")]
    by_service: Annotated[
        list[ServiceBody], Field(description=f"The {SERVICES_TOLD} services with the most open incidents.")
    ]
    other_services: Annotated[int, Field(description="Open incidents of all other services.")]
    opened: Annotated[int, Field(description="Incidents created in the window.")]
    resolved: Annotated[int, Field(description="Incidents resolved in the window, and not open again.")]
    time_to_acknowledge: Annotated[
        TimesBody,
        Field(
            description="From opening to the first acknowledgement or assignment, for incidents answered in the window."
        ),
    ]
    time_to_resolve: Annotated[
        TimesBody, Field(description="From opening to resolution, for incidents resolved in the window.")
    ]
    alerts: Annotated[AlertStatsBody, Field(description="What was decided about alerts.")]
    complete: Annotated[
        bool, Field(description="False when the window holds more archived incidents than are counted.")
    ]


class StatsParams(FilterParams):
    """A window, and which incidents."""

    window: Annotated[WrittenDuration, Field(description='How far back: "1h", "7d"; at most 92d.')] = "24h"


def add_stats_route(app: FastAPI, reads: Reads, clock: Clock) -> None:
    """GET /v1/stats."""

    async def stats(params: Annotated[StatsParams, Query()]) -> Response:
        """Figures about the incidents that match the filters: now, and over a window. Counted on request."""
        return json_response(await stats_of(reads, clock, params))

    app.add_api_route(
        f"{PREFIX}/stats",
        stats,
        methods=["GET"],
        response_model=StatsBody,
        responses=problems(REFUSED, AWAY),
        dependencies=[Depends(requires(READ))],
        tags=["incidents"],
    )


async def stats_of(reads: Reads, clock: Clock, params: StatsParams) -> StatsBody:
    """The figures. Raises Malformed for a bad window, Unavailable."""
    window_s = duration_of(params.window, "window")
    if not 0 < window_s <= WINDOW_MAX_S:
        raise Malformed(f"window: expected more than 0 and at most {WINDOW_MAX_S / 86400:g}d")
    now = clock.now()
    figures = await gather(reads.asking, params.wanted(), now=now, since=now - window_s)
    return _body(figures, now, window_s)


def _body(figures: Figures, now: float, window_s: float) -> StatsBody:
    services = sorted(figures.services.items(), key=lambda each: (-each[1], each[0]))
    told = services[:SERVICES_TOLD]
    alerts = sum(figures.decided.values())
    repeats = figures.decided[Decision.REPEATED] + figures.decided[Decision.DUPLICATE]
    return StatsBody(
        at=timestamp(now),
        window_s=window_s,
        open=sum(figures.severities.values()),
        acknowledged=figures.acknowledged,
        unassigned=figures.unassigned,
        overdue=figures.overdue,
        by_state={str(state): figures.states[state] for state in IncidentState},
        by_severity={severity.name: figures.severities[severity] for severity in Severity},
        by_type={str(kind): figures.types[kind] for kind in IncidentType},
        by_service=[ServiceBody(service, count) for service, count in told],
        other_services=sum(count for _service, count in services[SERVICES_TOLD:]),
        opened=figures.opened,
        resolved=len(figures.resolved_s),
        time_to_acknowledge=times_of(figures.acknowledged_s),
        time_to_resolve=times_of(figures.resolved_s),
        alerts=AlertStatsBody(
            {
                decision.name.lower(): figures.decided[decision]
                for decision in Decision
                if decision in figures.decided
            },
            round(repeats / alerts, 6) if alerts else None,
        ),
        complete=figures.is_complete,
    )


def times_of(found: Sequence[float]) -> TimesBody:
    """How long something took: the mean, and percentiles by nearest rank."""
    if not found:
        return TimesBody(0, None, None, None, None)
    ordered = sorted(found)
    p50, p90, p99 = (round(at_percent(ordered, percent), 3) for percent in (50, 90, 99))
    return TimesBody(len(ordered), round(math.fsum(ordered) / len(ordered), 3), p50, p90, p99)
