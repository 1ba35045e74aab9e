"""Settings as they are shown, sent and stored: as one would write them, secrets masked."""

from __future__ import annotations

from models.durations import duration_text
from models.settings.all import Settings
from models.settings.keys import Key
from models.settings.secrets import MASK, holds_secret
from models.settings.values import NONE, Section


def written(key: Key, value: object) -> object:
    """A value as a person would write it, secrets masked, for `config show`."""
    if isinstance(value, list):
        return [_row(each) for each in value]
    if isinstance(value, dict) and any(isinstance(each, Section) for each in value.values()):
        return {name: _row(each) for name, each in value.items()}
    if key.is_secret:
        return MASK if value else value
    if key.is_duration:
        return duration_text(value) if isinstance(value, float) else NONE
    return value


def _row(value: object) -> object:
    """One of a list: a word, or a section such as a rule."""
    if isinstance(value, Section):
        dumped = value.model_dump(exclude_defaults=True)
        return {name: MASK if holds_secret(each) else each for name, each in dumped.items()}
    return MASK if holds_secret(value) else value


def masked_json(settings: Settings) -> str:
    """The settings as JSON, each secret replaced by a hash that only shows whether it changed: what `config reload` sends
    and the log keeps. Values that are already masked stay as they are."""
    return settings.model_dump_json()


def masked(settings: Settings) -> Settings:
    """The same settings masked, to compare with settings that were masked elsewhere."""
    return type(settings).model_validate_json(masked_json(settings))
