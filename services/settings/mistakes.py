"""What is wrong with a setting, in words for a person: where it is, what was expected, what is there instead."""

from __future__ import annotations

import math
from difflib import get_close_matches
from typing import Any, get_args, get_origin

import msgspec
from pydantic_core import ErrorDetails

from models.durations import duration_text
from models.settings.all import Settings
from models.settings.keys import KEYS, Key
from models.settings.receivers import RECEIVER_TYPES, Receiver
from models.settings.secrets import may_hold_secret
from models.settings.values import Section
from services.settings.names import section_of, unknown

_DURATIONS = 'a duration such as "30s", "5m", "1h" or "90d"'
#: How much of a wrong value an error shows.
_SHOWN_CHARS = 60


def place_of(place: tuple[int | str, ...]) -> str:
    """Where a mistake is, as a person would write it: `classification.rules[0].severity`."""
    text = ""
    kind: object = Settings
    for part in place:
        if part in _tags(kind):
            # pydantic names the class that it read a union as; nobody wrote that.
            kind = _tags(kind)[str(part)]
            continue
        kind = _within(kind, part)
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def expected(found: ErrorDetails) -> str:
    """One mistake in words: what was expected, and what was found instead, unless it is a secret."""
    context: dict[str, Any] = found.get("ctx", {})
    place = tuple(str(part) for part in found["loc"])
    key = KEYS.get(".".join(place))
    # What is written where a section belongs may be the secret that belongs into it.
    has_secret = may_hold_secret(_kind_at(found["loc"]))
    there = "" if has_secret else f", not {shown(found['input'], key)}"
    match found["type"]:
        case "value_error":
            return str(context["error"])
        case "extra_forbidden":
            return unknown(place, _row_of(found["loc"]))
        case "union_tag_not_found":
            return f"expected its type, one of {', '.join(RECEIVER_TYPES)}"
        case "union_tag_invalid":
            near = get_close_matches(str(context["tag"]), RECEIVER_TYPES, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            return f"type: expected one of {', '.join(RECEIVER_TYPES)}, not {shown(context['tag'])}{hint}"
        case "missing":
            return "required, but missing"
        case "literal_error":
            choices = [word.strip("'") for word in _choices(str(context["expected"]))]
            near = get_close_matches(str(found["input"]), choices, 1) or [
                each for each in choices if each.lower() == str(found["input"]).lower()
            ]
            hint = f"; did you mean {near[0]}?" if near else ""
            return (
                f"expected {' or '.join(filter(None, (', '.join(choices[:-1]), choices[-1])))}{there}{hint}"
            )
        case "int_parsing" | "int_type" | "int_from_float" | "int_parsing_size":
            return f"expected a whole number{there}"
        case "float_type" | "float_parsing" | "finite_number":
            what = "a number" if key is not None and not key.is_duration else _DURATIONS
            return f"expected {what}{there}"
        case "bool_parsing" | "bool_type":
            return f"expected true or false{there}"
        case "string_type":
            return f"expected text in quotes{there}"
        case "list_type":
            return f'expected a list, as in ["a", "b"]{there}'
        case "dict_type" | "model_type" | "model_attributes_type":
            return f"expected a table{there}"
        case "greater_than_equal":
            return f"expected {_bound(key, context['ge'])} or more{there}"
        case "less_than_equal":
            return f"expected at most {_bound(key, context['le'])}{there}"
        case "string_too_short":
            return "must not be empty"
        case "too_long":
            return f"expected at most {context['max_length']} entries, not {context['actual_length']}"
        case "string_pattern_mismatch":
            pattern = str(context["pattern"])
            return f"expected {_FORMS.get(pattern) or f'a text of the form {pattern}'}{there}"
        case _:
            return found["msg"]


#: What is of the form of a pattern, where its letters say that to few.
_FORMS = {
    r"^\d+/(s|m|h)$": 'a rate such as "5000/s"',
    r"^(\d+/(s|m|h)|none)$": 'a rate such as "5000/s", or "none"',
    "^P[0-4]$": "P0, P1, P2, P3 or P4",
    r"^[A-Za-z_][A-Za-z0-9_]*$": "the name of a variable of the environment",
    r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$": 'a time such as "2026-01-31T12:00:00Z"',
}


def _choices(text: str) -> list[str]:
    return text.replace(" or ", ", ").split(", ")


def _bound(key: Key | None, limit: float) -> str:
    return duration_text(limit) if key is not None and key.is_duration else str(limit)


def shown(value: object, key: Key | None = None) -> str:
    if isinstance(value, float):
        # Durations are seconds by now; and JSON would show NaN as null.
        is_duration = key is not None and key.is_duration and math.isfinite(value)
        return f'"{duration_text(value)}"' if is_duration else str(value)
    try:
        text = msgspec.json.encode(value, enc_hook=str).decode()
    except (TypeError, ValueError, msgspec.MsgspecError):
        text = str(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."


def _kind_at(place: tuple[int | str, ...]) -> object:
    """The type that belongs there; of the nearest around it, where there is no such place."""
    kind: object = Settings
    for part in place:
        if (inner := _within(kind, part)) is None:
            break
        kind = inner
    return kind


def _row_of(place: tuple[int | str, ...]) -> type[Section] | None:
    """The section that a setting in a list or table stands in, None for one that is in neither."""
    kind = _kind_at(place[:-1])
    is_row = section_of(tuple(str(part) for part in place[:-1])) is None
    return kind if is_row and isinstance(kind, type) and issubclass(kind, Section) else None


def _within(kind: object, part: int | str) -> object:
    if isinstance(kind, type) and issubclass(kind, Section):
        field = kind.model_fields.get(str(part))
        return None if field is None else field.annotation
    if get_origin(kind) in (list, dict):
        return get_args(kind)[-1]
    if part in _tags(kind):
        return _tags(kind)[str(part)]
    found = (_within(each, part) for each in get_args(kind))
    return next((each for each in found if each is not None), None)


def _tags(kind: object) -> dict[str, object]:
    """The classes of a union that says in its values which of them it is, by what says it."""
    tags: dict[str, object] = dict(RECEIVER_TYPES) if kind == Receiver else {}
    return tags
