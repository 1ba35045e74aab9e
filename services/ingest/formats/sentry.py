"""Sentry: internal integrations (issue, event and metric alerts, by Sentry-Hook-Resource or by shape) and the old webhook plugin.

An issue that is resolved is named by its id alone, so what it ends is looked up by that (open_alerts.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from models.errors import Malformed
from services.ingest.arrival import Sender
from services.ingest.formats.format import Request, Shared
from services.ingest.formats.signatures import header_of, signed_by
from services.ingest.formats.values import Fields, text_of
from services.ingest.formats.webhook import Draft, Item, WebhookFormat, stable_name

SIGNATURE = "Sentry-Hook-Signature"
LEVELS = {
    "fatal": "P0",
    "critical": "P1",
    "error": "P2",
    "warning": "P3",
    "info": "P4",
    "debug": "P4",
    "sample": "P4",
    "": "P2",
}
OVER = frozenset({"resolved", "ignored", "archived"})
_PROJECT = re.compile(r"/(?:projects/)?[^/]+/([^/]+)/(?:events|issues)/")


class SentryFormat(WebhookFormat):
    name = "sentry"
    path = "/v1/events/sentry"
    summary = "Sentry's integrations: issues, event alerts, metric alerts; and its webhook plugin"
    shape = "action and data with issue, event or metric_alert; or project_slug, culprit, level"
    severities = LEVELS
    prepares = True

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._secret = shared.settings.formats.sentry_secret
        self.is_signed = self._secret is not None

    def verify(self, request: Request) -> Sender:
        assert self._secret is not None
        return signed_by(self._secret, request, SIGNATURE, [header_of(request, SIGNATURE)], self.name)

    async def prepare(self, request: Request) -> None:
        if self.knows(request):
            return
        event = Fields(self.read_ahead(request))
        data = event.inner("data") if isinstance(event.get("data"), dict) else None
        if data is not None and "issue" in data and event.text("action") in OVER:
            await self.look({"issue_id": data.inner("issue").need("id")}, request.sender)

    def rereads(self) -> Iterable[bytes]:
        return (b"sentry-hook-resource",)

    def drafts(self, body: object, request: Request) -> Iterable[Item]:
        event, sender = Fields(body), request.sender
        data = event.inner("data") if isinstance(event.get("data"), dict) else None
        if data is None:
            return self.each([(body, "")], lambda one: self._plugin(one, sender))
        if "metric_alert" in data:
            return self.each([(body, "")], self._metric)
        if "issue" in data:
            return self.each([(body, "")], lambda one: self._issue(one, sender))
        if "event" in data or "error" in data:
            name = "event" if "event" in data else "error"
            return self.each(
                [(data.get(name), f"data.{name}")],
                lambda one: self._event(one, data.text("triggered_rule"), sender),
            )
        if "installation" in data or "comment" in event.text("action") or "comment_id" in data:
            return []
        raise Malformed(
            "data: expected issue, event, error or metric_alert, as Sentry's integrations send them"
        )

    def _issue(self, event: Fields, sender: Sender) -> Draft | list[Draft]:
        issue, action = event.inner("data").inner("issue"), event.text("action")
        key = {"issue_id": issue.need("id")}
        if action in OVER:
            return self.ended(key, sender, {"resolution": action})
        if action == "assigned":
            return []
        title = issue.need("title")
        draft = self.alert(
            issue.text("metadata.type") or stable_name(title),
            issue.text("project.slug", "project.name", "project"),
            title=title,
            text=issue.text("culprit", "metadata.value"),
            severity=issue.text("level"),
            labels=key,
            notes={
                "short_id": issue.text("shortId"),
                "status": issue.text("status"),
                "count": issue.text("count"),
            },
            starts=issue.time("firstSeen"),
            url=issue.text("web_url", "permalink", "url"),
        )
        return self.fires(key, draft, sender)

    def _event(self, one: Fields, rule: str, sender: Sender) -> Draft:
        return self._error(
            one, one.text("issue_id", "groupID") or one.need("event_id"), _project(one), rule, sender
        )

    def _plugin(self, sent: Fields, sender: Sender) -> Draft:
        event = sent.inner("event") if isinstance(sent.get("event"), dict) else sent
        project = sent.need("project_slug", "project_name", "project")
        title = sent.text("message") or event.need("title", "message")
        named = Fields(
            {
                **event.values,
                **{
                    "title": title,
                    "level": sent.get("level"),
                    "culprit": sent.get("culprit"),
                    "web_url": sent.get("url"),
                },
            }
        )
        return self._error(named, sent.need("id"), project, "", sender)

    def _error(self, one: Fields, issue_id: str, project: str, rule: str, sender: Sender) -> Draft:
        key, title = {"issue_id": issue_id}, one.need("title", "message")
        draft = self.alert(
            one.text("metadata.type") or stable_name(title),
            project,
            title=title,
            text=one.text("culprit", "metadata.value", "location"),
            severity=one.text("level"),
            labels=key,
            notes={
                "environment": one.text("environment"),
                "release": one.text("release") if not isinstance(one.get("release"), dict) else "",
                "platform": one.text("platform"),
                "event_id": one.text("event_id"),
                "rule": rule,
                **_tags(one),
            },
            starts=one.time("timestamp", "received") if not isinstance(one.get("timestamp"), dict) else 0.0,
            url=one.text("web_url", "issue_url", "url"),
        )
        return self.fires(key, draft, sender)

    def _metric(self, event: Fields) -> Draft:
        data, action = event.inner("data"), event.text("action").lower()
        alert = data.inner("metric_alert")
        rule = alert.text("alert_rule.name", "title") or data.need("description_title")
        projects = alert.texts("projects")
        return self.alert(
            rule,
            next(iter(projects), ""),
            title=data.text("description_title") or rule,
            text=data.text("description_text"),
            severity="error" if action in ("open", "created") else action,
            resolved=action in ("resolved", "closed"),
            labels={"rule_id": alert.text("alert_rule.id"), "alert_id": alert.text("identifier", "id")},
            notes={"projects": ", ".join(projects), "query": alert.text("alert_rule.query")},
            starts=alert.time("date_started"),
            ends=alert.time("date_closed") if action == "resolved" else 0.0,
            url=data.text("web_url"),
        )

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        if b"sentry-hook-resource" in headers:
            return True
        if not isinstance(body, dict):
            return False
        data = body.get("data")
        if isinstance(data, dict) and "action" in body:
            return (
                bool({"issue", "metric_alert", "event", "error"} & data.keys()) and "essentials" not in data
            )
        return {"project_slug", "culprit", "level"} <= body.keys() or {
            "project_name",
            "culprit",
            "event",
        } <= body.keys()


def _project(one: Fields) -> str:
    """A project's name: an event has only its number, and the name in its links."""
    named = one.text("project_slug", "project_name")
    found = _PROJECT.search(one.text("url")) or _PROJECT.search(one.text("web_url"))
    return named or (found[1] if found else one.text("project"))


def _tags(one: Fields) -> dict[str, str]:
    """Tags as pairs, as objects of key and value, or as one object."""
    tags = one.get("tags")
    if isinstance(tags, dict):
        tags = [[*each] for each in tags.items()]
    if not isinstance(tags, list):
        return {}
    tags = [[each.get("key"), each.get("value")] if isinstance(each, dict) else each for each in tags]
    pairs = [each for each in tags if isinstance(each, list) and len(each) == 2 and isinstance(each[0], str)]
    return {
        f"tag.{name}": text_of(value, "tags") for name, value in pairs if not isinstance(value, dict | list)
    }
