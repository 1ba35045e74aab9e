"""A receiver of type webhook: any program that takes a POST."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from models.settings.channels.base import HttpReceiver, SecretUrl, TemplateText, Token


class WebhookReceiver(HttpReceiver):
    """A POST with Alertmanager's webhook v4 body, or with JSON of your own."""

    type: Literal["webhook"] = "webhook"
    url: SecretUrl = Field(description="URL to POST to, used exactly as written. Secret.")
    body: TemplateText = Field(
        "",
        description="Template of a JSON body to send in place of Alertmanager's; `| tojson` writes a value with its quotes. `title` and `text` can be used in it.",
    )
    username: str = Field("", max_length=200, description="User name for HTTP basic authentication.")
    password: Token | None = Field(None, description="Its password. Secret.")
    bearer_token: Token | None = Field(None, description="Sent as `Authorization: Bearer ...`. Secret.")
    signing_key: Token | None = Field(
        None,
        description="Key of the signature `X-LLM-IM-Signature: v1=...`: HMAC-SHA256 of the body, in hex. Secret.",
    )

    def wrong_address(self, address: str) -> str:
        # It is in the body as `incident.to`, and a template can name it as `to`.
        return ""

    @model_validator(mode="after")
    def _has_one_way_in(self) -> Self:
        ways = [
            self.bearer_token is not None,
            bool(self.username) or self.password is not None,
            any(name.lower() == "authorization" for name in self.headers),
        ]
        if sum(ways) > 1:
            raise ValueError(
                "expected one of bearer_token, username with password, and a header Authorization: they are the same header"
            )
        if (self.password is None) != (not self.username):
            raise ValueError("expected both username and password, or neither")
        return self
