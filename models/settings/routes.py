"""The tree of routes as one writes it: [notify.route] is its root, [[notify.routes]] are those below it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Literal

import msgspec
from pydantic import ConfigDict, Field, field_validator

from models.alerts.matchers import parse_filters
from models.errors import Malformed, TooLarge
from models.incidents.incident import IncidentType, Severity
from models.people.words import NAME_PATTERN
from models.routes.choice import Router
from models.routes.route import ROOT, Route
from models.settings.values import LIVE, Duration, MaybeDuration, Section, WrongAt

#: How deep routes may stand in routes, and how many there may be: far more than a person can follow.
DEPTH_MAX, ROUTES_MAX = 8, 1000
#: Characters of a route's name.
NAME_MAX = 100
#: A name of a policy, or none.
POLICY_NAME = rf"^({NAME_PATTERN})?$"

Level = Literal["P0", "P1", "P2", "P3", "P4"]


class RouteSettings(Section):
    """A route: what it asks of an incident (all must hold), and who is told then. What it leaves out it has from the route
    that it stands in."""

    # `continue` is a word of Python's.
    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True, validate_by_alias=True)

    name: str = Field(
        "",
        max_length=NAME_MAX,
        pattern=r"^([A-Za-z0-9][A-Za-z0-9 _.-]*)?$",
        description="Shown wherever the route decided something. Empty: its place, as in `routes[0]`.",
    )
    matchers: list[str] = Field(
        [],
        description='Matchers on the labels that all firing alerts of an incident share, such as `team="db"` or `env=~"prod|stage"`.',
    )
    severity: list[Level] = Field([], description="Severities that it takes. Empty: all.")
    type: list[IncidentType] = Field([], description="Types of incidents that it takes. Empty: all.")
    service: list[str] = Field([], description="Services that it takes. Empty: all.")
    receivers: list[str] = Field([], description="Who is told. Empty: as above it.")
    continue_: bool = Field(
        False,
        alias="continue",
        description="Whether the routes after it are asked too when it takes an incident.",
    )
    discard: bool = Field(
        False,
        description="Nobody is told of what it takes; a metric counts it and the timeline says so. For `Watchdog` and its like.",
    )
    wait: MaybeDuration = Field(
        None, description="How long to wait before the first notification. Unset: as above it."
    )
    interval: MaybeDuration = Field(
        None, description="Shortest time between two notifications. Unset: as above it."
    )
    repeat: MaybeDuration = Field(
        None, description='When to tell again of what nobody acknowledged; "0s": never. Unset: as above it.'
    )
    send_resolved: bool | None = Field(
        None, description="Whether to tell of resolves too. Unset: as above it."
    )
    escalate_to: list[str] = Field(
        [],
        description="Receivers that are told as well when an incident's acknowledge target has passed. Empty: as above it.",
    )
    escalation: str = Field(
        "",
        max_length=63,
        pattern=POLICY_NAME,
        description="[Escalation policy](on-call.md) by which people are paged as well. Empty: as above it.",
    )
    routes: list[RouteSettings] = Field(
        [], description="Routes below it, asked in their order: the first that takes an incident counts."
    )

    @field_validator("matchers")
    @classmethod
    def _are_matchers(cls, value: list[str]) -> list[str]:
        try:
            parse_filters(value)
        except (Malformed, TooLarge) as error:
            raise ValueError(f'{error}; expected matchers such as severity="critical"') from None
        return value


class RootRoute(Section):
    """The root of the tree of [routes](notifications.md#routes): who is told of what no route takes, and the timings of routes
    that have none of their own."""

    receivers: list[str] = Field(
        [],
        description="Who is told. Empty: `webhook`, the receiver that `notify.webhook.url` makes.",
        json_schema_extra=LIVE,
    )
    wait: MaybeDuration = Field(
        None,
        description="How long to wait before the first notification. None: by severity, see `notify.wait`.",
        json_schema_extra=LIVE,
    )
    repeat: Duration = Field(
        14_400.0,
        description='When to tell again of an incident that nobody has acknowledged or been assigned to. "0s": never.',
        json_schema_extra=LIVE,
    )
    send_resolved: bool = Field(
        True, description="Whether receivers are told of resolves too.", json_schema_extra=LIVE
    )
    discard: bool = Field(False, description="Nobody is told of what no route takes.", json_schema_extra=LIVE)
    escalate_to: list[str] = Field(
        [],
        description="Receivers that are told as well when an incident's [acknowledge target](#targetsacknowledge) has passed.",
        json_schema_extra=LIVE,
    )
    escalation: str = Field(
        "",
        max_length=63,
        pattern=POLICY_NAME,
        description="[Escalation policy](on-call.md) by which people are paged as well. Empty: none.",
        json_schema_extra=LIVE,
    )


def tree_of(root: RootRoute, routes: list[RouteSettings], receivers: tuple[str, ...]) -> Route:
    """The tree, each route with what it inherits. `receivers` are the root's."""
    top = Route(
        name=ROOT,
        receivers=receivers,
        discards=root.discard,
        wait_s=root.wait,
        repeat_s=root.repeat,
        sends_resolved=root.send_resolved,
        escalate_to=tuple(root.escalate_to),
        escalation=root.escalation,
    )
    return _with_routes(top, routes, "")


def _with_routes(parent: Route, routes: list[RouteSettings], place: str) -> Route:
    below = []
    for index, each in enumerate(routes):
        at = f"{place}routes[{index}]"
        own = Route(
            name=each.name or at,
            receivers=tuple(each.receivers) or parent.receivers,
            matchers=tuple(parse_filters(each.matchers)),
            severities=tuple(Severity[level] for level in each.severity),
            types=tuple(each.type),
            services=tuple(each.service),
            continues=each.continue_,
            discards=each.discard or (parent.discards and not each.receivers),
            wait_s=parent.wait_s if each.wait is None else each.wait,
            interval_s=parent.interval_s if each.interval is None else each.interval,
            repeat_s=parent.repeat_s if each.repeat is None else each.repeat,
            sends_resolved=parent.sends_resolved if each.send_resolved is None else each.send_resolved,
            escalate_to=tuple(each.escalate_to) or parent.escalate_to,
            escalation=each.escalation or parent.escalation,
        )
        below.append(_with_routes(own, each.routes, f"{at}."))
    return msgspec.structs.replace(parent, routes=tuple(below))


def check(root: RootRoute, routes: list[RouteSettings], known: Collection[str]) -> None:
    """Raise WrongAt if the tree is none. `known`: the receivers that there are."""
    for place, names in _named(root, routes):
        for name in names:
            if name not in known:
                there = ", ".join(sorted(known)) or "none"
                raise WrongAt(place, f"there is no receiver {name!r}; there are {there}")
    depth, count, names_seen = 0, 0, {ROOT: "route"}
    for place, level, route in _walk(routes):
        depth, count = max(depth, level), count + 1
        if route.name and route.name in names_seen:
            other = names_seen[route.name]
            raise WrongAt(f"{place}.name", f"{route.name!r} is the name of {other} too; each needs its own")
        names_seen.setdefault(route.name or place, place)
        if route.discard and (route.receivers or route.escalate_to or route.escalation):
            raise WrongAt(
                place, "expected discard or receivers, not both: a route that discards tells nobody"
            )
    if depth > DEPTH_MAX:
        raise WrongAt("routes", f"expected routes at most {DEPTH_MAX} deep, not {depth}")
    if count > ROUTES_MAX:
        raise WrongAt("routes", f"expected at most {ROUTES_MAX} routes, not {count}")
    try:
        Router(tree_of(root, routes, ()))
    except (Malformed, TooLarge) as error:
        raise WrongAt("routes", str(error)) from None


def _walk(
    routes: list[RouteSettings], place: str = "", depth: int = 1
) -> Iterator[tuple[str, int, RouteSettings]]:
    for index, route in enumerate(routes):
        at = f"{place}routes[{index}]"
        yield at, depth, route
        yield from _walk(route.routes, f"{at}.", depth + 1)


def _named(root: RootRoute, routes: list[RouteSettings]) -> Iterator[tuple[str, list[str]]]:
    yield "route.receivers", root.receivers
    yield "route.escalate_to", root.escalate_to
    for place, _depth, route in _walk(routes):
        yield f"{place}.receivers", route.receivers
        yield f"{place}.escalate_to", route.escalate_to
