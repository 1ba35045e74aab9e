"""Loads the settings: defaults, then the TOML file, then the environment, then flags of the command line; each value
knows where it came from. The only loader (docs/decisions/0016-settings-loader.md says why it is our own).

It never guesses: an unknown key or a value out of range is refused with where it is, what was expected, and the closest
known name. Alternative names (`ALIASES`, `VARIABLES`) are accepted, with a notice.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from models.errors import Malformed
from models.settings.all import Settings
from models.settings.keys import KEYS, Key
from models.settings.secrets import READER
from models.settings.values import WrongAt
from services.settings.mistakes import expected, place_of
from services.settings.names import (
    ALIASES,
    CONFIG_VARIABLE,
    EMBEDDED,
    FLAGS,
    KUBERNETES,
    NOT_SETTINGS,
    PREFIX,
    VARIABLES,
    Keys,
    from_alias,
    from_text,
    leaves,
    nested,
    section_of,
    spelled,
    unknown,
    unknown_variable,
)
from services.settings.places import read_secret

CONFIG_FILE = "llm-im.toml"
#: Of the cores, a shard is given as many as everything else has: gateways, HAProxy and the store's own threads use the rest
#: before the shards use theirs up. Each more costs a request that touches it 0.6 ms of CPU, and a takeover takes more of them
#: at once (docs/operate.md, "More or fewer shards").
CORES_A_SHARD = 2
#: Past so many a request of many services costs more than they gain; who has the cores and the load says so.
SHARDS_MAX = 8

#: How tomllib reports the line of an error.
_AT_LINE = re.compile(r"\(at line (\d+), column \d+\)")
#: A file with more broken lines is not a settings file.
_BROKEN_LINES_MAX = 20


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
    if ("state", "partitions") not in reading.given:
        state = settings.state.model_copy(update={"partitions": shards_here()})
        settings = settings.model_copy(update={"state": state})
    sources = {".".join(keys): given.source for keys, given in reading.given.items()}
    return Loaded(settings, sources, None if path is None else str(path), reading.notices)


def shards_here() -> int:
    """How many shards a first start makes on this machine, unless the settings say."""
    return min(SHARDS_MAX, max(1, len(os.sched_getaffinity(0)) // CORES_A_SHARD))


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
        for keys, value in leaves(Settings, values):
            name = ".".join(keys)
            ours = ALIASES.get(name, name)
            if not self._is_wanted(tuple(ours.split("."))):
                continue
            if name not in KEYS and section_of(keys) is None:
                self.problems.append(f"{source}: {name}: {unknown(keys)}")
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
            if (value := from_alias(name, variables[name])) is not None:
                self._put(tuple(key.split(".")), name, value, Source("variable", name))
        for name, text in sorted(variables.items()):
            if not text or not name.startswith(PREFIX) or name in NOT_SETTINGS or KUBERNETES.fullmatch(name):
                continue
            source = Source("variable", name)
            keys = spelled(name)
            if keys is None:
                if not self._only:
                    self.problems.append(f"{name}: {unknown_variable(name)}")
                continue
            if not self._is_wanted(keys):
                continue
            try:
                value = from_text(keys, text)
            except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                self.problems.append(f"{name}: {'.'.join(keys)}: expected JSON: {error}")
                continue
            if section_of(keys) is not None and isinstance(value, dict):
                self.table(nested(keys, value), source)
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
            return Settings.model_validate(self._values(), context={READER: read_secret})
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
        at = place_of(found["loc"])
        if isinstance(wrong := found.get("ctx", {}).get("error"), WrongAt):
            at = f"{at}.{wrong.at}"
            place = tuple(re.split(r"[.\[]", at))
        source = next(
            (given.source for keys, given in self.given.items() if keys == place[: len(keys)]), DEFAULT
        )
        return f"{source}: {at}: {expected(found)}"


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
