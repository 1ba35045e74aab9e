"""Which alerts mute others while they fire."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, field_validator, model_validator

from models.alerts.inhibition import EQUAL_MAX, InhibitRule
from models.alerts.matchers import parse_filters
from models.errors import Malformed, TooLarge
from models.settings.processes import SHARD
from models.settings.values import LIVE, Section

#: Each alert that is new is tried with all of them; a large installation has some dozens.
RULES_MAX = 500
#: Characters of a rule's name.
NAME_MAX = 200


class InhibitionRule(Section):
    """One rule: while a source fires, targets with equal labels are muted."""

    name: str = Field(
        min_length=1,
        max_length=NAME_MAX,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        description="Shown wherever the rule mutes something.",
    )
    source: list[str] = Field(
        min_length=1,
        description='Which alerts mute others: matchers such as `severity="critical"`, all of which must match.',
    )
    target: list[str] = Field(
        min_length=1, description="Which alerts are muted: matchers, all of which must match."
    )
    equal: list[str] = Field(
        [],
        max_length=EQUAL_MAX,
        description="Labels that must have the same value in source and target; a label missing from both counts as the same.",
    )

    @field_validator("source", "target")
    @classmethod
    def _are_matchers(cls, value: list[str]) -> list[str]:
        try:
            parse_filters(value)
        except (Malformed, TooLarge) as error:
            raise ValueError(f'{error}; expected matchers such as severity="critical"') from None
        return value

    @property
    def rule(self) -> InhibitRule:
        """The rule as shards go by it."""
        return InhibitRule(
            self.name, tuple(parse_filters(self.source)), tuple(parse_filters(self.target)), tuple(self.equal)
        )


class Inhibition(Section):
    """Rules that mute alerts while other alerts fire."""

    rules: list[InhibitionRule] = Field(
        [],
        max_length=RULES_MAX,
        description="Which alerts mute which others; see [inhibition](silences.md#inhibition).",
        json_schema_extra=LIVE,
    )

    @model_validator(mode="after")
    def _names_are_unique(self) -> Inhibition:
        names = [rule.name for rule in self.rules]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"rules: every rule needs its own name, and {twice[0]!r} is used twice")
        return self

    def for_process(self, kind: str, partitions: int) -> Mapping[str, object]:
        if kind != SHARD:
            return {}
        return {"inhibit": [rule.rule for rule in self.rules]}
