"""What people agree to when they approve an action: its digest, which binds their yes to it, and in words, for them to read."""

from __future__ import annotations

import json
import re
from hashlib import blake2b
from typing import Any

import msgspec

from models.playbook.parameters import Params

#: Characters of one parameter, and of all of them: with the reason of a policy they fit into a detail (kind.DETAIL_MAX).
VALUE_CHARS = 120
WORDS_CHARS = 400
_MASK = "***"
#: Names of what is a secret, in playbooks and bodies. `max_tokens` is none, and must be seen.
_NAMES = r"passw|pwd|secret|token(?!s)|api[_-]?key|authorization|credential|cookie"
_IS_SECRET = re.compile(_NAMES, re.IGNORECASE)
#: `--token=...`, `?api_key=...`, `Authorization: Bearer ...` within a text.
_WITHIN = re.compile(
    rf"([\w-]*(?:{_NAMES})[\w-]*[\"']?\s*[=:]\s*[\"']?)(?:(?:bearer|basic)\s+)?[^\s\"'&;]+", re.IGNORECASE
)
_USER_OF_URL = re.compile(r"//[^/@\s]*@")


def digest_of(type_: str, service: str, params: Params) -> str:
    """The same for the same action on the same target with the same parameters, and for no other."""
    said = json.dumps(
        [type_, service, msgspec.to_builtins(params, str_keys=True)], sort_keys=True, default=str
    )
    return blake2b(said.encode(), digest_size=16).hexdigest()


def in_words(service: str, params: Params) -> str:
    """The target and the parameters that are not as by default, on one short line, without values that look like secrets."""
    given = msgspec.to_builtins(params, str_keys=True)
    usual = {
        field.encode_name: msgspec.to_builtins(field.default)
        for field in msgspec.structs.fields(params)
        if field.default is not msgspec.NODEFAULT
    }
    parts = [f"service={service}"] if service else []
    parts += [
        f"{name}={_value(name, value)}"
        for name, value in given.items()
        if name != "service" and value not in (usual.get(name), None, "", [], {})
    ]
    return _cut(", ".join(parts), WORDS_CHARS)


def _value(name: str, value: Any) -> str:
    hidden = dict.fromkeys(value, _MASK) if name == "headers" and isinstance(value, dict) else _hidden(value)
    text = hidden if isinstance(hidden, str) else json.dumps(hidden, default=str, ensure_ascii=False)
    return _cut(" ".join(text.split()), VALUE_CHARS)


def _hidden(value: Any) -> Any:
    if isinstance(value, str):
        return _WITHIN.sub(rf"\g<1>{_MASK}", _USER_OF_URL.sub("//", value))
    if isinstance(value, dict):
        return {
            name: _MASK if isinstance(each, str) and _IS_SECRET.search(name) else _hidden(each)
            for name, each in value.items()
        }
    if not isinstance(value, list | tuple):
        return value
    # The value of an option may be the next argument: `--password`, `x`.
    before = ["", *value]
    return [
        _MASK if isinstance(flag, str) and flag.startswith("-") and "=" not in flag and _IS_SECRET.search(flag) else _hidden(each)
        for flag, each in zip(before, value, strict=False)
    ]  # fmt: skip


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
