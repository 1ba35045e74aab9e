"""Where the doors are and what they let in."""

from __future__ import annotations

import re
from ipaddress import ip_address

from pydantic import Field, ValidationInfo, field_validator

from models.settings.origins import host_and_port, parse_origin
from models.settings.values import (
    LATER,
    Duration,
    Section,
)

#: Compared one by one for each new name; a large installation has a handful.
NAMES_MAX = 100
#: Names of this machine for itself; any address of 127.0.0.0/8 is one as well.
_LOOPBACK = re.compile(r"localhost|::1|127(\.\d{1,3}){3}")


class Server(Section):
    """Where the doors are and what they let in."""

    http_host: str = Field(
        "127.0.0.1",
        description="Address the front door listens on; everything else stays on loopback whatever this says. Other than loopback needs [a token](security.md#the-first-token).",
    )
    http_port: int = Field(8080, ge=1, le=65535, description="Port of HTTP.")
    grpc: bool = Field(
        False, description="Whether the gRPC door is open. It is not built yet: `up` refuses true.", json_schema_extra=LATER
    )  # fmt: skip
    grpc_port: int = Field(
        9000, ge=1, le=65535, description="Reserved for the gRPC door; nothing listens there yet."
    )
    gateways: int = Field(
        2, ge=1, le=40, description="Serve replicas. Two or more: killing one leaves no gap."
    )
    max_body_bytes: int = Field(
        16 * 1024 * 1024, ge=1024, description="A larger request body, also when unpacked, is answered 413."
    )
    body_timeout: Duration = Field(
        30.0, description="A sender that takes longer to send its body is answered 408."
    )
    max_inflight_alerts: int = Field(
        200_000,
        ge=1,
        description="Alerts one gateway holds for its shards, an equal share for each; past it senders get 503 and `Retry-After`.",
    )
    hold: Duration = Field(
        5.0,
        le=60,
        description="How long a request waits for a shard that is restarting. Keep it well below 120 s ([0009](decisions/0009-call-window.md)).",
    )
    hosts: list[str] = Field(
        [],
        max_length=NAMES_MAX,
        description="Names by which the front door may be called while there are no tokens, as in `Host`, without a port. Addresses, `localhost` and `*.localhost` always may ([why](security.md#web-pages)).",
    )
    origins: list[str] = Field(
        [],
        max_length=NAMES_MAX,
        description="Web pages elsewhere that may call the API (CORS) and open a WebSocket, as in `Origin`: `https://wall.example`. None: only pages of this address.",
    )
    probe_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="A port of its own for `/health/*`, `/-/healthy` and `/-/ready`, on the same address: it answers when the front door has no connection left. None: no such port.",
    )

    @field_validator("hosts")
    @classmethod
    def _are_hosts(cls, value: list[str]) -> list[str]:
        for each in value:
            place = host_and_port(each)
            if place is None or place[1] is not None or each.endswith(":"):
                raise ValueError(
                    f'expected names of hosts such as "alerts.example", without a port, not {each[:80]!r}'
                )
        return value

    @field_validator("origins")
    @classmethod
    def _are_origins(cls, value: list[str]) -> list[str]:
        for each in value:
            if parse_origin(each) is None:
                raise ValueError(f'expected origins such as "https://wall.example", not {each[:80]!r}')
        return value

    @field_validator("probe_port")
    @classmethod
    def _is_another_port(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and value == info.data.get("http_port"):
            raise ValueError("expected another port than server.http_port has")
        return value

    @field_validator("http_host")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        """One way to write each address, so that nobody else has to know the others."""
        bare = value[1:-1] if value.startswith("[") and value.endswith("]") else value
        try:
            return str(ip_address(bare))
        except ValueError:
            pass
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", value):
            raise ValueError(
                f"expected an address such as 127.0.0.1, ::1 or 0.0.0.0, or a host's name, not {value[:80]!r}"
            )
        return value.lower()

    @property
    def is_loopback(self) -> bool:
        """Whether the front door is reached from this machine only."""
        return _LOOPBACK.fullmatch(self.http_host) is not None
