"""Wiring, in one straight line: settings -> ports -> actors -> gateway. The only file that knows which adapter serves.

The factories at the bottom run inside actor processes. They import what they need when they run: a shard that was
killed must answer again within a second or two, and imports are most of that.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from actors.host import Actor, Host
from models.errors import Malformed
from models.shard import ShardSettings
from models.sharding import partition_name

if TYPE_CHECKING:
    from pydantic import BaseModel

    from models.config import Settings
    from models.ports import Archive, DeadLetters, EventLog, Tracer

CONTROL = "control"
CONFIG_FILE = "llm-im.toml"
ENVIRONMENT_PREFIX = "LLM_IM_"
#: LLM_IM_* names that are not settings: the command line's and the launcher's own.
NOT_SETTINGS = frozenset(
    {
        "LLM_IM_URL",
        "LLM_IM_CONTEXT",
        "LLM_IM_TOKEN",
        "LLM_IM_TOKEN_FILE",
        "LLM_IM_INSTANCE",
        "LLM_IM_PRIVATE_DIR",
    }
)

_encoder = msgspec.msgpack.Encoder()


# -- settings ------------------------------------------------------------------------------------------------


def load_settings(path: Path | None = None, overrides: Mapping[str, object] | None = None) -> Settings:
    """The settings in force: defaults, then the file, then LLM_IM_SECTION__KEY, then `overrides`.

    Without `path`, ./llm-im.toml when there is one. Raises Malformed naming file or variable, key, and what was
    expected.
    """
    from pydantic import ValidationError

    from models.config import Settings

    values: dict[str, object] = {}
    origin = "settings"
    if path is None and Path(CONFIG_FILE).is_file():
        path = Path(CONFIG_FILE)
    if path is not None:
        origin = str(path)
        try:
            values = tomllib.loads(path.read_text("utf-8"))
        except OSError as error:
            raise Malformed(f"{path}: can't be read: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise Malformed(f"{path}: not TOML: {error}") from None
    sources: dict[str, str] = {}
    for name, value in sorted(os.environ.items()):
        if name.startswith(ENVIRONMENT_PREFIX) and name not in NOT_SETTINGS:
            keys = _spelled(Settings, name[len(ENVIRONMENT_PREFIX) :].lower().split("__"))
            _put(values, keys, _from_environment(name, value), name)
            sources[".".join(keys)] = name
    for key, override in (overrides or {}).items():
        _put(values, key.split("."), override, key)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        problems = []
        for found in error.errors():
            key = ".".join(str(part) for part in found["loc"])
            problems.append(f"{sources.get(key, origin)}: {key}: {found['msg']}")
        raise Malformed("; ".join(problems)) from None


def _spelled(section: type[BaseModel], keys: list[str]) -> list[str]:
    """The keys as the settings spell them: an environment name has no case (NOTIFY__WAIT__P0)."""
    found: list[str] = []
    for key in keys:
        names = {name.lower(): name for name in section.model_fields}
        found.append(names.get(key, key))
        inner = section.model_fields[found[-1]].annotation if key in names else None
        if not isinstance(inner, type) or not issubclass(inner, _base_model()):
            return [*found, *keys[len(found) :]]
        section = inner
    return found


def _base_model() -> type[BaseModel]:
    from pydantic import BaseModel

    return BaseModel


def _from_environment(name: str, value: str) -> object:
    """A list or table is written as JSON: LLM_IM_GROUPING__GROUP_BY='["alertname"]'."""
    if value[:1] not in ("[", "{"):
        return value
    try:
        found: object = msgspec.json.decode(value)
    except msgspec.DecodeError as error:
        raise Malformed(f"{name}: expected JSON: {error}") from None
    return found


def _put(values: dict[str, object], keys: list[str], value: object, name: str) -> None:
    for key in keys[:-1]:
        inner = values.setdefault(key, {})
        if not isinstance(inner, dict):
            raise Malformed(f"{name}: {key} is a value, not a section")
        values = inner
    values[keys[-1]] = value


# -- names ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ActorPlan:
    """One actor to start: its name, its factory in this module, and what the factory is given."""

    name: str
    factory: str
    config: bytes


def partition_names(settings: Settings) -> list[str]:
    """Every partition, control first."""
    return [CONTROL, *(partition_name(index) for index in range(settings.state.partitions))]


def shard_actor_name(index: int) -> str:
    """Partition and place: the place is for a standby that follows the same rule."""
    return f"shard-{index:04d}-a"


CONTROL_ACTOR = "control-a"


def plan(settings: Settings) -> list[ActorPlan]:
    """All actors, in the order of their start: who is asked comes before who asks."""
    rules = [rule.model_dump() for rule in settings.classification.rules]
    classifiers = [f"classifier-{index}" for index in range(settings.classification.pool)]
    notify = settings.notify
    url = notify.webhook.url
    responders = [f"responder-{index}" for index in range(notify.responders)] if url is not None else []
    common: dict[str, object] = {
        "data": data_dir(settings),
        "level": settings.logging.level,
        "format": settings.logging.format,
        "telemetry": _telemetry(settings),
    }
    actors = [
        ActorPlan(
            CONTROL_ACTOR,
            "control_actor",
            _encoder.encode({**common, "partitions": settings.state.partitions}),
        )
    ]
    for name in classifiers:
        config = {**common, "rules": rules, "builtin": settings.classification.builtin_rules}
        actors.append(ActorPlan(name, "classifier_actor", _encoder.encode(config)))
    for name in responders:
        config = {
            **common,
            "url": "" if url is None else url.get_secret_value(),
            "timeout_s": notify.webhook.timeout,
            "concurrency": notify.concurrency,
        }
        actors.append(ActorPlan(name, "responder_actor", _encoder.encode(config)))
    for index in range(settings.state.partitions):
        config = {
            **common,
            "settings": _encoder.encode(shard_settings(settings)),
            "options": {
                "partition": partition_name(index),
                "classifiers": classifiers,
                "responders": responders,
                "shards": [shard_actor_name(other) for other in range(settings.state.partitions)],
                "snapshot_every_frames": settings.state.snapshot_every_frames,
                "snapshot_every_bytes": settings.state.snapshot_every_bytes,
                "snapshot_every_s": settings.state.snapshot_every,
                "dedup_window_s": settings.dedup.dedup_window,
                "retention_s": settings.lifecycle.retention,
            },
        }
        actors.append(ActorPlan(shard_actor_name(index), "shard_actor", _encoder.encode(config)))
    return actors


def shard_settings(settings: Settings) -> ShardSettings:
    """What a shard decides by."""
    lifecycle, notify = settings.lifecycle, settings.notify
    wait = notify.wait
    return ShardSettings(
        group_by=tuple(settings.grouping.group_by),
        service_labels=tuple(settings.grouping.service_labels),
        reopen_window_s=lifecycle.reopen_window,
        close_after_s=lifecycle.close_after,
        expiry_grace_s=lifecycle.expiry_grace,
        max_open=max(1, lifecycle.max_concurrent_incidents // settings.state.partitions),
        notify=notify.webhook.url is not None,
        wait_s=(wait.P0, wait.P1, wait.P2, wait.P3, wait.P4),
        retry_first_s=notify.retry_first,
        retry_max_s=notify.retry_max,
        give_up_after_s=notify.give_up_after,
        webhook_max_alerts=notify.webhook.max_alerts,
        external_url=notify.webhook.external_url,
    )


# -- stores --------------------------------------------------------------------------------------------------


def data_dir(settings: Settings) -> str:
    """Where the stores' files are, absolute: actors have a working directory of their own."""
    return str(Path(settings.state.path).absolute() / "store")


