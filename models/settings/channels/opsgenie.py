"""A receiver of type opsgenie."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from models.settings.channels.base import HttpReceiver, Token, Url

#: Opsgenie's own limits.
RESPONDERS_MAX, TAGS_MAX = 50, 20
KINDS = ("team", "user", "escalation", "schedule")


class OpsgenieReceiver(HttpReceiver):
    """Opsgenie: one alert an incident, created and closed under one alias."""

    type: Literal["opsgenie"] = "opsgenie"
    api_key: Token = Field(description="Key of an API integration. Secret.")
    api_url: Url = Field(
        "https://api.opsgenie.com", description="Address of the API; `https://api.eu.opsgenie.com` in the EU."
    )
    responders: list[str] = Field(
        [],
        max_length=RESPONDERS_MAX,
        description="Who is told, as in `team:Platform`, `user:ana@example.org`, `escalation:Night` or `schedule:First line`. Empty: whom the integration names.",
    )
    tags: list[str] = Field([], max_length=TAGS_MAX, description="Tags of the alert.")

    @field_validator("responders")
    @classmethod
    def _are_responders(cls, value: list[str]) -> list[str]:
        for each in value:
            kind, _, name = each.partition(":")
            if kind not in KINDS or not name.strip():
                raise ValueError(
                    f"expected team:, user:, escalation: or schedule: and a name, not {each[:80]!r}"
                )
        return value
