"""Where responders may call out to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import Field, field_validator, model_validator

from models.durations import per_second
from models.response.guard import Allowed
from models.settings.processes import RESPONDER
from models.settings.values import LIVE, NONE, AbsolutePath, Duration, Rate, Section, some_rate


class BreakerSettings(Section):
    """When a target that fails is left alone, and for how long. Each responder judges by its own calls."""

    failures: int = Field(
        5,
        ge=0,
        le=1000,
        description="Failures in a row after which a target is not called for a while. 0: however many there are.",
        json_schema_extra=LIVE,
    )
    failure_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="The same for this share of failures among the last `window` calls. 0: whatever the share.",
        json_schema_extra=LIVE,
    )
    window: int = Field(
        20, ge=2, le=1000, description="Calls that `failure_share` looks at.", json_schema_extra=LIVE
    )
    open: Duration = Field(
        5.0,
        gt=0,
        le=3600,
        description="How long it is not called. Then one call tries it; if that fails too, the time is doubled.",
        json_schema_extra=LIVE,
    )
    open_max: Duration = Field(
        60.0, gt=0, le=3600, description="Longest time between two such tries.", json_schema_extra=LIVE
    )

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.open_max < self.open:
            raise ValueError("open_max: expected at least the time of open")
        return self


class OutboundSettings(Section):
    """Calls to other systems: notifications and the actions of playbooks. URLs in these settings may lead anywhere. A URL that
    comes with an alert or out of a template may lead to public addresses, and to what is allowed here."""

    allow: list[str] = Field(
        [],
        max_length=1000,
        description='Private addresses that URLs from alerts and templates may lead to: addresses (`"10.1.2.3"`), networks (`"10.0.0.0/8"`), host names, and suffixes of host names (`".svc.cluster.local"`). A metadata service of a cloud must be allowed by its address.',
        json_schema_extra=LIVE,
    )
    ca_file: AbsolutePath | None = Field(
        None,
        description="File with PEM certificates that are trusted beside the system's. None: only the system's.",
    )

    rate: Rate | None = Field(
        "50/s",
        description='How often each target is called at most, by each responder; 10 seconds\' worth at once. A call too many waits its turn in its shard. "none": no bound.',
        json_schema_extra=LIVE,
    )
    breaker: BreakerSettings = BreakerSettings()

    @field_validator("rate", mode="before")
    @classmethod
    def _may_be_none(cls, value: object) -> object:
        return None if value == NONE else value

    @field_validator("rate")
    @classmethod
    def _is_some(cls, value: str | None) -> str | None:
        return some_rate(value)

    @field_validator("allow")
    @classmethod
    def _is_place(cls, value: list[str]) -> list[str]:
        Allowed.of(value)
        return value

    def for_process(self, kind: str, partitions: int) -> Mapping[str, object]:
        if kind != RESPONDER:
            return {}
        breaker, rate = self.breaker, per_second(self.rate) if self.rate else 0.0
        return {
            "outbound_allow": self.allow,
            "outbound_ca_file": self.ca_file or "",
            "target_limits": {
                "rate_per_s": rate,
                "breaker": {
                    "failures": breaker.failures,
                    "share": breaker.failure_share,
                    "window": breaker.window,
                    "open_s": breaker.open,
                    "open_max_s": breaker.open_max,
                },
            },
        }
