"""How much a silence may mute without being forced."""

from __future__ import annotations

from pydantic import Field

from models.settings.values import LIVE, Section


class Silences(Section):
    """How much a silence may mute without `--force`."""

    force_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="A silence that would mute more than this share of the firing alerts is refused without `--force`. "
        "Does not apply to [Alertmanager's API](silences.md#moving-from-alertmanager), whose clients cannot force.",
        json_schema_extra=LIVE,
    )
    force_at_least: int = Field(
        20,
        ge=1,
        description="A silence that would mute fewer firing alerts than this never needs `--force`.",
        json_schema_extra=LIVE,
    )
