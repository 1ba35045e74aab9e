"""Who is told of an incident, by the tree of routes, and how often. Used by models/shard/notifications.py and
models/shard/telling.py. Asked when something is to be told: what is chosen goes to the log, so replay asks nothing."""

from __future__ import annotations

from models.incidents.incident import Incident, Notification, Severity
from models.routes.choice import Choice, Chosen, Router, Subject
from models.routes.route import Route
from models.shard.core import Core
from models.shard.targets import ACKNOWLEDGE, has_passed

#: What an incident counts as that nobody classified in time: better one page too many than a silent outage.
UNJUDGED_AS = Severity.P1


class Audience:
    """The routes of a shard's settings, ready to be asked."""

    def __init__(self, shard: Core) -> None:
        self.shard = shard
        self._made = Router(shard.settings.route)

    @property
    def _router(self) -> Router:
        """The tree of the settings as they are now."""
        if self.shard.settings.route is not self._made.root:
            self._made = Router(self.shard.settings.route)
        return self._made

    def of(self, incident: Incident) -> Choice:
        """Who is told of an incident as it is now."""
        judged = incident.severity if incident.is_classified else min(incident.severity, UNJUDGED_AS)
        labels = {**incident.present_group_labels, **incident.labels}
        return self._router.choose(Subject(labels, judged, incident.type, incident.service))

    def escalated(self, incident: Incident) -> tuple[Chosen, ...]:
        """Who is told as well because nobody acknowledged an incident in time."""
        if not has_passed(incident, ACKNOWLEDGE) or incident.is_attended:
            return ()
        return self.of(incident).escalations

    def route_of(self, notification: Notification) -> Route:
        """The route that chose a receiver; the root, if there is none of that name any more."""
        return self._router.by_name.get(notification.route) or self._router.root

    def wait_s(self, route: Route, severity: Severity) -> float:
        """How long the first notification waits."""
        return self.shard.settings.wait_s[severity] if route.wait_s is None else route.wait_s

    def interval_s(self, route: Route) -> float:
        """Shortest time between two notifications."""
        return self.shard.settings.interval_s if route.interval_s is None else route.interval_s

    def is_known(self, receiver: str) -> bool:
        """Whether there is a receiver of that name (still)."""
        return receiver in self.shard.settings.receivers

    def wants_end(self, receiver: str, route: Route) -> bool:
        """Whether a receiver is told of ends; one that is not known any more is, if it can be."""
        row = self.shard.settings.receivers.get(receiver)
        return row is None or (row.sends_resolved and route.sends_resolved)
