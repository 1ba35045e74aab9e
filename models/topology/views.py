"""What the topology partition shows: answers to the queries of models/topology/messages.py. Reads change nothing."""

from __future__ import annotations

from itertools import pairwise

from models.topology.graph import PATH_MAX, Edge, by_source
from models.topology.messages import (
    PAGE_MAX,
    Answer,
    EdgeView,
    GetPath,
    GetService,
    GetSituation,
    GetTopology,
    ListSituations,
    PathPage,
    Query,
    ServicePage,
    ServiceView,
    SituationMember,
    SituationPage,
    SituationView,
    SourceView,
    TopologyPage,
)
from models.topology.situations import Situation
from models.topology.topology import Topology

#: Incidents in one answer of situations, which ends the page: each takes a search of the graph, and nothing else is done meanwhile.
MEMBERS_MAX = 2000


def answer(topology: Topology, query: Query) -> Answer:
    """The answer to a query."""
    match query:
        case GetTopology():
            return _page(topology, query)
        case GetService():
            graph, hops = topology.graph, min(max(1, query.hops), PATH_MAX)
            if query.name not in graph:
                return ServicePage(None)
            reaches = graph.reached(query.name, hops)
            reached_by = graph.reached(query.name, hops, callers=True)
            return ServicePage(_service(topology, query.name), reaches, reached_by)
        case GetPath():
            graph = topology.graph
            way = graph.path(query.caller, query.callee)
            edges = [_edge(graph.edge(*pair)) for pair in pairwise(way)]
            return PathPage(edges, [each for each in (query.caller, query.callee) if each not in graph])
        case ListSituations():
            return _situations(topology, query)
        case GetSituation():
            found = topology.situations.all.get(query.id)
            return SituationPage([] if found is None else [_situation(topology, found)])


def _page(topology: Topology, query: GetTopology) -> TopologyPage:
    graph, limit = topology.graph, min(max(1, query.limit), PAGE_MAX)
    names = sorted(each for each in graph.services if each > query.after)
    page = names[:limit]
    return TopologyPage(
        [_service(topology, each) for each in page],
        [
            SourceView(each.name, len(each.services), len(each.dependencies), each.seen_at, each.actor)
            for each in by_source(graph.sources)
        ],
        page[-1] if len(page) < len(names) else None,
        len([*graph.services]),
        graph.dependencies,
    )


def _service(topology: Topology, name: str) -> ServiceView:
    graph = topology.graph
    return ServiceView(
        name,
        graph.criticality(name),
        [_edge(graph.edge(name, each)) for each in sorted(graph.callees(name))],
        [_edge(graph.edge(each, name)) for each in sorted(graph.callers(name))],
        [identity for _since, identity in topology.situations.open_services.get(name, ())],
    )


def _edge(edge: Edge) -> EdgeView:
    return EdgeView(edge.caller, edge.callee, [*edge.kinds], [*edge.sources], edge.seen_at)


def _situations(topology: Topology, query: ListSituations) -> SituationPage:
    limit = min(max(1, query.limit), PAGE_MAX)
    found = sorted(
        (
            each
            for each in topology.situations.all.values()
            if (query.is_open is None or query.is_open is not bool(each.ended_at))
            and (query.before is None or (each.opened_at, each.id) < query.before)
        ),
        key=lambda each: (each.opened_at, each.id),
        reverse=True,
    )
    page, members = list[Situation](), 0
    for each in found[:limit]:
        members += len(each.incidents)
        if page and members > MEMBERS_MAX:
            break
        page.append(each)
    last = (page[-1].opened_at, page[-1].id) if len(page) < len(found) else None
    return SituationPage([_situation(topology, each) for each in page], last)


def _situation(topology: Topology, situation: Situation) -> SituationView:
    members = []
    for identity in situation.incidents:
        member = topology.situations.members[identity]
        found = topology.relation(identity, topology.now)
        part, symptom_of = ("related", b"") if found is None else (found[1].part.value, found[1].symptom_of)
        members.append(SituationMember(member.news, part, symptom_of, member.ended_at))
    return SituationView(
        situation.id,
        situation.opened_at,
        situation.updated_at,
        situation.ended_at,
        situation.causes,
        members,
    )
