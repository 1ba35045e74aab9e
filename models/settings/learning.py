"""The classifier that learns from what people made of incidents."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, field_validator

from models.learned.bounds import CONFIDENCE, EXAMPLES_MAX, EXAMPLES_MIN
from models.playbook.schedule import wrong_schedule
from models.settings.processes import CLASSIFIER, CONTROL, TRAINER
from models.settings.values import LIVE, Section


class Learning(Section):
    """[Learned classification](learning.md). Nothing is trained unless somebody, or `schedule`, asks for it; nothing that was trained
    classifies an incident until it is promoted."""

    schedule: str | None = Field(
        None,
        description='When to train, a cron expression in UTC such as `"0 3 * * 1"`. None: only `llm-im learn train` does.',
    )
    min_examples: int = Field(
        EXAMPLES_MIN, ge=10, le=EXAMPLES_MAX, description="With fewer incidents to learn from, nothing is trained.", json_schema_extra=LIVE
    )  # fmt: skip
    max_examples: int = Field(
        EXAMPLES_MAX,
        ge=10,
        le=EXAMPLES_MAX,
        description="At most so many incidents are learned from: those that a person corrected first, then the newest.",
        json_schema_extra=LIVE,
    )
    confidence: float = Field(
        CONFIDENCE,
        ge=0.5,
        le=1.0,
        description="How sure the model must be of a severity or type, from 0.5 to 1. Where it is less sure, the built-in rules decide.",
        json_schema_extra=LIVE,
    )
    promote_when_better: bool = Field(
        False,
        description="Whether a new model becomes active by itself, if on services that it has not seen it is better than the rules in something and worse in nothing. `false`: a person promotes it.",
        json_schema_extra=LIVE,
    )
    cpus: float = Field(
        1.0, ge=0.1, le=64.0, description="CPUs of the Ray cluster that training claims while it runs."
    )

    @field_validator("schedule")
    @classmethod
    def _is_cron(cls, value: str | None) -> str | None:
        if value is not None and (why := wrong_schedule(value)):
            raise ValueError(f'expected a cron expression such as "0 3 * * 1", not "{value}": {why}')
        return value

    def for_process(self, kind: str, partitions: int) -> Mapping[str, object]:
        if kind == CLASSIFIER:
            return {"model_confidence": self.confidence}
        if kind == CONTROL:
            return {"learning_schedule": self.schedule, "trainer_cpus": self.cpus}
        if kind == TRAINER:
            return {
                "min_examples": self.min_examples,
                "max_examples": self.max_examples,
                "model_confidence": self.confidence,
                "promote_when_better": self.promote_when_better,
            }
        return {}
