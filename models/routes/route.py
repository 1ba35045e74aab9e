"""A tree of routes: what each asks of an incident, whom it names, and its timings. Made of the settings
(models/settings/routes.py), walked by models/routes/choice.py."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from models.alerts.matchers import MatcherTuple
from models.incidents.incident import WEBHOOK, IncidentType, Severity

#: The name of the route at the root.
ROOT = "root"


class Route(msgspec.Struct, frozen=True):
    """A route with all that it inherits from those above it. What it asks (`matchers` on labels, `severities`, `types`,
    `services`; an empty one asks nothing) must all hold.

    `name` is its own, else its place in the settings ("routes[1].routes[0]"); each is there once. `wait_s` is before the first
    notification, None: by severity. `interval_s` is the shortest time between two, None: notify.interval. After `repeat_s` an
    incident that nobody acknowledged is told of again (0: never). `continues`: when it took the incident, the routes after it
    are asked too.
    `discards`: nobody is told. `escalate_to` is told as well when nobody acknowledged an incident in time. `escalation` is the
    policy by which people are paged, "" for none.
    """

    name: str = ROOT
    receivers: tuple[str, ...] = (WEBHOOK,)
    matchers: tuple[MatcherTuple, ...] = ()
    severities: tuple[Severity, ...] = ()
    types: tuple[IncidentType, ...] = ()
    services: tuple[str, ...] = ()
    continues: bool = False
    discards: bool = False
    wait_s: float | None = None
    interval_s: float | None = None
    repeat_s: float = 0.0
    sends_resolved: bool = True
    escalate_to: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()
    escalation: str = ""

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Route]]:
        """This route and those below it, in the order in which they are asked, with their depth."""
        yield depth, self
        for route in self.routes:
            yield from route.walk(depth + 1)


class ReceiverRow(msgspec.Struct, frozen=True):
    """What a shard knows of a receiver: its type, how many alerts one message may show, and whether it is told of resolves. Another,
    `fallback`, is told in its place when it can't be told for so long; "" for none."""

    type: str = WEBHOOK
    max_alerts: int = 100
    sends_resolved: bool = True
    fallback: str = ""
    fallback_after_s: float = 300.0
