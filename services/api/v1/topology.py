"""/v1/topology: which services there are, and which need which; what sources say of it, as a whole or one dependency at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from models.errors import NotFound
from models.topology.graph import (
    CALLS,
    DEPENDENCIES_MAX,
    KIND_MAX,
    MANUAL,
    NAME_MAX,
    PATH_MAX,
    SERVICES_MAX,
    Criticality,
    Dependency,
    Service,
)
from models.topology.messages import (
    PAGE_MAX,
    DeclareTopology,
    EdgeView,
    GetPath,
    GetService,
    GetTopology,
    PathPage,
    RemoveDependency,
    RemoveSource,
    ServicePage,
    ServiceView,
    SetDependency,
    SourceView,
    TopologyPage,
)
from services.api.auth import READ, RESPOND, Caller, requires
from services.api.topology import TopologyDesk
from services.api.v1.bodies import json_response
from services.api.v1.fields import FILLED_LINE, Time, any_case, says
from services.api.v1.incidents import PREFIX
from services.api.v1.requests import BodyKind, BodyReader, asks_for, describe_bodies
from services.api.v1.route_table import Route, add_routes
from services.times import timestamp

PATH = f"{PREFIX}/topology"
#: Bytes of all that one source says: 50,000 dependencies.
DECLARED_MAX_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class DependencyBody:
    """One service needs another."""

    caller: Annotated[str, says("The service that needs the other.")]
    callee: Annotated[str, says("The service that is needed.")]
    kinds: Annotated[list[str], says("How: `http`, `database` ..., as its sources say.")]
    sources: Annotated[list[str], says("Who says so.")]
    seen_at: Annotated[Time, says("When one of them said so last.")]


@dataclass(frozen=True, slots=True)
class ServiceBody:
    """A service, and what it has to do with others directly."""

    name: Annotated[str, says("Its name, as incidents have it.")]
    criticality: Annotated[Criticality, says("How much depends on it, as people see it.")]
    needs: Annotated[list[DependencyBody], says("What it needs.")]
    needed_by: Annotated[list[DependencyBody], says("Who needs it.")]
    open_incidents: Annotated[list[UUID], says("Its incidents that are open.")]


@dataclass(frozen=True, slots=True)
class SourceBody:
    """Who says something of services."""

    name: Annotated[str, says("Its name.")]
    services: Annotated[int, says("How many services it names.")]
    dependencies: Annotated[int, says("How many dependencies it names.")]
    seen_at: Annotated[Time, says("When it said so last.")]
    by: Annotated[str, says("Whose token it was.")]


@dataclass(frozen=True, slots=True)
class TopologyBody:
    """A page of the graph, by the names of services."""

    items: Annotated[list[ServiceBody], says("The services.")]
    sources: Annotated[list[SourceBody], says("Who says so.")]
    service_count: Annotated[int, says("How many services there are in all.")]
    dependency_count: Annotated[int, says("How many dependencies there are in all.")]
    next: Annotated[str | None, says("`after` of the next page; null on the last one.")]


@dataclass(frozen=True, slots=True)
class NeighbourhoodBody:
    """A service, and who is how far from it."""

    service: Annotated[ServiceBody, says("The service.")]
    reaches: Annotated[dict[str, int], says("What it needs, directly or through others, and how far away.")]
    reached_by: Annotated[dict[str, int], says("Who needs it, and how far away: what an outage would reach.")]


@dataclass(frozen=True, slots=True)
class PathBody:
    """A shortest way along dependencies; empty when none leads there."""

    items: Annotated[list[DependencyBody], says("Its dependencies, in order.")]


_Name = Annotated[str, Field(min_length=1, max_length=NAME_MAX, pattern=FILLED_LINE)]


class ServiceRequest(BaseModel):
    """A service."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[_Name, Field(description="Its name, as incidents have it.")]
    criticality: Annotated[
        Criticality,
        BeforeValidator(any_case(Criticality)),
        Field(description="How much depends on it, as people see it."),
    ] = Criticality.NORMAL
    depends_on: Annotated[
        list[_Name], Field(max_length=SERVICES_MAX, description="What it needs; short for `dependencies`.")
    ] = []


