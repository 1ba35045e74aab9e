"""TLS in front of HTTP and gRPC: our certificate, who signs those of clients, and what a client's certificate may do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Literal, TypeVar

from pydantic import Field, field_validator, model_validator

from models.control.tokens import match_of, name_of, scopes_of
from models.errors import Malformed
from models.settings.values import LIVE, Section, WrongAt

#: Looked through for each certificate that is new to a gateway; a large installation has a certificate a cluster.
CLIENTS_MAX = 1000
#: Of a name in a certificate.
NAME_MAX = 1000
_SHA256 = re.compile(r"[0-9a-f]{64}")
T = TypeVar("T")

#: What tells one certificate from another, in the order in which it is looked at.
WHICH = ("sha256", "uri", "dns", "common_name")


class TlsClient(Section):
    """A client certificate, and who bears it. One of `common_name`, `dns`, `uri` and `sha256` says which certificate."""

    name: str = Field(
        description="Its bearer, as timelines name it. Without `scopes`: the API token of this name, with its scopes and matchers, while it is valid.",
    )
    common_name: str | None = Field(
        None, min_length=1, max_length=NAME_MAX, description="The common name of the subject."
    )
    dns: str | None = Field(
        None, min_length=1, max_length=NAME_MAX, description="A DNS name of the certificate (SAN)."
    )
    uri: str | None = Field(
        None,
        min_length=1,
        max_length=NAME_MAX,
        description="A URI of the certificate (SAN), such as a SPIFFE id.",
    )
    sha256: str | None = Field(
        None,
        description="The SHA-256 fingerprint of the certificate, as `openssl x509 -fingerprint -sha256` prints it.",
    )
    scopes: list[str] = Field(
        [],
        description="What it may do, as [scopes of a token](security.md#scopes). Empty: what the token `name` may do.",
    )
    match: list[str] = Field(
        [], description="Label matchers that what it sends must match, as those of a token. Needs `scopes`."
    )

    @field_validator("name")
    @classmethod
    def _is_name(cls, value: str) -> str:
        return _said(lambda: name_of(value))

    @field_validator("sha256")
    @classmethod
    def _is_fingerprint(cls, value: str | None) -> str | None:
        if value is None:
            return None
        plain = value.rpartition("=")[2].replace(":", "").strip().lower()
        if not _SHA256.fullmatch(plain):
            raise ValueError("expected 64 hexadecimal digits, with or without colons")
        return plain

    @field_validator("scopes")
    @classmethod
    def _are_scopes(cls, value: list[str]) -> list[str]:
        return list(_said(lambda: scopes_of(value))) if value else value

    @model_validator(mode="after")
    def _is_whole(self) -> TlsClient:
        if sum(getattr(self, each) is not None for each in WHICH) != 1:
            raise WrongAt("common_name", "expected one of common_name, dns, uri and sha256")
        if self.match and not self.scopes:
            raise WrongAt("match", "needs scopes: without them the token's own matchers hold")
        if self.match:
            _said(lambda: match_of(self.match, self.scopes))
        return self

    @property
    def key(self) -> tuple[str, str]:
        """What it is known by: which of WHICH, and its value."""
        return next((each, value) for each in WHICH if (value := getattr(self, each)) is not None)


class Tls(Section):
    """[TLS](security.md#tls) on `server.http_port` and `server.grpc_port`. Files are PEM, and read again when they change."""

    cert_file: str | None = Field(
        None,
        description="The certificate, then those that lead to its authority. Set: HTTPS and gRPC over TLS, and nothing in clear text but `server.probe_port`.",
    )
    key_file: str | None = Field(None, description="Its private key, without a passphrase.")
    client_ca_file: str | None = Field(
        None, description="The authorities whose client certificates are accepted."
    )
    client_certificates: Literal["off", "ask", "require"] = Field(
        "off",
        description="`off`: none are asked for. `ask`: a client may present one. `require`: no connection without one.",
    )
    min_version: Literal["1.2", "1.3"] = Field("1.2", description="The oldest TLS that clients may speak.")
    clients: list[TlsClient] = Field(
        [],
        max_length=CLIENTS_MAX,
        description="Who bears which client certificate. A request with such a certificate and without a token has that name and its scopes.",
        json_schema_extra=LIVE,
    )

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """What can't be used together: the setting, and what is wrong with it."""
        if (self.cert_file is None) != (self.key_file is None):
            missing = "key_file" if self.key_file is None else "cert_file"
            yield missing, "expected cert_file and key_file together"
        elif self.cert_file is None and (self.client_ca_file or self.asks_clients):
            yield "cert_file", "expected a file, because client certificates are asked for"
        if (self.client_ca_file is None) == self.asks_clients:
            at = "client_ca_file" if self.asks_clients else "client_certificates"
            yield at, 'expected client_ca_file together with client_certificates "ask" or "require"'
        elif self.clients and not self.asks_clients:
            yield "client_ca_file", "expected a file, because clients names certificates"
        met: set[tuple[str, str]] = set()
        for place, client in enumerate(self.clients):
            if client.key in met:
                yield f"clients.{place}.{client.key[0]}", "this certificate is named above already"
            met.add(client.key)

    @property
    def is_on(self) -> bool:
        """Whether the doors speak TLS."""
        return self.cert_file is not None and self.key_file is not None

    @property
    def asks_clients(self) -> bool:
        """Whether clients may present certificates."""
        return self.client_certificates != "off"


def _said(check: Callable[[], T]) -> T:
    """What a check returns; what it finds wrong as pydantic tells it."""
    try:
        return check()
    except Malformed as error:
        raise ValueError(str(error)) from None
