"""Loads the settings: defaults, then the TOML file, then the environment, then command-line flags; each value remembers
its source. The only loader (docs/decisions/0016-settings-loader.md says why we wrote our own).

It never guesses: an unknown key or a value out of range is refused with where it is, what was expected, and the closest
known name. Alternative names (`ALIASES`, `VARIABLES`) are accepted, with a notice.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, get_origin

import msgspec
from pydantic import SecretStr, ValidationError
from pydantic_core import ErrorDetails

from models.errors import Malformed, Refused
from models.settings.config import KEYS, Key, Rule, Settings
from models.settings.later import LaterSection
from models.settings.values import NONE, Section, duration_text
from services.stores import choice

CONFIG_FILE = "llm-im.toml"
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
_KUBERNETES = re.compile(
    r"LLM_IM_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
#: Command-line flags, by the setting they override.
FLAGS = {"state.path": "--data", "server.http_port": "--port", "notify.enabled": "--no-notify"}
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

_DURATIONS = 'a duration such as "30s", "5m", "1h" or "90d"'
MASK = "********"
#: Replaces a secret where it must not appear: still a URL, and the same for the same secret.
MASKED = "https://secret.invalid/"
#: How much of a wrong value an error shows.
_SHOWN_CHARS = 60

#: How tomllib reports the line of an error.
_AT_LINE = re.compile(r"\(at line (\d+), column \d+\)")
#: A file with more broken lines is not a settings file.
_BROKEN_LINES_MAX = 20

Keys = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value came from. `name`: the file's path, the variable, or the flag."""

    kind: Literal["default", "file", "variable", "flag"]
    name: str = ""

    def __str__(self) -> str:
        return self.name or self.kind