class DependencyRequest(BaseModel):
    """One service needs another."""

    model_config = ConfigDict(extra="forbid")

    caller: Annotated[_Name, Field(description="The service that needs the other.")]
    callee: Annotated[_Name, Field(description="The service that is needed.")]
    kind: Annotated[
        str, Field(min_length=1, max_length=KIND_MAX, pattern=FILLED_LINE, description="How.")
    ] = CALLS


class LinkRequest(DependencyRequest):
    """One dependency, said by a source."""

    source: Annotated[_Name, Field(description="Who says so.")] = MANUAL


class TopologyRequest(BaseModel):
    """All that a source says of services: what it said before and does not say any more is forgotten."""

    model_config = ConfigDict(extra="forbid")

    source: Annotated[_Name, Field(description="Who says so. What other sources say stays.")] = MANUAL
    services: Annotated[list[ServiceRequest], Field(max_length=SERVICES_MAX, description="Services.")] = []
    dependencies: Annotated[
        list[DependencyRequest], Field(max_length=DEPENDENCIES_MAX, description="Which needs which.")
    ] = []


class DeclaredKind(BodyKind[TopologyRequest]):
    """May be as long as a whole company's graph."""

    max_bytes = DECLARED_MAX_BYTES


class TopologyParams(BaseModel):
    """A page of the graph."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=PAGE_MAX, description="How many services at most.")] = 100
    after: Annotated[str, Field(max_length=NAME_MAX, description='The "next" of the page before.')] = ""


class ServiceParams(BaseModel):
    """One service."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=NAME_MAX, description="The service's name.")]
    hops: Annotated[int, Field(ge=1, le=PATH_MAX, description="How far to look, in dependencies.")] = PATH_MAX


class PathParams(BaseModel):
    """Two services."""

    model_config = ConfigDict(extra="forbid")

    caller: Annotated[str, Field(min_length=1, max_length=NAME_MAX, description="Where the way begins.")]
    callee: Annotated[str, Field(min_length=1, max_length=NAME_MAX, description="Where it leads.")]


class SourceParams(BaseModel):
    """A source."""

    model_config = ConfigDict(extra="forbid")

    source: Annotated[str, Field(min_length=1, max_length=NAME_MAX, description="The source's name.")]


class LinkParams(PathParams):
    """A dependency of a source."""

    source: Annotated[str, Field(min_length=1, max_length=NAME_MAX, description="The source's name.")] = (
        MANUAL
    )


_May = Annotated[Caller, Depends(requires(RESPOND))]
_OFF = {"409": "Correlation is off: `correlation.enabled`."}
_BAD = {
    "400": "A field is wrong, named in `errors` or in the detail.",
    "413": "It is too much; the detail says what fits.",
}
_NO_SERVICE = {"404": "No source knows this service."}
_NO_SOURCE = {"404": "There is no such source, or it does not say this."}


