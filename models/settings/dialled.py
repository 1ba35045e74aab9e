"""What the settings say of every system that we connect to (models/settings/integrations.py)."""

from __future__ import annotations

from pydantic import Field

from models.settings.secrets import Secret
from models.settings.values import AbsolutePath, Duration, Section, wrong_url


class Dialled(Section):
    """A system that we connect to, if it says where."""

    enabled: bool = Field(
        False,
        description="Whether we connect to it, where an endpoint is set. What it sends by itself is taken anyway.",
    )
    auth_token_env: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Environment variable of `llm-im up` with the bearer token that it asks for.",
    )
    auth_token: Secret | None = Field(None, description="The bearer token itself, instead. Secret.")
    reconnect_interval: Duration = Field(
        5.0,
        gt=0,
        le=3600,
        description="Pause before we try again; it doubles while it is away, up to 5 minutes.",
    )
    tls_cert: AbsolutePath | None = Field(None, description="File with our client certificate, as PEM.")
    tls_key: AbsolutePath | None = Field(None, description="File with its key.")
    tls_ca: AbsolutePath | None = Field(
        None, description="File with PEM certificates that are trusted; none: the system's."
    )

    @property
    def is_dialled(self) -> bool:
        """Whether we connect to it."""
        return self.enabled and bool(getattr(self, "endpoint", None) or getattr(self, "endpoints", None))

    def dialled(self) -> dict[str, object]:
        """As a collector gets it."""
        return {
            "endpoint": getattr(self, "endpoint", None) or "",
            "token": self.auth_token,
            "token_env": self.auth_token_env or "",
            "pause_s": self.reconnect_interval,
            "cert_file": self.tls_cert or "",
            "key_file": self.tls_key or "",
            "ca_file": self.tls_ca or "",
        }


def grpc_place(value: str | None) -> str | None:
    """A host and a port, as they are. Raises ValueError."""
    if value:
        place = value.removeprefix("https://")
        host, _, port = place.rpartition(":")
        if not host or not port.isdecimal() or "/" in place or wrong_url(f"http://{place}"):
            raise ValueError(
                "expected a host and a port, as in llm-sentinel:9090 or https://llm-sentinel:9090"
            )
    return value
