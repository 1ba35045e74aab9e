"""Datadog's webhooks: the payload that Datadog proposes, and the one of docs/formats.md. What stays the same is the monitor, its scope
and its host; `alert_transition`, `alert_type` or the mark in the title says whether it is over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from services.ingest.formats.format import Request
from services.ingest.formats.values import Fields
from services.ingest.formats.webhook import Draft, Item, WebhookFormat, several, stable_name

OVER = frozenset({"recovered", "success", "ok", "resolved"})
_MARK = re.compile(r"^\s*(?:\[P[1-5]\]\s*)?\[([A-Za-z -]+?)(?: on \{([^}]*)\})?\]\s*")
#: What Datadog leaves in a payload where a variable says nothing.
_UNSET = re.compile(r"\A\$[A-Z_]+\Z")


class DatadogFormat(WebhookFormat):
    name = "datadog"
    path = "/v1/events/datadog"
    summary = "Datadog's webhooks"
    shape = "title, alert_id, alert_transition, alert_type; or event_type and last_updated; or monitor_id and query"
    severities = {
        **{f"{letter}{level + 1}": f"P{level}" for letter in ("p", "") for level in range(5)},
        "error": "P1",
        "warning": "P2",
        "warn": "P2",
        "no data": "P3",
        "info": "P4",
        "": "P2",
    }

    def drafts(self, body: object, request: Request) -> Iterable[Item]:
        return self.each(several(body, "events"), self._event)

    def _event(self, sent: Fields) -> Draft:
        event = Fields({name: each for name, each in sent.values.items() if not _is_unset(each)})
        said = event.need("alert_title", "title", "event_title")
        mark = _MARK.match(said)
        title = said[mark.end() :] if mark else said
        tags = tags_of(event)
        kind = event.text("alert_type", "type").lower()
        transition = (event.text("alert_transition", "transition") or (mark[1] if mark else "")).lower()
        over = transition in OVER or (
            not transition and (kind in OVER or event.text("alert_status", "status").lower() in OVER)
        )
        host = event.text("hostname", "host") or tags.get("host", "")
        scope = (
            event.text("alert_scope", "scope")
            or (mark[2] if mark and mark[2] else "")
            or ",".join(event.texts("scopes"))
        )
        service = (
            tags.get("service") or event.text("service") or tags.get("app") or host or tags.get("team", "")
        )
        severity = event.text("alert_priority", "priority") or (
            transition if transition in ("warn", "no data") else ""
        )
        at = event.time("date", "last_updated")
        return self.alert(
            event.text("alert_metric") or stable_name(title),
            service,
            title=title,
            text=event.text("body", "event_msg", "text_only_msg", "message", "description"),
            severity=severity or (kind if kind in self.severities else ""),
            resolved=over,
            labels={
                "monitor_id": event.text("alert_id", "monitor_id", "aggreg_key"),
                "scope": scope,
                "host": host,
                "env": tags.get("env") or tags.get("environment", ""),
            },
            notes={
                "tags": ", ".join(event.texts("tags")),
                "query": event.text("alert_query", "query"),
                "org": event.text("org.name", "org_name"),
                "event_id": event.text("id", "event_id"),
                "transition": transition,
            },
            starts=0.0 if over else at,
            ends=at if over else 0.0,
            url=event.text("link", "url"),
        )

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        if not isinstance(body, dict):
            return False
        if {"alert_transition", "alert_title"} & body.keys() and {
            "alert_id",
            "alert_type",
            "alert_title",
        } & body.keys():
            return True
        return {"event_type", "title", "last_updated"} <= body.keys() or {
            "monitor_id",
            "query",
            "title",
        } <= body.keys()


def tags_of(event: Fields) -> dict[str, str]:
    """Tags such as service:api by their names."""
    pairs = (tag.partition(":") for tag in event.texts("tags"))
    return {name: value for name, _, value in pairs if value}


def _is_unset(value: object) -> bool:
    return isinstance(value, str) and bool(_UNSET.match(value) or value.strip() == "null")
