"""POST /v1/incidents/bulk: one verb for many incidents. Each is done or refused on its own; the answer says which."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import msgspec
from fastapi import Depends, FastAPI, Request
from fastapi.responses import Response
from pydantic import BeforeValidator, Field

from models.errors import IncidentManagerError, Malformed, TooLarge
from models.incidents.filters import IncidentFilter
from models.incidents.query import PAGE_MAX
from models.incidents.verbs import AnyVerb
from models.ports import Clock
from services.api.auth import RESPOND, requires
from services.api.problems import AWAY, REFUSED, FieldProblem, problems, told_as
from services.api.reads import Reads
from services.api.v1.bodies import json_response
from services.api.v1.commands import Commands
from services.api.v1.fields import Id, any_case
from services.api.v1.incidents import PREFIX
from services.api.v1.list_params import FilterParams
from services.api.v1.requests import (
    BadFields,
    BodyKind,
    BodyReader,
    IdempotencyKey,
    IfMatch,
    Origin,
    digest_of,
    origin_of,
    refuse_condition,
)
from services.api.v1.verb_bodies import STRICT, Body
from services.api.v1.verb_table import BULK_VERBS, Asked, VerbRoute

#: Incidents of one call: a page's worth, done in a second.
BULK_MAX = 1000
#: Incidents under way at once: enough to share appends, few enough to let others in.
BULK_PARALLEL = 32

BulkVerb = StrEnum("BulkVerb", {name.upper(): name for name in BULK_VERBS})  # type: ignore[misc]


@dataclass(frozen=True, slots=True)
class BulkBody:
    """A verb, the incidents it is for, and what the verb takes."""

    __pydantic_config__ = STRICT
    verb: Annotated[BulkVerb, BeforeValidator(any_case(BulkVerb)), Field(description="What to do.")]
    incidents: Annotated[
        list[Id] | None,
        Field(min_length=1, max_length=BULK_MAX, description="The incidents, by id. Either this or `where`."),
    ] = None
    where: Annotated[
        FilterParams | None,
        Field(
            description=f"The incidents, by the filters of GET /v1/incidents: at least one filter, matching at most {BULK_MAX}. "
            "Incidents of the archive are left out."
        ),
    ] = None
    body: Annotated[
        dict[str, object] | None, Field(description="The body that the verb takes on its own path.")
    ] = None


@dataclass(frozen=True, slots=True)
class BulkItem:
    """What became of one incident."""

    incident: Annotated[UUID, Field(description="Its id.")]
    status: Annotated[
        int,
        Field(description="The status that its own path would have answered: 200, 404, 409, 412, 503 ..."),
    ]
    detail: Annotated[str, Field(description="Why it was not done; empty when it was.")]
    version: Annotated[int | None, Field(description="Its version afterwards; null if it was not done.")]
    changed: Annotated[bool, Field(description="False if it was refused or changed nothing.")]


@dataclass(frozen=True, slots=True)
class BulkAnswer:
    """What became of each incident."""

    items: Annotated[list[BulkItem], Field(description="In the order given; with `where`, newest first.")]
    done: Annotated[int, Field(description="How many were done.")]
    failed: Annotated[int, Field(description="How many were not.")]


_EXAMPLE = {
    "verb": "acknowledge",
    "where": {"severity": ["P0", "P1"], "service": ["llm-api"], "state": ["Triaged"]},
    "body": {"for": "1h", "reason": "one cause"},
}


def add_bulk_route(app: FastAPI, reads: Reads, commands: Commands, bodies: BodyReader, clock: Clock) -> None:
    """POST /v1/incidents/bulk."""
    bulk_kind = BodyKind(BulkBody)
    kinds = {name: BodyKind(verb.body) for name, verb in BULK_VERBS.items()}

    async def bulk(
        request: Request, if_match: IfMatch = None, idempotency_key: IdempotencyKey = None
    ) -> Response:
        """One verb for up to 1,000 incidents. Each change is made completely or not at all, and has its own result: 200
        if all were done, otherwise 207. With an Idempotency-Key, sending it again does only what was not done."""
        refuse_condition(if_match)
        asked = await bodies.read(request, bulk_kind)
        verb = BULK_VERBS[asked.verb]
        body = _inner(kinds[verb.name], asked.body)
        wanted = body.verb(clock.now())
        origin = origin_of(request)
        ids = await _ids(reads, asked)
        room = asyncio.Semaphore(BULK_PARALLEL)

        async def one(identity: bytes) -> BulkItem:
            async with room:
                return await _do(reads, commands, origin, verb, identity, body, wanted)

        items = await asyncio.gather(*map(one, ids))
        done = sum(item.status < 300 for item in items)
        return json_response(
            BulkAnswer(list(items), done, len(items) - done), 200 if done == len(items) else 207
        )

    app.add_api_route(
        f"{PREFIX}/incidents/bulk",
        bulk,
        methods=["POST"],
        response_model=BulkAnswer,
        responses={
            200: {"description": "All of them were done."},
            207: {
                "description": "Some were not done; their items say why.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/BulkAnswer"}}},
            },
            **problems(REFUSED, AWAY),
        },
        dependencies=[Depends(requires(RESPOND))],
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {"$ref": "#/components/schemas/BulkBody"},
                        "example": _EXAMPLE,
                    }
                },
            }
        },
        tags=["verbs"],
    )


async def _do(
    reads: Reads,
    commands: Commands,
    origin: Origin,
    verb: VerbRoute,
    identity: bytes,
    body: Body,
    wanted: AnyVerb,
) -> BulkItem:
    name = UUID(bytes=identity)
    if origin.delivery_id is not None:
        origin = replace(origin, delivery_id=f"{origin.delivery_id}\n{name}")
    try:
        if verb.prepare is not None:
            wanted = await verb.prepare(Asked(reads, commands, origin, identity, body), wanted)
        done = await commands.do(
            origin, identity, wanted, reason=body.reason, content=digest_of(verb.name, identity, body)
        )
    except IncidentManagerError as error:
        status, _kind, _title = told_as(error)
        return BulkItem(name, status, str(error) if status != 500 else type(error).__name__, None, False)
    return BulkItem(name, 200, "", done.version, done.changed)


async def _ids(reads: Reads, asked: BulkBody) -> Sequence[bytes]:
    """The incidents that a call is for, each once. Raises Malformed, TooLarge."""
    if (asked.incidents is None) == (asked.where is None):
        raise Malformed("incidents: give either incidents or where")
    if asked.incidents is not None:
        return [*dict.fromkeys(each.bytes for each in asked.incidents)]
    assert asked.where is not None
    wanted = asked.where.wanted()
    if msgspec.structs.replace(wanted, with_children=False) == IncidentFilter():
        # Also an empty list, as from a program that found no names to put into it.
        raise Malformed("where: give at least one filter, otherwise this would change every incident")
    return await _resolved(reads, wanted)


async def _resolved(reads: Reads, wanted: IncidentFilter) -> list[bytes]:
    found: list[bytes] = []
    cursor: str | None = None
    while True:
        page = await reads.listing.page(wanted, limit=PAGE_MAX, cursor=cursor, alive_only=True)
        found += [view.incident.id for view in page.items]
        if len(found) > BULK_MAX or (page.next is not None and len(found) == BULK_MAX):
            raise TooLarge(
                f"where: more than {BULK_MAX} incidents match: narrow the filter, or change them in batches"
            )
        if page.next is None:
            return found
        cursor = page.next


def _inner(kind: BodyKind[Body], body: dict[str, object] | None) -> Body:
    """The verb's own body. Raises BadFields, with the places as they are in the whole."""
    try:
        return kind.read(json.dumps(body or {}).encode())
    except BadFields as error:
        raise BadFields(
            [
                FieldProblem(each.field if each.field == "body" else f"body.{each.field}", each.detail)
                for each in error.fields
            ]
        ) from None
