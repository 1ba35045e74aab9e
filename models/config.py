"""Every setting, its unit, its default and its bounds: one pydantic model, loaded by services/bootstrap.py.

The file is TOML (`llm-im.toml`), the environment `LLM_IM_SECTION__KEY`. Durations are written "30s", "5m",
"1h", "90d" and kept as seconds. An unknown key is refused.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)\s*\Z")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def duration_s(value: object) -> object:
    """Seconds from "30s", "5m", "1h30m" is not supported: one number, one unit. Numbers are seconds already."""
    if isinstance(value, str):
        match = _DURATION.match(value)
        if match is None:
            raise ValueError(f'expected a duration such as "30s", "5m", "1h" or "90d", not {value!r}')
        return float(match[1]) * _UNIT_S[match[2]]
    return value


Duration = Annotated[float, BeforeValidator(duration_s), Field(ge=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


#: Names of this machine for itself; any address of 127.0.0.0/8 is one as well.
_LOOPBACK = re.compile(r"localhost|::1|127(\.\d{1,3}){3}")


class Server(_Section):
    """Where the doors are and what they let in."""

    http_host: str = "127.0.0.1"
    http_port: int = Field(8080, ge=1, le=65535)
    grpc_port: int = Field(
        9000, ge=1, le=65535, description="Reserved for the gRPC door; nothing listens there yet."
    )
    gateways: int = Field(
        2, ge=1, le=40, description="Serve replicas. Two or more: killing one leaves no gap."
    )
    max_body_bytes: int = Field(
        16 * 1024 * 1024, ge=1024, description="A larger request body is answered 413."
    )
    body_timeout: Duration = Field(
        30.0, description="A sender that takes longer to send its body is answered 408."
    )
    max_inflight_alerts: int = Field(
        200_000,
        ge=1,
        description="Alerts one gateway holds for its shards; past it senders get 503 and Retry-After.",
    )
    hold: Duration = Field(5.0, le=60, description="How long a request waits for a shard that is restarting.")

    @property
    def is_loopback(self) -> bool:
        """Whether the front door is reached from this machine only."""
        return _LOOPBACK.fullmatch(self.http_host) is not None


class State(_Section):
    """Where the log lives."""

    backend: Literal["sqlite"] = "sqlite"
    path: str = "./var"
    partitions: int = Field(2, ge=1, le=4096, description="Fixed when the system first starts.")
    snapshot_every_frames: int = Field(
        20_000, ge=10, description="A checkpoint begins after this many frames ..."
    )
    snapshot_every_bytes: int = Field(
        64 * 1024 * 1024, ge=1024, description="... or this many bytes of log ..."
    )
    snapshot_every: Duration = Field(
        300.0, description="... or this long after the last, if anything changed."
    )


class Grouping(_Section):
    """What makes one incident. The service is always part of the group."""

    group_by: list[str] = Field(["alertname"], max_length=16)
    service_labels: list[str] = Field(
        ["service", "service_name", "app", "job"],
        description="Label that names the service: the first one present.",
    )


class Lifecycle(_Section):
    resolve_timeout: Duration = Field(
        300.0, description="Ends an alert of /api/v2/alerts that nobody sends again."
    )
    expires_after: Duration | None = Field(
        None, description="Ends an alert of other doors; none: it fires until told."
    )
    expiry_grace: Duration = Field(
        300.0, description="After we could not hear, nothing expires for this long."
    )
    reopen_window: Duration = 1800.0
    close_after: Duration = 3600.0
    retention: Duration = 90 * 86400.0
    max_concurrent_incidents: int = Field(
        200_000, ge=1, description="Past it new groups join an overflow incident."
    )


class Dedup(_Section):
    dedup_window: Duration = Field(600.0, description="How long a sender's delivery id is remembered.")


class Rule(_Section):
    """One classification rule. It applies when every one of its conditions holds; what it leaves out, others may give."""

    name: str
    labels: dict[str, str] = Field(
        {}, description="label name -> regular expression that must match all of its value"
    )
    words: str | None = Field(
        None, description="regular expression searched in alert name, title and description"
    )
    source: str | None = Field(None, description="regular expression that must match all of the source")
    severity: Literal["P0", "P1", "P2", "P3", "P4"] | None = None
    type: (
        Literal[
            "Infrastructure",
            "Application",
            "Security",
            "Data",
            "Performance",
            "Availability",
            "Compliance",
            "Unknown",
        ]
        | None
    ) = None
    impact: str | None = None

    @field_validator("words", "source")
    @classmethod
    def _is_regex(cls, value: str | None) -> str | None:
        if value is not None:
            re.compile(value)
        return value

    @field_validator("labels")
    @classmethod
    def _are_regexes(cls, value: dict[str, str]) -> dict[str, str]:
        for pattern in value.values():
            re.compile(pattern)
        return value


class Classification(_Section):
    pool: int = Field(1, ge=1, le=64, description="Classifier actors, classifier-0 ...")
    rules: list[Rule] = Field(
        [], description="Asked before the built-in rules; the first that gives a value wins."
    )
    builtin_rules: bool = True


class Webhook(_Section):
    """The first response: Alertmanager's webhook v4 body, sent by POST."""

    url: SecretStr | None = None
    timeout: Duration = Field(10.0, le=60)
    max_alerts: int = Field(
        100, ge=1, le=10_000, description="Alerts shown in one body; truncatedAlerts counts the rest."
    )
    external_url: str = ""

    @field_validator("url")
    @classmethod
    def _is_http(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("http://", "https://")):
            raise ValueError("expected an http:// or https:// URL")
        return value


