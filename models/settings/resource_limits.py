"""How fast alerts may come."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from models.limits import Limit
from models.settings.values import LATER, LIVE, NONE, Duration, Rate, Section, some_rate

#: Senders with a rate of their own: a handful, of as many as there are tokens.
RATES_MAX = 1000
#: A rate, or "none". As one pattern: of two types a mistake would be told twice.
RateOrNone = Annotated[str, Field(pattern=r"^(\d+/(s|m|h)|none)$")]
_WINDOWS = {"s": 1, "m": 60, "h": 3600}


class ResourceLimits(Section):
    """How many alerts are taken, from each sender and from all together. What is over is answered 429 with `Retry-After`, and not stored: see
    [rate limits](limits.md)."""

    max_concurrent_incidents: int | None = Field(
        None,
        ge=1,
        description="Alias of `lifecycle.max_concurrent_incidents`.",
        json_schema_extra=LATER,
    )
    max_ingestion_rate: Rate | None = Field(
        None,
        description="Most alerts from all senders together, such as `5000/s`. None: no limit.",
        json_schema_extra=LIVE,
    )
    max_sender_rate: Rate | None = Field(
        None,
        description="Most alerts from each sender: a token, or all who send without one. None: no limit but that of all.",
        json_schema_extra=LIVE,
    )
    sender_rates: dict[str, RateOrNone] = Field(
        {},
        max_length=RATES_MAX,
        description='Senders with another limit than `max_sender_rate`, by the names of their tokens: `{ci = "100/m", prometheus = "none"}`.',
        json_schema_extra=LIVE,
    )
    burst: Duration = Field(
        1.0,
        gt=0,
        le=3600,
        description="How much may come at once after a pause: what a limit allows in so long, at least one alert.",
        json_schema_extra=LIVE,
    )

    @field_validator("max_ingestion_rate", "max_sender_rate")
    @classmethod
    def _lets_something_pass(cls, value: str | None) -> str | None:
        return some_rate(value)

    @field_validator("sender_rates")
    @classmethod
    def _let_something_pass(cls, value: dict[str, str]) -> dict[str, str]:
        for name, rate in value.items():
            if rate != NONE and not int(rate.partition("/")[0]):
                raise ValueError(f'{name}: expected at least "1/h", or "none" for no limit')
        return value

    @property
    def limits_ingestion(self) -> bool:
        """Whether anything is limited."""
        return bool(
            self.max_ingestion_rate
            or self.max_sender_rate
            or any(rate != NONE for rate in self.sender_rates.values())
        )

    @property
    def limit_of_all(self) -> Limit | None:
        return self._limit(self.max_ingestion_rate)

    def limit_of_sender(self, name: str) -> Limit | None:
        rate = self.sender_rates.get(name, self.max_sender_rate)
        return self._limit(None if rate == NONE else rate)

    def _limit(self, rate: str | None) -> Limit | None:
        if rate is None:
            return None
        count, _, unit = rate.partition("/")
        window_s = _WINDOWS[unit]
        return Limit(int(count), window_s, max(1.0, int(count) / window_s * self.burst))
