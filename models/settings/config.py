"""Every setting, its unit, its default and its bounds: one pydantic model, loaded by services/settings/load.py.

A description here is what docs/configuration.md, the schema and an editor say. LIVE marks what `llm-im config reload`
changes without a restart (services/wiring/reload.py), LATER what nothing answers yet. Write a duration as `Duration`.
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

#: Asked for each incident one after the other: a thousand cost a classifier some milliseconds.
RULES_MAX = 1000
#: Compared one by one for each new name; a large installation has a handful.
NAMES_MAX = 100
#: A backup of a large archive takes minutes, and each one is a file for people to look through.
BACKUP_INTERVAL_MIN_S = 60.0


#: Label names as senders write them, those of OpenTelemetry among them. UTF-8 allows any text in a name; blanks, quotes and
#: the like are a slip of the pen here, and would make one incident of a whole service.
_LABEL_NAME = re.compile(r"[^\W\d][\w.:/-]*")
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


class Redis(Section):
    """A Redis that holds the state, when `state.backend` is `redis`: [how to set it up](operate.md#state-in-redis)."""

    url: SecretStr | None = Field(
        None,
        description="`redis://host:port/db`, `redis+sentinel://host:port,host:port/service` or `redis+cluster://host:port,host:port`, with `user:password@` before the host. A secret.",
    )
    prefix: str = Field(
        "llm-im",
        pattern=r"^[A-Za-z0-9_.:-]{1,64}$",
        description="What all our keys begin with; another for each system that shares a Redis.",
    )
    replicas: int = Field(
        0,
        ge=0,
        le=100,
        description="Replicas that must have a write before it is answered. Sentinels, and a cluster that has replicas, are refused with 0.",
    )
    allow_volatile: bool = Field(
        False,
        description="Take a Redis that may forget what it acknowledged: without an append-only file, not synced, with keys that are dropped, or failing over to a replica nobody waited for.",
    )
    connect_timeout: Duration = Field(2.0, gt=0, le=60, description="Longest wait for a connection.")
    timeout: Duration = Field(
        5.0, gt=0, le=60, description="Longest wait for an answer; then the connection counts as dead."
    )
    replica_timeout: Duration = Field(
        1.0,
        gt=0,
        le=60,
        description="Longest wait for the replicas; then the write counts as one of unknown outcome.",
    )


class Postgres(Section):
    """A PostgreSQL that holds the state, when `state.backend` is `postgres` or `cockroachdb`: [how to set it up](operate.md#state-in-postgresql)."""

    url: SecretStr | None = Field(
        None,
        description="`postgresql://user:password@host:port/database`, with libpq's parameters behind a `?`, such as `sslmode=verify-full`. A secret.",
    )
    schema_name: str = Field(
        "llm_im",
        pattern=r"^[a-z_][a-z0-9_]{0,62}$",
        description="The schema that all our tables are in, made when it is not there; another for each system that shares a database.",
    )
    max_connections: int = Field(
        8,
        ge=2,
        le=100,
        description="Connections that one process of ours may have. They are opened when needed, and closed after two idle minutes.",
    )
    allow_volatile: bool = Field(
        False,
        description="Take a server that may forget what it acknowledged: `fsync`, `full_page_writes` or `synchronous_commit` off, or `state.replication` not met.",
    )
    connect_timeout: Duration = Field(5.0, ge=2, le=60, description="Longest wait for a connection.")
    timeout: Duration = Field(
        5.0,
        ge=0.1,
        le=60,
        description="Longest statement; the server ends it then. A second later the connection counts as dead.",
    )


class State(Section):
    """Where the log lives."""

    backend: Literal["sqlite", "sled", "redb", "redis", "postgres", "cockroachdb"] = Field(
        "sqlite",
        description="The store: files of SQLite, a Redis ([state.redis](#stateredis)), or a PostgreSQL, and what speaks like it ([state.postgres](#statepostgres)); `cockroachdb` takes nothing but a CockroachDB. `sled` and `redb` exist for other languages only and mean `sqlite`, with a notice.",
    )
    path: str = Field(
        "./var", min_length=1, description="Data folder, relative to where `llm-im up` is typed. What is in it: [operate.md](operate.md#files)."
    )  # fmt: skip
    partitions: int = Field(
        2,
        ge=1,
        le=4096,
        description="Shards when the system first starts. A later value moves nothing: [llm-im store reshard](operate.md#more-or-fewer-shards) does.",
    )
    snapshot_every_frames: int = Field(
        20_000, ge=10, description="A snapshot begins after this many frames ..."
    )
    snapshot_every_bytes: int = Field(
        64 * 1024 * 1024, ge=1024, description="... or this many bytes of log ..."
    )
    snapshot_every: Duration = Field(
        300.0, description="... or this long after the last one, if anything changed."
    )
    consistency: Literal["strong", "eventual"] | None = Field(
        None,
        description="What must be so. `strong`: all that was acknowledged is read; refused with Sentinels and with a Redis Cluster, which may lose some when they fail over (for standbys of PostgreSQL say `replication` too). `eventual`: refused, nobody is answered before it is durable here.",
    )
    replication: Literal["synchronous", "multi-region"] | None = Field(
        None,
        description="What must be so of the server's copies, looked at with each connection. `synchronous`: PostgreSQL waits for a standby. `multi-region`: CockroachDB survives the loss of a region.",
    )
    connection_string: SecretStr | None = Field(
        None, description="Another name of state.postgres.url. A secret.", json_schema_extra=LATER
    )
    redis: Redis = Redis()
    postgres: Postgres = Postgres()


class Grouping(Section):
    """What makes one incident. The service is always part of the group."""

    group_by: list[str] = Field(
        ["alertname", "cluster", "namespace"],
        max_length=16,
        description="Labels that make a group beside the service, at most 16; those that an alert has. Which to take: [grouping.md](grouping.md).",
    )
    service_labels: list[str] = Field(
        ["service", "service_name", "app", "job"],
        description="Labels that may name the service; the first one present does.",
    )

    @field_validator("group_by", "service_labels")
    @classmethod
    def _label_names(cls, names: list[str], info: ValidationInfo) -> list[str]:
        for name in names:
            if name == "..." and info.field_name == "group_by":
                raise ValueError(
                    '"..." (by all labels) would make an incident of every single alert: '
                    "name the labels that tell one outage from another"
                )
            if _LABEL_NAME.fullmatch(name) is None:
                raise ValueError(f"expected names of labels, such as cluster or k8s.pod.name, not {name!r}")
        return names


class Lifecycle(Section):
    """When alerts end, and what becomes of an incident then."""

    resolve_timeout: Duration = Field(
        300.0,
        description="Ends an alert of `/api/v2/alerts` without an end that nobody sends again.",
        json_schema_extra=LIVE,
    )
    expires_after: MaybeDuration = Field(
        None,
        description="Ends an alert of `/v1` without an end; none: it fires until told.",
        json_schema_extra=LIVE,
    )
    expiry_grace: Duration = Field(
        300.0, description="Nothing expires for this long after we could not hear.", json_schema_extra=LIVE
    )
    reopen_window: Duration = Field(
        1800.0,
        description="A group that fires again so soon after its incident resolved reopens it.",
        json_schema_extra=LIVE,
    )
    close_after: Duration = Field(
        3600.0,
        description="A resolved incident closes after the longer of this and `reopen_window`.",
        json_schema_extra=LIVE,
    )
    retention: Duration = Field(
        90 * 86400.0,
        description="How long the archive keeps a closed incident; up to an hour later it is forgotten.",
        json_schema_extra=LIVE,
    )
    max_concurrent_incidents: int = Field(
        200_000,
        ge=1,
        description="Open incidents, an equal share for each shard; past it new groups join an overflow incident.",
        json_schema_extra=LIVE,
    )
    max_alert_bytes: int = Field(
        256 * 1024,
        ge=1024,
        le=1024 * 1024,
        description="Bytes of one alert, labels and annotations together; a larger one is refused with 400.",
    )
    max_shard_bytes: int = Field(
        2 * 1024**3,
        ge=1024 * 1024,
        description="Bytes of alerts and incidents that a shard keeps in memory, at about 900 a common series; past it "
        "new series are refused with 503. A million fit twice.",
        json_schema_extra=LIVE,
    )
    max_sender_share: float = Field(
        0.75,
        gt=0,
        le=1,
        description="How much of `max_shard_bytes` the alerts of one token may hold; past it its new series are refused "
        "with 429. Without tokens all senders are one.",
        json_schema_extra=LIVE,
    )


class Dedup(Section):
    """What counts as the same delivery."""

    dedup_window: Duration = Field(600.0, description="How long a sender's delivery id is remembered.")


class Rule(Section):
    """One classification rule. It applies when every one of its conditions holds; what it leaves out, others may give."""

    name: str = Field(min_length=1, description="Shown in `classified_by`.")
    labels: dict[str, str] = Field(
        {},
        description="Label name to a regular expression that must match all of its value; an absent label reads as empty.",
    )
    words: str | None = Field(
        None,
        description="A regular expression searched in alert name, title and description, in any case.",
    )
    source: str | None = Field(None, description="A regular expression that must match all of the source.")
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
        None, description="A word; the built-in ones are `critical`, `major`, `minor`, `none`."
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
    """How severity, type and impact are given."""

    pool: int = Field(1, ge=1, le=64, description="Classifier actors, `classifier-0` ...")
    rules: list[Rule] = Field(
        [],
        max_length=RULES_MAX,
        description="Your rules, asked in order before the built-in ones; see [a rule](#a-rule).",
        json_schema_extra=LIVE,
    )
    builtin_rules: bool = Field(
        True, description="Whether the built-in rules are asked after yours.", json_schema_extra=LIVE
    )


class Webhook(Section):
    """The first response: Alertmanager's webhook v4 body, sent by POST."""

    url: SecretStr | None = Field(
        None,
        description='Where notices are POSTed, `http://` or `https://`, sent as it is written; none, "none" or empty: nobody '
        "is told. A secret.",
    )
    timeout: Duration = Field(10.0, le=60, description="One try, from connecting to the end of the answer.")
    max_alerts: int = Field(
        100,
        ge=1,
        le=10_000,
        description="Alerts shown in one body; `truncatedAlerts` counts the rest.",
        json_schema_extra=LIVE,
    )
    external_url: str = Field(
        "", description="What links in a notice begin with; empty: no links.", json_schema_extra=LIVE
    )

    @field_validator("url", mode="before")
    @classmethod
    def _may_be_none(cls, value: object) -> object:
        # A variable that is empty counts as unset; "none" says that nobody is told, whatever the file says.
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
    """How long to wait before the first notice, so that a group is told of once."""

    P0: Duration = Field(0.0, description="Before the first notice of a P0.", json_schema_extra=LIVE)
    P1: Duration = Field(
        0.0, description="The same for P1, and for an incident nobody judged.", json_schema_extra=LIVE
    )
    P2: Duration = Field(30.0, description="The same for P2.", json_schema_extra=LIVE)
    P3: Duration = Field(120.0, description="The same for P3.", json_schema_extra=LIVE)
    P4: Duration = Field(300.0, description="The same for P4.", json_schema_extra=LIVE)


class Notify(Section):
    """How notices are sent, and tried again."""

    enabled: bool = Field(
        True,
        description="`false`: nobody is told, whatever webhook is set; `llm-im up --no-notify` says so for one start, as for a "
        "[restore drill](operate.md#test-a-restore).",
    )
    webhook: Webhook = Webhook()
    wait: Wait = Wait()
    interval: Duration = Field(
        60.0,
        description="Least time between two notices of one incident, but for a rise in severity. An end waits for it; when the "
        'alerts fire again meanwhile, nobody is told of either. "0s": every end and every reopening is told at once.',
        json_schema_extra=LIVE,
    )
    retry_first: Duration = Field(
        1.0, description="Wait before the first retry; doubles each time.", json_schema_extra=LIVE
    )
    retry_max: Duration = Field(300.0, description="Longest wait between retries.", json_schema_extra=LIVE)
    give_up_after: Duration = Field(
        86400.0,
        description="A notice nobody takes for this long is given up, and the timeline says so.",
        json_schema_extra=LIVE,
    )
    responders: int = Field(1, ge=1, le=16, description="Responder actors, `responder-0` ...")
    concurrency: int = Field(
        32, ge=1, le=1000, description="Calls under way at once from each responder to each receiver."
    )

    @property
    def why_off(self) -> str:
        """Why nobody is told of incidents, "" when somebody is."""
        if not self.enabled:
            return "notify.enabled is false (up --no-notify)"
        return "" if self.webhook.url is not None else "no notify.webhook.url is set"


class PublishRedis(Section):
    """A Redis in which programs outside find the incidents of now and hear of changes: [the feed](redis-feed.md). It is no
    store, and may be the Redis that holds the state or another."""

    url: SecretStr | None = Field(
        None,
        description="As `state.redis.url`; none: nothing is published, and nothing runs for it. A secret.",
    )
    prefix: str = Field(
        "llm-im",
        pattern=r"^[A-Za-z0-9_.:-]{1,64}$",
        description="What the feed's keys and channel begin with, before `:{feed}:`; another for each system that shares a Redis.",
    )
    keep_closed: Duration = Field(
        3600.0,
        ge=1,
        description="How long a closed incident can still be read there; of more than 10,000 the newest.",
    )
    connect_timeout: Duration = Field(2.0, gt=0, le=60, description="Longest wait for a connection.")
    timeout: Duration = Field(
        5.0, gt=0, le=60, description="Longest wait for an answer; then the connection counts as dead."
    )


class Publish(Section):
    """What is told to programs that do not ask our API."""

    redis: PublishRedis = PublishRedis()


class AcknowledgeTargets(Section):
    """How soon somebody should have acknowledged an incident, from its opening; "none": no target."""

    P0: MaybeDuration = Field(300.0, description="For a P0.", json_schema_extra=LIVE)
    P1: MaybeDuration = Field(900.0, description="For a P1.", json_schema_extra=LIVE)
    P2: MaybeDuration = Field(4 * 3600.0, description="For a P2.", json_schema_extra=LIVE)
    P3: MaybeDuration = Field(86400.0, description="For a P3.", json_schema_extra=LIVE)
    P4: MaybeDuration = Field(None, description="For a P4.", json_schema_extra=LIVE)


class ResolveTargets(Section):
    """How soon an incident should be resolved, from its opening; "none": no target."""

    P0: MaybeDuration = Field(3600.0, description="For a P0.", json_schema_extra=LIVE)
    P1: MaybeDuration = Field(3600.0, description="For a P1.", json_schema_extra=LIVE)
    P2: MaybeDuration = Field(86400.0, description="For a P2.", json_schema_extra=LIVE)
    P3: MaybeDuration = Field(7 * 86400.0, description="For a P3.", json_schema_extra=LIVE)
    P4: MaybeDuration = Field(None, description="For a P4.", json_schema_extra=LIVE)


class Targets(Section):
    """Response targets by severity."""

    acknowledge: AcknowledgeTargets = AcknowledgeTargets()
    resolve: ResolveTargets = ResolveTargets()


class Auth(Section):
    """Who gets in: API tokens (`llm-im tokens`). [security.md](security.md) has the whole."""

    required: bool | None = Field(
        None,
        description="`true`: nobody gets in without an API token, also before there is one. `false`: everybody, and only on "
        "loopback. None: everybody until the first token is made, then nobody without one.",
    )
    open_metrics: bool = Field(False, description="`GET /metrics` needs no token, also when all else does.")


class Logging(Section):
    """What every process writes to stderr."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="The least important line that is written.", json_schema_extra=LIVE
    )
    format: Literal["json", "console"] = Field(
        "json", description="`json`: an object a line; `console`: for people."
    )


class DeadLetterSettings(Section):
    """What is kept of what could not be read."""

    max_bytes: int = Field(
        256 * 1024 * 1024, ge=1024, description="Bytes of dead letters kept; past it the oldest go."
    )
    max_age: Duration = Field(7 * 86400.0, description="How long a dead letter is kept.")
    max_payload_bytes: int = Field(
        64 * 1024, ge=64, description="Bytes; a longer payload is kept cut. The store itself cuts at 65536."
    )


class Telemetry(Section):
    """Where [traces](operate.md#tracing) go, by OTLP over HTTP. Without `endpoint` nothing is traced."""

    endpoint: str | None = Field(
        None,
        description="Base URL of an OTLP/HTTP receiver, `http://127.0.0.1:4318`; `/v1/traces` is added unless it is there. "
        "No user and no query: it is told in logs.",
    )
    headers: dict[str, SecretStr] = Field(
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
    def _are_headers(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, secret in value.items():
            if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
                raise ValueError(f"expected names of HTTP headers, not {name!r}")
            if not re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", secret.get_secret_value()):
                raise ValueError(f"the value of {name!r}: expected printable ASCII")
        return value


class DisasterRecovery(Section):
    """[Backups](operate.md#backups), made beside the running system."""

    backup_target: str | None = Field(
        None,
        description="Where backups go: a folder, or a URL such as `s3://bucket/prefix`. No user, password or query in it: who "
        "may come in there says the environment.",
    )
    backup_interval: MaybeDuration = Field(
        None, description="One is made this often, 1m or more; needs `backup_target`. None: only by `llm-im backup create`."
    )  # fmt: skip
    backup_retention: MaybeDuration = Field(
        None, description="Older ones are removed behind each new one, never the newest whole one. None: all are kept."
    )  # fmt: skip
    backup_key_file: str | None = Field(
        None,
        description="File with the key that backups are signed with, 64 hexadecimal digits. None: `backup.key` in the data "
        "folder, which is made by itself. Keep a copy elsewhere: where it is not at hand, a restore wants `--accept-unsigned`.",
    )
    cross_region_replication: bool | None = Field(None, json_schema_extra=LATER)

    @field_validator("backup_target")
    @classmethod
    def _holds_no_secret(cls, value: str | None) -> str | None:
        # It is told in logs and kept in the settings that are shown.
        if value is not None and not re.fullmatch(r"[^\s?@]+://[^\s?@]*|(?!.*://)[^\x00]+", value):
            raise ValueError(
                "expected a folder or a URL such as s3://bucket/prefix, without user, password or query:"
                " who may come in there says the environment"
            )
        return value

    @field_validator("backup_interval")
    @classmethod
    def _leaves_time(cls, value: float | None) -> float | None:
        if value is not None and value < BACKUP_INTERVAL_MIN_S:
            raise ValueError(f'expected "1m" or more, or "none", not "{duration_text(value)}"')
        return value


class Settings(Section):
    """All of it. Every default works on one machine with no file at all."""

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
    """One setting: its place (`server.http_port`), the section that has it, and what the model says of it."""

    name: str
    section: type[Section]
    field: FieldInfo

    @property
    def path(self) -> tuple[str, ...]:
        return tuple(self.name.split("."))

    @property
    def is_live(self) -> bool:
        """Whether it changes without a restart."""
        return _is_marked(self.field, LIVE_MARK)

    @property
    def is_later(self) -> bool:
        """Whether nothing answers it yet."""
        return issubclass(self.section, later.LaterSection) or _is_marked(self.field, LATER_MARK)

    @property
    def kinds(self) -> set[object]:
        """The types it may have: {float, NoneType} of a duration that may be none."""
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
    """What is said of the types within an annotation."""
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


#: Every setting by its name, in the order of the sections above.
KEYS: dict[str, Key] = {key.name: key for key in _keys(Settings)}
