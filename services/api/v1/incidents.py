"""GET /v1/incidents, one incident, its alerts, its history; GET /v1/alerts."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import Depends, FastAPI, Path
from fastapi.responses import Response

from models.errors import NotFound
from services.api.auth import READ, requires
from services.api.problems import AWAY, NOT_FOUND, REFUSED, problems
from services.api.reads import Alerts, Reads
from services.api.v1.bodies import (
    AlertsBody,
    IncidentBody,
    IncidentsBody,
    TimelinesBody,
    alert_body,
    etag,
    incident_body,
    json_response,
    timeline_body,
)
from services.api.v1.list_params import AlertList, IncidentAlertList, List, Nothing, matchers_of

#: The prefix of every path here.
PREFIX = "/v1"

IncidentId = Annotated[UUID, Path(description="The incident's id.")]


class NoSuchIncident(NotFound):
    """Neither a shard nor the archive has an incident of this id."""

    def __init__(self, incident_id: UUID) -> None:
        super().__init__(f"there is no incident {incident_id}")


def add_incident_routes(app: FastAPI, reads: Reads) -> None:
    """What of incidents and alerts can be read."""

    async def incidents(params: List) -> Response:
        """Incidents, newest first unless `sort` says otherwise. Several values of one filter mean any of them;
        different filters must all match. A page may be short, even empty, and still have a next one."""
        page = await reads.listing.page(
            params.wanted(), sort=params.sort, limit=params.limit, cursor=params.cursor
        )
        counted = await reads.counted(page.items)
        return json_response(IncidentsBody([*map(incident_body, page.items, counted)], page.next))

    async def incident(incident_id: IncidentId, _none: Nothing) -> Response:
        """One incident, with its version as ETag."""
        found = await reads.incident(incident_id.bytes)
        if found is None:
            raise NoSuchIncident(incident_id)
        [counted] = await reads.counted([found.view])
        response = json_response(incident_body(found.view, counted))
        response.headers["ETag"] = etag(found.view.incident.version)
        return response

    async def incident_alerts(incident_id: IncidentId, params: IncidentAlertList) -> Response:
        """An incident's alerts, firing and ended, each with the decisions about it; then those of its children."""
        page = await reads.incident_alerts(
            incident_id.bytes, firing=params.firing, limit=params.limit, cursor=params.cursor
        )
        if page is None:
            raise NoSuchIncident(incident_id)
        return _alerts(page)

    async def timeline(incident_id: IncidentId, _none: Nothing) -> Response:
        """An incident's history, oldest first."""
        found = await reads.timeline(incident_id.bytes)
        if found is None:
            raise NoSuchIncident(incident_id)
        entries, dropped = found
        return json_response(TimelinesBody([timeline_body(entry) for entry in entries], dropped))

    async def alerts(params: AlertList) -> Response:
        """All alerts in the shards, firing and ended, each with its incident. Those of archived incidents are only
        available with their incident."""
        page = await reads.alert_page(
            matchers_of(params.match), firing=params.firing, limit=params.limit, cursor=params.cursor
        )
        return _alerts(page)

    one = f"{PREFIX}/incidents/{{incident_id}}"
    shown = {"ETag": {"description": "Its version, for If-Match.", "schema": {"type": "string"}}}
    for path, endpoint, body, tag in (
        (f"{PREFIX}/incidents", incidents, IncidentsBody, "incidents"),
        (one, incident, IncidentBody, "incidents"),
        (f"{one}/alerts", incident_alerts, AlertsBody, "incidents"),
        (f"{one}/timeline", timeline, TimelinesBody, "incidents"),
        (f"{PREFIX}/alerts", alerts, AlertsBody, "alerts"),
    ):
        app.add_api_route(
            path,
            endpoint,
            methods=["GET"],
            response_model=body,
            responses={
                **({200: {"headers": shown}} if path == one else {}),
                **problems(REFUSED, NOT_FOUND if path.startswith(one) else {}, AWAY),
            },
            dependencies=[Depends(requires(READ))],
            tags=[tag],
        )


def _alerts(page: Alerts) -> Response:
    return json_response(AlertsBody([alert_body(view) for view in page.items], page.next))