class Wait(_Section):
    """How long to wait before the first notice, so that a group is told of once."""

    P0: Duration = 0.0
    P1: Duration = 0.0
    P2: Duration = 30.0
    P3: Duration = 120.0
    P4: Duration = 300.0


class Notify(_Section):
    webhook: Webhook = Webhook()
    wait: Wait = Wait()
    retry_first: Duration = Field(1.0, description="Wait before the first retry; doubles each time.")
    retry_max: Duration = Field(300.0, description="Longest wait between retries.")
    give_up_after: Duration = Field(
        86400.0, description="A notice nobody takes for this long is given up, and says so."
    )
    responders: int = Field(1, ge=1, le=16)
    concurrency: int = Field(32, ge=1, le=1000, description="Webhook calls under way at once, per responder.")


class Auth(_Section):
    """Who gets in: API tokens (`llm-im tokens`)."""

    required: bool | None = Field(
        None,
        description="true: nobody without a token; false: everybody, on loopback only; "
        "none: everybody until the first token is made.",
    )
    open_metrics: bool = Field(False, description="GET /metrics needs no token, also when all else does.")


class Logging(_Section):
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["json", "console"] = "json"


class DeadLetterSettings(_Section):
    max_bytes: int = Field(256 * 1024 * 1024, ge=1024)
    max_age: Duration = 7 * 86400.0
    max_payload_bytes: int = Field(64 * 1024, ge=64, description="A longer payload is kept cut.")


class Telemetry(_Section):
    """Where traces go, by OTLP over HTTP. Without an endpoint nothing is traced."""

    endpoint: str | None = Field(
        None, description="Base URL of an OTLP/HTTP receiver; /v1/traces is added unless it is there."
    )
    headers: dict[str, SecretStr] = Field({}, description="Sent along, for example a token. Secret.")
    sample_ratio: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of requests that begin a trace here. A sender's own traceparent decides for itself.",
    )
    service_name: str = Field("llm-incident-manager", min_length=1, max_length=255)

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
    def _are_headers(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, secret in value.items():
            if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
                raise ValueError(f"expected names of HTTP headers, not {name!r}")
            if not re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", secret.get_secret_value()):
                raise ValueError(f"the value of {name!r}: expected printable ASCII")
        return value


class Settings(_Section):
    """All of it. Every default works on one machine with no file at all."""

    server: Server = Server()
    state: State = State()
    grouping: Grouping = Grouping()
    lifecycle: Lifecycle = Lifecycle()
    dedup: Dedup = Dedup()
    classification: Classification = Classification()
    notify: Notify = Notify()
    auth: Auth = Auth()
    logging: Logging = Logging()
    dead_letters: DeadLetterSettings = DeadLetterSettings()
    telemetry: Telemetry = Telemetry()
