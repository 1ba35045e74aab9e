"""Our own POST /v1/alerts: one object, an array, or NDJSON. An unknown field is refused, because it is probably a typo.

{"labels": {"alertname": "...", "service": "..."},   required, at least one
 "annotations": {...},
 "starts_at": "2026-01-31T12:00:00Z", "ends_at": ...,  also startsAt, endsAt
 "status": "firing" | "resolved",                      resolved ends at ends_at, now at the latest
 "source": "llm-sentinel", "generator_url": "..."}     also generatorURL
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Literal

import msgspec

from models.alerts.alert import Content
from models.errors import Malformed, TooLarge
from services.ingest.formats.answers import Answer, Refusal, encode_json, problem
from services.ingest.formats.fields import (
    ANNOTATION_VALUE_MAX_BYTES,
    URL_MAX_BYTES,
    read_pairs,
    read_string,
)
from services.ingest.formats.format import Request
from services.ingest.formats.items import ALERTS_MAX, UNREADABLE, ListFormat, Taken
from services.ingest.formats.json_arrays import SLICE_ALERTS, array_slices
from services.ingest.formats.json_text import (
    ECHO_MAX,
    WHITE,
    echo,
    json_error,
    raw_elements,
    without_halves,
    without_mark,
)
from services.ingest.formats.openapi import (
    ANNOTATIONS,
    ENDS,
    LABELS,
    PARAMETERS,
    PROBLEM,
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
from services.ingest.formats.received import received
from services.ingest.submit import Receipt

SOURCE_MAX_BYTES = 256
#: Lines of a request: each alert may have blank ones around it.
LINES_MAX = 4 * ALERTS_MAX

_NAME = b"v1"
_NONE = msgspec.Raw()
_UNKNOWN_FIELD = re.compile(r"unknown field `(.*)`", re.DOTALL)


class Posted(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """One alert as sent, not looked into yet."""

    labels: msgspec.Raw = _NONE
    annotations: msgspec.Raw = _NONE
    starts_at: msgspec.Raw = _NONE
    startsAt: msgspec.Raw = _NONE  # noqa: N815 - Alertmanager's spelling is welcome
    ends_at: msgspec.Raw = _NONE
    endsAt: msgspec.Raw = _NONE  # noqa: N815
    generator_url: msgspec.Raw = _NONE
    generatorURL: msgspec.Raw = _NONE  # noqa: N815
    source: msgspec.Raw = _NONE
    status: Literal["firing", "resolved"] = "firing"


#: As it is split: most are taken apart at once, what stands beside something wrong one by one.
Sent = Posted | msgspec.Raw | bytes
_all_decoder = msgspec.json.Decoder(list[Posted])
_one_decoder = msgspec.json.Decoder(Posted)


class V1Format(ListFormat[Sent, Posted]):
    """Answers alert by alert: 202 all stored, 207 some, 400 none could be read, 403 none was allowed, 503 none could be
    stored."""

    name = _NAME.decode()
    path = "/v1/alerts"
    content_types = ("application/json", "application/x-ndjson", "application/jsonl")
    wants_ids = True
    end_field = "ends_at"
    end_too_early = "ends_at: expected a time after starts_at"

    @classmethod
    def describe(cls) -> Description:
        return Description({"post": _operation()}, _SCHEMAS)

    def keeps_items(self, request: Request) -> bool:
        return True

    def split(self, request: Request) -> Iterator[Sequence[Sent]]:
        return _split(without_mark(request.body))

    def take(self, item: Sent) -> Taken[Posted]:
        alert = item if isinstance(item, Posted) else _decode(item)
        raws = (
            _NAME,
            alert.labels,
            alert.annotations,
            bytes(alert.starts_at) or bytes(alert.startsAt),
            bytes(alert.generator_url) or bytes(alert.generatorURL),
            alert.source,
        )
        return alert, raws, bytes(alert.ends_at) or bytes(alert.endsAt), alert.status == "resolved"

    def content(self, alert: Posted) -> Content:
        starts = self.shared.remembered.start(bytes(alert.starts_at) or bytes(alert.startsAt), "starts_at")
        labels = self.shared.remembered.labels(bytes(alert.labels))
        if not labels:
            raise Malformed("labels: at least one label is required")
        return Content(
            labels,
            read_pairs(bytes(alert.annotations), "annotations", ANNOTATION_VALUE_MAX_BYTES),
            starts,
            read_string(
                bytes(alert.generator_url) or bytes(alert.generatorURL), "generator_url", URL_MAX_BYTES
            ),
            read_string(bytes(alert.source), "source", SOURCE_MAX_BYTES) or self.name,
        )

    def default_end(self, now: float) -> float:
        expires_after_s = self.shared.settings.lifecycle.expires_after
        return math.inf if expires_after_s is None else now + expires_after_s

    def said_end(self, alert: Posted) -> bytes:
        return alert.status.encode() + (bytes(alert.ends_at) or bytes(alert.endsAt))

    def written(self, item: Sent) -> bytes:
        # What it did not say is not there: an empty Raw is no JSON.
        return _encode(item) if isinstance(item, Posted) else bytes(item)

    def refused(self, refusal: Refusal) -> Answer:
        return problem(refusal, self.path)

    async def stored(self, reading: Reading, receipt: Receipt) -> Answer:
        return await received(reading, receipt)


def _decode(raw: bytes | msgspec.Raw) -> Posted:
    try:
        return _one_decoder.decode(raw)
    except UNREADABLE as error:
        whole = without_halves(raw) if isinstance(raw, bytes) else None
        if whole is not None:
            return _decode(whole)
        words = json_error(error)
        unknown = _UNKNOWN_FIELD.search(str(error))
        if unknown is not None:
            words = f"{echo(unknown[1].encode())}: not a field of an alert"
            near = get_close_matches(unknown[1][:ECHO_MAX], Posted.__struct_fields__, 1)
            words += f"; did you mean {near[0]}?" if near else ""
        raise Malformed(words) from None


def _encode(alert: Posted) -> bytes:
    """An alert as it was sent, but for the order of its fields."""
    said = {name: getattr(alert, name) for name in Posted.__struct_fields__}
    if alert.status == "firing":
        del said["status"]  # whether it said so or not
    return encode_json({name: value for name, value in said.items() if value != _NONE})


def _elements(array: bytes) -> list[Sent]:
    """The elements of a JSON array, left as they are when one is of a wrong shape. Raises what msgspec does for no JSON."""
    try:
        return [*_all_decoder.decode(array)]
    except UNREADABLE:
        return [*raw_elements(array)]


def _split(body: bytes) -> Iterator[Sequence[Sent]]:
    """The alerts of a body, apart and not looked into, some at a time. Raises Malformed, and what msgspec does for an
    array that is no JSON."""
    start = body.lstrip(WHITE)[:1]
    if start == b"[":
        yield from array_slices(body, _elements)
        return
    if body.count(b"\n") > LINES_MAX:
        raise TooLarge(f"over {LINES_MAX} lines in one request")
    # Files that were put together have a mark within.
    lines = [line for line in map(without_mark, body.split(b"\n")) if line.strip(WHITE)]
    objects = sum(line.lstrip(WHITE)[:1] == b"{" for line in lines) if len(lines) > 1 else 0
    if start == b"{" and (objects < 2 or _is_json(body)):
        # One object, be it over several lines.
        yield [body]
        return
    if not objects:
        raise Malformed(
            f"expected a JSON object, an array of objects, or one object a line; got {echo(body)!r}"
        )
    # One object per line; a line that is not JSON affects only itself.
    for first in range(0, len(lines), SLICE_ALERTS):
        yield lines[first : first + SLICE_ALERTS]


def _is_json(body: bytes) -> bool:
    try:
        msgspec.json.decode(without_halves(body) or body, type=msgspec.Raw)
    except UNREADABLE:
        return False
    return True


def _operation() -> Json:
    one, received = ref("PostedAlert"), ref("Received")
    either = {"application/json": {"schema": received}, **PROBLEM}
    line = '{"labels":{"alertname":"ModelDown","service":"llm-api"}}'
    return {
        "tags": ["alerts"],
        "summary": "Send alerts",
        "description": "One object, an array, or one object a line. An alert answered with 202 is durable. A bad alert never affects the others: each has its own answer. What can't be read is kept as a dead letter, with the reason. Sending again is always safe.",
        "operationId": "post_v1_alerts",
        "parameters": PARAMETERS,
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"anyOf": [one, {"type": "array", "items": one}]},
                    "examples": {"one": {"value": _EXAMPLE}, "several": {"value": [_EXAMPLE]}},
                },
                "application/x-ndjson": {"schema": {"type": "string"}, "example": f"{line}\n{line}\n"},
                "application/jsonl": {"schema": {"type": "string"}, "example": f"{line}\n{line}\n"},
            },
        },
        "responses": {
            "202": answer("All are stored.", received),
            "207": answer(
                "Some are stored; each item says. With Retry-After, those with status 503 may be sent again.",
                received,
            ),
            "400": {
                "description": "None could be read: each item says why, or one problem when the body is no alerts at all.",
                "content": either,
            },
            **{code: {"description": words, "content": PROBLEM} for code, words in REFUSALS.items()},
            "422": answer(USED, received),
            "503": {
                "description": "None could be stored, or too many requests are waiting. Nothing that was answered 202 is lost.",
                "headers": RETRY_AFTER,
                "content": either,
            },
        },
    }


_EXAMPLE: Json = {
    "labels": {"alertname": "ModelDown", "service": "llm-api", "severity": "critical"},
    "annotations": {"summary": "no answer for a minute"},
    "starts_at": "2026-01-31T12:00:00Z",
    "source": "llm-sentinel",
}
_SCHEMAS: dict[str, Json] = {
    "PostedAlert": {
        "type": "object",
        "description": "An alert. An unlisted field is refused, because it is probably a typo. startsAt, endsAt and "
        "generatorURL are taken for starts_at, ends_at and generator_url.",
        "required": ["labels"],
        "additionalProperties": False,
        "properties": {
            "labels": LABELS,
            "annotations": ANNOTATIONS,
            "starts_at": STARTS,
            "ends_at": ENDS,
            "startsAt": STARTS,
            "endsAt": ENDS,
            "status": {
                "enum": ["firing", "resolved"],
                "description": "Default: firing. `resolved` without an end: it ends now.",
            },
            "source": {"type": "string", "maxLength": 256, "description": "Who sends it."},
            "generator_url": {"type": "string", "description": "A link to where it comes from."},
            "generatorURL": {"type": "string", "description": "A link to where it comes from."},
        },
    },
    "Received": {
        "type": "object",
        "description": "The result for each alert, in the order they were sent.",
        "required": ["stored", "refused", "failed", "items"],
        "properties": {
            "stored": {"type": "integer", "description": "are durable"},
            "filtered": {
                "type": "integer",
                "description": "were dropped by a filter of the settings; absent when none was",
            },
            "refused": {"type": "integer", "description": "could not be read"},
            "failed": {"type": "integer", "description": "could not be stored now"},
            "items": {
                "type": "array",
                "description": "One for each alert.",
                "items": {"$ref": "#/components/schemas/ReceivedItem"},
            },
        },
    },
    "ReceivedItem": {
        "type": "object",
        "required": ["index", "status"],
        "properties": {
            "index": {"type": "integer", "minimum": 0, "description": "Its position in the request, from 0."},
            "status": {"enum": [202, 400, 422, 503], "description": "Its result, as an HTTP status."},
            "decision": {
                "type": "string",
                "description": "opened, joined, repeated, resolved, duplicate ..., or filtered",
            },
            "reason": {"type": "string", "description": "The decision in words."},
            "incident_id": {
                "type": ["string", "null"],
                "format": "uuid",
                "description": "The incident it belongs to; null: none.",
            },
            "error": {"type": "string", "description": "Why it was not stored, naming the field."},
        },
    },
}
