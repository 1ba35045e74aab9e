"""Opsgenie's alerts API, its reading half: the alerts that came by it (services/ingest/formats/opsgenie.py), as its clients see them.

An alert is open while it fires. Whether it is acknowledged, and who owns it, its incident knows. Closed ones are there until their incident goes
to the archive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import TypeVar
from urllib.parse import quote, unquote, urlencode

import msgspec
from fastapi import Depends, FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from models.alerts.matchers import MatcherTuple
from models.errors import Malformed, NotFound, Refused, TooLarge, Unavailable
from models.incidents.query import PAGE_MAX, AlertView, IncidentView
from models.shard.messages import Decision
from services.api.auth import READ, requires
from services.api.opsgenie.answers import ALERTS, COUNT, ONE, answer, refused
from services.api.opsgenie.query import EVERYTHING, Alert, Query, read_query
from services.api.reads import Reads
from services.ingest.doors.http import smooth
from services.ingest.formats.opsgenie import PRIORITIES, OpsgenieFormat, alert_id_of
from services.ingest.formats.webhook import SENDER_SEVERITY, SEVERITY
from services.times import timestamp

T = TypeVar("T")

#: As in Opsgenie: of a page, and how far pages go.
LIMIT, LIMIT_MAX, WINDOW_MAX = 20, 100, 20_000
#: Alerts made or tested before others get their turn: a few milliseconds.
SLICE_ALERTS = 250
#: Text of the alerts that one read may hold while it sorts them.
HELD_CHARS_MAX = 64 * 1024 * 1024
_ANY: MatcherTuple = ("alert_id", "=~", ".+")
_PRIORITY = {ours: theirs.upper() for theirs, ours in PRIORITIES.items()}
#: Annotations that are not details, though they lie among them.
_OWN = frozenset({"summary", "description", "source", "tags", "note", SEVERITY, SENDER_SEVERITY})
#: Those of an end.
_OF_END = frozenset({"closed_by", "closed_from", "note"})
_SORTS: dict[str, Callable[[Alert], float | str]] = {
    "createdAt": lambda alert: alert.created_at,
    "updatedAt": lambda alert: alert.updated_at,
    "lastOccurredAt": lambda alert: alert.last_occurred_at,
    "alias": lambda alert: alert.alias,
    "message": lambda alert: alert.message,
    "status": lambda alert: alert.status,
    "source": lambda alert: alert.source,
    "count": lambda alert: alert.count,
}


def add_opsgenie_routes(app: FastAPI, reads: Reads) -> None:
    """GET /v2/alerts, /v2/alerts/count and /v2/alerts/{identifier}."""

    async def listed(request: Request) -> Response:
        try:
            page = _Page(request)
            alerts = await _matching(reads, page.query)
            alerts.sort(key=lambda alert: (page.order(alert), alert.id), reverse=page.is_falling)
            shown = alerts[page.offset : page.offset + page.limit]
            if not page.query.asks_incidents:
                shown = await _with_incidents(reads, shown)
            return answer({"data": [_listed(alert) for alert in shown], "paging": page.links(len(alerts))})
        except (Refused, Unavailable) as error:
            return refused(error)

    async def counted(request: Request) -> Response:
        try:
            found = await _matching(reads, _query_of(request))
            return answer({"data": {"count": len(found)}})
        except (Refused, Unavailable) as error:
            return refused(error)

    async def one(request: Request) -> Response:
        # The path as it was sent: an alias may have a slash in it.
        segments = smooth(request.scope["raw_path"].decode("latin-1")).split("/")
        if len(segments) != ONE.count("/") + 1:
            raise HTTPException(404)
        try:
            kind = request.query_params.get("identifierType", "id")
            if kind not in ("id", "alias"):
                raise Malformed(f"identifierType: expected id or alias, got {kind[:40]}")
            named = unquote(segments[-1])
            alert_id = alert_id_of(named) if kind == "alias" else named
            query = Query(EVERYTHING.test, matchers=(("alert_id", "=", alert_id),))
            found = await _with_incidents(reads, await _matching(reads, query))
            if not found:
                raise NotFound(f"there is no alert with the {kind} {named[:200]!r}")
            return answer({"data": _whole(found[0])})
        except (Refused, Unavailable) as error:
            return refused(error)

    for path, endpoint in (
        (ALERTS, listed),
        (COUNT, counted),
        (ONE.replace("}", ":path}"), one),
    ):
        # Their description is Opsgenie's own.
        needed = [Depends(requires(READ))]
        app.add_api_route(path, endpoint, methods=["GET"], dependencies=needed, include_in_schema=False)


class _Page:
    """The parameters of the list. Raises Malformed."""

    def __init__(self, request: Request) -> None:
        params = request.query_params
        self.query = _query_of(request)
        self.limit = _whole_number("limit", params.get("limit"), LIMIT, 1, LIMIT_MAX)
        self.offset = _whole_number("offset", params.get("offset"), 0, 0, WINDOW_MAX - self.limit)
        sort, order = params.get("sort", "createdAt"), params.get("order", "desc")
        if sort not in _SORTS:
            raise Malformed(f"sort: {sort[:40]} is not supported here; supported are {', '.join(_SORTS)}")
        if order not in ("asc", "desc"):
            raise Malformed(f"order: expected asc or desc, got {order[:40]}")
        self.order, self.is_falling = _SORTS[sort], order == "desc"
        self._url = str(request.url.replace(query=""))
        self._params = {"query": params.get("query", ""), "sort": sort, "order": order}

    def links(self, count: int) -> dict[str, str]:
        """Where the pages of a list of so many alerts are."""
        last = max(0, (count - 1) // self.limit * self.limit)
        places = {"first": 0, "last": min(last, WINDOW_MAX - self.limit)}
        if self.offset + self.limit < count and self.offset + 2 * self.limit <= WINDOW_MAX:
            places["next"] = self.offset + self.limit
        if self.offset:
            places["prev"] = max(0, self.offset - self.limit)
        return {
            name: f"{self._url}?{urlencode({**self._params, 'offset': place, 'limit': self.limit}, quote_via=quote)}"
            for name, place in places.items()
        }


def _query_of(request: Request) -> Query:
    if request.query_params.get("searchIdentifier"):
        raise Malformed("searchIdentifier: saved searches are not supported here: give the search as query")
    return read_query(request.query_params.get("query", ""))


def _whole_number(name: str, given: str | None, default: int, least: int, most: int) -> int:
    if given is None:
        return default
    # A number of a thousand digits is nobody's, and takes long to read.
    if not (given.isascii() and given.isdigit() and len(given) < 10 and least <= int(given) <= most):
        raise Malformed(f"{name}: expected a number from {least} to {most}, got {given[:40]!r}")
    return int(given)


async def _matching(reads: Reads, query: Query) -> list[Alert]:
    """The alerts that a query asks for, in no order. Raises TooLarge, Busy, Unavailable."""
    found: dict[str, AlertView] = {}
    held = 0
    pages = reads.alerts(query.matchers or [_ANY], firing_only=query.firing_only)
    async with aclosing(pages):
        async for page in pages:
            for view in page:
                # Other formats may have a label of this name.
                if view.source != OpsgenieFormat.name:
                    continue
                alert_id = view.labels["alert_id"]
                other = found.get(alert_id)
                if other is None or (view.firing, view.starts_at) > (other.firing, other.starts_at):
                    found[alert_id] = view
                    held += sum(map(len, view.labels.values())) + sum(map(len, view.annotations.values()))
            if held > HELD_CHARS_MAX:
                raise TooLarge(
                    "query: too many alerts to look through: ask for status:open, or for an id or alias"
                )
            await asyncio.sleep(0)
    alerts = await _in_turns([*found.values()], lambda some: [*map(_alert, some)])
    if query.asks_incidents:
        alerts = await _with_incidents(reads, alerts)
    return await _in_turns(alerts, lambda some: [*filter(query.test, some)])


async def _in_turns(items: Sequence[T], made_of: Callable[[Sequence[T]], list[Alert]]) -> list[Alert]:
    """What is made of many items, with a turn for others after each stretch: there may be 200,000."""
    made: list[Alert] = []
    for first in range(0, len(items), SLICE_ALERTS):
        made += made_of(items[first : first + SLICE_ALERTS])
        await asyncio.sleep(0)
    return made


async def _with_incidents(reads: Reads, alerts: Sequence[Alert]) -> list[Alert]:
    wanted = list({alert.incident_id for alert in alerts if alert.incident_id})
    known: dict[bytes, IncidentView] = {}
    for start in range(0, len(wanted), PAGE_MAX):
        known |= {
            view.incident.id: view for view in await reads.listing.get(wanted[start : start + PAGE_MAX])
        }
    return [_owned(alert, known.get(alert.incident_id)) for alert in alerts]


def _alert(view: AlertView) -> Alert:
    labels, said = view.labels, view.annotations
    priority = said.get(SENDER_SEVERITY) or _PRIORITY.get(said.get(SEVERITY, ""), "P3")
    return Alert(
        id=labels["alert_id"],
        alias=labels.get("alias", ""),
        # An end says nothing of what it ends: then the alert's name has to do, which was made of its message.
        message=said.get("summary") or labels.get("alertname", ""),
        description=said.get("description", ""),
        entity=labels.get("entity", ""),
        source=said.get("source", ""),
        priority=priority,
        tags=[tag for tag in said.get("tags", "").split(", ") if tag],
        details={name: value for name, value in said.items() if name not in _OWN | _OF_END},
        count=sum(count for number, count, _first, _last in view.decisions if number != Decision.RESOLVED),
        created_at=view.starts_at,
        last_occurred_at=view.last_seen_at,
        ended_at=0.0 if view.firing else view.ends_at or view.last_seen_at,
        sender=view.sender,
        closed_by="" if view.firing else said.get("closed_by", ""),
        incident_id=view.incident_id,
    )


def _owned(alert: Alert, view: IncidentView | None) -> Alert:
    if view is None:
        return alert
    incident = view.incident
    acknowledged = None if incident.handling is None else incident.handling.acknowledged
    return msgspec.structs.replace(
        alert,
        acknowledged_by="" if acknowledged is None else acknowledged.by,
        acknowledged_at=0.0 if acknowledged is None else acknowledged.at,
        owner=incident.assignees[0] if incident.assignees else "",
    )


def _listed(alert: Alert) -> dict[str, object]:
    """As the list has it."""
    shown: dict[str, object] = {
        "id": alert.id,
        "alias": alert.alias,
        "message": alert.message,
        "status": alert.status,
        "acknowledged": bool(alert.acknowledged_by),
        "isSeen": bool(alert.acknowledged_by),
        "tags": alert.tags,
        "snoozed": False,
        "count": alert.count,
        "lastOccurredAt": timestamp(alert.last_occurred_at),
        "createdAt": timestamp(alert.created_at),
        "updatedAt": timestamp(alert.updated_at),
        "source": alert.source,
        "owner": alert.owner,
        "priority": alert.priority,
        "responders": [],
        "integration": {"id": "", "name": alert.sender, "type": "API"},
    }
    report: dict[str, object] = {}
    if alert.acknowledged_by:
        report |= {
            "ackTime": _since(alert, alert.acknowledged_at),
            "acknowledgedBy": alert.acknowledged_by,
        }
    if alert.ended_at:
        report |= {"closeTime": _since(alert, alert.ended_at), "closedBy": alert.closed_by}
    return {**shown, "report": report} if report else shown


def _since(alert: Alert, at: float) -> int:
    """Milliseconds from its begin."""
    return max(0, round((at - alert.created_at) * 1000))


def _whole(alert: Alert) -> dict[str, object]:
    """As it is shown alone."""
    return {
        **_listed(alert),
        "actions": [],
        "entity": alert.entity,
        "description": alert.description,
        "details": alert.details,
    }
