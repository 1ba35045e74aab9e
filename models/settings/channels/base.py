"""What every receiver has, whatever its type. Each file beside this one is one type: its own settings, and in `type` its name,
by which models/settings/receivers.py tells them apart.

A secret may also be written as the place where it is, `{ env = "NAME" }` or `{ file = "/path" }`: what arrives here is its text.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from models.errors import Refused
from models.settings.secrets import Secret
from models.settings.values import AbsolutePath, Duration, Rate, Section, some_rate, wrong_url

#: Of a header's name: RFC 9110's token.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
#: What a request is made of: setting one of these would break it, or hide whom it is for.
_OURS = frozenset(
    {"content-length", "content-type", "host", "idempotency-key", "transfer-encoding", "connection"}
)
#: More headers are no configuration.
HEADERS_MAX = 50
#: Characters of a template: 16 KiB are ten pages of message.
TEMPLATE_MAX = 16_384


def _secret_url(value: Secret) -> Secret:
    if wrong := wrong_url(value.get_secret_value()):
        raise ValueError(wrong)
    return value


def _url(value: str) -> str:
    if wrong := wrong_url(value):
        raise ValueError(wrong)
    return value


def _one_line(value: Secret) -> Secret:
    """A secret that travels in a header or a command: a line break at its end is how files end."""
    text = value.get_secret_value().strip()
    if not text:
        raise ValueError("expected some text, not an empty one")
    if not text.isprintable():
        raise ValueError("expected one line without control characters")
    return Secret(text)


#: A URL that holds a secret, as those of chats do: whoever has it can write there.
SecretUrl = Annotated[Secret, AfterValidator(_secret_url)]
#: The address of an API, without anything secret in it.
Url = Annotated[str, AfterValidator(_url)]
#: A token, key or password.
Token = Annotated[Secret, AfterValidator(_one_line)]


def _template(value: str) -> str:
    """Raises ValueError for one that can't be rendered, whatever the incident is."""
    if value:
        # Here, because the library costs 30 ms and few have a template.
        from models.playbook.template import check

        try:
            check(value)
        except Refused as error:
            raise ValueError(str(error)) from None
    return value


#: Jinja2, in the sandbox of models/playbook/template.py.
TemplateText = Annotated[str, Field(max_length=TEMPLATE_MAX), AfterValidator(_template)]


class ReceiverBase(Section):
    """What every receiver has."""

    timeout: Duration = Field(
        10.0,
        gt=0,
        le=60,
        description="Longest time for one attempt, from connecting to the end of the answer.",
    )
    send_resolved: bool = Field(True, description="Whether to tell of resolves too.")
    max_alerts: int = Field(
        100, ge=1, le=10_000, description="Most alerts in one message, which says how many more there are."
    )
    fallback: str = Field(
        "",
        max_length=63,
        description="Receiver that is told in its place when it can't be told. Empty: none.",
    )
    fallback_after: Duration = Field(
        300.0,
        description="How long it is tried before that. When it is given up earlier, `fallback` is told then.",
    )
    max_in_flight: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Most calls in flight from each responder. Unset: `notify.concurrency`.",
    )
    rate: Rate | None = Field(
        None,
        description='How often it is called at most by each responder, as in "60/m"; 10 seconds\' worth at once. Unset: `outbound.rate`.',
    )
    ca_file: AbsolutePath = Field(
        "",
        max_length=4096,
        description="File with PEM certificates that are trusted beside the system's. Empty: that of `outbound.ca_file`, if there is one.",
    )
    title: TemplateText = Field("", description="Template of the title. Empty: the channel's own.")
    text: TemplateText = Field("", description="Template of the text. Empty: the channel's own.")

    def wrong_address(self, address: str) -> str:
        """What is wrong with the address of a person who is told by this receiver, "" if nothing is."""
        return "this type of receiver takes no address: leave it out"

    @field_validator("rate")
    @classmethod
    def _is_some_rate(cls, value: str | None) -> str | None:
        return some_rate(value)


class HttpReceiver(ReceiverBase):
    """A receiver that is called by HTTP."""

    headers: dict[str, Secret] = Field(
        {},
        max_length=HEADERS_MAX,
        description="Extra request headers, for example for a proxy in front of the receiver. Secret.",
    )

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, value: dict[str, Secret]) -> dict[str, Secret]:
        for name, each in value.items():
            if not _HEADER_NAME.fullmatch(name):
                raise ValueError(f"expected names of letters, digits and dashes, not {name[:80]!r}")
            if name.lower() in _OURS:
                raise ValueError(f"{name} is set by us and can't be changed")
            if not each.get_secret_value().isprintable():
                raise ValueError(f"{name}: expected one line without control characters")
        return value
