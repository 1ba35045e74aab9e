"""The schema: what can be asked, by which functions of /v1 it is answered. Built once, by engine.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from graphql import (
    GraphQLArgument,
    GraphQLField,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
)
from pydantic import BaseModel, ValidationError

from models.incidents.filters import Sort
from services.api.graphql.asked import Asked
from services.api.graphql.incident import (
    IncidentNode,
    IncidentPageBody,
    NoteBody,
    NotificationBody,
    nodes,
)
from services.api.graphql.mutations import INCIDENT_ID, id_of, mutations
from services.api.graphql.types import Info, Types, given_by, listed
from services.api.problems import field_problems
from services.api.v1.bodies import (
    AlertBody,
    AlertsBody,
    IncidentBody,
    OverrideBody,
    StakeholderUpdateBody,
    TimelineBody,
    alert_body,
)
from services.api.v1.heartbeats import HeartbeatParams, HeartbeatsBody, heartbeats_page
from services.api.v1.incidents import NoSuchIncident
from services.api.v1.list_params import (
    AlertParams,
    FilterParams,
    IncidentAlertParams,
    ListParams,
    matchers_of,
)
from services.api.v1.relation_bodies import CauseBody, SituationOfBody
from services.api.v1.requests import BadFields
from services.api.v1.run_bodies import DeedBody, RunBody, RunsBody, StepBody, run_body
from services.api.v1.runs import RunParams, runs_page
from services.api.v1.silences import SilenceParams, SilencesBody, StateName, silences_page
from services.api.v1.stats import AlertStatsBody, ServiceBody, StatsBody, StatsParams, TimesBody, stats_of

#: What types are called here, where that is not the name of the body.
NAMES: Mapping[type, str] = {
    AlertStatsBody: "AlertStats",
    CauseBody: "ProbableCause",
    SituationOfBody: "IncidentSituation",
    AlertsBody: "AlertPage",
    DeedBody: "RunAction",
    FilterParams: "IncidentFilter",
    HeartbeatsBody: "HeartbeatPage",
    OverrideBody: "Overrides",
    RunsBody: "RunPage",
    ServiceBody: "ServiceStats",
    SilencesBody: "SilencePage",
    Sort: "IncidentSort",
    StateName: "SilenceState",
    StakeholderUpdateBody: "StakeholderUpdate",
    StepBody: "RunStep",
    TimelineBody: "TimelineEntry",
    TimesBody: "TimeStats",
}
#: What GraphQL calls parameters that have another name in /v1.
ARGUMENTS = {"limit": "first", "cursor": "after"}

_P = TypeVar("_P", bound=BaseModel)


def build() -> GraphQLSchema:
    """The schema of this version."""
    types = Types(
        NAMES, {IncidentNode: IncidentBody}, lambda body: _beside(types) if body is IncidentBody else {}
    )
    query = GraphQLObjectType("Query", lambda: _queries(types), description="What can be read.")
    mutation = GraphQLObjectType(
        "Mutation",
        lambda: mutations(types),
        description="What people do, one after the other. They need the scope `respond`.",
    )
    schema = GraphQLSchema(query, mutation)
    # All of it, now: types name their fields only when they are asked.
    _ = schema.type_map
    return schema


def _queries(types: Types) -> dict[str, GraphQLField]:
    return {
        "incidents": GraphQLField(
            types.shown(IncidentPageBody),
            arguments(types, ListParams),
            _incidents,
            description="Incidents, newest first unless `sort` says otherwise. A page may be short, even empty, and still have a next one.",
        ),
        "incident": GraphQLField(
            types.shown(IncidentBody),
            {"id": INCIDENT_ID},
            _incident,
            description="One incident, open or archived.",
        ),
        "alerts": GraphQLField(
            types.shown(AlertsBody),
            arguments(types, AlertParams),
            _alerts,
            description="All alerts in the shards, firing and ended. Those of archived incidents are only available with their incident.",
        ),
        "silences": GraphQLField(
            types.shown(SilencesBody),
            arguments(types, SilenceParams),
            _silences,
            description="Silences, most recently changed first.",
        ),
        "heartbeats": GraphQLField(
            types.shown(HeartbeatsBody),
            arguments(types, HeartbeatParams),
            _heartbeats,
            description="Heartbeats, by name.",
        ),
        "runs": GraphQLField(
            types.shown(RunsBody),
            arguments(types, RunParams),
            _runs,
            description="Runs of playbooks, the newest first. Those of archived incidents are only available with their incident.",
        ),
        "stats": GraphQLField(
            types.shown(StatsBody),
            arguments(types, StatsParams),
            _stats,
            description="Figures about the incidents that match: now, and over a window.",
        ),
    }


def _beside(types: Types) -> dict[str, GraphQLField]:
    """What an incident has here beside the fields of its body."""
    return {
        "alertPage": GraphQLField(
            types.shown(AlertsBody),
            arguments(types, IncidentAlertParams),
            _alerts_of,
            description="Its alerts, each with the decisions about it; then those of its children.",
        ),
        "runs": GraphQLField(
            _all_of(types.shown(RunBody)),
            resolve=_runs_of,
            description="Its runs of playbooks, in the order in which they began.",
        ),
        "notes": GraphQLField(
            _all_of(types.shown(NoteBody)),
            resolve=lambda node, info: listed(info, node.notes),
            description="What people wrote about it, oldest first.",
        ),
        "notifications": GraphQLField(
            _all_of(types.shown(NotificationBody)),
            resolve=lambda node, info: listed(info, node.notifications),
            description="What each receiver knows of it, by name.",
        ),
    }


def _all_of(kind: GraphQLObjectType) -> Any:
    return GraphQLNonNull(GraphQLList(GraphQLNonNull(kind)))


def arguments(types: Types, params: type[BaseModel]) -> dict[str, GraphQLArgument]:
    """The parameters of a list of /v1 as arguments: the filters of incidents in one, under the name `filter`."""
    filters = set(FilterParams.model_fields) if issubclass(params, FilterParams) else set()
    made = {"filter": GraphQLArgument(types.request(FilterParams))} if filters else {}
    for each in given_by(params):
        if each.key not in filters:
            made[ARGUMENTS.get(each.key, each.name)] = types.argument(each)
    return made


def params_of(kind: type[_P], given: dict[str, Any]) -> _P:
    """The parameters of a list of /v1 from arguments, by the same checks. Raises BadFields."""
    flat = {**(given.pop("filter", None) or {}), **given}
    try:
        # Null is what a client sends for a variable that it has no value for.
        return kind.model_validate({name: value for name, value in flat.items() if value is not None})
    except ValidationError as error:
        raise BadFields(field_problems(error.errors(include_url=False, include_input=False))) from None


async def _incidents(_root: None, info: Info, **given: Any) -> IncidentPageBody:
    params = params_of(ListParams, given)
    asked: Asked = info.context
    async with asked.reading() as ground:
        page = await ground.reads.listing.page(
            params.wanted(), sort=params.sort, limit=params.limit, cursor=params.cursor
        )
        return IncidentPageBody(await nodes(asked, page.items), page.next)


async def _incident(_root: None, info: Info, *, id: str) -> IncidentNode:
    identity = id_of(id)
    asked: Asked = info.context
    async with asked.reading() as ground:
        found = await ground.reads.incident(identity.bytes)
        if found is None:
            raise NoSuchIncident(identity)
        [node] = await nodes(asked, [found.view])
        return node


async def _alerts(_root: None, info: Info, **given: Any) -> AlertsBody:
    params = params_of(AlertParams, given)
    async with info.context.reading() as ground:
        page = await ground.reads.alert_page(
            matchers_of(params.match), firing=params.firing, limit=params.limit, cursor=params.cursor
        )
        return AlertsBody([*map(alert_body, page.items)], page.next)


async def _silences(_root: None, info: Info, **given: Any) -> SilencesBody:
    params = params_of(SilenceParams, given)
    async with info.context.reading() as ground:
        return await silences_page(ground.silences, params)


async def _heartbeats(_root: None, info: Info, **given: Any) -> HeartbeatsBody:
    params = params_of(HeartbeatParams, given)
    async with info.context.reading() as ground:
        return await heartbeats_page(ground.heartbeats, params)


async def _runs(_root: None, info: Info, **given: Any) -> RunsBody:
    params = params_of(RunParams, given)
    async with info.context.reading() as ground:
        return await runs_page(ground.runs, params)


async def _stats(_root: None, info: Info, **given: Any) -> StatsBody:
    params = params_of(StatsParams, given)
    async with info.context.reading() as ground:
        return await stats_of(ground.reads, ground.clock, params)


async def _alerts_of(node: IncidentNode, info: Info, **given: Any) -> AlertsBody:
    params = params_of(IncidentAlertParams, given)
    async with info.context.reading() as ground:
        page = await ground.reads.incident_alerts(
            node.id, firing=params.firing, limit=params.limit, cursor=params.cursor
        )
        items: list[AlertBody] = [] if page is None else [*map(alert_body, page.items)]
        return AlertsBody(items, None if page is None else page.next)


async def _runs_of(node: IncidentNode, info: Info) -> Any:
    async with info.context.reading() as ground:
        found = await ground.runs.of_incident(node.id)
    return listed(info, [*map(run_body, found or ())])
