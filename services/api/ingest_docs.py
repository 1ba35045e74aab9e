"""What /openapi.json says of the two routes that FastAPI does not serve: POST /v1/alerts and POST /api/v2/alerts
(services/ingest/doors/http.py). Called by app.py."""

from __future__ import annotations

from fastapi import FastAPI

from services.ingest.doors.http import ALERTMANAGER_PATH, FAULTS_TOLD_MAX, IDEMPOTENCY_KEY_MAX_BYTES, V1_PATH
from services.ingest.formats.common import (
    ANNOTATION_VALUE_MAX_BYTES,
    LABEL_VALUE_MAX_BYTES,
    LABELS_MAX,
    UNSET_TIME,
)

Json = dict[str, object]

_TIME = "RFC 3339, from 1970 to 2100; without a zone it is UTC. Absent, null, empty or 0001-01-01T00:00:00Z: not set."
_ENCODING: Json = {
    "name": "Content-Encoding",
    "in": "header",
    "description": "How the body is packed. Several members or frames are read one behind the other.",
    "schema": {"type": "string", "enum": ["identity", "gzip", "x-gzip", "zstd"]},
}
_TRACE: Json = {
    "name": "traceparent",
    "in": "header",
    "description": "W3C trace context: its trace id is kept with the event and shown in the timeline. One that can't be read is passed over.",
    "schema": {"type": "string"},
}
_KEY: Json = {
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
_RETRY_AFTER: Json = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}


def describe_doors(schema: Json) -> None:
    """Add both routes, and the schemas they name, to an OpenAPI document."""
    components = schema.setdefault("components", {})
    paths = schema.setdefault("paths", {})
    assert isinstance(components, dict)
    assert isinstance(paths, dict)
    components.setdefault("schemas", {}).update(_SCHEMAS)
    paths.setdefault(V1_PATH, {})["post"] = _v1()
    paths.setdefault(ALERTMANAGER_PATH, {})["post"] = _alertmanager()


def add_doors_to_openapi(app: FastAPI) -> None:
    """Have /openapi.json name the doors too."""
    generate = app.openapi

    def openapi() -> Json:
        new = app.openapi_schema is None
        schema = generate()
        if new:
            describe_doors(schema)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def _v1() -> Json:
    one: Json = {"$ref": "#/components/schemas/PostedAlert"}
    line = '{"labels":{"alertname":"ModelDown","service":"llm-api"}}'
    return {
        "tags": ["alerts"],
        "summary": "Send alerts",
        "description": "One object, an array, or one object a line. What is answered 202 is durable. One bad alert never "
        "costs its neighbours: each is answered for itself. What can't be read is kept as a dead letter, with the "
        "reason. Sending again is always safe.",
        "operationId": "post_v1_alerts",
        "parameters": [_KEY, _ENCODING, _TRACE],
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
            "202": _received("All are stored."),
            "207": _received(
                "Some are stored; each item says. With Retry-After, those with status 503 may be sent again."
            ),
            "400": {
                "description": "None could be read: each item says why, or one problem when the body is no alerts at all.",
                "content": {
                    "application/json": {"schema": {"$ref": "#/components/schemas/Received"}},
                    "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}},
                },
            },
            **{code: _problem(words) for code, words in _REFUSALS.items()},
            "422": _received(_USED),
            "503": {
                "description": "None could be stored, or too much waits already. Nothing that was answered 202 is lost.",
                "headers": _RETRY_AFTER,
                "content": {
                    "application/json": {"schema": {"$ref": "#/components/schemas/Received"}},
                    "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}},
                },
            },
        },
    }


def _alertmanager() -> Json:
    form: Json = {"$ref": "#/components/schemas/AlertmanagerError"}
    return {
        "tags": ["alertmanager"],
        "summary": "Send alerts as Prometheus does",
        "description": "Alertmanager's API v2. Good alerts of a batch with bad ones are stored, though the answer is 400. "
        "An alert that nobody sends again ends after resolve_timeout. The rest of /api/v2 is described by "
        "Alertmanager's own openapi.yaml (0.25).",
        "operationId": "post_api_v2_alerts",
        "parameters": [_KEY, _ENCODING, _TRACE],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"type": "array", "items": {"$ref": "#/components/schemas/AlertmanagerAlert"}},
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
            **{
                code: {"description": words, "content": {"application/json": {"schema": form}}}
                for code, words in _REFUSALS.items()
            },
            "422": {
                "description": _USED,
                "content": {"application/json": {"schema": {"type": "string"}}},
            },
            "503": {
                "description": "Some or all could not be stored, or too much waits already: sending again is safe.",
                "headers": _RETRY_AFTER,
                "content": {"application/json": {"schema": {"anyOf": [{"type": "string"}, form]}}},
            },
        },
    }


