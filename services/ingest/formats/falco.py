"""Falco's events, from its http_output or Falcosidekick. They have no end: a person resolves them, or lifecycle.expires_after does."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from services.ingest.formats.format import Request
from services.ingest.formats.values import Fields
from services.ingest.formats.webhook import Draft, Item, WebhookFormat, several

PRIORITIES = {
    "emergency": "P0",
    "alert": "P0",
    "critical": "P1",
    "error": "P1",
    "warning": "P2",
    "notice": "P3",
    "informational": "P4",
    "info": "P4",
    "debug": "P4",
}
#: The time and the priority that Falco puts before its words.
_PREFIX = re.compile(r"^\d\d:\d\d:\d\d\.\d+: (?:[A-Z][a-z]+ )?")
#: Which service an event is of, best first.
_SERVICES = ("k8s.deployment.name", "k8s.rc.name", "k8s.pod.label.app", "container.name", "k8s.pod.name")
#: Of what an event says, what stays the same while it goes on.
_IDENTITY = ("k8s.ns.name", "k8s.pod.name", "container.id")


class FalcoFormat(WebhookFormat):
    name = "falco"
    path = "/v1/events/falco"
    summary = "Falco's events"
    shape = "rule, output, priority, output_fields"
    severities = PRIORITIES

    def drafts(self, body: object, request: Request) -> Iterable[Item]:
        return self.each(several(body, "events"), self._event)

    def _event(self, event: Fields) -> Draft:
        said = event.pairs("output_fields")
        event.one_of("priority", PRIORITIES)
        host = event.text("hostname")
        identity = {name.replace(".", "_"): said.get(name, "") for name in _IDENTITY}
        return self.alert(
            event.need("rule"),
            next(
                (said[name] for name in _SERVICES if said.get(name) not in (None, "", "<NA>", "host")), host
            ),
            title=_PREFIX.sub("", event.need("output")),
            text=event.text("output"),
            severity=event.text("priority"),
            labels={
                "host": host,
                "category": "security",
                **{name: value for name, value in identity.items() if value != "<NA>"},
            },
            notes={"tags": ", ".join(event.texts("tags")), "falco_source": event.text("source"), **said},
            starts=event.time("time"),
        )

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        first = body[0] if isinstance(body, list) and body else body
        return isinstance(first, dict) and {"rule", "output", "priority"} <= first.keys()
