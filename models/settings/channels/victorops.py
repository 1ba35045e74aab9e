"""A receiver of type victorops."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from models.settings.channels.base import HttpReceiver, Token, Url


class VictorOpsReceiver(HttpReceiver):
    """Splunk On-Call (VictorOps), by its REST endpoint: one incident an incident, under one `entity_id`."""

    type: Literal["victorops"] = "victorops"
    api_key: Token = Field(
        description="Key of the REST integration: what stands before the routing key in its URL. Secret."
    )
    routing_key: str = Field(
        min_length=1, max_length=200, pattern=r"^[^/?#\s]+$", description="Routing key: which team is told."
    )
    api_url: Url = Field(
        "https://alert.victorops.com/integrations/generic/20131114/alert",
        description="Address of the REST endpoint, without keys.",
    )
