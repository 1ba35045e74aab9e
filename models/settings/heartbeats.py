"""Heartbeats that are kept in the settings instead of being made by REST or from the command line."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from models.alerts.matchers import parse_filters
from models.control.heartbeats import GRACE_DEFAULT_S, Heartbeat, check
from models.errors import Malformed, TooLarge
from models.incidents.incident import Severity
from models.settings.values import LIVE, Duration, Section

#: Heartbeats in a file; those of a program that makes them belong into the API.
EXPECTED_MAX = 5000


class ExpectedHeartbeat(Section):
    """One heartbeat."""

    name: str = Field(description="Its name, part of the path that it is beaten by.")
    interval: Duration = Field(description="It must be heard at least this often, 5s to 366d.")
    grace: Duration = Field(GRACE_DEFAULT_S, description="So much later it is missed.")
    service: str = Field("", description="The service of its incident; empty: its own name.")
    severity: str = Field("P2", pattern="^P[0-4]$", description="The severity of its incident, P0 to P4.")
    labels: dict[str, str] = Field({}, description="Further labels of its alert, for routes and silences.")
    runbook: str = Field("", description="What to do when it is missed: a link.")
    matchers: list[str] = Field(
        [],
        description='An alert that all of these match is a beat, and opens no incident: `alertname="Watchdog"`.',
    )

    @field_validator("matchers")
    @classmethod
    def _are_matchers(cls, value: list[str]) -> list[str]:
        try:
            parse_filters(value)
        except (Malformed, TooLarge) as error:
            raise ValueError(f'{error}; expected matchers such as alertname="Watchdog"') from None
        return value

    @model_validator(mode="after")
    def _is_possible(self) -> ExpectedHeartbeat:
        try:
            check(self.heartbeat)
        except (Malformed, TooLarge) as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def heartbeat(self) -> Heartbeat:
        """As the control partition keeps it."""
        return Heartbeat(
            self.name,
            self.interval,
            self.grace,
            self.service or self.name,
            Severity[self.severity],
            self.labels,
            self.runbook,
            tuple(parse_filters(self.matchers)),
            from_file=True,
        )


class Heartbeats(Section):
    """What must be heard from regularly; see [heartbeats](heartbeats.md)."""

    expected: list[ExpectedHeartbeat] = Field(
        [],
        max_length=EXPECTED_MAX,
        description="Heartbeats that are changed here alone: REST and `llm-im heartbeats` show, beat and pause them. One that is taken "
        "out is deleted.",
        json_schema_extra=LIVE,
    )

    @model_validator(mode="after")
    def _names_are_unique(self) -> Heartbeats:
        names = [each.name for each in self.expected]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"expected: every heartbeat needs its own name, and {twice[0]!r} is used twice")
        return self
