"""POST /graphql: what /v1 reads and does, as much of it as a query asks for. Only POST with a JSON body, so that no web page can make
a browser send one; one query a request."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from fastapi import Depends, FastAPI, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from models.errors import Busy
from services.api.auth import READ, Caller, requires
from services.api.graphql.bounds import QUERY_CHARS_MAX, UNDER_WAY_MAX
from services.api.graphql.ground import Ground
from services.api.problems import AWAY, REFUSED, problems
from services.api.v1.requests import (
    BodyKind,
    BodyReader,
    IdempotencyKey,
    IfMatch,
    asks_for,
    describe_bodies,
    refuse_condition,
)

if TYPE_CHECKING:
    from services.api.graphql.engine import Engine

PATH = "/graphql"
#: The media type of GraphQL's own: with it a request that can't be answered is 400, as anywhere else.
MEDIA_TYPE = "application/graphql-response+json"
_EXAMPLE: dict[str, object] = {
    "query": "query($first: Int) { incidents(first: $first, filter: {state: [Triaged]}) { items { id title } next } }",
    "variables": {"first": 10},
}

_ACCEPTED = re.compile(r"(?:^|,)\s*application/graphql-response\+json\s*(?:;|,|$)")


class GraphqlRequest(BaseModel):
    """A query or mutation of GraphQL."""

    model_config = ConfigDict(extra="forbid")

    query: Annotated[
        str, Field(min_length=1, max_length=QUERY_CHARS_MAX, description="The query or mutation, in GraphQL.")
    ]
    variables: Annotated[dict[str, Any] | None, Field(description="Its variables.")] = None
    operation_name: Annotated[
        str | None,
        Field(alias="operationName", max_length=200, description="Which operation, if there are several."),
    ] = None
    extensions: Annotated[dict[str, Any] | None, Field(description="Not used.")] = None


def add_graphql_route(app: FastAPI, ground: Ground, bodies: BodyReader) -> None:
    """The route. The library is imported, and the schema made, with the first request."""
    kind, making, under_way = BodyKind(GraphqlRequest), asyncio.Lock(), asyncio.Semaphore(UNDER_WAY_MAX)
    engines: list[Engine] = []

    async def engine() -> Engine:
        async with making:
            if not engines:
                engines.append(await asyncio.to_thread(_make))
        return engines[0]

    async def graphql(
        request: Request,
        caller: Annotated[Caller, Depends(requires(READ))],
        if_match: IfMatch = None,
        idempotency_key: IdempotencyKey = None,
    ) -> Response:
        """A query, which reads, or a mutation, which needs the scope `respond`. Errors are in the answer, each with its
        problem type in `extensions`; the status says only whether the request could be understood."""
        refuse_condition(if_match)
        asked = await bodies.read(request, kind)
        if under_way.locked():
            raise Busy(f"{UNDER_WAY_MAX} requests of GraphQL are under way: try again")
        async with under_way:
            answer = await (await engine()).answer(
                asked.query, asked.variables or {}, asked.operation_name, ground, caller, request
            )
        speaks = _ACCEPTED.search(request.headers.get("accept", "")) is not None
        return Response(
            msgspec.json.encode(answer.body),
            400 if answer.is_bad and speaks else 200,
            media_type=MEDIA_TYPE if speaks else "application/json",
        )

    app.add_api_route(
        PATH,
        graphql,
        methods=["POST"],
        response_model=None,
        responses={
            200: {
                "description": "What was asked for in `data`, and what went wrong in `errors`.",
                "content": {"application/json": {"schema": {"type": "object"}}},
            },
            **problems(
                REFUSED,
                {
                    "403": "A mutation, and the token lacks the scope `respond`.",
                    "413": "The body is over 256 KiB.",
                    "415": "The content type is not application/json.",
                },
                AWAY,
            ),
        },
        openapi_extra=asks_for(GraphqlRequest, _EXAMPLE),
        tags=["graphql"],
    )
    describe_bodies(app, GraphqlRequest)


def _make() -> Engine:
    from services.api.graphql.engine import Engine

    return Engine()
