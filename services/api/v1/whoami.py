"""GET /v1/whoami: who is calling, and what they may do. For the web page, and for whoever wonders what a token is good for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI
from fastapi.responses import Response
from starlette.requests import Request

from models import VERSION
from services.api.auth import EVERYTHING, READ, Caller, proven_name, requires
from services.api.problems import NOT_NOW, REFUSED, problems
from services.api.v1.bodies import json_response
from services.api.v1.fields import says
from services.api.v1.incidents import PREFIX


@dataclass(frozen=True, slots=True)
class WhoAmIBody:
    """The caller."""

    name: Annotated[
        str,
        says("The actor of what the caller does: the name of the token or certificate, else of `X-Actor`."),
    ]
    is_proven: Annotated[
        bool, says("Whether a token or certificate says so; false: nobody checks names here.")
    ]
    scopes: Annotated[list[str], says("Which of `read`, `respond` and `admin` the caller has.")]
    version: Annotated[str, says("The version of the program that answers.")]


def add_whoami_route(app: FastAPI) -> None:
    """The route."""

    async def whoami(request: Request, caller: Annotated[Caller, Depends(requires(READ))]) -> Response:
        """Who is calling, and what they may do."""
        is_proven = bool(proven_name(request))
        return json_response(WhoAmIBody(caller.name, is_proven, sorted(caller.scopes & EVERYTHING), VERSION))

    app.add_api_route(
        f"{PREFIX}/whoami",
        whoami,
        methods=["GET"],
        response_model=WhoAmIBody,
        responses=problems(REFUSED, NOT_NOW),
        tags=["operation"],
    )
