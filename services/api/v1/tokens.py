"""/v1/tokens: creates, lists, rotates and revokes API tokens. For admins; a secret is in one answer and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec
from fastapi import Depends, FastAPI, Path, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from models.control.tokens import (
    ID_PATTERN,
    LIFETIME_MAX_S,
    LIFETIME_MIN_S,
    MATCH_MAX,
    OVERLAP_MAX_S,
    every_scope,
)
from models.incidents.verbs import NAME_MAX
from models.settings.values import Duration
from services.api.auth import ADMIN, Caller, requires
from services.api.v1.fields import says
from services.api.v1.incidents import PREFIX
from services.api.v1.requests import BodyKind, BodyReader, asks_for, describe_bodies, has_body
from services.identity.tokens import OVERLAP_DEFAULT_S, NewTokenBody, TokenBody, TokenDesk
from services.ingest.formats.table import all_formats

PATH = f"{PREFIX}/tokens"
SCOPES = every_scope(all_formats())

_SPAN = WithJsonSchema({"type": "string", "pattern": r"^\d{1,9}(ms|s|m|h|d|w)$", "examples": ["30m", "90d"]})


@dataclass(frozen=True, slots=True)
class TokensBody:
    """All tokens, by name."""

    items: Annotated[list[TokenBody], says("All tokens that were not revoked.")]


class TokenRequest(BaseModel):
    """A new token."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(
        min_length=1,
        max_length=NAME_MAX,
        description="Who will use it; shown as the actor of everything done with it. Unique among the tokens that have not expired.",
        examples=["prometheus"],
    )
    scopes: list[str] = Field(
        min_length=1, max_length=len(SCOPES), description=f"Any of {', '.join(SCOPES)}.", examples=[["read"]]
    )
    expires_in: (
        Annotated[Duration, Field(ge=LIFETIME_MIN_S, le=LIFETIME_MAX_S, allow_inf_nan=False), _SPAN] | None
    ) = Field(None, description="How long it is valid; null: until it is revoked.")
    match: list[str] = Field(
        [],
        max_length=MATCH_MAX,
        description="Limits what it may send and resolve to alerts whose labels match all of these; none: no limit. Only with scopes that begin with ingest:, and read.",
        examples=[['team="payments"']],
    )


class RotateRequest(BaseModel):
    """How the old secret ends."""

    model_config = ConfigDict(extra="forbid")

    overlap: Annotated[Duration, Field(ge=0, le=OVERLAP_MAX_S, allow_inf_nan=False), _SPAN] = Field(
        OVERLAP_DEFAULT_S,
        description="How long the old secret stays valid beside the new one; 0s: not at all.",
    )


class RevokeParams(BaseModel):
    """How a token is revoked."""

    model_config = ConfigDict(extra="forbid")

    force: bool = Field(
        False,
        description="Revoke it even if it is the last token with the scope admin. After that nobody can create tokens over HTTP.",
    )


_Id = Annotated[str, Path(pattern=f"^{ID_PATTERN}$", description="The token's id, as the list shows it.")]
_Admin = Annotated[Caller, Depends(requires(ADMIN))]
_Revoke = Annotated[RevokeParams, Query()]
_PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_FAILURES = {
    "4XX": "The request was refused; the problem names the field, or the scope that the token lacks.",
    "503": "The control partition's writer cannot answer; try again.",
}
_MISSING = {"404": "No token has this id."}
_CONFLICT = {"409": "The name is taken, or the first token lacks the scope admin."}
_LAST = {"409": "It is the last token with the scope admin, and `force` was not given."}


def add_token_routes(app: FastAPI, desk: TokenDesk, bodies: BodyReader) -> None:
    """The four routes."""
    create_kind, rotate_kind = BodyKind(TokenRequest), BodyKind(RotateRequest)

    async def create(request: Request, caller: _Admin) -> Response:
        """Create a token. The answer has its secret, which is shown only once. The first token, which needs the scope
        admin, turns tokens on: from then on nobody gets in without one."""
        wanted = await bodies.read(request, create_kind)
        made = await desk.create(
            wanted.name, wanted.scopes, wanted.expires_in or 0.0, caller.name, wanted.match
        )
        return _answer(made, 201)

    async def tokens() -> Response:
        """All tokens that are not revoked, without their secrets. Expired ones are shown for 30 days."""
        return _answer(TokensBody(desk.all()))

    async def rotate(token_id: _Id, caller: _Admin, request: Request) -> Response:
        """Give a token a new secret, shown only once, and its full lifetime again. The old secret stays valid for
        `overlap`, but no longer than it was before; an even older one stops working."""
        wanted = await bodies.read(request, rotate_kind) if has_body(request) else RotateRequest()
        return _answer(await desk.rotate(token_id, wanted.overlap, caller.name))

    async def revoke(token_id: _Id, caller: _Admin, params: _Revoke) -> Response:
        """Revoke a token and both its secrets: within about a second no gateway accepts them. Safe to repeat. The last
        one with the scope admin needs `force`."""
        await desk.revoke(token_id, caller.name, force=params.force)
        return Response(status_code=204)

    one = f"{PATH}/{{token_id}}"
    asks_create = asks_for(TokenRequest, {"name": "prometheus", "scopes": ["ingest:alertmanager"]})
    asks_rotate = asks_for(RotateRequest, {"overlap": "1h"}, required=False)
    for path, endpoint, method, status, body, failures, asks in (
        (PATH, create, "POST", 201, NewTokenBody, _CONFLICT, asks_create),
        (PATH, tokens, "GET", 200, TokensBody, {}, None),
        (one, revoke, "DELETE", 204, None, {**_MISSING, **_LAST}, None),
        (f"{one}/rotate", rotate, "POST", 200, NewTokenBody, {**_MISSING, **_CONFLICT}, asks_rotate),
    ):
        app.add_api_route(
            path,
            endpoint,
            methods=[method],
            status_code=status,
            response_model=body,
            responses={
                code: {"description": words, "content": _PROBLEM}
                for code, words in {**failures, **_FAILURES}.items()
            },
            dependencies=[Depends(requires(ADMIN))],
            openapi_extra=asks,
            tags=["tokens"],
        )
    describe_bodies(app, TokenRequest, RotateRequest)


def _answer(body: NewTokenBody | TokensBody, status: int = 200) -> Response:
    return Response(
        msgspec.json.encode(body), status, {"Cache-Control": "no-store"}, media_type="application/json"
    )
