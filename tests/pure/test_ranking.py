"""What probably causes a situation, and why."""

from __future__ import annotations

from models.topology.graph import Graph, Service, Source
from models.topology.ranking import CAUSES_MAX, Ranked, Sign, rank
from tests.pure.test_topology_graph import made, source


def ranked(graph: Graph, *signs: tuple[str, float], silent: bool = True) -> list[Ranked]:
    return rank(
        graph,
        [Sign(service, at, 0.6) for service, at in signs],
        tolerance_s=30.0,
        window_s=300.0,
        silent=silent,
    )


SHOP = made("web api", "web search", "api auth", "api db", "auth db", "search index")


def test_what_all_others_need_and_began_first_is_the_cause_and_says_why() -> None:
    first, *rest = ranked(SHOP, ("db", 0), ("auth", 40), ("api", 50), ("web", 60))

    assert first.service == "db"
    assert "it began 40 s before what depends on it" in first.reasons
    assert "all 3 other affected services depend on it" in first.reasons
    assert all(each.score < first.score for each in rest)


def test_what_others_need_is_the_cause_though_its_alert_came_a_little_later() -> None:
    found = ranked(SHOP, ("api", 0), ("web", 5), ("db", 25))

    assert found[0].service == "db"


def test_a_symptom_that_began_long_before_is_no_symptom() -> None:
    found = ranked(made("api db"), ("api", 0), ("db", 290))
    late = next(each for each in found if each.service == "db")

    assert "it began 5 min after the first of what depends on it" in late.reasons
    assert late.score < ranked(made("api db"), ("api", 0), ("db", 10))[0].score


def test_what_two_need_that_shows_nothing_itself_is_named_as_such() -> None:
    graph = made("a shared", "b shared", "c shared")
    silent = next(each for each in ranked(graph, ("a", 0), ("b", 0), ("c", 0)) if each.is_silent)

    assert silent.service == "shared"
    assert "it has no incident of its own" in silent.reasons
    assert not any(each.is_silent for each in ranked(graph, ("a", 0), ("b", 0), silent=False))


def test_a_service_with_more_incidents_is_named_once_and_is_affected_more() -> None:
    once = {each.service: each.score for each in ranked(SHOP, ("db", 0), ("api", 10))}
    twice = {each.service: each.score for each in ranked(SHOP, ("db", 0), ("api", 10), ("api", 20))}

    assert once.keys() == twice.keys()
    assert twice["api"] > once["api"]
    assert twice["db"] > twice["api"]


def test_without_a_graph_the_first_and_most_severe_leads() -> None:
    graph = Graph()
    signs = [Sign("a", 100, 0.2), Sign("b", 0, 1.0)]

    first = rank(graph, signs, tolerance_s=30, window_s=300)[0]

    assert first.service == "b"
    assert first.reasons == ("it began 100 s before the others", "it is affected most") or first.reasons == (
        "it began 2 min before the others",
        "it is affected most",
    )


def test_nothing_causes_nothing() -> None:
    assert ranked(SHOP) == []


def test_a_circle_and_a_crowd_are_bounded_and_the_same_each_time() -> None:
    graph = Graph()
    names = [f"s{number}" for number in range(300)]
    links = [f"{one} {two}" for one, two in zip(names, [*names[1:], names[0]], strict=True)]
    graph.put(source("ring", *links))
    graph.put(Source("more", {each: Service(each) for each in names}))

    found = ranked(graph, *((each, float(place)) for place, each in enumerate(names)))

    assert 0 < len(found) <= CAUSES_MAX
    assert found == ranked(graph, *((each, float(place)) for place, each in enumerate(names)))
    assert all(0 <= each.score <= 1 for each in found)
