"""Every setting, its unit, its default and its bounds: one pydantic model, loaded by services/settings/load.py.

The descriptions appear in docs/configuration.md, in the JSON schema and in editors. LIVE marks what `llm-im config reload`
changes without a restart (services/wiring/reload.py), LATER what is not built yet. Write a duration as `Duration`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BeforeValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from models.alerts.patterns import rule_pattern
from models.settings import later
from models.settings.origins import host_and_port, parse_origin
from models.settings.values import (
    LATER,
    LATER_MARK,
    LIVE,
    LIVE_MARK,
    NONE,
    Duration,
    MaybeDuration,
    Section,
    duration_s,
    duration_text,
    wrong_url,
)

#: Tried one after the other for each incident: a thousand cost a classifier a few milliseconds.
RULES_MAX = 1000
#: Compared one by one with each new name; even a large installation has a handful.
NAMES_MAX = 100
#: A backup of a large archive takes minutes, and each one adds a file that people have to look through.
BACKUP_INTERVAL_MIN_S = 60.0


#: Label names as senders write them, those of OpenTelemetry among them. UTF-8 allows any text in a name; blanks, quotes and
#: the like are typos here, and would put a whole service into one incident.
_LABEL_NAME = re.compile(r"[^\W\d][\w.:/-]*")
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
        False, description="Whether to listen for gRPC. Not built yet: `up` refuses `true`.", json_schema_extra=LATER
    )  # fmt: skip
    grpc_port: int = Field(9000, ge=1, le=65535, description="Reserved for gRPC; nothing listens on it yet.")
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
    probe_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="A separate port for `/health/*`, `/-/healthy` and `/-/ready` on the same address. It still answers when the main port has run out of connections. None: no separate port.",
    )

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


class Redis(Section):
    """The Redis that holds all state when `state.backend` is `redis`: [how to set it up](operate.md#state-in-redis)."""

    url: SecretStr | None = Field(
        None,
        description="`redis://host:port/db`, `redis+sentinel://host:port,host:port/service` or `redis+cluster://host:port,host:port`, with `user:password@` before the host. Secret.",
    )
    prefix: str = Field(
        "llm-im",
        pattern=r"^[A-Za-z0-9_.:-]{1,64}$",
        description="Prefix of all our keys. Give each system that shares a Redis its own.",
    )
    replicas: int = Field(
        0,
        ge=0,
        le=100,
        description="How many replicas must have a write before it is acknowledged. With 0, Sentinel setups and clusters with replicas are refused.",
    )
    allow_volatile: bool = Field(
        False,
        description="Accept a Redis that may lose acknowledged writes: no append-only file, no fsync, an eviction policy, or failover to a replica that may be behind.",
    )
    connect_timeout: Duration = Field(2.0, gt=0, le=60, description="How long to wait for a connection.")
    timeout: Duration = Field(
        5.0, gt=0, le=60, description="How long to wait for a reply before the connection counts as dead."
    )
    replica_timeout: Duration = Field(
        1.0,
        gt=0,
        le=60,
        description="How long to wait for the replicas. After that the outcome of the write counts as unknown.",
    )


class Postgres(Section):
    """The PostgreSQL that holds all state when `state.backend` is `postgres` or `cockroachdb`: [how to set it up](operate.md#state-in-postgresql)."""

    url: SecretStr | None = Field(
        None,
        description="`postgresql://user:password@host:port/database`, with libpq parameters such as `sslmode=verify-full` after a `?`. Secret.",
    )
    schema_name: str = Field(
        "llm_im",
        pattern=r"^[a-z_][a-z0-9_]{0,62}$",
        description="Schema for all our tables, created if missing. Give each system that shares a database its own.",
    )
    max_connections: int = Field(
        8,
        ge=2,
        le=100,
        description="Most connections per process. They are opened on demand and closed after two idle minutes.",
    )
    allow_volatile: bool = Field(
        False,
        description="Accept a server that may lose acknowledged writes: `fsync`, `full_page_writes` or `synchronous_commit` is off, or `state.replication` is not satisfied.",
    )
    connect_timeout: Duration = Field(5.0, ge=2, le=60, description="How long to wait for a connection.")
    timeout: Duration = Field(
        5.0,
        ge=0.1,
        le=60,
        description="Longest time a statement may run before the server cancels it. One second later the connection counts as dead.",
    )


class State(Section):
    """Where all state is stored."""

    backend: Literal["sqlite", "sled", "redb", "redis", "postgres", "cockroachdb"] = Field(
        "sqlite",
        description="The store: SQLite files, a Redis ([state.redis](#stateredis)), or PostgreSQL and compatible servers ([state.postgres](#statepostgres)). `cockroachdb` accepts only CockroachDB. `sled` and `redb` exist only in other languages: they select `sqlite` and `up` says so.",
    )
    path: str = Field(
        "./var", min_length=1, description="Data folder, relative to the folder where `llm-im up` runs. [What is in it](operate.md#files)."
    )  # fmt: skip
    partitions: int = Field(
        2,
        ge=1,
        le=4096,
        description="Number of shards, used only at the first start. To change it later, run [llm-im store reshard](operate.md#more-or-fewer-shards).",
    )
    snapshot_every_frames: int = Field(
        20_000, ge=10, description="Take a snapshot after this many log entries ..."
    )
    snapshot_every_bytes: int = Field(
        64 * 1024 * 1024, ge=1024, description="... or this many bytes of log ..."
    )
    snapshot_every: Duration = Field(
        300.0, description="... or this long after the last one, if anything changed."
    )
    consistency: Literal["strong", "eventual"] | None = Field(
        None,
        description="Required guarantee. `strong`: every read sees all acknowledged writes. Refused with Redis Sentinel and Redis Cluster, where a failover can lose writes; for PostgreSQL standbys set `replication` too. `eventual`: always refused, because nothing is acknowledged before it is durable. None: no check.",
    )
    replication: Literal["synchronous", "multi-region"] | None = Field(
        None,
        description="Required replication, checked on every connection. `synchronous`: PostgreSQL waits for a standby before it confirms a write. `multi-region`: CockroachDB survives losing a region. None: no check.",
    )
    connection_string: SecretStr | None = Field(
        None, description="Alias of `state.postgres.url`. Secret.", json_schema_extra=LATER
    )
    redis: Redis = Redis()
    postgres: Postgres = Postgres()


class Grouping(Section):
    """Which alerts form one incident. Alerts of different services are never grouped together."""

    group_by: list[str] = Field(
        ["alertname", "cluster", "namespace"],
        max_length=16,
        description="Labels to group by, in addition to the service; at most 16. Labels an alert lacks are left out of its group. How to choose: [grouping.md](grouping.md).",
    )
    service_labels: list[str] = Field(
        ["service", "service_name", "app", "job"],
        description="Labels that can name the service. The first one an alert has is used.",
    )

    @field_validator("group_by", "service_labels")
    @classmethod
    def _label_names(cls, names: list[str], info: ValidationInfo) -> list[str]:
        for name in names:
            if name == "..." and info.field_name == "group_by":
                raise ValueError(
                    '"..." (all labels) would open an incident for every single alert: '
                    "list the labels that distinguish one outage from another"
                )
            if _LABEL_NAME.fullmatch(name) is None:
                raise ValueError(f"expected label names such as cluster or k8s.pod.name, not {name!r}")
        return names


class Lifecycle(Section):
    """When alerts end, and when incidents resolve, reopen and close."""

    resolve_timeout: Duration = Field(
        300.0,
        description="An alert sent to `/api/v2/alerts` without an end time resolves when it has not been sent again for this long.",
        json_schema_extra=LIVE,
    )
    expires_after: MaybeDuration = Field(
        None,
        description="The same for alerts sent to `/v1`. None: they fire until a resolve arrives.",
        json_schema_extra=LIVE,
    )
    expiry_grace: Duration = Field(
        300.0,
        description="No alert expires for this long after the service could not receive alerts.",
        json_schema_extra=LIVE,
    )
    reopen_window: Duration = Field(
        1800.0,
        description="A group that fires again within this time after its incident resolved reopens that incident.",
        json_schema_extra=LIVE,
    )
    close_after: Duration = Field(
        3600.0,
        description="A resolved incident closes after this time or `reopen_window`, whichever is longer.",
        json_schema_extra=LIVE,
    )
    retention: Duration = Field(
        90 * 86400.0,
        description="How long a closed incident stays in the archive. It is deleted within an hour after that.",
        json_schema_extra=LIVE,
    )
    max_concurrent_incidents: int = Field(
        200_000,
        ge=1,
        description="Most open incidents, divided equally among the shards. Beyond that, new groups are added to an overflow incident.",
        json_schema_extra=LIVE,
    )
    max_alert_bytes: int = Field(
        256 * 1024,
        ge=1024,
        le=1024 * 1024,
        description="Largest alert in bytes, labels and annotations together. Larger ones are refused with 400.",
    )
    max_shard_bytes: int = Field(
        2 * 1024**3,
        ge=1024 * 1024,
        description="Most memory, in bytes, for the alerts and incidents of one shard. A typical series takes about 900 bytes, so the default holds two million. Beyond that, new series are refused with 503.",
        json_schema_extra=LIVE,
    )
    max_sender_share: float = Field(
        0.75,
        gt=0,
        le=1,
        description="Largest share of `max_shard_bytes` that alerts sent with one token may use. Beyond that, its new series are refused with 429. Without tokens, all senders share one quota.",
        json_schema_extra=LIVE,
    )


class Dedup(Section):
    """Which deliveries count as repeats."""

    dedup_window: Duration = Field(
        600.0,
        description="How long a delivery id is remembered; a request that repeats it within this time is not counted again.",
    )


class Rule(Section):
    """One classification rule. It applies if all its conditions match. What it leaves unset, later rules may set."""

    name: str = Field(min_length=1, description="Shown in `classified_by`.")
    labels: dict[str, str] = Field(
        {},
        description="Label names, each with a regular expression that must match the whole value. A missing label counts as empty.",
    )
    words: str | None = Field(
        None,
        description="Regular expression to find anywhere in the alert name, title or description, ignoring case.",
    )
    source: str | None = Field(None, description="Regular expression that must match the whole source.")
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
    ) = Field(None, description="One of the [eight types](concepts.md#severity-type-impact).")
    impact: str | None = Field(
        None, description="Free text. The built-in rules use `critical`, `major`, `minor` and `none`."
    )

    @field_validator("words", "source")
    @classmethod
    def _is_regex(cls, value: str | None) -> str | None:
        if value is not None:
            rule_pattern(value)
        return value

    @field_validator("labels")
    @classmethod
    def _are_regexes(cls, value: dict[str, str]) -> dict[str, str]:
        for pattern in value.values():
            rule_pattern(pattern)
        return value


