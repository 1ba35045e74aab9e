"""A receiver of type pagerduty."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from models.settings.channels.base import HttpReceiver, Token, Url


class PagerDutyReceiver(HttpReceiver):
    """A service of PagerDuty, by its Events API v2: one alert an incident, triggered, updated and resolved under one `dedup_key`."""

    type: Literal["pagerduty"] = "pagerduty"
    routing_key: Token = Field(
        description="Integration key of the service or of an event orchestration. Secret."
    )
    api_url: Url = Field(
        "https://events.pagerduty.com",
        description="Address of the Events API; `https://events.eu.pagerduty.com` in the EU.",
    )
