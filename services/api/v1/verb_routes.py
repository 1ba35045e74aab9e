"""POST /v1/incidents and POST /v1/incidents/{id}/VERB: what people do. One route a line of verb_table.py."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

from fastapi import Depends, FastAPI, Request
from fastapi.responses import Response

from models.incidents.query import IncidentView
from models.ports import Clock
from services.api.auth import RESPOND, requires
from services.api.problems import AWAY, NOT_FOUND, REFUSED, problems
from services.api.reads import Reads
from services.api.v1.bodies import etag, incident_body, json_response
from services.api.v1.commands import Commands
from services.api.v1.incidents import PREFIX, IncidentId
from services.api.v1.requests import (
    BodyKind,
    BodyReader,
    IdempotencyKey,
    IfMatch,
    asks_for,
    origin_of,
    refuse_condition,
    versions_of,
)
from services.api.v1.verb_bodies import CreateBody
from services.api.v1.verb_doing import Doing, Done
from services.api.v1.verb_table import VERBS, VerbRoute

_CREATE_EXAMPLE: dict[str, object] = {
    "service": "llm-api",
    "title": "Answers repeat themselves",
    "severity": "P2",
}
_ETAG = {"ETag": {"description": "The version afterwards, for If-Match.", "schema": {"type": "string"}}}
_CHANGED = {
    "Incident-Changed": {
        "description": "`no` if nothing needed to change; otherwise absent.",
        "schema": {"type": "string"},
    }
}
_LOCATION = {"Location": {"description": "The new incident's path.", "schema": {"type": "string"}}}
#: By reference: letting FastAPI read the dataclass again for each verb would double the gateway's start.
_INCIDENT = {"application/json": {"schema": {"$ref": "#/components/schemas/IncidentBody"}}}
_BAD_BODY = {
    "400": "A field is wrong, named in `errors`.",
    "408": "The body took too long.",
    "413": "The body is over 256 KiB.",
    "415": "The content type is not application/json, or the Content-Encoding is not supported.",
    "422": "This Idempotency-Key was used for another request.",
}

_Route = Callable[..., Awaitable[Response]]


def add_verb_routes(app: FastAPI, reads: Reads, commands: Commands, bodies: BodyReader, clock: Clock) -> None:
    """Creating an incident, and every verb."""
    answer = _Answer(reads)
    doing = Doing(reads, commands, clock)

    async def create(
        request: Request, if_match: IfMatch = None, idempotency_key: IdempotencyKey = None
    ) -> Response:
        refuse_condition(if_match)
        body = await bodies.read(request, _create_kind)
        return await answer.created(await doing.create(origin_of(request), body))

    app.add_api_route(
        f"{PREFIX}/incidents",
        create,
        methods=["POST"],
        status_code=201,
        response_model=None,
        responses={
            201: {
                "description": "It was created and is durable.",
                "headers": {**_ETAG, **_LOCATION},
                "content": _INCIDENT,
            },
            **problems(REFUSED, _BAD_BODY, {"409": "max_concurrent_incidents is reached."}, AWAY),
        },
        dependencies=[Depends(requires(RESPOND))],
        description=CreateBody.__doc__,
        openapi_extra=asks_for(CreateBody, _CREATE_EXAMPLE),
        tags=["verbs"],
    )
    for verb in VERBS:
        app.add_api_route(
            f"{PREFIX}/incidents/{{incident_id}}/{verb.name}",
            _route_of(verb, doing, bodies, answer),
            methods=["POST"],
            name=verb.name,
            status_code=201 if verb.makes_another else 200,
            response_model=None,
            responses=_answers(verb),
            dependencies=[Depends(requires(RESPOND))],
            summary=verb.name.capitalize(),
            description=verb.summary,
            openapi_extra=asks_for(verb.body, verb.example),
            tags=["verbs"],
        )


def _route_of(verb: VerbRoute, doing: Doing, bodies: BodyReader, answer: _Answer) -> _Route:
    kind = BodyKind(verb.body)

    async def route(
        incident_id: IncidentId,
        request: Request,
        if_match: IfMatch = None,
        idempotency_key: IdempotencyKey = None,
    ) -> Response:
        versions = versions_of(if_match)
        body = await bodies.read(request, kind)
        done = await doing.do(verb, origin_of(request), incident_id.bytes, body, versions)
        return await (answer.created(done) if verb.makes_another else answer.changed(done))

    return route


class _Answer:
    """The incident after a verb."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def changed(self, done: Done) -> Response:
        response = await self._shown(done.view, 200 if done.settled else 202)
        if not done.changed:
            response.headers["Incident-Changed"] = "no"
        return response

    async def created(self, done: Done) -> Response:
        response = await self._shown(done.view, 201)
        response.headers["Location"] = f"{PREFIX}/incidents/{UUID(bytes=done.view.incident.id)}"
        return response

    async def _shown(self, view: IncidentView, status: int) -> Response:
        [counted] = await self._reads.counted([view])
        response = json_response(incident_body(view, counted), status)
        response.headers["ETag"] = etag(view.incident.version)
        return response


_create_kind = BodyKind(CreateBody)


def _answers(verb: VerbRoute) -> dict[int | str, dict[str, object]]:
    done: dict[int | str, dict[str, object]] = (
        {201: {"description": "The new incident.", "headers": {**_ETAG, **_LOCATION}, "content": _INCIDENT}}
        if verb.makes_another
        else {
            200: {
                "description": "The incident after the change.",
                "headers": {**_ETAG, **_CHANGED},
                "content": _INCIDENT,
            }
        }
    )
    if verb.asks_child:
        words = "Accepted: the other incident's shard has not answered yet; it is asked until it does."
        done[202] = {"description": words, "headers": _ETAG, "content": _INCIDENT}
    return {
        **done,
        **problems(
            REFUSED,
            _BAD_BODY,
            NOT_FOUND,
            {"409": verb.conflicts, "412": "Its version is not the one in If-Match: read it again."},
            verb.more,
            AWAY,
        ),
    }
