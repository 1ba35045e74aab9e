"""The JSON Schema of playbooks, for editors: completion, help at the cursor, red lines. Made of the same tables that reading.py reads
by. What needs more than one place (ids that exist, circles) only the reading knows: `llm-im playbooks validate`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from models.incidents.incident import IncidentType, Severity
from models.playbook import fields
from models.playbook.catalog import CATALOG, ActionSpec
from models.playbook.fields import Field
from models.playbook.parameters import Seconds
from models.playbook.playbook import FAIL

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string", "minLength": 1}
_TEMPLATE: Schema = {"type": "string", "pattern": r"\{[{%]"}
_DURATION: Schema = {
    "anyOf": [{"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(ms|s|m|h|d|w)\s*$"}, {"type": "number", "exclusiveMinimum": 0}]
}  # fmt: skip
_SCALAR: Schema = {"type": ["string", "number", "boolean"]}


def _one_or_many(of: Schema) -> Schema:
    return {"anyOf": [of, {"type": "array", "items": of, "minItems": 1}]}


#: How each kind of field of fields.py is described.
_KINDS: dict[str, Schema] = {
    "text": _SCALAR,
    "version": _SCALAR,
    "id": {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$", "not": {"enum": sorted(fields.RESERVED)}},
    "flag": {"type": "boolean"},
    "integer": {"type": "integer"},
    "count": {"type": "integer", "minimum": 0},
    "positive": {"type": "integer", "minimum": 1},
    "duration": _DURATION,
    "map": {"type": "object"},
    "texts": _one_or_many(_SCALAR),
    "ids": {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]},
    "severities": _one_or_many({"enum": [each.name for each in Severity]}),
    "types": _one_or_many({"enum": [each.value for each in IncidentType]}),
    "matchers": {"anyOf": [{"type": "object", "additionalProperties": _SCALAR}, _one_or_many(_TEXT)]},
    "expression": {"type": ["string", "boolean"]},
    "each": {"type": ["string", "array"]},
    "schedule": _TEXT,
    "backoff": {"enum": list(fields.BACKOFFS)},
    "target": {"anyOf": [{"enum": list(fields.TARGETS)}, _TEXT]},
    "otherwise": {"anyOf": [{"enum": [FAIL, "approve"]}, _TEXT]},
    "step_type": {"enum": list(fields.STEP_TYPES)},
    "retry": {"anyOf": [{"type": "integer", "minimum": 0}, {"$ref": "#/$defs/retry"}]},
    "approval": {"$ref": "#/$defs/approval"},
    "trigger": {"$ref": "#/$defs/trigger"},
    "steps": {"type": "array", "items": {"$ref": "#/$defs/step"}},
    "actions": {"type": "array", "items": {"$ref": "#/$defs/action"}, "minItems": 1},
    "rollback": {"$ref": "#/$defs/action"},
}


def schema(kinds: Mapping[str, ActionSpec] = CATALOG) -> Schema:
    """The whole schema, for draft 2020-12. `kinds` are the kinds of actions that there are."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "LLM-Incident-Manager playbook",
        **_map_of(fields.PLAYBOOK),
        "$defs": {
            "trigger": _map_of(fields.TRIGGER),
            "step": _map_of(fields.STEP),
            "retry": _map_of(fields.RETRY),
            "approval": _map_of(fields.APPROVAL),
            "action": _action(kinds),
        },
    }


def _map_of(table: tuple[Field, ...]) -> Schema:
    return {
        "type": "object",
        "properties": {field.name: _described(field) for field in table},
        "required": [field.name for field in table if field.required],
        "additionalProperties": False,
    }


def _described(field: Field) -> Schema:
    of = _KINDS[field.kind]
    # Beside a $ref nothing was allowed before draft 2019-09, and some editors still read it so.
    return {"description": field.what, "allOf": [of]} if "$ref" in of else {"description": field.what, **of}


def _action(all_kinds: Mapping[str, ActionSpec]) -> Schema:
    """An action takes its own fields and those of its kind."""
    own = {field.name: _described(field) for field in fields.ACTION if field.kind != "action_type"}
    own["timeout"] = {"description": own["timeout"]["description"], "anyOf": [*_DURATION["anyOf"], _TEMPLATE]}
    kinds = [{"const": name, "description": spec.summary} for name, spec in all_kinds.items()]
    return {
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"description": "What is done.", "anyOf": kinds}, **own},
        "allOf": [
            {
                "if": {"properties": {"type": {"const": name}}, "required": ["type"]},
                "then": _parameters(spec, set(own)),
            }
            for name, spec in all_kinds.items()
        ],
    }


def _parameters(spec: ActionSpec, own: set[str]) -> Schema:
    given = msgspec.structs.fields(spec.params)
    properties: Schema = {
        field.encode_name: {"anyOf": [msgspec.json.schema(field.type, schema_hook=_own_types), _TEMPLATE]}
        for field in given
    }
    return {
        "properties": {**dict.fromkeys([*sorted(own), "type"], True), **properties},
        "required": [field.encode_name for field in given if field.required],
        "additionalProperties": False,
    }


def _own_types(kind: type) -> Schema:
    if kind is Seconds:
        return dict(_DURATION)
    raise NotImplementedError
