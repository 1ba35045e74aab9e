"""POST /v1/config/reload: settings changed while it runs. `llm-im config reload` calls it; services/reload.py decides."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from fastapi import Depends, FastAPI, Request
from fastapi.responses import Response
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from models.config import Settings
from models.errors import Conflict
from services.api.auth import ADMIN, Caller, requires
from services.api.fields import says
from services.api.problems import FieldProblem, problem
from services.reload import Change
from services.settings import expected, place_of

PATH = "/v1/config/reload"
#: A thousand rules of a thousand characters: more is no file that a person wrote.
BODY_MAX_BYTES = 1024 * 1024
_SCHEMAS = "#/components/schemas/{model}"

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
    """What a reload changed; empty when nothing differs. Every process goes by it within about a second."""

    changed: Annotated[list[ChangeBody], says("Each with its value before and after.")]


def add_config_routes(app: FastAPI, reload: Reload) -> None:
    """POST /v1/config/reload."""

    async def reload_config(
        request: Request, caller: Annotated[Caller, Depends(requires(ADMIN))]
    ) -> Response:
        """Go by these settings from now on. The body is all of them: what it leaves out is the default, but for what a
        flag of `llm-im up` may have said and for secrets, which then stay. Changed settings that need a restart are
        refused, and then nothing changes."""
        body = bytearray()
        try:
            async for part in request.stream():
                body += part
                if len(body) > BODY_MAX_BYTES:
                    return problem(413, "too-large", "Too large", f"at most {BODY_MAX_BYTES} bytes", PATH)
        except ClientDisconnect:
            return problem(400, "malformed", "The request cannot be read", "it ended early", PATH)
        try:
            wanted = Settings.model_validate_json(bytes(body))
        except ValidationError as error:
            fields = [
                FieldProblem(place_of(found["loc"]) or "body", expected(found)) for found in error.errors()
            ]
            detail = "; ".join(f"{each.field}: {each.detail}" for each in fields)
            return problem(400, "malformed", "The request cannot be read", detail, PATH, fields)
        try:
            changes = await reload(wanted, caller.name)
        except Conflict as error:
            return problem(409, "needs-restart", "A restart is needed", str(error), PATH)
        answer = ReloadBody([ChangeBody(each.key, each.before, each.after) for each in changes])
        return Response(msgspec.json.encode(answer), media_type="application/json")

    failures = {
        "4XX": "The request is refused; the problem names the setting and what was expected.",
        "409": "What changed needs a restart; the problem names it. Nothing was changed.",
        "413": f"The body is over {BODY_MAX_BYTES} bytes.",
        "503": "The control partition can't store it now; try again.",
    }
    app.add_api_route(
        PATH,
        reload_config,
        methods=["POST"],
        response_model=ReloadBody,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {"$ref": _SCHEMAS.format(model="Settings")},
                        "example": {"notify": {"wait": {"P2": "1m"}}, "logging": {"level": "DEBUG"}},
                    }
                },
            }
        },
        responses={
            code: {
                "description": text,
                "content": {
                    "application/problem+json": {"schema": {"$ref": _SCHEMAS.format(model="Problem")}}
                },
            }
            for code, text in failures.items()
        },
        tags=["settings"],
    )
    _describe_settings(app)


def _describe_settings(app: FastAPI) -> None:
    """Put the settings among OpenAPI's schemas: the route reads its body itself, within bounds."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = Settings.model_json_schema(ref_template=_SCHEMAS)
            parts = schema.pop("$defs", {})
            generate()["components"]["schemas"].update({"Settings": schema, **parts})
        return generate()

    app.openapi = openapi  # type: ignore[method-assign]
