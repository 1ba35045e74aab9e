"""Where traces go."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import Field, field_validator

from models.settings.processes import CLASSIFIER, GATEWAY, RESPONDER, SHARD
from models.settings.secrets import Secret
from models.settings.values import Section


class Telemetry(Section):
    """Where [traces](operate.md#tracing) are sent, as OTLP over HTTP. Without `endpoint`, nothing is traced."""

    endpoint: str | None = Field(
        None,
        description="Base URL of an OTLP/HTTP receiver, such as `http://127.0.0.1:4318`; `/v1/traces` is appended if missing. It must not contain a user or a query, because it appears in logs.",
    )
    headers: dict[str, Secret] = Field(
        {}, description='Extra request headers, such as `{ authorization = "Bearer ..." }`. Secret.'
    )
    sample_ratio: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of requests, 0 to 1, that start a trace. A request with a `traceparent` follows the sampling decision in it instead.",
    )
    service_name: str = Field(
        "llm-incident-manager",
        min_length=1,
        max_length=255,
        description="The `service.name` of the spans.",
    )

    @field_validator("endpoint")
    @classmethod
    def _is_plain_http(cls, value: str | None) -> str | None:
        # The URL appears in logs, so it must not contain a secret.
        if value is not None and not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s?#]*)?", value):
            raise ValueError(
                'expected an http:// or https:// URL such as "http://127.0.0.1:4318", without user or query: '
                "put secrets into telemetry.headers"
            )
        return value

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, value: dict[str, Secret]) -> dict[str, Secret]:
        for name, secret in value.items():
            if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
                raise ValueError(f"expected HTTP header names, not {name!r}")
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
