"""Every setting by its name, with what the model says of it: for who loads, shows, compares or documents them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from models.durations import duration_s
from models.settings import later
from models.settings.all import Settings
from models.settings.secrets import may_hold_secret
from models.settings.values import LATER_MARK, LIVE_MARK, MACHINE_MARK, Section


@dataclass(frozen=True, slots=True)
class Key:
    """One setting: its full name (`server.http_port`), its section, and its field in the model."""

    name: str
    section: type[Section]
    field: FieldInfo

    @property
    def path(self) -> tuple[str, ...]:
        return tuple(self.name.split("."))

    @property
    def is_live(self) -> bool:
        """Whether `llm-im config reload` can change it without a restart."""
        return _is_marked(self.field, LIVE_MARK)

    @property
    def is_later(self) -> bool:
        """Whether its feature is not built yet."""
        return issubclass(self.section, later.LaterSection) or _is_marked(self.field, LATER_MARK)

    @property
    def is_by_machine(self) -> bool:
        """Whether its default depends on the machine."""
        return _is_marked(self.field, MACHINE_MARK)

    @property
    def kinds(self) -> set[object]:
        """The types it may have: {float, NoneType} for a duration that may be none."""
        return set(_plain(self.field.annotation))

    @property
    def is_secret(self) -> bool:
        """Whether a secret may be anywhere in it."""
        return may_hold_secret(self.field.annotation)

    @property
    def is_duration(self) -> bool:
        return any(
            isinstance(each, BeforeValidator) and each.func is duration_s
            for each in (*self.field.metadata, *_metadata(self.field.annotation))
        )

    def of(self, settings: Settings) -> object:
        """Its value."""
        value: object = settings
        for part in self.path:
            value = getattr(value, part)
        return value


def _plain(annotation: Any) -> Iterator[object]:
    if get_origin(annotation) is Annotated:
        yield from _plain(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for each in get_args(annotation):
            yield from _plain(each)
    else:
        yield annotation


def _metadata(annotation: Any) -> Iterator[object]:
    """The metadata inside an annotation."""
    if get_origin(annotation) is Annotated:
        yield from annotation.__metadata__
    elif get_origin(annotation) in (Union, UnionType):
        for each in get_args(annotation):
            yield from _metadata(each)


def _is_marked(field: FieldInfo, mark: str) -> bool:
    extra = field.json_schema_extra
    return isinstance(extra, dict) and mark in extra


def keys_of(section: type[Section], prefix: str = "") -> Iterator[Key]:
    """Every setting in a section, and in those within it."""
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            yield from keys_of(inner, f"{prefix}{name}.")
        else:
            yield Key(prefix + name, section, field)


#: Every setting by its name, in the order of the sections.
KEYS: dict[str, Key] = {key.name: key for key in keys_of(Settings)}
