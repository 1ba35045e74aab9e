"""Wiring, in one straight line: settings -> ports -> actors -> gateway. Which adapters hold the state
is chosen in services/stores/choice.py.

The factories at the bottom run inside actor processes. They import what they need when they run: a shard that was
killed must answer again within a second or two, and imports are most of that.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from actors.runtime.host import Actor, Host
from models.errors import Malformed
from models.incidents.incident import Severity
from models.partition.sharding import partition_name
from models.shard.settings import ShardSettings, decode_shard_settings, encode_shard_settings
from services.stores.choice import feed_of, open_stores, place_of

if TYPE_CHECKING:
    from actors.classifier import Judge
    from models.control.events import SettingsChanged
    from models.ports import Archive, DeadLetters, EventLog, Tracer
    from models.settings.config import Settings

CONTROL = "control"

_encoder = msgspec.msgpack.Encoder()


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
PUBLISHER_ACTOR = "publisher-0"
BACKUP_ACTOR = "backup-0"
#: A backup takes what time is left over: alerts come first.
BACKUP_NICE = 15


def plan(settings: Settings, start: str = "") -> list[ActorPlan]:
    """All actors, in the order of their start: who is asked comes before who asks. `start` is the same for all that is
    started together: what a person changes while it runs holds for that start."""
    from services.settings.load import masked_json

    classifiers = [f"classifier-{index}" for index in range(settings.classification.pool)]
    notify = settings.notify
    url = notify.webhook.url
    responders = [] if notify.why_off else [f"responder-{index}" for index in range(notify.responders)]
    common: dict[str, object] = {
        "place": place_of(settings),
        "level": settings.logging.level,
        "format": settings.logging.format,
        "start": start,
        "telemetry": _telemetry(settings),
    }
    actors = [
        ActorPlan(
            CONTROL_ACTOR,
            "control_actor",
            _encoder.encode(
                {**common, "partitions": settings.state.partitions, "settings": masked_json(settings)}
            ),
        )
    ]
    config: dict[str, object]
    recovery = settings.disaster_recovery
    if recovery.backup_interval is not None:
        from services.upkeep.backup.signing import key_of

        config = {
            **common,
            "target": backup_target(settings),
            "key": key_of(settings),
            "interval_s": recovery.backup_interval,
            "retention_s": recovery.backup_retention,
        }
        actors.append(ActorPlan(BACKUP_ACTOR, "backup_actor", _encoder.encode(config)))
    for name in classifiers:
        config = {**common, "rules": classifier_rules(settings)}
        actors.append(ActorPlan(name, "classifier_actor", _encoder.encode(config)))
    for name in responders:
        config = {
            **common,
            "url": "" if url is None else url.get_secret_value(),
            "timeout_s": notify.webhook.timeout,
            "concurrency": notify.concurrency,
        }
        actors.append(ActorPlan(name, "responder_actor", _encoder.encode(config)))
    shards = [shard_actor_name(index) for index in range(settings.state.partitions)]
    for index in range(settings.state.partitions):
        config = {
            **common,
            "settings": encode_shard_settings(shard_settings(settings)),
            "options": {
                "partition": partition_name(index),
                "classifiers": classifiers,
                "responders": responders,
                "shards": shards,
                "snapshot_every_frames": settings.state.snapshot_every_frames,
                "snapshot_every_bytes": settings.state.snapshot_every_bytes,
                "snapshot_every_s": settings.state.snapshot_every,
                "dedup_window_s": settings.dedup.dedup_window,
            },
        }
        actors.append(ActorPlan(shard_actor_name(index), "shard_actor", _encoder.encode(config)))
    if (feed := feed_of(settings)) is not None:
        config = {
            **common,
            "feed": asdict(feed),
            "keep_closed_s": settings.publish.redis.keep_closed,
            "shards": shards,
        }
        actors.append(ActorPlan(PUBLISHER_ACTOR, "publisher_actor", _encoder.encode(config)))
    return actors


def shard_settings(settings: Settings) -> ShardSettings:
    """What a shard decides by."""
    lifecycle, notify = settings.lifecycle, settings.notify
    wait, acknowledge, resolve = notify.wait, settings.targets.acknowledge, settings.targets.resolve
    return ShardSettings(
        group_by=tuple(settings.grouping.group_by),
        service_labels=tuple(settings.grouping.service_labels),
        reopen_window_s=lifecycle.reopen_window,
        close_after_s=lifecycle.close_after,
        expiry_grace_s=lifecycle.expiry_grace,
        max_open=max(1, lifecycle.max_concurrent_incidents // settings.state.partitions),
        max_bytes=lifecycle.max_shard_bytes,
        sender_bytes=int(lifecycle.max_shard_bytes * lifecycle.max_sender_share),
        notify=not notify.why_off,
        wait_s=(wait.P0, wait.P1, wait.P2, wait.P3, wait.P4),
        interval_s=notify.interval,
        retry_first_s=notify.retry_first,
        retry_max_s=notify.retry_max,
        give_up_after_s=notify.give_up_after,
        webhook_max_alerts=notify.webhook.max_alerts,
        external_url=notify.webhook.external_url,
        acknowledge_within_s=tuple(getattr(acknowledge, each.name) or 0.0 for each in Severity),
        resolve_within_s=tuple(getattr(resolve, each.name) or 0.0 for each in Severity),
        retention_s=lifecycle.retention,
        given_ends_s=tuple(each for each in (lifecycle.resolve_timeout, lifecycle.expires_after) if each),
    )


def backup_target(settings: Settings, given: str | None = None) -> str:
    """Where backups go, a folder as an absolute one: actors have a working directory of their own. Raises Malformed."""
    target = given or settings.disaster_recovery.backup_target
    if target is None:
        raise Malformed(
            "disaster_recovery.backup_target: expected a folder or a URL such as s3://bucket/prefix"
        )
    return target if "://" in target else os.path.abspath(os.path.expanduser(target))


def classifier_rules(settings: Settings) -> bytes:
    """What a classifier judges by: the configured rules, and whether the built-in ones come after them."""
    found = settings.classification
    return _encoder.encode(([rule.model_dump() for rule in found.rules], found.builtin_rules))


# -- stores --------------------------------------------------------------------------------------------------


def open_log(settings: Settings, partition: str) -> EventLog:
    """A partition's log, for reading beside its writer."""
    return open_stores(place_of(settings)).log(partition)


