"""The graph of services: what sources say, and what follows from all of them together."""

from __future__ import annotations

import pytest

from models.errors import Malformed, NotFound, TooLarge
from models.topology import graph as graphs
from models.topology.graph import Criticality, Dependency, Graph, Service, Source, checked


def source(name: str, *links: str, services: tuple[str, ...] = (), at: float = 0.0) -> Source:
    """`links` as "caller callee"."""
    pairs = [tuple(each.split()) for each in links]
    return Source(
        name,
        {each: Service(each) for each in services},
        {(caller, callee): Dependency(caller, callee) for caller, callee in pairs},
        at,
    )


def made(*links: str) -> Graph:
    graph = Graph()
    graph.put(source("test", *links))
    return graph


def test_a_shortest_way_is_found_along_dependencies_only() -> None:
    graph = made("web api", "api auth", "auth db", "api db", "db disk")

    assert graph.path("web", "disk") == ["web", "api", "db", "disk"]
    assert graph.path("disk", "web") == []
    assert graph.path("web", "web") == ["web"]
    assert graph.path("web", "nobody") == []


def test_a_circle_has_an_end() -> None:
    graph = made("a b", "b c", "c a")

    assert graph.reached("a", 10) == {"b": 1, "c": 2}
    assert graph.reached("a", 10, callers=True) == {"c": 1, "b": 2}
    assert graph.near("a", 1) == {"a", "b", "c"}


def test_names_that_no_source_knows_are_not_remembered() -> None:
    graph = made("a b")
    for number in range(1000):
        name = f"stranger-{number}"
        assert graph.near(name, 2) == {name}
    assert graph.near("a", 2) == {"a", "b"}

    assert len(graph._near) == 1


def test_what_one_source_says_replaces_its_own_and_leaves_the_others() -> None:
    graph = Graph()
    graph.put(source("cmdb", "web api", "api db", services=("web", "alone"), at=1.0))
    graph.put(source("traces", "api db", at=5.0))

    both = graph.edge("api", "db")
    assert (both.sources, both.seen_at) == (("cmdb", "traces"), 5.0)

    graph.put(source("cmdb", "web api"))
    assert graph.path("web", "db") == ["web", "api", "db"]
    assert "alone" not in graph

    graph.drop("traces")
    assert graph.path("web", "db") == []


def test_a_source_whose_last_dependency_goes_is_no_source_any_more() -> None:
    graph = Graph()
    graph.link("manual", Dependency("a", "b", "http"), 1.0, "ada")
    graph.unlink("manual", "a", "b")

    assert graph.sources == {}
    with pytest.raises(NotFound, match="no source is called 'manual'; there are none"):
        graph.says("manual")


def test_the_highest_criticality_that_a_source_gives_counts() -> None:
    graph = Graph()
    graph.put(Source("one", {"db": Service("db", Criticality.LOW)}))
    graph.put(Source("two", {"db": Service("db", Criticality.CRITICAL)}))

    assert graph.criticality("db") is Criticality.CRITICAL
    assert graph.criticality("unknown") is Criticality.NORMAL


@pytest.mark.parametrize(
    ("dependency", "said"),
    [
        (Dependency("a", "a"), r"dependencies\[0\]\.callee: 'a' can't depend on itself"),
        (Dependency("", "b"), r"dependencies\[0\]\.caller: expected 1 to 256 printable characters, not ''"),
        (Dependency("a", "b\n"), r"dependencies\[0\]\.callee: expected"),
        (Dependency("a", "b", "x" * 65), r"dependencies\[0\]\.kind: expected 1 to 64"),
    ],
)
def test_a_wrong_entry_is_named(dependency: Dependency, said: str) -> None:
    with pytest.raises(Malformed, match=said):
        checked([], [dependency], "test")


def test_what_stands_twice_counts_once_and_order_does_not_matter() -> None:
    one = checked([Service("b"), Service("a")], [Dependency("b", "a"), Dependency("a", "c")], "s")
    other = checked(
        [Service("a"), Service("b"), Service("a")],
        [Dependency("a", "c"), Dependency("b", "a"), Dependency("a", "c")],
        "s",
    )

    assert one == other


def test_all_sources_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "DEPENDENCIES_MAX", 3)
    graph = made("a b", "b c")

    graph.check_room("other", 0, 1)
    graph.check_room("test", 0, 3)  # in place of what it said
    with pytest.raises(TooLarge, match="4 dependencies in all sources together: there is room for 3"):
        graph.check_room("other", 0, 2)
