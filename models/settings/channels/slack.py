"""A receiver of type slack."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from models.settings.channels.base import HttpReceiver, SecretUrl, Token, Url


class SlackReceiver(HttpReceiver):
    """A channel of Slack: with `token`, one message an incident that is updated as it changes, with a thread below it; with an
    incoming webhook's `url`, a message each time."""

    type: Literal["slack"] = "slack"
    token: Token | None = Field(None, description="Bot token (`xoxb-...`) with scope `chat:write`. Secret.")
    channel: str = Field(
        "", max_length=100, description="With `token`: the channel's id, or its name as in `#incidents`."
    )
    url: SecretUrl | None = Field(
        None, description="In place of `token`: URL of an incoming webhook. Secret."
    )
    api_url: Url = Field("https://slack.com/api", description="Address of Slack's Web API.")
    mention: str = Field(
        "",
        max_length=200,
        description="Whom a message mentions while it is not resolved: `@here`, `@channel`, or ids as in `<@U024BE7LH>` and `<!subteam^S012AB3CD>`.",
    )
    broadcast: bool = Field(
        True,
        description="Whether what comes later is shown in the channel too, not only in the thread. More alerts and a resolve never are.",
    )

    def wrong_address(self, address: str) -> str:
        if self.token is None:
            return "an incoming webhook writes to one channel only: give the receiver a token, or leave the address out"
        return (
            ""
            if address.isprintable() and len(address) <= 100
            else "expected a channel's or member's id, such as U024BE7LH"
        )

    @model_validator(mode="after")
    def _has_one_way_in(self) -> Self:
        if (self.token is None) == (self.url is None):
            raise ValueError("expected token with channel, or url: one of them")
        if self.token is not None and not self.channel:
            raise ValueError("channel: expected the channel that messages go to, as in #incidents")
        return self
