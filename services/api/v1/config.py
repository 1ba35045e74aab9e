"""POST /v1/config/reload: settings changed while it runs. `llm-im config reload` calls it; services/wiring/reload.py decides."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from fastapi import Depends, FastAPI, Request
from fastapi.responses import Response
from pydantic import ValidationError

from models.errors import Conflict
from models.settings.all import Settings
from services.api.auth import ADMIN, Caller, requires
from services.api.problems import FieldProblem, problem
from services.api.v1.fields import says
from services.api.v1.requests import SCHEMA_REF, BadFields, BodyKind, BodyReader, asks_for, describe_bodies
from services.settings.mistakes import expected, place_of
from services.wiring.reload import Change

PATH = "/v1/config/reload"
#: A thousand rules of a thousand characters: more is no file that a person wrote.
BODY_MAX_BYTES = 1024 * 1024

#: Takes the settings over, as whom; returns what changed. Raises Conflict for what needs a restart.
Reload = Callable[[Settings, str], Awaitable[Sequence[Change]]]


@dataclass(frozen=True, slots=True)
class ChangeBody:
    """A setting that changed, before and after, as one would write it."""

    key: Annotated[str, says("The setting, as section.key.")]
    before: Annotated[Any, says("What it was.")]
    after: Annotated[Any, says("What it is now.")]


@dataclass(frozen=True, slots=True)
class ReloadBody:
    """What a reload changed; empty when nothing differs. Every process uses it within about a second."""

    changed: Annotated[list[ChangeBody], says("Each changed setting with its value before and after.")]


class _Kind(BodyKind[Settings]):
    """Settings, with their own words for what is wrong. No body is none: it would put everything back to its default."""

    max_bytes = BODY_MAX_BYTES

    def read(self, body: bytes) -> Settings:
        try:
            return Settings.model_validate_json(body)
        except ValidationError as error:
            fields = [
                FieldProblem(place_of(found["loc"]) or "body", expected(found)) for found in error.errors()
            ]
            raise BadFields(fields) from None


def add_config_routes(app: FastAPI, reload: Reload, bodies: BodyReader) -> None:
    """POST /v1/config/reload."""
    kind = _Kind(Settings)

    async def reload_config(
        request: Request, caller: Annotated[Caller, Depends(requires(ADMIN))]
    ) -> Response:
        """Use these settings from now on. The body has all of them: what it leaves out returns to its default, except
        secrets and what a flag of `llm-im up` may have set, which stay. If a changed setting needs a restart, the
        request is refused and nothing changes."""
        wanted = await bodies.read(request, kind)
        try:
            changes = await reload(wanted, caller.name)
        except Conflict as error:
            return problem(409, "needs-restart", "A restart is needed", str(error), PATH)
        answer = ReloadBody([ChangeBody(each.key, each.before, each.after) for each in changes])
        return Response(msgspec.json.encode(answer), media_type="application/json")

    failures = {
        "4XX": "The request was refused; the problem names the setting and what was expected.",
        "409": "What changed needs a restart; the problem names it. Nothing was changed.",
        "408": "The body took too long.",
        "413": f"The body is over {BODY_MAX_BYTES} bytes.",
        "415": "The content type is not application/json, or the Content-Encoding is not supported.",
        "503": "The control partition can't store it right now; try again.",
    }
    app.add_api_route(
        PATH,
        reload_config,
        methods=["POST"],
        response_model=ReloadBody,
        openapi_extra=asks_for(Settings, {"notify": {"wait": {"P2": "1m"}}, "logging": {"level": "DEBUG"}}),
        responses={
            code: {
                "description": text,
                "content": {
                    "application/problem+json": {"schema": {"$ref": SCHEMA_REF.format(model="Problem")}}
                },
            }
            for code, text in failures.items()
        },
        tags=["settings"],
    )
    describe_bodies(app, Settings)
