"""A receiver of type email."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from models.settings.channels.base import ReceiverBase, Token

#: Recipients of one mail: more is a list's business, not ours.
RECIPIENTS_MAX = 50
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9a-fA-F:]+")
_LOOPBACK = re.compile(r"localhost|::1|127(\.\d{1,3}){3}")


#: An address, or a name and an address in angle brackets.
_SENDER = re.compile(r'(?:"?[^"<>@,;:\\]*"?\s*<([^<>]+)>|([^<>\s]+))')


def address_of(sender: str) -> str:
    """The address in `Incidents <im@example.org>`, "" if there is none."""
    found = _SENDER.fullmatch(sender.strip())
    address = (found[1] or found[2]) if found else ""
    return address if is_address(address) else ""


def is_address(text: str) -> bool:
    """Whether it is a plain address, as in ana@example.org."""
    return _ADDRESS.fullmatch(text) is not None


class EmailReceiver(ReceiverBase):
    """Addresses that get a mail each time, all mails of an incident in one thread."""

    type: Literal["email"] = "email"
    host: str = Field(description="Name or address of the SMTP server.")
    port: int = Field(
        587,
        ge=1,
        le=65535,
        description="Its port: 587 with `starttls`, 465 with `tls`, 25 with `none`, as a rule.",
    )
    tls: Literal["starttls", "tls", "none"] = Field(
        "starttls",
        description="`starttls`: encrypted after the greeting, and nothing is sent when the server can't. `tls`: encrypted from the start. `none`: not at all.",
    )
    username: str = Field("", max_length=320, description="User name, when the server wants one.")
    password: Token | None = Field(None, description="Its password. Secret.")
    sender: str = Field(
        max_length=320, description="Address that mails come from, as in `Incidents <im@example.org>`."
    )
    to: list[str] = Field(min_length=1, max_length=RECIPIENTS_MAX, description="Addresses that mails go to.")
    reply_to: str = Field("", max_length=320, description="Address that answers go to. Empty: the sender.")

    def wrong_address(self, address: str) -> str:
        return (
            ""
            if is_address(address)
            else f"expected an address such as ana@example.org, not {address[:80]!r}"
        )

    @field_validator("host")
    @classmethod
    def _is_host(cls, value: str) -> str:
        if not _HOST.fullmatch(value):
            raise ValueError(f"expected a host name or an address, without a port, not {value[:80]!r}")
        return value

    @field_validator("sender")
    @classmethod
    def _is_sender(cls, value: str) -> str:
        if not value.isprintable() or not address_of(value):
            raise ValueError(f"expected an address such as im@example.org, not {value[:80]!r}")
        return value

    @field_validator("to", "reply_to")
    @classmethod
    def _are_addresses(cls, value: list[str] | str) -> list[str] | str:
        for each in [value] if isinstance(value, str) else value:
            if not is_address(each) and (each or not isinstance(value, str)):
                raise ValueError(f"expected addresses such as ana@example.org, not {each[:80]!r}")
        return value

    @model_validator(mode="after")
    def _keeps_the_password(self) -> Self:
        if (self.password is None) != (not self.username):
            raise ValueError("expected both username and password, or neither")
        if self.password is not None and self.tls == "none" and not _LOOPBACK.fullmatch(self.host):
            raise ValueError('tls: expected "starttls" or "tls": a password is not sent in the clear')
        return self
