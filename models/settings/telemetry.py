"""Where traces go."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import Field, field_validator

from models.settings.processes import CLASSIFIER, GATEWAY, RESPONDER, SHARD
from models.settings.secrets import Secret
from models.settings.values import Section


class Telemetry(Section):
    """Where [traces](operate.md#tracing) go, by OTLP over HTTP. Without `endpoint` nothing is traced."""

    endpoint: str | None = Field(
        None,
        description="Base URL of an OTLP/HTTP receiver, `http://127.0.0.1:4318`; `/v1/traces` is added unless it is there. "
        "No user and no query: it is told in logs.",
    )
    headers: dict[str, Secret] = Field(
        {}, description='Sent along, for example `{ authorization = "Bearer ..." }`. A secret.'
    )
    sample_ratio: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of requests that begin a trace here, 0 to 1. A request with a `traceparent` is recorded when that "
        "says so, and only then.",
    )
    service_name: str = Field(
        "llm-incident-manager",
        min_length=1,
        max_length=255,
        description="`service.name` of its spans.",
    )

    @field_validator("endpoint")
    @classmethod
    def _is_plain_http(cls, value: str | None) -> str | None:
        # The URL is told in logs, so nothing secret may be part of it.
        if value is not None and not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s?#]*)?", value):
            raise ValueError(
                'expected an http:// or https:// URL such as "http://127.0.0.1:4318", without user or query: '
                "what is secret belongs into telemetry.headers"
            )
        return value

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, value: dict[str, Secret]) -> dict[str, Secret]:
        for name, secret in value.items():
            if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
                raise ValueError(f"expected names of HTTP headers, not {name!r}")
            if not re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", secret.get_secret_value()):
                raise ValueError(f"the value of {name!r}: expected printable ASCII")
        return value

    def exporter(self) -> dict[str, object] | None:
        """What a process that traces must know; None when none does."""
        if self.endpoint is None:
            return None
        return {
            "endpoint": self.endpoint,
            "headers": self.headers,
            "sample_ratio": self.sample_ratio,
            "service_name": self.service_name,
        }

    def for_process(self, kind: str, partitions: int) -> Mapping[str, object]:
        if kind == GATEWAY:
            return {"headers": self.headers}
        return {"telemetry": self.exporter()} if kind in (SHARD, CLASSIFIER, RESPONDER) else {}