DEFAULT = Source("default")


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings in force, the source of each that is not a default, and notices for whoever wrote them."""

    settings: Settings
    sources: dict[str, Source]
    file: str | None
    notices: list[str] = field(default_factory=list)

    def source(self, key: Key) -> Source:
        return self.sources.get(key.name, DEFAULT)

    def not_active(self) -> list[Key]:
        """Settings that are set but whose feature is not built yet."""
        return [
            KEYS[name]
            for name in self.sources
            if KEYS[name].is_later and KEYS[name].of(self.settings) != KEYS[name].field.default
        ]


@dataclass(frozen=True, slots=True)
class _Given:
    value: object
    source: Source


def load_settings(path: Path | None = None, flags: Mapping[str, object] | None = None) -> Settings:
    """load() for callers that need only the values."""
    return load(path, flags).settings


def load(
    path: Path | None = None,
    flags: Mapping[str, object] | None = None,
    *,
    only: Collection[str] = (),
    leniently: bool = False,
) -> Loaded:
    """The settings in force: defaults, then the file, then the environment, then `flags` (by key).

    Without `path`, the file is the one LLM_IM_CONFIG names, else ./llm-im.toml if it exists. Raises Malformed, which says
    for every mistake where it is, what was expected, and the closest known name. With `only`, just those sections or keys
    are read; all others keep their defaults and are not checked. With `leniently`, what can't be used becomes a notice
    and is skipped; a file given as `path` that can't be opened is refused all the same.
    """
    is_named = path is not None
    if path is None and os.environ.get(CONFIG_VARIABLE):
        path = Path(os.environ[CONFIG_VARIABLE])
    if path is None and os.path.isfile(CONFIG_FILE):
        path = Path(CONFIG_FILE)
    reading = _Reading(tuple(tuple(each.split(".")) for each in only))
    if path is not None:
        try:
            values = _read_file(path, reading.notices if leniently else None)
        except Malformed as error:
            if is_named or not leniently:
                raise
            reading.notices.append(str(error))
        else:
            reading.table(values, Source("file", str(path)))
    reading.environment(os.environ)
    for name, value in (flags or {}).items():
        reading.given[tuple(name.split("."))] = _Given(value, Source("flag", FLAGS.get(name, name)))
    settings = reading.settings(leniently)
    sources = {".".join(keys): given.source for keys, given in reading.given.items()}
    return Loaded(settings, sources, None if path is None else str(path), reading.notices)


class _Reading:
    """Collects values by key, later sources overriding earlier ones, and what is wrong with them."""

    def __init__(self, only: Collection[Keys] = ()) -> None:
        self._only = only
        self.given: dict[Keys, _Given] = {}
        self.problems: list[str] = []
        self.notices: list[str] = []

    def table(self, values: Mapping[str, object], source: Source) -> None:
        """Everything in a table of settings."""
        taken: dict[Keys, Keys] = {}
        for keys, value in _leaves(Settings, values):
            name = ".".join(keys)
            ours = ALIASES.get(name, name)
            if not self._is_wanted(tuple(ours.split("."))):
                continue
            if name not in KEYS and _section(keys) is None:
                self.problems.append(f"{source}: {name}: {_unknown(keys)}")
                continue
            path = tuple(ours.split("."))
            if path in taken:
                self.problems.append(f"{source}: {name}: set twice, also as {'.'.join(taken[path])}")
                continue
            taken[path] = keys
            self._put(path, name, value, source)

    def environment(self, variables: Mapping[str, str]) -> None:
        """LLM_IM_SECTION__KEY, and with lower priority the names in VARIABLES. An empty variable counts as unset."""
        for name, key in VARIABLES.items():
            if not variables.get(name) or not self._is_wanted(tuple(key.split("."))):
                continue
            if (value := _from_alias(name, variables[name])) is not None:
                self._put(tuple(key.split(".")), name, value, Source("variable", name))
        for name, text in sorted(variables.items()):
            if not text or not name.startswith(PREFIX) or name in NOT_SETTINGS or _KUBERNETES.fullmatch(name):
                continue
            source = Source("variable", name)
            keys = _spelled(name)
            if keys is None:
                if not self._only:
                    self.problems.append(f"{name}: {_unknown_variable(name)}")
                continue
            if not self._is_wanted(keys):
                continue
            try:
                value = _from_text(keys, text)
            except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                self.problems.append(f"{name}: {'.'.join(keys)}: expected JSON: {error}")
                continue
            if _section(keys) is not None and isinstance(value, dict):
                self.table(_nested(keys, value), source)
            else:
                self._put(keys, name, value, source)

    def _is_wanted(self, keys: Keys) -> bool:
        """Whether it is one of `only`, or inside one, or contains one."""
        return not self._only or any(
            keys[: len(each)] == each or each[: len(keys)] == keys for each in self._only
        )

    def _put(self, keys: Keys, name: str, value: object, source: Source) -> None:
        key = ".".join(keys)
        if key == "state.backend" and value in EMBEDDED:
            self.notices.append(f"{source}: {key}: {value} is not available here; SQLite is used instead")
            value = "sqlite"
        elif name != key and source.kind == "file":
            self.notices.append(f"{source}: {name} is read as {key}")
        elif name in VARIABLES:
            self.notices.append(f"{name} is read as {key}")
        self.given[keys] = _Given(value, source)

    def settings(self, leniently: bool = False) -> Settings:
        """All settings, checked. Raises Malformed; with `leniently`, what is wrong is skipped and becomes a notice."""
        settings = self._checked()
        while settings is None and leniently:
            settings = self._checked()
        if leniently:
            self.notices += self.problems
        if settings is None or (self.problems and not leniently):
            raise Malformed(_listed(self.problems))
        return settings

    def _checked(self) -> Settings | None:
        """The settings; None if something is wrong, which is reported and dropped."""
        try:
            return Settings.model_validate(self._values())
        except ValidationError as error:
            wrong = error.errors()
            self.problems += [self._wrong(found) for found in wrong]
            for found in wrong:
                self._forget(tuple(str(part) for part in found["loc"]))
            return None

    def _forget(self, place: Keys) -> None:
        """Drops the values given for this key, for keys inside it, and for sections that contain it."""
        for keys in [*self.given]:
            if keys == place[: len(keys)] or keys[: len(place)] == place:
                del self.given[keys]

    def _values(self) -> dict[str, object]:
        values: dict[str, object] = {}
        # Short keys first: a value for a whole section must not overwrite the section's keys.
        for keys in sorted(self.given, key=len):
            inner: object = values
            for part in keys[:-1]:
                inner = inner.setdefault(part, {}) if isinstance(inner, dict) else None
            if isinstance(inner, dict):
                inner[keys[-1]] = self.given[keys].value
        return values

    def _wrong(self, found: ErrorDetails) -> str:
        place = tuple(str(part) for part in found["loc"])
        source = next(
            (given.source for keys, given in self.given.items() if keys == place[: len(keys)]), DEFAULT
        )
        return f"{source}: {place_of(found['loc'])}: {expected(found)}"


def _listed(problems: list[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    return "\n  ".join([f"{len(problems)} settings are wrong:", *problems])


def _read_file(path: Path, notices: list[str] | None = None) -> dict[str, object]:
    """The file's tables. With `notices`, lines that are not TOML are reported there and skipped."""
    try:
        text = path.read_text("utf-8-sig", errors="strict" if notices is None else "replace")
        return tomllib.loads(text)
    except OSError as error:
        raise Malformed(f"{path}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise Malformed(f"{path}: not TOML: expected UTF-8, but byte {error.start} is not") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        if notices is None:
            raise Malformed(f"{path}: not TOML: {error}") from None
        notices.append(f"{path}: not TOML: {error}")
        return _what_is_toml(text.split("\n"))


def _what_is_toml(lines: list[str]) -> dict[str, object]:
    """The tables of a file without its broken lines. After a broken table header, everything up to the next header is
    skipped: its keys would be read as part of the previous table."""
    for _ in range(_BROKEN_LINES_MAX):
        try:
            return tomllib.loads("\n".join(lines))
        except RecursionError:
            break
        except tomllib.TOMLDecodeError as error:
            found = _AT_LINE.search(str(error))
            last = max((place for place, line in enumerate(lines) if line), default=0)
            place = min(int(found[1]) - 1, last) if found else last
            is_head = lines[place].lstrip().startswith("[")
            lines[place] = ""
            while is_head and place + 1 < len(lines) and not lines[place + 1].lstrip().startswith("["):
                place += 1
                lines[place] = ""
    return {}


# -- keys ----------------------------------------------------------------------------------------------------


def _leaves(
    section: type[Section], values: Mapping[str, object], at: Keys = ()
) -> Iterator[tuple[Keys, object]]:
    """Every value of a table by its key; a section that is not a table counts as a value, which the model then refuses."""
    for name, value in values.items():
        inner = _inner(section, name)
        if inner is not None and isinstance(value, dict):
            yield from _leaves(inner, value, (*at, name))
        else:
            yield (*at, name), value


def _inner(section: type[Section], name: str) -> type[Section] | None:
    found = section.model_fields.get(name)
    kind = None if found is None else found.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def _section(keys: Keys) -> type[Section] | None:
    """The section of that name, None if there is none."""
    section: type[Section] | None = Settings
    for name in keys:
        section = None if section is None else _inner(section, name)
    return section


def _nested(keys: Keys, value: object) -> dict[str, object]:
    for name in reversed(keys):
        value = {name: value}
    assert isinstance(value, dict)
    return value


def _spelled(variable: str) -> Keys | None:
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


def _unknown(keys: Keys) -> str:
    """The error for a key that does not exist: suggests the closest one in its section, else anywhere."""
    at, name = keys[:-1], keys[-1]
    section = Rule if at[:2] == ("classification", "rules") else _section(at)
    siblings = list(section.model_fields) if section is not None else []
    what = "there is no such section" if not at else "there is no such setting"
    if near := get_close_matches(name, siblings, 1):
        return f"{what}; did you mean {near[0] if section is Rule else '.'.join((*at, near[0]))}?"
    elsewhere = {key.rpartition(".")[2]: key for key in reversed(KEYS)}
    if near := get_close_matches(name, elsewhere, 1, cutoff=0.8):
        return f"{what}; did you mean {elsewhere[near[0]]}?"
    shown = [each for each in siblings if not _is_later(section, each)]
    return f"{what}; there are {', '.join(shown or siblings)}"


def _is_later(section: type[Section] | None, name: str) -> bool:
    inner = None if section is None else _inner(section, name)
    return inner is not None and issubclass(inner, LaterSection)


def _unknown_variable(name: str) -> str:
    known = {variable_of(key) for key in KEYS.values()} | NOT_SETTINGS
    near = get_close_matches(name, known, 1)
    hint = (
        f"did you mean {near[0]}?"
        if near
        else "names are LLM_IM_SECTION__KEY, as in LLM_IM_SERVER__HTTP_PORT"
    )
    return f"there is no such setting; {hint}"


# -- values --------------------------------------------------------------------------------------------------


def _from_text(keys: Keys, text: str) -> object:
    """A variable's value: lists and tables as JSON, lists of words also separated by commas, anything else unchanged."""
    key = KEYS.get(".".join(keys))
    kinds = {dict} if key is None else {get_origin(kind) or kind for kind in key.kinds}
    if text[:1] in ("[", "{") and kinds & {list, dict}:
        decoded: object = msgspec.json.decode(text)
        return decoded
    return _words(text) if list in kinds else text


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _from_alias(name: str, text: str) -> object:
    if name != "RUST_LOG":
        return _from_text(tuple(VARIABLES[name].split(".")), text)
    # "info,llm_incident_manager=debug": our own level, else the global one; levels of other targets are ignored.
    levels = dict(directive.rpartition("=")[::2] for directive in _words(text))
    level = levels.get(_RUST_TARGET, levels.get("", "")).lower()
    return _RUST_LEVELS.get(level)


def place_of(place: tuple[int | str, ...]) -> str:
    """Where a mistake is, as a person would write it: `classification.rules[0].severity`."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def expected(found: ErrorDetails) -> str:
    """One mistake in words: what was expected, and what was found instead, unless it is a secret."""
    context: dict[str, Any] = found.get("ctx", {})
    place = tuple(str(part) for part in found["loc"])
    key = KEYS.get(".".join(place))
    # A URL written in place of its section is just as secret.
    has_secret = any(
        each.is_secret and (each.path[: len(place)] == place or place[: len(each.path)] == each.path)
        for each in KEYS.values()
    )
    there = "" if has_secret else f", not {_shown(found['input'], key)}"
    match found["type"]:
        case "value_error":
            return str(context["error"])
        case "extra_forbidden":
            return _unknown(place)
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
            return f'expected a rate such as "5000/s"{there}'
        case _:
            return found["msg"]


def _choices(text: str) -> list[str]:
    return text.replace(" or ", ", ").split(", ")


def _bound(key: Key | None, limit: float) -> str:
    return duration_text(limit) if key is not None and key.is_duration else str(limit)


def _shown(value: object, key: Key | None = None) -> str:
    if isinstance(value, float):
        # Durations are seconds by now; and JSON would show NaN as null.
        is_duration = key is not None and key.is_duration and math.isfinite(value)
        return f'"{duration_text(value)}"' if is_duration else str(value)
    try:
        text = msgspec.json.encode(value, enc_hook=str).decode()
    except (TypeError, ValueError, msgspec.MsgspecError):
        text = str(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."


def written(key: Key, value: object) -> object:
    """A value as a person would write it, secrets masked, for `config show`."""
    if key.is_secret:
        return MASK if value else value
    if key.is_duration:
        return duration_text(value) if isinstance(value, float) else NONE
    if isinstance(value, list):
        return [
            each.model_dump(exclude_defaults=True) if isinstance(each, Section) else each for each in value
        ]
    return value


# -- what leaves this process --------------------------------------------------------------------------------


def masked_json(settings: Settings) -> str:
    """The settings as JSON, each secret replaced by a hash that only shows whether it changed: what `config reload` sends
    and the log keeps. Values that are already masked stay as they are."""
    plain = settings.model_dump(mode="json")
    for key in KEYS.values():
        if key.is_secret and (secret := key.of(settings)):
            inner = plain
            for part in key.path[:-1]:
                inner = inner[part]
            inner[key.path[-1]] = (
                {name: _masked(each) for name, each in secret.items()}
                if isinstance(secret, dict)
                else _masked(secret)
            )
    return msgspec.json.encode(plain).decode()


def _masked(secret: object) -> str:
    assert isinstance(secret, SecretStr)
    text = secret.get_secret_value()
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return text if text.startswith(MASKED) else MASKED + digest


def masked(settings: Settings) -> Settings:
    """The same settings masked, to compare with settings that were masked elsewhere."""
    return Settings.model_validate_json(masked_json(settings))


def unusable(settings: Settings) -> list[str]:
    """Settings that can't be used together, though each value alone is valid. `llm-im up` then starts nothing."""
    found = []
    for place in (choice.place_of, choice.feed_of):
        try:
            place(settings)
        except Malformed as error:
            found.append(str(error))
    return found


def refusals(settings: Settings, has_tokens: bool | None = None, first_token: str = "") -> list[str]:
    """Settings that can't be used, features that are on but not built, and an address that is open to everyone: `llm-im up`
    then starts nothing. `has_tokens` None: unknown, so the address is not checked. `first_token`: the command that makes one."""
    found = unusable(settings) + _open_door(settings, has_tokens, first_token)
    if settings.deployment.mode != "standalone":
        found.append(f'deployment.mode = "{settings.deployment.mode}": only "standalone" is built')
    for name, why in (
        ("coordination.backend", "no coordination store is built"),
        ("coordination.cluster_nodes", "no coordination store is built"),
        ("messaging.backend", "receiving alerts from a queue is not built"),
        ("messaging.brokers", "receiving alerts from a queue is not built"),
    ):
        if value := KEYS[name].of(settings):
            found.append(f"{name} = {_shown(value)}: {why}")
    recovery = settings.disaster_recovery
    if recovery.backup_interval is not None and recovery.backup_target is None:
        found.append(
            f'disaster_recovery.backup_interval = "{duration_text(recovery.backup_interval)}": needs'
            " disaster_recovery.backup_target"
        )
    server = settings.server
    if server.grpc:
        found.append("server.grpc = true: gRPC is not built")
    found += [
        f"{key.name} = true: not built yet"
        for key in KEYS.values()
        if key.is_later and key.path[-1] == "enabled" and key.of(settings)
    ]
    return found


def _open_door(settings: Settings, has_tokens: bool | None, first_token: str) -> list[str]:
    """An address that other machines can reach while no token is required."""
    required, host = settings.auth.required, settings.server.http_host
    if settings.server.is_loopback or required:
        return []
    if required is False:
        return [
            f"server.http_host {host} can be reached from other machines, and auth.required = false lets everyone in: "
            "listen on 127.0.0.1, or remove auth.required"
        ]
    if has_tokens is False:
        return [
            f"server.http_host {host} can be reached from other machines, and no API token exists yet. Make the first: {first_token}"
        ]
    return []


def refuse(loaded: Loaded, has_tokens: bool | None = None, first_token: str = "") -> None:
    """Raises Refused, listing refusals() with the source of each."""
    found = refusals(loaded.settings, has_tokens, first_token)
    if found:
        said = [f"{loaded.sources.get(each.split(' ')[0].rstrip(':'), DEFAULT)}: {each}" for each in found]
        raise Refused(
            "\n  ".join(
                ["nothing was started, because these settings can't be used or are not built yet:", *said]
            )
        )
