"""How severity, type and impact are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator

from models.alerts.patterns import rule_pattern
from models.settings.processes import CLASSIFIER, TRAINER
from models.settings.values import (
    LIVE,
    Section,
)

#: Tried one after the other for each incident: a thousand cost a classifier a few milliseconds.
RULES_MAX = 1000


class Rule(Section):
    """One classification rule. It applies if all its conditions match. What it leaves unset, later rules may set."""

    name: str = Field(min_length=1, description="Shown in `classified_by`.")
    labels: dict[str, str] = Field(
        {},
        description="Label names, each with a regular expression that must match the whole value. A missing label counts as empty.",
    )
    words: str | None = Field(
        None,
        description="Regular expression to find anywhere in the alert name, title or description, ignoring case.",
    )
    source: str | None = Field(None, description="Regular expression that must match the whole source.")
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
        None, description="Free text. The built-in rules use `critical`, `major`, `minor` and `none`."
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
    """How incidents get their severity, type and impact."""

    pool: int = Field(1, ge=1, le=64, description="Number of classifier processes (`classifier-0` ...).")
    rules: list[Rule] = Field(
        [],
        max_length=RULES_MAX,
        description="Your rules, tried in order before the built-in ones; see [a rule](#a-rule).",
        json_schema_extra=LIVE,
    )
    builtin_rules: bool = Field(
        True, description="Whether to try the built-in rules after yours.", json_schema_extra=LIVE
    )

    def for_process(self, kind: str, partitions: int) -> Mapping[str, object]:
        if kind not in (CLASSIFIER, TRAINER):
            return {}
        return {"rules": [rule.model_dump() for rule in self.rules], "builtin_rules": self.builtin_rules}
