"""Where the doors are and what they let in."""

from __future__ import annotations

import re
from ipaddress import ip_address

from pydantic import Field, ValidationInfo, field_validator

from models.settings.origins import host_and_port, parse_origin
from models.settings.tls import Tls
from models.settings.values import (
    Duration,
    Section,
)

#: Compared one by one with each new name; even a large installation has a handful.
NAMES_MAX = 100
#: Names of the local machine; so is any address in 127.0.0.0/8.
_LOOPBACK = re.compile(r"localhost|::1|127(\.\d{1,3}){3}")


class Server(Section):
    """Where the server listens, and what it accepts."""

    http_host: str = Field(
        "127.0.0.1",
        description="Address of the HTTP endpoint; everything else always stays on loopback. Any address other than loopback requires [a token](security.md#the-first-token).",
    )
    http_port: int = Field(8080, ge=1, le=65535, description="HTTP port.")
    grpc: bool = Field(
        False,
        description="Whether to take alerts [over gRPC](grpc.md), on the same address as HTTP. Each gateway then listens on `grpc_port`.",
    )
    grpc_port: int = Field(9000, ge=1, le=65535, description="gRPC port.")
    grpc_max_streams: int = Field(
        100,
        ge=1,
        le=1000,
        description="gRPC calls that one connection may have under way at once, streams included.",
    )
    gateways: int = Field(
        2,
        ge=1,
        le=40,
        description="HTTP gateway processes. With two or more, requests keep being served while one restarts.",
    )
    max_body_bytes: int = Field(
        16 * 1024 * 1024,
        ge=1024,
        description="Largest request body, also after decompression. Larger ones are answered 413.",
    )
    body_timeout: Duration = Field(
        30.0, description="Longest time a sender may take to send its body. Slower ones are answered 408."
    )
    max_inflight_alerts: int = Field(
        200_000,
        ge=1,
        description="Most alerts a gateway holds while its shards work on them, divided equally among the shards. Beyond that, senders get 503 with `Retry-After`.",
    )
    remembered_alerts: int = Field(
        262_144,
        ge=1024,
        le=16 * 1024 * 1024,
        description="Alerts that each gateway remembers, twice, at about 300 bytes each. An alert it remembers costs a sixth of one that it has to read. Set it to the number of series that fire at once, when that is higher.",
    )
    hold: Duration = Field(
        5.0,
        le=60,
        description="How long a request waits for a shard that is restarting. Keep it well below 120 s ([0009](decisions/0009-call-window.md)).",
    )
    hosts: list[str] = Field(
        [],
        max_length=NAMES_MAX,
        description="Host names (no port) that requests may use in `Host` while no tokens exist. IP addresses, `localhost` and `*.localhost` are always allowed ([why](security.md#web-pages)).",
    )
    origins: list[str] = Field(
        [],
        max_length=NAMES_MAX,
        description="Web origins, such as `https://wall.example`, whose pages may call the API (CORS) and open a WebSocket. Empty: only pages served from this address.",
    )
    web_page: bool = Field(
        True,
        description="Whether `/` and `/ui` are [a page for people](web.md). Its files need no token, what they show does.",
    )
    probe_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="A separate port for `/health/*`, `/-/healthy` and `/-/ready` on the same address. It still answers when the main port has run out of connections. None: no separate port.",
    )

    tls: Tls = Tls()

    @field_validator("hosts")
    @classmethod
    def _are_hosts(cls, value: list[str]) -> list[str]:
        for each in value:
            place = host_and_port(each)
            if place is None or place[1] is not None or each.endswith(":"):
                raise ValueError(
                    f'expected host names without a port, such as "alerts.example", not {each[:80]!r}'
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
            raise ValueError("expected a different port than server.http_port")
        if value is not None and info.data.get("grpc") and value == info.data.get("grpc_port"):
            raise ValueError("expected a different port than server.grpc_port")
        return value

    @field_validator("grpc_port")
    @classmethod
    def _is_a_port_of_its_own(cls, value: int, info: ValidationInfo) -> int:
        if info.data.get("grpc") and value == info.data.get("http_port"):
            raise ValueError("expected a different port than server.http_port")
        return value

    @field_validator("http_host")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        """Normalizes the address, so that the rest of the code sees one spelling."""
        bare = value[1:-1] if value.startswith("[") and value.endswith("]") else value
        try:
            return str(ip_address(bare))
        except ValueError:
            pass
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", value):
            raise ValueError(
                f"expected an address such as 127.0.0.1, ::1 or 0.0.0.0, or a host name, not {value[:80]!r}"
            )
        return value.lower()

    @property
    def is_loopback(self) -> bool:
        """Whether the server can be reached from this machine only."""
        return _LOOPBACK.fullmatch(self.http_host) is not None