def _received(words: str) -> Json:
    return {
        "description": words,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Received"}}},
    }


def _problem(words: str) -> Json:
    return {
        "description": words,
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


_REFUSALS = {
    "401": "Tokens are on, and there is no good one in the request.",
    "403": "The token has not the scope of this door, or may send none of these alerts.",
    "408": "The body did not arrive within server.body_timeout.",
    "413": "The body is over server.max_body_bytes, as sent or unpacked, or holds too many alerts.",
    "415": "Content-Type or Content-Encoding is none of those taken here.",
}


_USED = "The Idempotency-Key was accepted before with other alerts: nothing of these is stored under it."


def _pairs(words: str, value_max: int, **more: object) -> Json:
    return {
        "type": "object",
        "description": words,
        "propertyNames": {"minLength": 1},
        "additionalProperties": {"type": "string", "maxLength": value_max},
        "maxProperties": LABELS_MAX,
        **more,
    }


def _time(words: str) -> Json:
    given: Json = {"type": "string", "format": "date-time"}
    unset: Json = {"enum": [None, "", UNSET_TIME]}
    return {"anyOf": [given, unset], "description": f"{words} {_TIME}", "examples": ["2026-01-31T12:00:00Z"]}


_LABELS = _pairs(
    "What makes it this alert. Empty values count as absent; one must be left.",
    LABEL_VALUE_MAX_BYTES,
    minProperties=1,
)
_ANNOTATIONS = _pairs("What people should know of it.", ANNOTATION_VALUE_MAX_BYTES)
_STARTS = _time("Since when; not set: since it arrives.")
_ENDS = _time("Until when; in the past: it is resolved.")
_EXAMPLE: Json = {
    "labels": {"alertname": "ModelDown", "service": "llm-api", "severity": "critical"},
    "annotations": {"summary": "no answer for a minute"},
    "starts_at": "2026-01-31T12:00:00Z",
    "source": "llm-sentinel",
}
_SCHEMAS: dict[str, Json] = {
    "PostedAlert": {
        "type": "object",
        "description": "An alert. A field that is not listed is refused by name: it is a typo. startsAt, endsAt and "
        "generatorURL are taken for starts_at, ends_at and generator_url.",
        "required": ["labels"],
        "additionalProperties": False,
        "properties": {
            "labels": _LABELS,
            "annotations": _ANNOTATIONS,
            "starts_at": _STARTS,
            "ends_at": _ENDS,
            "startsAt": _STARTS,
            "endsAt": _ENDS,
            "status": {
                "enum": ["firing", "resolved"],
                "description": "resolved without an end: it ends now. Default: firing.",
            },
            "source": {"type": "string", "maxLength": 256, "description": "Who says so."},
            "generator_url": {"type": "string", "description": "Where it comes from."},
            "generatorURL": {"type": "string", "description": "Where it comes from."},
        },
    },
    "AlertmanagerAlert": {
        "type": "object",
        "description": "Alertmanager's postableAlert. Other fields are passed over.",
        "required": ["labels"],
        "properties": {
            "labels": _LABELS,
            "annotations": _ANNOTATIONS,
            "startsAt": _STARTS,
            "endsAt": _ENDS,
            "generatorURL": {"type": "string", "description": "Where it comes from."},
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
    "Received": {
        "type": "object",
        "description": "What became of each alert, in the order they were sent.",
        "required": ["stored", "refused", "failed", "items"],
        "properties": {
            "stored": {"type": "integer", "description": "are durable"},
            "refused": {"type": "integer", "description": "could not be read"},
            "failed": {"type": "integer", "description": "could not be stored now"},
            "items": {
                "type": "array",
                "description": "One an alert.",
                "items": {"$ref": "#/components/schemas/ReceivedItem"},
            },
        },
    },
    "ReceivedItem": {
        "type": "object",
        "required": ["index", "status"],
        "properties": {
            "index": {"type": "integer", "minimum": 0, "description": "Its place in the request."},
            "status": {"enum": [202, 400, 422, 503], "description": "What became of it, as an HTTP status."},
            "decision": {
                "type": "string",
                "description": "opened, joined, repeated, resolved, duplicate ...",
            },
            "reason": {"type": "string", "description": "The decision in words."},
            "incident_id": {
                "type": ["string", "null"],
                "format": "uuid",
                "description": "The incident that it is in; null: it is in none.",
            },
            "error": {"type": "string", "description": "Why it was not stored; names the field."},
        },
    },
}