class Classification(Section):
    """How incidents get their severity, type and impact."""

    pool: int = Field(1, ge=1, le=64, description="Number of classifier processes (`classifier-0` ...).")
    rules: list[Rule] = Field(
        [],
        max_length=RULES_MAX,
        description="Your rules, tried in order before the built-in ones; see [a rule](#a-rule).",
        json_schema_extra=LIVE,
    )
    builtin_rules: bool = Field(
        True, description="Whether to try the built-in rules after yours.", json_schema_extra=LIVE
    )


class Webhook(Section):
    """The webhook that notifications go to: a POST with Alertmanager's webhook v4 body."""

    url: SecretStr | None = Field(
        None,
        description='URL to POST notifications to, `http://` or `https://`, used exactly as written. None, "none" or empty: no notifications are sent. Secret.',
    )
    timeout: Duration = Field(
        10.0, le=60, description="Longest time for one attempt, from connecting to the end of the response."
    )
    max_alerts: int = Field(
        100,
        ge=1,
        le=10_000,
        description="Most alerts in one body; `truncatedAlerts` counts the rest.",
        json_schema_extra=LIVE,
    )
    external_url: str = Field(
        "", description="Base URL of links in notifications. Empty: no links.", json_schema_extra=LIVE
    )

    @field_validator("url", mode="before")
    @classmethod
    def _may_be_none(cls, value: object) -> object:
        # An empty variable counts as unset; "none" turns notifications off, whatever the file says.
        return None if isinstance(value, str) and value.strip().lower() in ("", NONE) else value

    @field_validator("url")
    @classmethod
    def _is_http(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and (wrong := wrong_url(value.get_secret_value())):
            raise ValueError(wrong)
        return value

    @field_validator("external_url")
    @classmethod
    def _is_link(cls, value: str) -> str:
        if value and (wrong := wrong_url(value)):
            raise ValueError(wrong)
        return value


class Wait(Section):
    """How long to wait before the first notification, so that alerts arriving together are sent as one."""

    P0: Duration = Field(0.0, description="Before the first notification of a P0.", json_schema_extra=LIVE)
    P1: Duration = Field(
        0.0,
        description="The same for P1, and for incidents that have not been classified.",
        json_schema_extra=LIVE,
    )
    P2: Duration = Field(30.0, description="The same for P2.", json_schema_extra=LIVE)
    P3: Duration = Field(120.0, description="The same for P3.", json_schema_extra=LIVE)
    P4: Duration = Field(300.0, description="The same for P4.", json_schema_extra=LIVE)


class Notify(Section):
    """How notifications are sent and retried."""

    enabled: bool = Field(
        True,
        description="`false`: no notifications are sent, whatever webhook is set. `llm-im up --no-notify` sets it for one start, for example for a [restore drill](operate.md#test-a-restore).",
    )
    webhook: Webhook = Webhook()
    wait: Wait = Wait()
    interval: Duration = Field(
        60.0,
        description='Shortest time between two notifications of one incident; a rise in severity does not wait. A `resolved` waits too, and if the alerts fire again meanwhile, neither is sent. "0s": every resolve and every reopening is sent at once.',
        json_schema_extra=LIVE,
    )
    retry_first: Duration = Field(
        1.0, description="Wait before the first retry. Doubles each time.", json_schema_extra=LIVE
    )
    retry_max: Duration = Field(300.0, description="Longest wait between retries.", json_schema_extra=LIVE)
    give_up_after: Duration = Field(
        86400.0,
        description="A notification that has failed for this long is given up, and the timeline records it.",
        json_schema_extra=LIVE,
    )
    responders: int = Field(1, ge=1, le=16, description="Number of responder processes (`responder-0` ...).")
    concurrency: int = Field(32, ge=1, le=1000, description="Most webhook calls in flight per responder.")

    @property
    def why_off(self) -> str:
        """Why no notifications are sent, or "" if they are."""
        if not self.enabled:
            return "notify.enabled is false (up --no-notify)"
        return "" if self.webhook.url is not None else "no notify.webhook.url is set"


class PublishRedis(Section):
    """A Redis where other programs can read current incidents and subscribe to changes: [the feed](redis-feed.md). It is not
    the store, but may be the same Redis."""

    url: SecretStr | None = Field(
        None,
        description="As `state.redis.url`. None: nothing is published. Secret.",
    )
    prefix: str = Field(
        "llm-im",
        pattern=r"^[A-Za-z0-9_.:-]{1,64}$",
        description="Prefix of the keys and the channel of the feed, before `:{feed}:`. Give each system that shares a Redis its own.",
    )
    keep_closed: Duration = Field(
        3600.0,
        ge=1,
        description="How long a closed incident stays readable in the feed; at most the 10,000 newest.",
    )
    connect_timeout: Duration = Field(2.0, gt=0, le=60, description="How long to wait for a connection.")
    timeout: Duration = Field(
        5.0, gt=0, le=60, description="How long to wait for a reply before the connection counts as dead."
    )


class Publish(Section):
    """What is published to programs that do not call the API."""

    redis: PublishRedis = PublishRedis()


class AcknowledgeTargets(Section):
    """How soon after it opens an incident should be acknowledged. "none": no target."""

    P0: MaybeDuration = Field(300.0, description="For a P0.", json_schema_extra=LIVE)
    P1: MaybeDuration = Field(900.0, description="For a P1.", json_schema_extra=LIVE)
    P2: MaybeDuration = Field(4 * 3600.0, description="For a P2.", json_schema_extra=LIVE)
    P3: MaybeDuration = Field(86400.0, description="For a P3.", json_schema_extra=LIVE)
    P4: MaybeDuration = Field(None, description="For a P4.", json_schema_extra=LIVE)


class ResolveTargets(Section):
    """How soon after it opens an incident should be resolved. "none": no target."""

    P0: MaybeDuration = Field(3600.0, description="For a P0.", json_schema_extra=LIVE)
    P1: MaybeDuration = Field(3600.0, description="For a P1.", json_schema_extra=LIVE)
    P2: MaybeDuration = Field(86400.0, description="For a P2.", json_schema_extra=LIVE)
    P3: MaybeDuration = Field(7 * 86400.0, description="For a P3.", json_schema_extra=LIVE)
    P4: MaybeDuration = Field(None, description="For a P4.", json_schema_extra=LIVE)


class Targets(Section):
    """Response-time targets by severity."""

    acknowledge: AcknowledgeTargets = AcknowledgeTargets()
    resolve: ResolveTargets = ResolveTargets()


class Auth(Section):
    """Who may call the server. API tokens are made with `llm-im tokens`; see [security.md](security.md)."""

    required: bool | None = Field(
        None,
        description="`true`: every request needs an API token, even before the first token exists. `false`: no request needs one; allowed on loopback only. None: open until the first token is created, then every request needs one.",
    )
    open_metrics: bool = Field(
        False, description="Whether `GET /metrics` needs no token even when everything else does."
    )


class Logging(Section):
    """What every process logs to stderr."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Lowest level that is logged.", json_schema_extra=LIVE
    )
    format: Literal["json", "console"] = Field(
        "json", description="`json`: one object per line. `console`: for people."
    )


class DeadLetterSettings(Section):
    """How long alerts that could not be parsed are kept."""

    max_bytes: int = Field(
        256 * 1024 * 1024,
        ge=1024,
        description="Most bytes of dead letters to keep; beyond that, the oldest are deleted.",
    )
    max_age: Duration = Field(7 * 86400.0, description="How long a dead letter is kept.")
    max_payload_bytes: int = Field(
        64 * 1024,
        ge=64,
        description="Longer payloads are truncated to this many bytes. The store itself truncates at 65536.",
    )


class Telemetry(Section):
    """Where [traces](operate.md#tracing) are sent, as OTLP over HTTP. Without `endpoint`, nothing is traced."""

    endpoint: str | None = Field(
        None,
        description="Base URL of an OTLP/HTTP receiver, such as `http://127.0.0.1:4318`; `/v1/traces` is appended if missing. It must not contain a user or a query, because it appears in logs.",
    )
    headers: dict[str, SecretStr] = Field(
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
    def _are_headers(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, secret in value.items():
            if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
                raise ValueError(f"expected HTTP header names, not {name!r}")
            if not re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", secret.get_secret_value()):
                raise ValueError(f"the value of {name!r}: expected printable ASCII")
        return value


class DisasterRecovery(Section):
    """[Backups](operate.md#backups) of the running system."""

    backup_target: str | None = Field(
        None,
        description="Where backups go: a folder, or a URL such as `s3://bucket/prefix`, without user, password or query. Credentials come from the environment.",
    )
    backup_interval: MaybeDuration = Field(
        None, description="How often to make a backup; at least 1m. Needs `backup_target`. None: only `llm-im backup create` makes one."
    )  # fmt: skip
    backup_retention: MaybeDuration = Field(
        None, description="After each new backup, older ones are deleted; the newest complete one never is. None: all are kept."
    )  # fmt: skip
    backup_key_file: str | None = Field(
        None,
        description="File with the key that signs backups, 64 hexadecimal digits. None: `backup.key` in the data folder, created automatically. Keep a copy elsewhere: without it, a restore needs `--accept-unsigned`.",
    )
    cross_region_replication: bool | None = Field(None, json_schema_extra=LATER)

    @field_validator("backup_target")
    @classmethod
    def _holds_no_secret(cls, value: str | None) -> str | None:
        # It appears in logs and in `llm-im config show`.
        if value is not None and not re.fullmatch(r"[^\s?@]+://[^\s?@]*|(?!.*://)[^\x00]+", value):
            raise ValueError(
                "expected a folder or a URL such as s3://bucket/prefix, without user, password or query:"
                " credentials come from the environment"
            )
        return value

    @field_validator("backup_interval")
    @classmethod
    def _leaves_time(cls, value: float | None) -> float | None:
        if value is not None and value < BACKUP_INTERVAL_MIN_S:
            raise ValueError(f'expected "1m" or more, or "none", not "{duration_text(value)}"')
        return value


class Settings(Section):
    """Every setting. The defaults work on one machine without a file."""

    server: Server = Server()
    state: State = State()
    grouping: Grouping = Grouping()
    lifecycle: Lifecycle = Lifecycle()
    dedup: Dedup = Dedup()
    classification: Classification = Classification()
    notify: Notify = Notify()
    publish: Publish = Publish()
    targets: Targets = Targets()
    auth: Auth = Auth()
    logging: Logging = Logging()
    dead_letters: DeadLetterSettings = DeadLetterSettings()
    telemetry: Telemetry = Telemetry()
    disaster_recovery: DisasterRecovery = DisasterRecovery()

    deployment: later.Deployment = later.Deployment()
    resource_limits: later.ResourceLimits = later.ResourceLimits()
    coordination: later.Coordination = later.Coordination()
    messaging: later.Messaging = later.Messaging()
    worker: later.Worker = later.Worker()
    sidecar: later.Sidecar = later.Sidecar()
    local_actions: later.LocalActions = later.LocalActions()
    forwarding: later.Forwarding = later.Forwarding()
    ha: later.HighAvailability = later.HighAvailability()
    failover: later.Failover = later.Failover()
    integrations: later.Integrations = later.Integrations()


@dataclass(frozen=True, slots=True)
class Key:
    """One setting: its full name (`server.http_port`), its section, and its field in the model."""

    name: str
    section: type[Section]
    field: FieldInfo

    @property
    def path(self) -> tuple[str, ...]:
        return tuple(self.name.split("."))

    @property
    def is_live(self) -> bool:
        """Whether `llm-im config reload` can change it without a restart."""
        return _is_marked(self.field, LIVE_MARK)

    @property
    def is_later(self) -> bool:
        """Whether its feature is not built yet."""
        return issubclass(self.section, later.LaterSection) or _is_marked(self.field, LATER_MARK)

    @property
    def kinds(self) -> set[object]:
        """The types it may have: {float, NoneType} for a duration that may be none."""
        return set(_plain(self.field.annotation))

    @property
    def is_secret(self) -> bool:
        return any(SecretStr in (kind, *get_args(kind)) for kind in self.kinds)

    @property
    def is_duration(self) -> bool:
        return any(
            isinstance(each, BeforeValidator) and each.func is duration_s
            for each in (*self.field.metadata, *_metadata(self.field.annotation))
        )

    def of(self, settings: Settings) -> object:
        """Its value."""
        value: object = settings
        for part in self.path:
            value = getattr(value, part)
        return value


def _plain(annotation: Any) -> Iterator[object]:
    if get_origin(annotation) is Annotated:
        yield from _plain(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for each in get_args(annotation):
            yield from _plain(each)
    else:
        yield annotation


def _metadata(annotation: Any) -> Iterator[object]:
    """The metadata inside an annotation."""
    if get_origin(annotation) is Annotated:
        yield from annotation.__metadata__
    elif get_origin(annotation) in (Union, UnionType):
        for each in get_args(annotation):
            yield from _metadata(each)


def _is_marked(field: FieldInfo, mark: str) -> bool:
    extra = field.json_schema_extra
    return isinstance(extra, dict) and mark in extra


def _keys(section: type[Section], prefix: str = "") -> Iterator[Key]:
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            yield from _keys(inner, f"{prefix}{name}.")
        else:
            yield Key(prefix + name, section, field)


#: Every setting by its full name, in the order of the sections above.
KEYS: dict[str, Key] = {key.name: key for key in _keys(Settings)}
