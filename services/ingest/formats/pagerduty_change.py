"""PagerDuty's change events: news of the lowest level, which end by themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import blake2b

from services.ingest.formats.answers import Answer
from services.ingest.formats.format import Request
from services.ingest.formats.pagerduty import PagerDutyFormat, accepted, details_of, links_of
from services.ingest.formats.reading import Reading
from services.ingest.formats.values import Fields, read_json
from services.ingest.formats.webhook import Item, stable_name
from services.ingest.submit import Receipt

#: A change is news for an hour: who looks for the cause of an outage sees it beside it.
CHANGE_LASTS_S = 3600.0


class PagerDutyChangeFormat(PagerDutyFormat):
    """Change events: news of the lowest level, which end by themselves."""

    name = "pagerduty-change"
    path = "/v2/change/enqueue"
    summary = "PagerDuty's change events"
    shape = "routing_key and payload, without event_action"
    prepares = False

    def drafts(self, body: object, request: Request) -> Iterator[Item]:
        event = body if isinstance(body, Fields) else Fields(body)
        payload = event.need_inner("payload")
        title, source = payload.need("summary"), payload.text("source")
        details = details_of(payload, "custom_details")
        at = payload.time("timestamp") or request.received_at
        yield self.alert(
            "Change",
            details.get("service") or source or "changes",
            title=title,
            severity="info",
            labels={"change": stable_name(title), **self._key(event)},
            notes={"source": source, **links_of(event), **details},
            starts=at,
            ends=max(at, request.received_at) + CHANGE_LASTS_S,
        )

    def lasts(self, body: object, request: Request) -> bool:
        # It ends an hour after it came.
        return False

    def _event(self, request: Request) -> Fields:
        event = Fields(read_json(request.body, self.max_bytes))
        event.need("routing_key")
        event.values["dedup_key"] = blake2b(request.body, digest_size=8).hexdigest()
        return event

    async def stored(self, reading: Reading, receipt: Receipt) -> Answer:
        return accepted(reading, receipt, "Change event processed")

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        return (
            isinstance(body, dict)
            and {"routing_key", "payload"} <= body.keys()
            and "event_action" not in body
        )
