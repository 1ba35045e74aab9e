"""A receiver of type discord."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from models.settings.channels.base import HttpReceiver, SecretUrl


class DiscordReceiver(HttpReceiver):
    """A channel of Discord, by its webhook: one message an incident, updated as it changes."""

    type: Literal["discord"] = "discord"
    url: SecretUrl = Field(
        description="URL of the channel's webhook; `?thread_id=` names a thread of it. Secret."
    )
    mention: str = Field(
        "",
        max_length=200,
        description="Whom a message mentions while it is not resolved: `@here`, `@everyone`, or ids as in `<@80351110224678912>` and `<@&165511591545143296>`.",
    )