def open_log(settings: Settings, partition: str) -> EventLog:
    """A partition's log, for reading beside its writer."""
    from services.stores.sqlite_log import SqliteEventLog

    return SqliteEventLog(data_dir(settings), partition)


def open_archives(settings: Settings) -> list[Archive]:
    """Every partition's archive, for reading."""
    from services.stores.sqlite_archive import SqliteArchive

    return [SqliteArchive(data_dir(settings), name) for name in partition_names(settings)[1:]]


def open_dead_letters(settings: Settings) -> DeadLetters:
    """The one store of dead letters, written by every gateway."""
    from actors.clock import SystemClock
    from services.stores.sqlite_dead_letters import SqliteDeadLetters

    bounds = settings.dead_letters
    return SqliteDeadLetters(
        data_dir(settings),
        max_bytes=bounds.max_bytes,
        max_age_s=bounds.max_age,
        clock=SystemClock(),
        max_payload_bytes=bounds.max_payload_bytes,
    )


# -- traces --------------------------------------------------------------------------------------------------


def open_tracer(settings: Settings, instance: str) -> Tracer:
    """Where a gateway's spans go."""
    return _tracer(_telemetry(settings), instance)


def _telemetry(settings: Settings) -> dict[str, object] | None:
    """What a process that traces must know; None when none does."""
    telemetry = settings.telemetry
    if telemetry.endpoint is None:
        return None
    return {
        "endpoint": telemetry.endpoint,
        "headers": {name: value.get_secret_value() for name, value in telemetry.headers.items()},
        "sample_ratio": telemetry.sample_ratio,
        "service_name": telemetry.service_name,
    }


