"""Zabbix: a webhook media type (docs/formats.md has its parameters) or a script that posts JSON, and the real-time export of events,
whose recovery names only the event that it ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from models.errors import TooLarge
from services.ingest.arrival import Sender
from services.ingest.formats.format import Request
from services.ingest.formats.values import Fields, read_json, text_of
from services.ingest.formats.webhook import Draft, Item, WebhookFormat, several, stable_name

#: Events that one request ends: each that is not remembered is a search of all shards.
RECOVERIES_MAX = 500
FIRES = ("problem", "1", "alerting", "firing", "true", "update")
OVER = ("ok", "resolved", "0", "recovery", "false", "closed")
_STATES = (*FIRES, *OVER)


class ZabbixFormat(WebhookFormat):
    name = "zabbix"
    path = "/v1/events/zabbix"
    summary = "Zabbix's webhook media type, and its real-time export"
    shape = "trigger_id, trigger_name or event_nseverity; or eventid and clock; or alert_uid and state"
    severities = {
        **{
            "disaster": "P0",
            "high": "P1",
            "average": "P2",
            "warning": "P3",
            "information": "P4",
            "not classified": "P4",
        },
        **{"5": "P0", "4": "P1", "3": "P2", "2": "P3", "1": "P4", "0": "P4", "": "P2"},
    }
    prepares = True

    async def prepare(self, request: Request) -> None:
        if self.knows(request):
            return
        over = set()
        for value, _path in several(self.read_ahead(request), "events"):
            problem = value.get("p_eventid") if isinstance(value, dict) else None
            if isinstance(problem, str | int) and (event_id := text_of(problem, "p_eventid")):
                over.add(event_id)
        if len(over) > RECOVERIES_MAX:
            raise TooLarge(f"{len(over)} recoveries in one request, at most {RECOVERIES_MAX} are allowed")
        for event_id in over:
            await self.look({"event_id": event_id}, request.sender)

    def drafts(self, body: object, request: Request) -> Iterable[Item]:
        return self.each(several(body, "events"), lambda event: self._event(event, request.sender))

    def _event(self, event: Fields, sender: Sender) -> Draft | list[Draft]:
        if "p_eventid" in event:
            return self.ended({"event_id": event.need("p_eventid")}, sender, ends=event.time("clock"))
        state = _state(event)
        name = event.need(
            "name", "event_name", "trigger_name", "trigger", "subject", "title", "alert_subject"
        )
        hosts = (
            [each.text("host", "name") for each in event.objects("hosts")]
            if isinstance(event.get("hosts"), list)
            else []
        )
        tags = _tags(event)
        host = event.text("host", "host_name", "hostname", "host_host") or next(iter(hosts), "")
        event_id = event.text("event_id", "eventid", "alert_uid", "id")
        over = state in OVER
        at = event.time("timestamp", "clock")
        draft = self.alert(
            stable_name(name),
            tags.get("service") or host,
            title=name,
            text=event.text("message", "description", "alert_message", "opdata", "trigger_description"),
            severity=event.text(
                "severity", "event_severity", "trigger_severity", "nseverity", "event_nseverity"
            ),
            resolved=over,
            labels={"event_id": event_id, "trigger_id": event.text("trigger_id", "triggerid"), "host": host},
            notes={
                "item": event.text("item_name", "item"),
                "value": event.text("item_value"),
                "state": state,
                **tags,
            },
            starts=0.0 if over else at,
            ends=at if over else 0.0,
            url=event.text("url", "event_url", "link_to_upstream_details"),
        )
        return self.fires({"event_id": event_id}, draft, sender) if event_id and not over else draft

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        first = body[0] if isinstance(body, list) and body else body
        if not isinstance(first, dict):
            return False
        by_hook = {
            "trigger_id",
            "triggerid",
            "trigger_name",
            "event_nseverity",
            "trigger_severity",
        } & first.keys()
        return bool(by_hook) or {"alert_uid", "state"} <= first.keys() or {"eventid", "clock"} <= first.keys()


def _state(event: Fields) -> str:
    """Whether it is a problem: of several fields the first that is there."""
    for name in ("event_value", "status", "event_status", "trigger_status", "state", "value"):
        if name in event:
            return event.one_of(name, _STATES)
    return event.one_of("status", _STATES)


def _tags(event: Fields) -> dict[str, str]:
    """Tags as Zabbix writes them: [{tag, value}], that as a text (EVENT.TAGSJSON), or "name:value, name:value"."""
    tags = next(
        (event.get(name) for name in ("tags", "event_tags", "event_tags_json") if name in event), None
    )
    if isinstance(tags, str) and tags.lstrip().startswith("["):
        tags = read_json(tags.encode())
    if isinstance(tags, list):
        return {
            one["tag"]: str(one.get("value", ""))
            for one in tags
            if isinstance(one, dict) and isinstance(one.get("tag"), str)
        }
    words = tags.split(",") if isinstance(tags, str) else []
    pairs = (word.strip().partition(":") for word in words)
    return {name: value.strip() for name, _, value in pairs if name and value}