def add_topology_routes(app: FastAPI, desk: TopologyDesk, bodies: BodyReader) -> None:
    """The seven routes."""
    declared, linked = DeclaredKind(TopologyRequest), BodyKind(LinkRequest)

    async def topology(params: Annotated[TopologyParams, Query()]) -> Response:
        """Services by name, with what they need and who needs them."""
        return json_response(
            _topology_body(await desk.ask(GetTopology(params.after, params.limit), TopologyPage))
        )

    async def declare(request: Request, caller: _May) -> Response:
        """Take all that a source says of services. Sent again it changes nothing."""
        wanted = await bodies.read(request, declared)
        known = {(each.caller, each.callee) for each in wanted.dependencies}
        await desk.tell(
            DeclareTopology(
                wanted.source,
                [Service(each.name, each.criticality) for each in wanted.services],
                [
                    *(Dependency(each.caller, each.callee, each.kind) for each in wanted.dependencies),
                    *(
                        Dependency(each.name, needed)
                        for each in wanted.services
                        for needed in each.depends_on
                        if (each.name, needed) not in known
                    ),
                ],
                caller.name,
            )
        )
        found = await desk.ask(GetTopology(limit=1), TopologyPage)
        said = [each for each in found.sources if each.name == wanted.source]
        return json_response(_source_body(said[0])) if said else Response(status_code=204)

    async def remove(params: Annotated[SourceParams, Query()], caller: _May) -> Response:
        """Forget all that a source says."""
        await desk.tell(RemoveSource(params.source, caller.name))
        return Response(status_code=204)

    async def service(params: Annotated[ServiceParams, Query()]) -> Response:
        """One service, what it needs, and what an outage of it would reach."""
        found = await desk.ask(GetService(params.name, params.hops), ServicePage)
        if found.service is None:
            raise NotFound(f"no source knows a service {params.name!r}")
        body = NeighbourhoodBody(_service_body(found.service), found.reaches, found.reached_by)
        return json_response(body)

    async def path(params: Annotated[PathParams, Query()]) -> Response:
        """A shortest way along dependencies from one service to another."""
        found = await desk.ask(GetPath(params.caller, params.callee), PathPage)
        if found.unknown:
            raise NotFound(f"no source knows a service {found.unknown[0]!r}")
        return json_response(PathBody([*map(_dependency_body, found.edges)]))

    async def link(request: Request, caller: _May) -> Response:
        """Add one dependency, or change its kind. Safe to repeat."""
        wanted = await bodies.read(request, linked)
        dependency = Dependency(wanted.caller, wanted.callee, wanted.kind)
        await desk.tell(SetDependency(wanted.source, dependency, caller.name))
        found = await desk.ask(GetPath(wanted.caller, wanted.callee), PathPage)
        return json_response(PathBody([*map(_dependency_body, found.edges[:1])]))

    async def unlink(params: Annotated[LinkParams, Query()], caller: _May) -> Response:
        """Have a source say of one dependency no more."""
        await desk.tell(RemoveDependency(params.source, params.caller, params.callee, caller.name))
        return Response(status_code=204)

    example: dict[str, object] = {
        "source": "cmdb",
        "services": [{"name": "checkout", "criticality": "critical", "depends_on": ["payments"]}],
        "dependencies": [{"caller": "payments", "callee": "db-main", "kind": "database"}],
    }
    one: dict[str, object] = {"caller": "payments", "callee": "db-main", "kind": "database"}
    links = f"{PATH}/dependencies"
    routes = (
        Route(PATH, topology, "GET", 200, TopologyBody, _OFF, None, READ),
        Route(
            PATH,
            declare,
            "PUT",
            200,
            SourceBody,
            {**_BAD, **_OFF},
            asks_for(TopologyRequest, example),
            RESPOND,
        ),
        Route(PATH, remove, "DELETE", 204, None, {**_NO_SOURCE, **_OFF}, None, RESPOND),
        Route(f"{PATH}/service", service, "GET", 200, NeighbourhoodBody, {**_NO_SERVICE, **_OFF}, None, READ),
        Route(f"{PATH}/path", path, "GET", 200, PathBody, {**_NO_SERVICE, **_OFF}, None, READ),
        Route(links, link, "POST", 200, PathBody, {**_BAD, **_OFF}, asks_for(LinkRequest, one), RESPOND),
        Route(links, unlink, "DELETE", 204, None, {**_NO_SOURCE, **_OFF}, None, RESPOND),
    )
    add_routes(app, "topology", routes)
    describe_bodies(app, TopologyRequest, LinkRequest)


def _topology_body(page: TopologyPage) -> TopologyBody:
    return TopologyBody(
        [*map(_service_body, page.services)],
        [*map(_source_body, page.sources)],
        page.service_count,
        page.dependency_count,
        page.next_after,
    )


def _service_body(service: ServiceView) -> ServiceBody:
    return ServiceBody(
        service.name,
        service.criticality,
        [*map(_dependency_body, service.needs)],
        [*map(_dependency_body, service.needed_by)],
        [UUID(bytes=each) for each in service.open_incidents],
    )


def _dependency_body(edge: EdgeView) -> DependencyBody:
    return DependencyBody(edge.caller, edge.callee, edge.kinds, edge.sources, timestamp(edge.seen_at))


def _source_body(source: SourceView) -> SourceBody:
    return SourceBody(
        source.name, source.services, source.dependencies, timestamp(source.seen_at), source.actor
    )
