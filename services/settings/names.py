"""How settings are named in files, variables and flags, which other names are taken, and the error for an unknown
one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import get_origin

import msgspec

from models.settings.all import Settings
from models.settings.keys import KEYS, Key
from models.settings.later import LaterSection
from models.settings.values import Section

CONFIG_VARIABLE = "LLM_IM_CONFIG"
PREFIX = "LLM_IM_"
#: LLM_IM_* names that are not settings: the command line's and the launcher's own.
NOT_SETTINGS = frozenset(
    {
        CONFIG_VARIABLE,
        "LLM_IM_URL",
        "LLM_IM_CONTEXT",
        "LLM_IM_TOKEN",
        "LLM_IM_TOKEN_FILE",
        "LLM_IM_INSTANCE",
        "LLM_IM_INSTANCE_LOG",
        "LLM_IM_PRIVATE_DIR",
        "LLM_IM_TRACEBACK",
    }
)
#: Variables that Kubernetes sets in every pod of a namespace that has a Service named llm-im.
KUBERNETES = re.compile(
    r"LLM_IM_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
#: Command-line flags, by the setting they override.
FLAGS = {
    "state.path": "--data",
    "server.http_port": "--port",
    "notify.enabled": "--no-notify",
    "playbooks.enabled": "--no-notify",
}
#: Alternative names of settings.
ALIASES = {
    "resource_limits.max_concurrent_incidents": "lifecycle.max_concurrent_incidents",
    "state.connection_string": "state.postgres.url",
}
#: Alternative environment variables.
VARIABLES = {
    "DEPLOYMENT_MODE": "deployment.mode",
    "WORKER_TYPE": "deployment.worker_type",
    "REDIS_CLUSTER_NODES": "coordination.cluster_nodes",
    "KAFKA_BROKERS": "messaging.brokers",
    "RUST_LOG": "logging.level",
}
#: Embedded stores of other languages. Whoever asks for one wants an embedded store, and ours is SQLite.
EMBEDDED = ("sled", "redb")
#: RUST_LOG's levels as ours.
_RUST_LEVELS = {"off": "ERROR", "error": "ERROR", "warn": "WARNING", "info": "INFO", "debug": "DEBUG", "trace": "DEBUG"}  # fmt: skip
_RUST_TARGET = "llm_incident_manager"

Keys = tuple[str, ...]


def leaves(
    section: type[Section], values: Mapping[str, object], at: Keys = ()
) -> Iterator[tuple[Keys, object]]:
    """Every value of a table by its key; a section that is not a table counts as a value, which the model then refuses."""
    for name, value in values.items():
        inner = _inner(section, name)
        if inner is not None and isinstance(value, dict):
            yield from leaves(inner, value, (*at, name))
        else:
            yield (*at, name), value


def _inner(section: type[Section], name: str) -> type[Section] | None:
    found = section.model_fields.get(name)
    kind = None if found is None else found.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def section_of(keys: Keys) -> type[Section] | None:
    """The section of that name, None if there is none."""
    section: type[Section] | None = Settings
    for name in keys:
        section = None if section is None else _inner(section, name)
    return section


def nested(keys: Keys, value: object) -> dict[str, object]:
    for name in reversed(keys):
        value = {name: value}
    assert isinstance(value, dict)
    return value


def spelled(variable: str) -> Keys | None:
    """The key of LLM_IM_NOTIFY__WAIT__P0 in the spelling of the settings, since variables are all upper case. None if unknown."""
    section: type[Section] | None = Settings
    found: list[str] = []
    for word in variable.removeprefix(PREFIX).lower().split("__"):
        names = {} if section is None else {name.lower(): name for name in section.model_fields}
        if section is None or word not in names:
            return None
        found.append(names[word])
        section = _inner(section, names[word])
    return tuple(found)


def variable_of(key: Key) -> str:
    """The environment variable that sets it."""
    return PREFIX + key.name.replace(".", "__").upper()


def unknown(keys: Keys, row: type[Section] | None = None) -> str:
    """The error for a key that does not exist: suggests the closest one in its section, else anywhere. `row`: what it stands
    in, for one of a list or table."""
    at, name = keys[:-1], keys[-1]
    section = row or section_of(at)
    fields = {} if section is None else section.model_fields
    siblings = [field.alias or name for name, field in fields.items()]
    what = "there is no such section" if not at else "there is no such setting"
    elsewhere = {key.rpartition(".")[2]: key for key in reversed(KEYS)}
    near = get_close_matches(name, siblings, 1)
    # A setting without its section is meant more often than a section that is spelt like it.
    if near and (at or name not in elsewhere):
        return f"{what}; did you mean {near[0] if row else '.'.join((*at, near[0]))}?"
    if row is not None:
        return f"{what}; there are {', '.join(siblings)}"
    if near := get_close_matches(name, elsewhere, 1, cutoff=0.8):
        return f"{what}; did you mean {elsewhere[near[0]]}?"
    shown = [each for each in siblings if not _is_later(section, each)]
    return f"{what}; there are {', '.join(shown or siblings)}"


def _is_later(section: type[Section] | None, name: str) -> bool:
    inner = None if section is None else _inner(section, name)
    return inner is not None and issubclass(inner, LaterSection)


def unknown_variable(name: str) -> str:
    known = {variable_of(key) for key in KEYS.values()} | NOT_SETTINGS
    near = get_close_matches(name, known, 1)
    hint = (
        f"did you mean {near[0]}?"
        if near
        else "names are LLM_IM_SECTION__KEY, as in LLM_IM_SERVER__HTTP_PORT"
    )
    return f"there is no such setting; {hint}"


def from_text(keys: Keys, text: str) -> object:
    """A variable's value: lists and tables as JSON, lists of words also separated by commas, anything else unchanged."""
    key = KEYS.get(".".join(keys))
    kinds = {dict} if key is None else {get_origin(kind) or kind for kind in key.kinds}
    if text[:1] in ("[", "{") and kinds & {list, dict}:
        decoded: object = msgspec.json.decode(text)
        return decoded
    return words_of(text) if list in kinds else text


def words_of(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def from_alias(name: str, text: str) -> object:
    if name != "RUST_LOG":
        return from_text(tuple(VARIABLES[name].split(".")), text)
    # "info,llm_incident_manager=debug": our own level, else the global one; levels of other targets are ignored.
    levels = dict(directive.rpartition("=")[::2] for directive in words_of(text))
    level = levels.get(_RUST_TARGET, levels.get("", "")).lower()
    return _RUST_LEVELS.get(level)
