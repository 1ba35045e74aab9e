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
    "description": "How the body is packed. Several members or frames are read one behind the other.",
    "schema": {"type": "string", "enum": ["identity", "gzip", "x-gzip", "zstd"]},
}
TRACE: Json = {
    "name": "traceparent",
    "in": "header",
    "description": "W3C trace context: its trace id is kept with the event and shown in the timeline. One that can't be read is passed over.",
    "schema": {"type": "string"},
}
KEY: Json = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Names this delivery. Sent again within dedup_window it is answered with the same incidents and "
    "makes no event.",
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
    "401": "Tokens are on, and there is no good one in the request.",
    "403": "The token has not the scope of this door, or may send none of these alerts.",
    "408": "The body did not arrive within server.body_timeout.",
    "413": "The body is over server.max_body_bytes, as sent or unpacked, or holds too many alerts.",
    "415": "Content-Type or Content-Encoding is none of those taken here.",
}


USED = "The Idempotency-Key was accepted before with other alerts: nothing of these is stored under it."


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
    "What makes it this alert. Empty values count as absent; one must be left.",
    LABEL_VALUE_MAX_BYTES,
    minProperties=1,
)
ANNOTATIONS = pairs("What people should know of it.", ANNOTATION_VALUE_MAX_BYTES)
STARTS = time("Since when; not set: since it arrives.")
ENDS = time("Until when; in the past: it is resolved.")


def ref(schema: str) -> Json:
    """A schema of the document by its name."""
    return {"$ref": f"#/components/schemas/{schema}"}


def answer(description: str, body: Json) -> Json:
    """A response in JSON."""
    return {"description": description, "content": {"application/json": {"schema": body}}}


#: The content of a response that is a problem (answers.problem).
PROBLEM: Json = {"application/problem+json": {"schema": ref("Problem")}}
