"""/v1/runs and /v1/incidents/{id}/runs: runs of playbooks, listed, shown, started and steered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Depends, FastAPI, Path, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from models.control.playbooks import NAME_MAX
from models.errors import Malformed, NotFound
from models.incidents.verbs import AnyVerb, ApproveRun, CancelRun, HoldRun, StartRun
from models.partition.packed import unpack
from models.playbook.work import CAPTURE_MAX
from services.api.auth import READ, RESPOND, requires
from services.api.playbooks import RunReads
from services.api.problems import AWAY, NOT_FOUND, REFUSED, problems
from services.api.v1.bodies import json_response
from services.api.v1.commands import Commands
from services.api.v1.fields import NameOrNone, Why
from services.api.v1.incidents import PREFIX, IncidentId, NoSuchIncident
from services.api.v1.list_params import PAGE_DEFAULT, Limit
from services.api.v1.requests import (
    BodyKind,
    BodyReader,
    IdempotencyKey,
    asks_for,
    describe_bodies,
    digest_of,
    has_body,
    origin_of,
)
from services.api.v1.run_bodies import CaptureBody, RunBody, RunsBody, capture_body, run_body

PATH = f"{PREFIX}/runs"
#: Ours have 16.
QUESTION_CHARS = 64

RunId = Annotated[UUID, Path(description="The run's id.")]


class StartRequest(BaseModel):
    """A playbook to run for an incident, whatever its trigger says."""

    model_config = ConfigDict(extra="forbid")

    playbook: Annotated[str, Field(min_length=1, max_length=NAME_MAX, description="Its name.")]
    shadow: Annotated[bool, Field(description="Decide everything and do nothing.")] = False
    reason: Why = ""


class SteerRequest(BaseModel):
    """Why a run is paused, resumed or cancelled."""

    model_config = ConfigDict(extra="forbid")

    reason: Why = ""


class ApproveRequest(BaseModel):
    """An answer to what a run waits for."""

    model_config = ConfigDict(extra="forbid")

    step: Annotated[NameOrNone, Field(description="The step that waits. Empty: all of them.")] = ""
    question: Annotated[
        str,
        Field(
            max_length=QUESTION_CHARS,
            description="The `question` of the approval that was read: if it asks something else by now, 412. Empty: whatever it asks.",
        ),
    ] = ""
    reason: Why = ""


class RunParams(BaseModel):
    """A page of a filtered list."""

    model_config = ConfigDict(extra="forbid")

    active: Annotated[
        bool | None, Field(description="Only those under way, or only those that are over.")
    ] = None
    playbook: Annotated[str, Field(max_length=NAME_MAX, description="Only runs of this playbook.")] = ""
    limit: Limit = PAGE_DEFAULT
    cursor: Annotated[
        str | None, Field(max_length=36, description='The "next" of an earlier page of the same list.')
    ] = None


@dataclass(frozen=True, slots=True)
class _Steered:
    """A verb of runs."""

    name: str
    body: type[SteerRequest | ApproveRequest]
    verb: Callable[[bytes, SteerRequest | ApproveRequest], AnyVerb]
    summary: str


_STEERING = (
    _Steered(
        "pause", SteerRequest, lambda run, _: HoldRun(run, True), "Begin nothing more until it is resumed."
    ),
    _Steered("resume", SteerRequest, lambda run, _: HoldRun(run, False), "Go on."),
    _Steered(
        "cancel",
        SteerRequest,
        lambda run, _: CancelRun(run),
        "End a run. What it was asked for is waited for, and what is to be done at the end (`finally`) is done.",
    ),
    _Steered(
        "approve",
        ApproveRequest,
        lambda run, body: ApproveRun(run, _step(body), question=_question(body)),
        "Agree to what it waits for.",
    ),
    _Steered(
        "deny",
        ApproveRequest,
        lambda run, body: ApproveRun(run, _step(body), denied=True, question=_question(body)),
        "Refuse what it waits for: that step fails.",
    ),
)


def _step(body: SteerRequest | ApproveRequest) -> str:
    return body.step if isinstance(body, ApproveRequest) else ""


def _question(body: SteerRequest | ApproveRequest) -> str:
    return body.question if isinstance(body, ApproveRequest) else ""


def add_run_routes(app: FastAPI, runs: RunReads, commands: Commands, bodies: BodyReader) -> None:
    """The ten routes."""
    new = BodyKind(StartRequest)

    async def listed(params: Annotated[RunParams, Query()]) -> Response:
        """Runs, the newest first. Those of archived incidents are only available with their incident."""
        return json_response(await runs_page(runs, params))

    async def shown(run_id: RunId) -> Response:
        """One run, with all that its steps did."""
        return json_response(run_body(await runs.find(run_id.bytes)))

    async def captured(
        run_id: RunId, capture_id: Annotated[str, Path(max_length=64, description="The capture's id.")]
    ) -> Response:
        """What an action of a run recorded: metrics, logs, configuration."""
        found = await runs.find(run_id.bytes, whole=True)
        for each in found.captures:
            if each.id.hex() == capture_id:
                text = unpack(each.packed, CAPTURE_MAX).decode("utf-8", "replace")
                return json_response(capture_body(each, text))
        raise NotFound("there is no such capture of this run")

    async def of_incident(incident_id: IncidentId) -> Response:
        """The runs of one incident, archived or not, in the order in which they began."""
        found = await runs.of_incident(incident_id.bytes)
        if found is None:
            raise NoSuchIncident(incident_id)
        return json_response(RunsBody([run_body(each) for each in found], None))

    async def start(
        incident_id: IncidentId, request: Request, idempotency_key: IdempotencyKey = None
    ) -> Response:
        """Run a playbook for an incident now, whatever its trigger says."""
        wanted, identity = await bodies.read(request, new), incident_id.bytes
        content = digest_of("run", identity, wanted.model_dump())
        verb = StartRun(wanted.playbook, wanted.shadow)
        await commands.do(origin_of(request), identity, verb, reason=wanted.reason, content=content)
        mine = [
            each for each in await runs.of_incident(identity) or () if each.run.playbook == wanted.playbook
        ]
        if not mine:
            raise NotFound("the run was started, but can't be read yet: list the runs of the incident")
        response = json_response(run_body(mine[-1]), 201)
        response.headers["Location"] = f"{PATH}/{UUID(bytes=mine[-1].run.id)}"
        return response

    def steering(steered: _Steered) -> Callable[..., Awaitable[Response]]:
        kind = BodyKind(steered.body)

        async def route(run_id: RunId, request: Request, idempotency_key: IdempotencyKey = None) -> Response:
            body = await bodies.read(request, kind) if has_body(request) else kind.read(b"")
            found = await runs.find(run_id.bytes)
            content = digest_of(steered.name, run_id.bytes, body.model_dump())
            await commands.do(
                origin_of(request),
                found.run.incident_id,
                steered.verb(run_id.bytes, body),
                reason=body.reason,
                content=content,
            )
            return json_response(run_body(await runs.find(run_id.bytes)))

        return route

    one, of = f"{PATH}/{{run_id}}", f"{PREFIX}/incidents/{{incident_id}}/runs"
    missing = {"404": "No run has this id, or its incident is archived."}
    for path, endpoint, body, failures in (
        (PATH, listed, RunsBody, {}),
        (one, shown, RunBody, missing),
        (f"{one}/captures/{{capture_id}}", captured, CaptureBody, missing),
        (of, of_incident, RunsBody, NOT_FOUND),
    ):
        app.add_api_route(
            path,
            endpoint,
            methods=["GET"],
            response_model=body,
            responses=problems(REFUSED, failures, AWAY),
            dependencies=[Depends(requires(READ))],
            tags=["runs"],
        )
    app.add_api_route(
        of,
        start,
        methods=["POST"],
        status_code=201,
        response_model=RunBody,
        responses=problems(
            REFUSED, NOT_FOUND, {"409": "Playbooks are off, another one runs for it, or it is over."}, AWAY
        ),
        dependencies=[Depends(requires(RESPOND))],
        openapi_extra=asks_for(StartRequest, {"playbook": "restart-api"}),
        tags=["runs"],
    )
    for steered in _STEERING:
        app.add_api_route(
            f"{one}/{steered.name}",
            steering(steered),
            methods=["POST"],
            name=f"{steered.name}-run",
            response_model=RunBody,
            responses=problems(
                REFUSED,
                missing,
                {
                    "409": "The run is over, or waits for nothing.",
                    "412": "What it asks was changed in the meantime.",
                },
                AWAY,
            ),
            dependencies=[Depends(requires(RESPOND))],
            summary=f"{steered.name.capitalize()} a run",
            description=steered.summary,
            openapi_extra=asks_for(steered.body, {"reason": "I look at it myself"}, required=False),
            tags=["runs"],
        )
    describe_bodies(app, StartRequest, SteerRequest, ApproveRequest)


async def runs_page(runs: RunReads, params: RunParams) -> RunsBody:
    """A page of runs. Raises Malformed for a bad cursor."""
    before = b"" if params.cursor is None else _cursor(params.cursor)
    found, following = await runs.page(params.limit, before, params.active, params.playbook)
    after = None if following is None else str(UUID(bytes=following))
    return RunsBody([run_body(each) for each in found], after)


def _cursor(text: str) -> bytes:
    try:
        return UUID(text).bytes
    except ValueError:
        raise Malformed('cursor: expected the "next" of an earlier page') from None
