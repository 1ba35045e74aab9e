"""/v1/edge/agents: the edge agents, what each is asked to do, its configuration, and health checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI, Path, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from models.edge.agent import AGENT_ID_MAX, SERVICE_MAX, EdgeAction
from models.edge.questions import AGENTS_PAGE_MAX, EdgeAgentView
from models.incidents.incident import id_text
from services.api.auth import ADMIN, READ, RESPOND, Caller, requires
from services.api.problems import AWAY, REFUSED, problems
from services.api.v1.bodies import json_response
from services.api.v1.fields import LINE, Time
from services.api.v1.incidents import PREFIX
from services.api.v1.requests import BodyKind, BodyReader, asks_for, describe_bodies
from services.edge.agents import EdgeAgents
from services.times import timestamp

PATH = f"{PREFIX}/edge/agents"
#: Values of one configuration; services/edge/agents.py bounds their bytes.
VALUES_MAX = 1000

Agent = Annotated[str, Path(max_length=AGENT_ID_MAX, description="The agent's id.")]


@dataclass(frozen=True, slots=True)
class EdgeActionBody:
    """An action that an agent was asked for."""

    id: Annotated[str, Field(description="What the agent knows it by.")]
    type: Annotated[str, Field(description="`restart`, `rollback`, `scale` or `config_change`.")]
    service: Annotated[str, Field(description="The service that it is about.")]
    incident_id: Annotated[str, Field(description="The incident whose playbook asked for it.")]
    parameters: Annotated[dict[str, str], Field(description="What the playbook says, by name.")]
    state: Annotated[
        str,
        Field(
            description="`queued`, `delivered`, `accepted`; then `succeeded`, `failed`, `rejected`; `in doubt`: it was given away and not answered in time; `expired`: it never was; `withdrawn`: the run was cancelled."
        ),
    ]
    detail: Annotated[str, Field(description="In the agent's words.")]
    outputs: Annotated[dict[str, str], Field(description="What the agent gave back.")]
    queued_at: Annotated[Time, Field(description="Since when it waits for the agent.")]
    deadline: Annotated[Time, Field(description="After this it is not begun any more.")]
    delivered_at: Annotated[Time | None, Field(description="When the agent was first given it.")]
    ended_at: Annotated[Time | None, Field(description="When it was over.")]


@dataclass(frozen=True, slots=True)
class EdgeConfigBody:
    """The configuration that an agent is to have; its own `config_version` says whether it has it."""

    version: Annotated[int, Field(description="Grows with each change.")]
    values: Annotated[dict[str, str], Field(description="All of it, by name.")]
    by: Annotated[str, Field(description="Who set it.")]
    at: Annotated[Time, Field(description="When it was set.")]


@dataclass(frozen=True, slots=True)
class EdgeCheckBody:
    """The last health check that was asked for."""

    id: Annotated[str, Field(description="What the agent answers it by.")]
    service: Annotated[str, Field(description="The service that it is about; empty for the agent itself.")]
    by: Annotated[str, Field(description="Who asked.")]
    asked_at: Annotated[Time, Field(description="When it was asked for.")]
    answered_at: Annotated[Time | None, Field(description="When the agent answered; null until then.")]
    status: Annotated[str, Field(description="`healthy`, `degraded` or `unhealthy`; empty until then.")]
    detail: Annotated[str, Field(description="In the agent's words.")]


@dataclass(frozen=True, slots=True)
class EdgeAgentBody:
    """An edge agent."""

    id: Annotated[str, Field(description="What it calls itself.")]
    connected: Annotated[bool, Field(description="Whether its stream is open.")]
    since: Annotated[Time, Field(description="Since when it is connected, or away.")]
    why_away: Annotated[str, Field(description="How its last stream ended.")]
    first_seen_at: Annotated[Time, Field(description="When it connected for the first time.")]
    gateway: Annotated[str, Field(description="The gateway that has its stream, or had it last.")]
    status: Annotated[
        str, Field(description="`healthy`, `degraded` or `unhealthy`; empty before it says so.")
    ]
    detail: Annotated[str, Field(description="In its own words.")]
    services: Annotated[list[str], Field(description="What it can be asked to do things to; none: anything.")]
    can_do: Annotated[
        list[str], Field(description="The types of actions that it does; none: it did not say.")
    ]
    config_version: Annotated[int, Field(description="The configuration that it has.")]
    config: Annotated[EdgeConfigBody | None, Field(description="The one that it is to have; null for none.")]
    check: Annotated[
        EdgeCheckBody | None, Field(description="The last one that was asked for; null for none.")
    ]
    open_actions: Annotated[int, Field(description="Actions without a final answer.")]
    actions: Annotated[
        list[EdgeActionBody], Field(description="Those of the last day, the newest first; not in lists.")
    ]


@dataclass(frozen=True, slots=True)
class EdgeAgentsBody:
    """A page of agents."""

    items: Annotated[list[EdgeAgentBody], Field(description="By id.")]
    next: Annotated[str | None, Field(description="The cursor of the next page; null at the end.")]


class EdgeConfigRequest(BaseModel):
    """The values that an agent is to have, all of them."""

    model_config = ConfigDict(extra="forbid")

    values: Annotated[
        dict[
            Annotated[str, Field(min_length=1, max_length=256, pattern=LINE)],
            Annotated[str, Field(max_length=16_384)],
        ],
        Field(
            max_length=VALUES_MAX, description="By name. They can be read by whoever may read: no secrets."
        ),
    ]


class EdgeCheckRequest(BaseModel):
    """Asks an agent how it is."""

    model_config = ConfigDict(extra="forbid")

    service: Annotated[
        str, Field(max_length=SERVICE_MAX, pattern=LINE, description="A service. Empty: the agent itself.")
    ] = ""


def add_edge_routes(app: FastAPI, agents: EdgeAgents, bodies: BodyReader) -> None:
    """The four routes."""
    configured, checked = BodyKind(EdgeConfigRequest), BodyKind(EdgeCheckRequest)

    async def listed(
        limit: Annotated[int, Query(ge=1, le=AGENTS_PAGE_MAX, description="Most items of a page.")] = 100,
        cursor: Annotated[str, Query(max_length=AGENT_ID_MAX, description="`next` of the page before.")] = "",
    ) -> Response:
        """The edge agents that have connected, by id."""
        found, after = await agents.page(cursor, limit)
        return json_response(EdgeAgentsBody([_body(each, with_actions=False) for each in found], after))

    async def one(agent: Agent) -> Response:
        """An edge agent, with what it was asked to do."""
        return json_response(_body(await agents.find(agent)))

    async def configure(
        agent: Agent, request: Request, caller: Annotated[Caller, Depends(requires(ADMIN))]
    ) -> Response:
        """Give an agent a configuration. It is sent at once, and again on each of its streams until it says that it has it."""
        wanted = await bodies.read(request, configured)
        return json_response(_body(await agents.configure(agent, wanted.values, caller.name)))

    async def check(
        agent: Agent, request: Request, caller: Annotated[Caller, Depends(requires(RESPOND))]
    ) -> Response:
        """Ask an agent how it is. `check.answered_at` says when it has answered."""
        wanted = await bodies.read(request, checked)
        return json_response(_body(await agents.check(agent, wanted.service, caller.name)))

    missing = {"404": "There is no edge agent of this id."}
    large = {**missing, "413": "The values are too large."}
    name = f"{PATH}/{{agent}}"
    config: dict[str, object] = {"values": {"log_level": "debug"}}
    asked: dict[str, object] = {"service": "llm-api"}
    for path, endpoint, method, body, failures, asks, scope in (
        (PATH, listed, "GET", EdgeAgentsBody, {}, None, READ),
        (name, one, "GET", EdgeAgentBody, missing, None, READ),
        (
            f"{name}/config",
            configure,
            "POST",
            EdgeAgentBody,
            large,
            asks_for(EdgeConfigRequest, config),
            ADMIN,
        ),
        (
            f"{name}/health-check",
            check,
            "POST",
            EdgeAgentBody,
            missing,
            asks_for(EdgeCheckRequest, asked),
            RESPOND,
        ),
    ):
        app.add_api_route(
            path,
            endpoint,
            methods=[method],
            response_model=body,
            responses=problems(REFUSED, failures, AWAY),
            dependencies=[Depends(requires(scope))],
            openapi_extra=asks,
            tags=["edge agents"],
        )
    describe_bodies(app, EdgeConfigRequest, EdgeCheckRequest)


def _body(view: EdgeAgentView, *, with_actions: bool = True) -> EdgeAgentBody:
    agent = view.agent
    config, check = agent.config, agent.check
    return EdgeAgentBody(
        id=agent.id,
        connected=agent.is_connected,
        since=timestamp(agent.since),
        why_away=agent.why_away,
        first_seen_at=timestamp(agent.first_at),
        gateway=agent.gateway,
        status=agent.status,
        detail=agent.detail,
        services=agent.services,
        can_do=agent.can_do,
        config_version=agent.config_version,
        config=EdgeConfigBody(config.version, config.values, config.by, timestamp(config.at))
        if config.version
        else None,
        check=EdgeCheckBody(
            check.id,
            check.service,
            check.by,
            timestamp(check.at),
            _time(check.answered_at),
            check.status,
            check.detail,
        )
        if check.id
        else None,
        open_actions=view.open_actions,
        actions=[_action(each) for each in reversed(agent.actions.values())] if with_actions else [],
    )


def _action(action: EdgeAction) -> EdgeActionBody:
    return EdgeActionBody(
        action.id,
        action.type,
        action.service,
        id_text(action.incident_id),
        action.parameters,
        action.state,
        action.detail,
        action.outputs,
        timestamp(action.queued_at),
        timestamp(action.deadline),
        _time(action.delivered_at),
        _time(action.ended_at),
    )


def _time(at: float) -> str | None:
    return timestamp(at) if at else None
