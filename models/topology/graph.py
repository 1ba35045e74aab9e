"""The graph of services: who calls whom. Several sources may say so (a file, a person, an importer), each of what it knows; what
one says replaces what it said before and leaves the others' alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum

import msgspec

from models.errors import Malformed, NotFound, TooLarge

#: Of all sources together. A large company has some thousands of services, each of which calls a dozen.
SERVICES_MAX = 20_000
DEPENDENCIES_MAX = 100_000
SOURCES_MAX = 100
NAME_MAX = 256
KIND_MAX = 64
#: What a source is called that gives itself no name, and what a dependency is that says nothing of itself.
MANUAL = "manual"
CALLS = "calls"
#: Steps of a path that people ask for. No request goes through so many services.
PATH_MAX = 32


class Criticality(StrEnum):
    """How much depends on a service, as people see it."""

    CRITICAL = "critical"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Service(msgspec.Struct, frozen=True, array_like=True):
    """A service that a source knows. `name` is what incidents have as their service."""

    name: str
    criticality: Criticality = Criticality.NORMAL


class Dependency(msgspec.Struct, frozen=True, array_like=True):
    """`caller` needs `callee`: what happens to the second shows in the first. `kind` says how ("http", "database")."""

    caller: str
    callee: str
    kind: str = CALLS


class Source(msgspec.Struct, array_like=True):
    """What one source said: services by name, dependencies by caller and callee. `seen_at` is when it last said all of it."""

    name: str
    services: dict[str, Service] = {}
    dependencies: dict[tuple[str, str], Dependency] = {}
    seen_at: float = 0.0
    actor: str = ""


class Edge(msgspec.Struct, frozen=True):
    """A dependency as the graph has it: every kind that was given, who says so, and when that was said last."""

    caller: str
    callee: str
    kinds: tuple[str, ...]
    sources: tuple[str, ...]
    seen_at: float


class Graph:
    """All sources together. What is asked often is made once for each `version`."""

    def __init__(self) -> None:
        self.sources: dict[str, Source] = {}
        #: Grows with every change.
        self.version = 0
        self._callees: dict[str, dict[str, None]] = {}
        self._callers: dict[str, dict[str, None]] = {}
        self._near: dict[tuple[str, int], frozenset[str]] = {}

    # -- what is known -------------------------------------------------------------------------------------

    def __contains__(self, service: str) -> bool:
        return service in self._callees

    @property
    def services(self) -> Iterable[str]:
        """Every service, in no order."""
        return self._callees.keys()

    @property
    def dependencies(self) -> int:
        return sum(map(len, self._callees.values()))

    def callees(self, service: str) -> Iterable[str]:
        """What a service needs, directly."""
        return self._callees.get(service, ())

    def callers(self, service: str) -> Iterable[str]:
        """Who needs it, directly."""
        return self._callers.get(service, ())

    def criticality(self, service: str) -> Criticality:
        """The highest that a source gives it."""
        found = [
            each.services[service].criticality for each in self.sources.values() if service in each.services
        ]
        return min(found, key=[*Criticality].index, default=Criticality.NORMAL)

    def edge(self, caller: str, callee: str) -> Edge:
        """Raises KeyError."""
        said = [
            (source, source.dependencies[caller, callee])
            for source in by_source(self.sources)
            if (caller, callee) in source.dependencies
        ]
        if not said:
            raise KeyError((caller, callee))
        return Edge(
            caller,
            callee,
            tuple(dict.fromkeys(each.kind for _source, each in said)),
            tuple(source.name for source, _each in said),
            max(source.seen_at for source, _each in said),
        )

    def edges(self) -> Iterator[Edge]:
        """Every dependency, by caller and callee."""
        for caller in sorted(self._callees):
            for callee in sorted(self._callees[caller]):
                yield self.edge(caller, callee)

    def path(self, caller: str, callee: str) -> list[str]:
        """A shortest way along dependencies from one service to another, both included; empty when there is none."""
        before: dict[str, str] = {caller: ""}
        frontier = [caller]
        for _step in range(PATH_MAX):
            if callee in before or not frontier:
                break
            found: list[str] = []
            for each in frontier:
                for needed in sorted(self._callees.get(each, ())):
                    if needed not in before:
                        before[needed] = each
                        found.append(needed)
            frontier = found
        if callee not in before:
            return []
        way = [callee]
        while before[way[-1]]:
            way.append(before[way[-1]])
        return way[::-1]

    def reached(self, service: str, hops: int, *, callers: bool = False) -> dict[str, int]:
        """What a service needs within so many steps, or with `callers` who needs it, each with its distance; without itself."""
        links = self._callers if callers else self._callees
        found, here = {service: 0}, [service]
        for hop in range(1, hops + 1):
            # In their order, so that the same graph gives the same.
            there = dict.fromkeys(
                other for each in here for other in links.get(each, ()) if other not in found
            )
            if not there:
                break
            found |= dict.fromkeys(there, hop)
            here = [*there]
        del found[service]
        return found

    def near(self, service: str, hops: int) -> frozenset[str]:
        """The services that need this one or that it needs, within so many steps; and itself."""
        if service not in self:
            # Not remembered: any alert may bring a name that no source knows.
            return frozenset((service,))
        found = self._near.get((service, hops))
        if found is None:
            around = {*self.reached(service, hops), *self.reached(service, hops, callers=True), service}
            found = self._near[service, hops] = frozenset(around)
        return found

    # -- what is said --------------------------------------------------------------------------------------

    def check_room(self, source: str, services: int, dependencies: int) -> None:
        """Raises TooLarge when there is no room for so many of this source beside what the others say."""
        others = [each for name, each in self.sources.items() if name != source]
        if len(others) >= SOURCES_MAX:
            raise TooLarge(f"there are {SOURCES_MAX} sources already: remove one that is not used any more")
        for what, wanted, most in (
            ("services", services + sum(len(each.services) for each in others), SERVICES_MAX),
            ("dependencies", dependencies + sum(len(each.dependencies) for each in others), DEPENDENCIES_MAX),
        ):
            if wanted > most:
                raise TooLarge(f"{wanted:,} {what} in all sources together: there is room for {most:,}")

    def says(self, name: str) -> Source:
        """What a source says. Raises NotFound."""
        found = self.sources.get(name)
        if found is None:
            known = ", ".join(sorted(self.sources)) or "none"
            raise NotFound(f"no source is called {name!r}; there are {known}")
        return found

    def put(self, source: Source) -> None:
        """This is all that a source says from now on."""
        self.sources[source.name] = source
        self.remade()

    def drop(self, source: str) -> None:
        """A source says nothing any more."""
        self.sources.pop(source, None)
        self.remade()

    def link(self, name: str, dependency: Dependency, at: float, actor: str) -> None:
        """A source says one more."""
        source = self.sources.get(name) or Source(name, {}, {})
        source.dependencies[dependency.caller, dependency.callee] = dependency
        source.seen_at, source.actor = at, actor
        self.sources[name] = source
        # Not all made anew: who says a thousand, one after the other, would wait for minutes.
        self.version += 1
        self._near = {}
        self._link(dependency.caller, dependency.callee)

    def unlink(self, name: str, caller: str, callee: str) -> None:
        """A source says one less."""
        source = self.sources.get(name)
        if source is None:
            return
        source.dependencies.pop((caller, callee), None)
        if source.dependencies or source.services:
            self.remade()
        else:
            self.drop(name)

    def remade(self) -> None:
        """What is derived follows from the sources again."""
        self.version += 1
        self._near = {}
        self._callees, self._callers = {}, {}
        for source in self.sources.values():
            for name in source.services:
                self._callees.setdefault(name, {})
                self._callers.setdefault(name, {})
            for caller, callee in source.dependencies:
                self._link(caller, callee)

    def _link(self, caller: str, callee: str) -> None:
        for name in (caller, callee):
            self._callees.setdefault(name, {})
            self._callers.setdefault(name, {})
        self._callees[caller][callee] = None
        self._callers[callee][caller] = None


def checked(
    services: Sequence[Service], dependencies: Sequence[Dependency], source: str
) -> tuple[list[Service], list[Dependency]]:
    """What a source says, in order, without what stands twice. Raises Malformed, and says which entry is wrong."""
    check_name("source", source)
    by_name: dict[str, Service] = {}
    for place, service in enumerate(services):
        check_name(f"services[{place}].name", service.name)
        by_name[service.name] = service
    by_ends: dict[tuple[str, str], Dependency] = {}
    for place, each in enumerate(dependencies):
        check_dependency(each, f"dependencies[{place}].")
        by_ends[each.caller, each.callee] = each
    return [by_name[name] for name in sorted(by_name)], [by_ends[ends] for ends in sorted(by_ends)]


def check_dependency(dependency: Dependency, where: str = "") -> None:
    """Raises Malformed."""
    check_name(f"{where}caller", dependency.caller)
    check_name(f"{where}callee", dependency.callee)
    check_name(f"{where}kind", dependency.kind, KIND_MAX)
    if dependency.caller == dependency.callee:
        raise Malformed(f"{where}callee: {dependency.callee!r} can't depend on itself")


def check_name(where: str, name: str, most: int = NAME_MAX) -> None:
    """Raises Malformed."""
    if not name.strip() or not name.isprintable() or len(name) > most:
        raise Malformed(f"{where}: expected 1 to {most} printable characters, not {name[:40]!r}")


def by_source(sources: Mapping[str, Source]) -> list[Source]:
    """The sources by name."""
    return [sources[name] for name in sorted(sources)]
