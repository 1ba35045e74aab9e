"""How severity, type and impact are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator

from models.alerts.patterns import rule_pattern
from models.settings.processes import CLASSIFIER
from models.settings.values import (
    LIVE,
    Section,
)

#: Asked for each incident one after the other: a thousand cost a classifier some milliseconds.
RULES_MAX = 1000


class Rule(Section):
    """One classification rule. It applies when every one of its conditions holds; what it leaves out, others may give."""

    name: str = Field(min_length=1, description="Shown in `classified_by`.")
    labels: dict[str, str] = Field(
        {},
        description="Label name to a regular expression that must match all of its value; an absent label reads as empty.",
    )
    words: str | None = Field(
        None,
        description="A regular expression searched in alert name, title and description, in any case.",
    )
    source: str | None = Field(None, description="A regular expression that must match all of the source.")
    severity: Literal["P0", "P1", "P2", "P3", "P4"] | None = None
    type: (
        Literal[
            "Infrastructure",
            "Application",
            "Security",
            "Data",
            "Performance",
            "Availability",
            "Compliance",
            "Unknown",
        ]
        | None
    ) = Field(None, description="One of the [eight types](concepts.md#severity-type-impact).")
    impact: str | None = Field(
        None, description="A word; the built-in ones are `critical`, `major`, `minor`, `none`."
    )

    @field_validator("words", "source")
    @classmethod
    def _is_regex(cls, value: str | None) -> str | None:
        if value is not None:
            rule_pattern(value)
        return value

    @field_validator("labels")
    @classmethod
    def _are_regexes(cls, value: dict[str, str]) -> dict[str, str]:
        for pattern in value.values():
            rule_pattern(pattern)
        return value


class Classification(Section):
    """How severity, type and impact are given."""

    pool: int = Field(1, ge=1, le=64, description="Classifier actors, `classifier-0` ...")
    rules: list[Rule] = Field(
        [],
        max_length=RULES_MAX,
        description="Your rules, asked in order before the built-in ones; see [a rule](#a-rule).",
        json_schema_extra=LIVE,
    )
    builtin_rules: bool = Field(
        True, description="Whether the built-in rules are asked after yours.", json_schema_extra=LIVE
    )

    def for_process(self, kind: str, partitions: int) -> Mapping[str, object]:
        if kind != CLASSIFIER:
            return {}
        return {"rules": [rule.model_dump() for rule in self.rules], "builtin_rules": self.builtin_rules}
