"""Parts of /openapi.json that the formats' descriptions share. Used by formats/*.py; services/api/ingest_docs.py puts them in."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.ingest.formats.fields import (
    ANNOTATION_VALUE_MAX_BYTES,
    LABEL_VALUE_MAX_BYTES,
    LABELS_MAX,
    UNSET_TIME,
)
from services.ingest.headers import IDEMPOTENCY_KEY_MAX_BYTES

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Description:
    """A format's operations by method, in lower case, the schemas that they name, and the operations of its further paths."""

    operations: dict[str, Json]
    schemas: dict[str, Json] = field(default_factory=dict)
    more_paths: dict[str, dict[str, Json]] = field(default_factory=dict)


_TIME = "RFC 3339, from 1970 to 2100; without a zone it is UTC. Absent, null, empty or 0001-01-01T00:00:00Z: not set."
ENCODING: Json = {
    "name": "Content-Encoding",
    "in": "header",
    "description": "How the body is compressed. Several members or frames are read one after the other.",
    "schema": {"type": "string", "enum": ["identity", "gzip", "x-gzip", "zstd"]},
}
TRACE: Json = {
    "name": "traceparent",
    "in": "header",
    "description": "W3C trace context: its trace id is kept with the event and shown in the timeline. An invalid one is ignored.",
    "schema": {"type": "string"},
}
KEY: Json = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Identifies this delivery. If it is sent again within dedup_window, the answer names the same incidents and nothing changes.",
    "schema": {
        "type": "string",
        "minLength": 1,
        "maxLength": IDEMPOTENCY_KEY_MAX_BYTES,
        "pattern": "^[!-~]+$",
    },
}
RETRY_AFTER: Json = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}


PARAMETERS = [KEY, ENCODING, TRACE]
REFUSALS = {
    "401": "Tokens are required, and the request has no valid one.",
    "403": "The token lacks the scope for this endpoint, or may not send any of these alerts.",
    "408": "The body did not arrive within server.body_timeout.",
    "413": "The body is over server.max_body_bytes, as sent or unpacked, or holds too many alerts.",
    "415": "Content-Type or Content-Encoding is not supported here.",
}


USED = "The Idempotency-Key was used before for other alerts: none of these were stored."


def pairs(words: str, value_max: int, **more: object) -> Json:
    return {
        "type": "object",
        "description": words,
        "propertyNames": {"minLength": 1},
        "additionalProperties": {"type": "string", "maxLength": value_max},
        "maxProperties": LABELS_MAX,
        **more,
    }


def time(words: str) -> Json:
    given: Json = {"type": "string", "format": "date-time"}
    unset: Json = {"enum": [None, "", UNSET_TIME]}
    return {"anyOf": [given, unset], "description": f"{words} {_TIME}", "examples": ["2026-01-31T12:00:00Z"]}


LABELS = pairs(
    "What identifies the alert. Empty values count as absent; at least one must remain.",
    LABEL_VALUE_MAX_BYTES,
    minProperties=1,
)
ANNOTATIONS = pairs("What people should know about it.", ANNOTATION_VALUE_MAX_BYTES)
STARTS = time("Since when. Default: the time it arrives.")
ENDS = time("Until when; in the past: the alert is resolved.")


def ref(schema: str) -> Json:
    """A schema of the document by its name."""
    return {"$ref": f"#/components/schemas/{schema}"}


def answer(description: str, body: Json) -> Json:
    """A response in JSON."""
    return {"description": description, "content": {"application/json": {"schema": body}}}


#: The content of a response that is a problem (answers.problem).
PROBLEM: Json = {"application/problem+json": {"schema": ref("Problem")}}