def _tracer(telemetry: Mapping[str, Any] | None, instance: str) -> Tracer:
    from actors.untraced import NoTracer

    if telemetry is None:
        return NoTracer()
    from services.tracing import OtlpTracer

    return OtlpTracer(instance, **telemetry)


# -- factories: run inside actor processes --------------------------------------------------------------------


def control_actor(config: bytes, host: Host) -> Actor:
    """actors.control.ControlActor on SQLite."""
    from actors.clock import SystemClock
    from actors.control import ControlActor
    from services.stores.sqlite_log import SqliteEventLog

    given = msgspec.msgpack.decode(config)
    _log_as(given)
    return ControlActor(host, SqliteEventLog(given["data"], CONTROL), SystemClock(), given["partitions"])


def shard_actor(config: bytes, host: Host) -> Actor:
    """actors.shard.IncidentShard on SQLite."""
    from actors.clock import SystemClock
    from actors.control_tail import ControlTail
    from actors.delivery import DeliveryWindow
    from actors.shard import IncidentShard, ShardOptions
    from services.stores.sqlite_archive import SqliteArchive
    from services.stores.sqlite_delivery import SqliteDeliveryIds
    from services.stores.sqlite_log import SqliteEventLog

    given = msgspec.msgpack.decode(config)
    _log_as(given)
    options = msgspec.convert(given["options"], ShardOptions)
    data, partition = given["data"], options.partition
    return IncidentShard(
        host,
        options,
        msgspec.msgpack.decode(given["settings"], type=ShardSettings),
        SqliteEventLog(data, partition),
        SqliteArchive(data, partition),
        DeliveryWindow(SqliteDeliveryIds(data, partition), options.dedup_window_s),
        SystemClock(),
        ControlTail(SqliteEventLog(data, CONTROL)),
        _tracer(given["telemetry"], host.name),
    )


def classifier_actor(config: bytes, host: Host) -> Actor:
    """actors.classifier.ClassifierActor on rules."""
    from actors.classifier import ClassifierActor
    from models.rules import Classifier, compile_rule

    given = msgspec.msgpack.decode(config)
    _log_as(given)
    rules = [compile_rule(**rule) for rule in given["rules"]]
    judge = Classifier(rules, builtin=given["builtin"])
    return ClassifierActor(host, judge, _tracer(given["telemetry"], host.name))


def responder_actor(config: bytes, host: Host) -> Actor:
    """actors.responder.ResponderActor with the webhook."""
    from actors.responder import ResponderActor
    from services.actions.webhook import WebhookAction

    given = msgspec.msgpack.decode(config)
    _log_as(given)
    action = WebhookAction(given["url"], timeout_s=given["timeout_s"])
    tracer = _tracer(given["telemetry"], host.name)
    return ResponderActor(host, {"webhook": action}, concurrency=given["concurrency"], tracer=tracer)


def _log_as(given: Mapping[str, str]) -> None:
    from services.logs import configure

    configure(given["level"], given["format"])
