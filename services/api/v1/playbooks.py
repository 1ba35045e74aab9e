"""/v1/playbooks: applies, lists, pauses and removes playbooks. Their runs: runs.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, FastAPI, Path, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from models.control.playbooks import NAME_MAX, PLAYBOOK_BYTES_MAX, Mode
from models.ports import Clock
from models.settings.all import Settings
from services.api.auth import ADMIN, READ, RESPOND, Caller, requires
from services.api.playbooks import PlaybookDesk
from services.api.v1.bodies import json_response
from services.api.v1.incidents import PREFIX
from services.api.v1.requests import BodyKind, BodyReader, asks_for, describe_bodies
from services.api.v1.route_table import Route, add_routes
from services.api.v1.run_bodies import AppliedBody, PlaybookBody, PlaybooksBody, playbook_body

PATH = f"{PREFIX}/playbooks"

Name = Annotated[str, Path(max_length=NAME_MAX, description="The playbook's name.")]
_May = Annotated[Caller, Depends(requires(RESPOND))]
_Admin = Annotated[Caller, Depends(requires(ADMIN))]


class ApplyRequest(BaseModel):
    """A playbook to apply."""

    model_config = ConfigDict(extra="forbid")

    source: Annotated[
        str, Field(min_length=1, max_length=PLAYBOOK_BYTES_MAX, description="The playbook, as YAML.")
    ]
    mode: Annotated[
        str,
        Field(
            pattern="^(|active|paused|shadow)$",
            description="`active`, `paused` or `shadow`. Empty: as it is; a new one is active.",
        ),
    ] = ""
    file: Annotated[str, Field(max_length=256, description="What errors call it.")] = "playbook"


class ModeRequest(BaseModel):
    """Whether a playbook runs."""

    model_config = ConfigDict(extra="forbid")

    mode: Annotated[
        str, Field(pattern="^(active|paused|shadow)$", description="`active`, `paused` or `shadow`.")
    ]


class _Kind(BodyKind[ApplyRequest]):
    #: Every character of the longest one escaped.
    max_bytes = 2 * PLAYBOOK_BYTES_MAX


def add_playbook_routes(
    app: FastAPI, desk: PlaybookDesk, bodies: BodyReader, settings: Callable[[], Settings], clock: Clock
) -> None:
    """The five routes."""
    new, moded = _Kind(ApplyRequest), BodyKind(ModeRequest)

    async def apply(request: Request, caller: _Admin) -> Response:
        """Make this the current version of a playbook. A version never changes: the same version with another text is refused.
        It runs for incidents that open from now on."""
        wanted = await bodies.read(request, new)
        applied = await desk.apply(wanted.source, wanted.file, caller.name, wanted.mode)
        body = AppliedBody(
            playbook_body(applied.shelved, clock.now()),
            applied.changed,
            [*applied.warnings],
            settings().playbooks.enabled,
        )
        return json_response(body, 200)

    async def playbooks() -> Response:
        """All playbooks, by name."""
        return json_response(PlaybooksBody([playbook_body(each, clock.now()) for each in await desk.all()]))

    async def playbook(name: Name) -> Response:
        """One playbook, with what was written."""
        return json_response(playbook_body(await desk.find(name), clock.now(), whole=True))

    async def set_mode(name: Name, request: Request, caller: _May) -> Response:
        """Pause a playbook, let it go on, or make it a shadow. Runs under way go on."""
        wanted = await bodies.read(request, moded)
        return json_response(
            playbook_body(await desk.set_mode(name, str(Mode(wanted.mode)), caller.name), clock.now())
        )

    async def remove(name: Name, caller: _Admin) -> Response:
        """Remove a playbook. Runs under way go on. Safe to repeat."""
        await desk.remove(name, caller.name)
        return Response(status_code=204)

    one = f"{PATH}/{{name}}"
    missing = {"404": "There is no playbook of this name."}
    bad = {
        "400": "The playbook can't be read: `detail` has a line for each mistake.",
        "413": "It is too large.",
    }
    other = {"409": "This version was applied before with another text."}
    routes = (
        Route(
            PATH, apply, "POST", 200, AppliedBody, {**bad, **other}, asks_for(ApplyRequest, _EXAMPLE), ADMIN
        ),
        Route(PATH, playbooks, "GET", 200, PlaybooksBody, {}, None, READ),
        Route(one, playbook, "GET", 200, PlaybookBody, missing, None, READ),
        Route(
            f"{one}/mode",
            set_mode,
            "POST",
            200,
            PlaybookBody,
            missing,
            asks_for(ModeRequest, {"mode": "paused"}),
            RESPOND,
        ),
        Route(one, remove, "DELETE", 204, None, missing, None, ADMIN),
    )
    add_routes(app, "playbooks", routes)
    describe_bodies(app, ApplyRequest, ModeRequest)


_EXAMPLE: dict[str, object] = {
    "source": 'name: restart-api\nversion: "1"\nsteps:\n  - id: fix\n    type: remediation\n    actions:\n      - type: service_restart\n        service: llm-api\n'
}
