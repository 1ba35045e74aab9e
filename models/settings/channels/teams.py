"""A receiver of type teams."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from models.settings.channels.base import HttpReceiver, SecretUrl


class TeamsReceiver(HttpReceiver):
    """A channel or chat of Microsoft Teams, by the workflow "Post to a channel when a webhook request is received": an adaptive
    card each time."""

    type: Literal["teams"] = "teams"
    url: SecretUrl = Field(description="URL of the workflow. Secret.")
