"""Alertmanager's POST /api/v2/alerts: a JSON array of alerts, as Prometheus sends it. Fields: docs/http-api.md.

Unknown fields are ignored, as in Alertmanager. A bad alert never affects the others.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from models.alerts.alert import Content
from models.errors import Malformed
from services.ingest.formats.answers import (
    Answer,
    Refusal,
    encode_json,
    error_of,
    retry_after,
    status_of,
    status_of_faults,
)
from services.ingest.formats.fields import (
    ANNOTATION_VALUE_MAX_BYTES,
    URL_MAX_BYTES,
    read_pairs,
    read_string,
)
from services.ingest.formats.format import Request
from services.ingest.formats.items import UNREADABLE, ListFormat, Taken
from services.ingest.formats.json_arrays import array_slices
from services.ingest.formats.json_text import WHITE, json_error, raw_elements, without_mark
from services.ingest.formats.openapi import (
    ANNOTATIONS,
    ENDS,
    LABELS,
    PARAMETERS,
    REFUSALS,
    RETRY_AFTER,
    STARTS,
    USED,
    Description,
    Json,
    answer,
    ref,
)
from services.ingest.formats.reading import Reading
from services.ingest.submit import Receipt

#: Most faults in one answer; a thousand alike help nobody.
FAULTS_TOLD_MAX = 100

_NONE = msgspec.Raw()


class Posted(msgspec.Struct, gc=False):
    """One alert as sent, not looked into yet."""

    labels: msgspec.Raw = _NONE
    annotations: msgspec.Raw = _NONE
    startsAt: msgspec.Raw = _NONE  # noqa: N815 - the wire's own spelling
    endsAt: msgspec.Raw = _NONE  # noqa: N815
    generatorURL: msgspec.Raw = _NONE  # noqa: N815


_all_decoder = msgspec.json.Decoder(list[Posted])
_one_decoder = msgspec.json.Decoder(Posted)


class AlertmanagerFormat(ListFormat[Posted | msgspec.Raw, Posted]):
    """Answers with 200 and nothing; a JSON string for what is wrong with alerts, an object for the rest."""

    name = "alertmanager"
    path = "/api/v2/alerts"
    end_field = "endsAt"
    end_too_early = "start time must be before end time"
    quiet = Answer(200)

    @classmethod
    def describe(cls) -> Description:
        return Description({"post": _operation()}, _SCHEMAS)

    def keeps_items(self, request: Request) -> bool:
        return True

    def split(self, request: Request) -> Iterator[list[Posted | msgspec.Raw]]:
        body = without_mark(request.body)
        if request.is_letter and body.lstrip(WHITE)[:1] == b"{":
            body = b"[%b]" % body
        return array_slices(body, _elements)

    def take(self, item: Posted | msgspec.Raw) -> Taken[Posted]:
        alert = item if isinstance(item, Posted) else _decode(item)
        raws = (alert.labels, alert.annotations, alert.startsAt, alert.generatorURL)
        return alert, raws, bytes(alert.endsAt), False

    def content(self, alert: Posted) -> Content:
        # One evaluation of a rule begins all its alerts at one time.
        starts = self.shared.remembered.start(bytes(alert.startsAt), "startsAt")
        labels = self.shared.remembered.labels(bytes(alert.labels), bad_name="invalid label set")
        if not labels:
            raise Malformed("at least one label pair required")
        annotations = read_pairs(
            bytes(alert.annotations),
            "annotations",
            ANNOTATION_VALUE_MAX_BYTES,
            bad_name="invalid annotations",
            keep_empty=True,
        )
        url = read_string(bytes(alert.generatorURL), "generatorURL", URL_MAX_BYTES)
        return Content(labels, annotations, starts, url, self.name)

    def default_end(self, now: float) -> float:
        return now + self.shared.settings.lifecycle.resolve_timeout

    def said_end(self, alert: Posted) -> bytes:
        return bytes(alert.endsAt)

    def written(self, item: Posted | msgspec.Raw) -> bytes:
        if isinstance(item, msgspec.Raw):
            return bytes(item)
        return b'{"labels":%b,"annotations":%b,"startsAt":%b,"endsAt":%b,"generatorURL":%b}' % (
            bytes(item.labels) or b"null",
            bytes(item.annotations) or b"null",
            bytes(item.startsAt) or b"null",
            bytes(item.endsAt) or b"null",
            bytes(item.generatorURL) or b"null",
        )

    def refused(self, refusal: Refusal) -> Answer:
        body = encode_json({"code": refusal.status, "message": refusal.detail})
        return Answer(refusal.status, b"application/json", body, refusal.headers)

    async def stored(self, reading: Reading, receipt: Receipt) -> Answer:
        if (error := error_of(receipt)) is not None:
            # Prometheus drops what is refused with 4xx and does not retry. 503 is correct here: sending again is safe.
            return Answer(status_of(error), b"application/json", encode_json(str(error)), retry_after(error))
        if reading.faults:
            # Alertmanager's own words for one alert; it never says which of several it means.
            alone = reading.count == 1
            words = "; ".join(
                fault.message if alone else f"alert {fault.index}: {fault.message}"
                for fault in reading.faults[:FAULTS_TOLD_MAX]
            )
            more = len(reading.faults) - FAULTS_TOLD_MAX
            words += f"; and {more} more" if more > 0 else ""
            return Answer(status_of_faults(reading), b"application/json", encode_json(words))
        return self.quiet


def _elements(array: bytes) -> list[Posted | msgspec.Raw]:
    """The elements of a JSON array, left as they are when one is of a wrong shape. Raises what msgspec does for no
    JSON."""
    try:
        return [*_all_decoder.decode(array)]
    except UNREADABLE:
        return [*raw_elements(array)]


def _decode(raw: msgspec.Raw) -> Posted:
    try:
        return _one_decoder.decode(raw)
    except UNREADABLE as error:
        raise Malformed(json_error(error)) from None


def _operation() -> Json:
    form = ref("AlertmanagerError")
    return {
        "tags": ["alertmanager"],
        "summary": "Send alerts as Prometheus does",
        "description": "Alertmanager's API v2. If a batch has bad alerts, the answer is 400, but the good ones are stored. An alert that is not sent again ends after resolve_timeout. The rest of /api/v2 is described by "
        "Alertmanager's own openapi.yaml (0.25).",
        "operationId": "post_api_v2_alerts",
        "parameters": PARAMETERS,
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"type": "array", "items": ref("AlertmanagerAlert")},
                    "example": [
                        {
                            "labels": {
                                "alertname": "ModelDown",
                                "service": "llm-api",
                                "severity": "critical",
                            },
                            "annotations": {"summary": "no answer for a minute"},
                            "startsAt": "2026-01-31T12:00:00Z",
                            "generatorURL": "http://prometheus:9090/graph?g0.expr=up",
                        }
                    ],
                }
            },
        },
        "responses": {
            "200": {"description": "All are stored, durably."},
            "400": {
                "description": "A string names the alerts that can't be taken (at most "
                f"{FAULTS_TOLD_MAX} of them), the others are stored; an object says why nothing can be read.",
                "content": {"application/json": {"schema": {"anyOf": [{"type": "string"}, form]}}},
            },
            **{code: answer(words, form) for code, words in REFUSALS.items()},
            "422": answer(USED, {"type": "string"}),
            "503": {
                "description": "Some or all could not be stored, or too many requests are waiting: sending again is safe.",
                "headers": RETRY_AFTER,
                "content": {"application/json": {"schema": {"anyOf": [{"type": "string"}, form]}}},
            },
        },
    }


_SCHEMAS: dict[str, Json] = {
    "AlertmanagerAlert": {
        "type": "object",
        "description": "Alertmanager's postableAlert. Other fields are ignored.",
        "required": ["labels"],
        "properties": {
            "labels": LABELS,
            "annotations": ANNOTATIONS,
            "startsAt": STARTS,
            "endsAt": ENDS,
            "generatorURL": {"type": "string", "description": "A link to where it comes from."},
        },
    },
    "AlertmanagerError": {
        "type": "object",
        "description": "Why a request can't be read.",
        "required": ["code", "message"],
        "properties": {
            "code": {"type": "integer", "description": "The HTTP status."},
            "message": {"type": "string", "description": "What was expected."},
        },
    },
}
