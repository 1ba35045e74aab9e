"""Settings as they are shown, sent and stored: as one would write them, secrets masked."""

from __future__ import annotations

from models.settings.all import Settings
from models.settings.keys import Key
from models.settings.secrets import MASK, holds_secret
from models.settings.values import NONE, Section, duration_text


def written(key: Key, value: object) -> object:
    """A value as one would write it, secrets masked: what JSON and the table of `config show` have."""
    if isinstance(value, list):
        return [_row(each) for each in value]
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
    """The settings as JSON without secrets, which keep only whether they are the same: what `config reload` sends and the
    log keeps. What is masked already stays as it is."""
    return settings.model_dump_json()


def masked(settings: Settings) -> Settings:
    """The same settings, comparable to what was masked elsewhere."""
    return type(settings).model_validate_json(masked_json(settings))