def open_archives(settings: Settings) -> list[Archive]:
    """Every partition's archive, for reading."""
    stores = open_stores(place_of(settings))
    return [stores.archive(name) for name in partition_names(settings)[1:]]


def open_dead_letters(settings: Settings) -> DeadLetters:
    """The one store of dead letters, written by every gateway."""
    from actors.runtime.clock import SystemClock

    bounds = settings.dead_letters
    return open_stores(place_of(settings)).dead_letters(
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
    from actors.runtime.untraced import NoTracer

    if telemetry is None:
        return NoTracer()
    from services.machine.tracing import OtlpTracer

    return OtlpTracer(instance, **telemetry)


# -- factories: run inside actor processes --------------------------------------------------------------------


def control_actor(config: bytes, host: Host) -> Actor:
    """actors.control.ControlActor on the chosen store."""
    from actors.begun import Kept
    from actors.control import ControlActor
    from actors.control_tail import SettingsWatch
    from actors.runtime.clock import SystemClock

    given = msgspec.msgpack.decode(config)
    _log_as(given)
    stores = open_stores(given["place"])
    return ControlActor(
        host,
        stores.log(CONTROL),
        SystemClock(),
        given["partitions"],
        SettingsWatch(given["start"], _take_level),
        given["settings"],
        Kept(stores.log, stores.archive),
    )


def shard_actor(config: bytes, host: Host) -> Actor:
    """actors.shard.IncidentShard on the chosen stores."""
    from actors.control_tail import ControlTail, SettingsWatch
    from actors.delivery import DeliveryWindow
    from actors.runtime.clock import SystemClock
    from actors.shard import IncidentShard, ShardOptions

    given = msgspec.msgpack.decode(config)
    _log_as(given)
    options = msgspec.convert(given["options"], ShardOptions)
    stores, partition = open_stores(given["place"]), options.partition

    def take(changed: SettingsChanged) -> None:
        _take_level(changed)
        shard.take_settings(decode_shard_settings(changed.shard))

    shard = IncidentShard(
        host,
        options,
        decode_shard_settings(given["settings"]),
        stores.log(partition),
        stores.archive(partition),
        DeliveryWindow(stores.delivery_ids(partition), options.dedup_window_s),
        SystemClock(),
        ControlTail(stores.log(CONTROL), SettingsWatch(given["start"], take)),
        _tracer(given["telemetry"], host.name),
    )
    return shard


def classifier_actor(config: bytes, host: Host) -> Actor:
    """actors.classifier.ClassifierActor on rules."""
    from actors.classifier import ClassifierActor
    from actors.control_tail import ControlTail, SettingsWatch

    given = msgspec.msgpack.decode(config)
    _log_as(given)

    def take(changed: SettingsChanged) -> None:
        _take_level(changed)
        actor.judge = judge(changed.classifier)

    tail = ControlTail(open_stores(given["place"]).log(CONTROL), SettingsWatch(given["start"], take))
    tracer = _tracer(given["telemetry"], host.name)
    actor = ClassifierActor(host, judge(given["rules"]), tracer, control=tail)
    return actor


def judge(rules: bytes) -> Judge:
    """What judges by classifier_rules()."""
    from models.classification.rules import Classifier, compile_rule

    own, builtin = msgspec.msgpack.decode(rules)
    return Classifier([compile_rule(**rule) for rule in own], builtin=builtin)


def responder_actor(config: bytes, host: Host) -> Actor:
    """actors.responder.ResponderActor with the webhook."""
    from actors.control_tail import ControlTail, SettingsWatch
    from actors.responder import ResponderActor
    from services.actions.webhook import WebhookAction

    given = msgspec.msgpack.decode(config)
    _log_as(given)
    action = WebhookAction(given["url"], timeout_s=given["timeout_s"])
    tail = ControlTail(open_stores(given["place"]).log(CONTROL), SettingsWatch(given["start"], _take_level))
    return ResponderActor(
        host,
        {"webhook": action},
        control=tail,
        concurrency=given["concurrency"],
        tracer=_tracer(given["telemetry"], host.name),
    )


def backup_actor(config: bytes, host: Host) -> Actor:
    """services.upkeep.backup.schedule.BackupRunner on the chosen stores, at low priority."""

    from actors.runtime.clock import SystemClock
    from services.upkeep.backup.schedule import BackupRunner
    from services.upkeep.backup.signing import Signing
    from services.upkeep.backup.target import Target

    given = msgspec.msgpack.decode(config)
    _log_as(given)
    # On Linux of this thread, the event loop's, and of those that it starts: all that do the work.
    os.nice(BACKUP_NICE)
    return BackupRunner(
        host,
        open_stores(given["place"]),
        lambda: Target(given["target"], Signing(given["key"])),
        SystemClock(),
        backend=str(given["place"]["backend"]),
        interval_s=given["interval_s"],
        retention_s=given["retention_s"],
        control=CONTROL_ACTOR,
    )


def publisher_actor(config: bytes, host: Host) -> Actor:
    """services.feed.publish.Publisher over the chosen stores and the feed's Redis."""
    from actors.control_tail import ControlTail, SettingsWatch
    from actors.runtime.clock import SystemClock
    from services.feed.publish import Publisher
    from services.stores.redis.feed import RedisFeed
    from services.stores.redis.options import RedisOptions

    given = msgspec.msgpack.decode(config)
    _log_as(given)
    stores, clock = open_stores(given["place"]), SystemClock()
    partitions = [partition_name(index) for index in range(len(given["shards"]))]
    return Publisher(
        host,
        dict(zip(partitions, given["shards"], strict=True)),
        stores.log,
        stores.archive,
        RedisFeed(msgspec.convert(given["feed"], RedisOptions), given["keep_closed_s"], clock),
        ControlTail(stores.log(CONTROL), SettingsWatch(given["start"], _take_level)),
        clock,
    )


def _log_as(given: Mapping[str, str]) -> None:
    from services.machine.logs import configure

    configure(given["level"], given["format"])


def _take_level(changed: SettingsChanged) -> None:
    from services.machine.logs import set_level

    set_level(changed.level)
