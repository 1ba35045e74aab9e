"""Settings become ports and actors. Which actors there are is the table in actors.py; which adapters hold the state is
chosen in services/stores/choice.py.

The factories at the bottom run inside actor processes. They import what they need when they run: a shard that was
killed must answer again within a second or two, and imports are most of that.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import msgspec

from actors.runtime.host import Actor, Hired, Host
from models.control.begun import Begun
from models.control.changed_settings import ChangedSettings
from models.control.control import CONTROL
from models.control.heartbeating import Heartbeats
from models.control.modelling import ModelVersions
from models.control.people import People, Policies
from models.control.shelf import Shelf
from models.control.silencing import Silences
from models.control.slots import Slots
from models.errors import Malformed
from models.partition.sharding import partition_name
from models.settings import processes
from models.shard.settings import ShardSettings
from services.stores.choice import open_stores, place_of

if TYPE_CHECKING:
    from actors.classifier import ClassifierActor
    from actors.control_tail import ControlTail, SettingsWatch
    from actors.targets import Targets
    from models.classification.rules import Classifier
    from models.control.events import SettingsChanged
    from models.control.section import Section
    from models.ports import Archive, DeadLetters, EventLog, Peers, Tracer
    from models.settings.all import Settings
    from models.topology.situations import Rules
    from services.actions.table import Actions
    from services.learning.learner import TenantLearner
    from services.playbooks.worker import PlaybookWorker


# -- names ---------------------------------------------------------------------------------------------------


def shard_names(settings: Settings) -> list[str]:
    """Every shard's partition."""
    return [partition_name(index) for index in range(settings.state.partitions)]


def shard_actor_name(index: int) -> str:
    """Partition and place: the place is for a standby that follows the same rule."""
    return f"shard-{index:04d}-a"


CONTROL_ACTOR = "control-a"
PUBLISHER_ACTOR = "publisher-0"
ANNOUNCER_ACTOR = "announcer-0"
CORRELATOR_ACTOR = "correlator-0"
BACKUP_ACTOR = "backup-0"
#: Hired by the control partition's writer.
TRAINER_ACTOR = "trainer-0"
#: A shard answers summaries in a few milliseconds, and may have a group before them.
FOLLOWER_TIMEOUT_S = 5.0
#: A backup takes what time is left over: alerts come first.
BACKUP_NICE = 15
#: So does training.
TRAINER_NICE = 10
#: Sections of the control partition that a shard goes by; who may come in is not its to ask.
SHARD_FOLLOWS = (Slots, Begun, ChangedSettings, Silences, Shelf, Heartbeats, Policies)
#: The same of a responder: who is on call, and how they are reached.
RESPONDER_FOLLOWS = (ChangedSettings, Slots, People)


def shard_settings(settings: Settings) -> ShardSettings:
    """What a shard decides by."""
    return msgspec.convert(settings.given_to(processes.SHARD), ShardSettings)


def backup_target(settings: Settings, given: str | None = None) -> str:
    """Where backups go, a folder as an absolute one: actors have a working directory of their own. Raises Malformed."""
    target = given or settings.disaster_recovery.backup_target
    if target is None:
        raise Malformed(
            "disaster_recovery.backup_target: expected a folder or a URL such as s3://bucket/prefix"
        )
    return target if "://" in target else os.path.abspath(os.path.expanduser(target))


# -- stores --------------------------------------------------------------------------------------------------


def open_log(settings: Settings, partition: str) -> EventLog:
    """A partition's log, for reading beside its writer."""
    return open_stores(place_of(settings)).log(partition)


def open_archives(settings: Settings) -> list[Archive]:
    """Every shard's archive, for reading."""
    stores = open_stores(place_of(settings))
    return [stores.archive(name) for name in shard_names(settings)]


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
    from models.settings.secrets import revealed

    return _tracer(cast(Mapping[str, Any] | None, revealed(settings.telemetry.exporter())), instance)


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
    from actors.runtime.clock import SystemClock

    given = msgspec.msgpack.decode(config)
    _log_as(given)
    stores = open_stores(given["place"])
    trainer = msgspec.msgpack.encode({"place": given["place"], "start": given["start"], **given["trainer"]})
    return ControlActor(
        host,
        stores.log(CONTROL),
        SystemClock(),
        given["partitions"],
        _watch(given, processes.CONTROL),
        given["settings"],
        Kept(stores.log, stores.archive),
        trainer=Hired(TRAINER_ACTOR, f"{__name__}:trainer_actor", trainer, given["trainer_cpus"]),
        schedule=given["learning_schedule"],
    )


def shard_actor(config: bytes, host: Host) -> Actor:
    """actors.shard.IncidentShard on the chosen stores."""
    from actors.delivery import DeliveryWindow
    from actors.runtime.clock import SystemClock
    from actors.shard import IncidentShard, ShardOptions

    given = msgspec.msgpack.decode(config)
    _log_as(given)
    options = msgspec.convert(given, ShardOptions)
    stores, partition = open_stores(given["place"]), options.partition

    def take(changed: Mapping[str, Any]) -> None:
        shard.take_settings(msgspec.convert(changed, ShardSettings))

    shard = IncidentShard(
        host,
        options,
        msgspec.convert(given, ShardSettings),
        stores.log(partition),
        stores.archive(partition),
        DeliveryWindow(stores.delivery_ids(partition), options.dedup_window_s),
        SystemClock(),
        _followed(given, processes.SHARD, take, SHARD_FOLLOWS),
        _tracer(given["telemetry"], host.name),
    )
    return shard


def classifier_actor(config: bytes, host: Host) -> Actor:
    """actors.classifier.ClassifierActor on rules, and on the models that count."""

    given = msgspec.msgpack.decode(config)
    _log_as(given)

    def take(changed: Mapping[str, Any]) -> None:
        go_by(changed)

    control = _followed(given, processes.CLASSIFIER, take, (ChangedSettings, ModelVersions))
    actor, go_by = classifier(given, host, _tracer(given["telemetry"], host.name), control)
    return actor


def classifier(
    given: Mapping[str, Any], host: Host, tracer: Tracer, control: ControlTail
) -> tuple[ClassifierActor, Callable[[Mapping[str, Any]], None]]:
    """A classifier by these settings, and what has it go by others."""
    from actors.classifier import ClassifierActor
    from actors.judging import Judging
    from models.metrics import Meter

    meter = Meter(host.name)
    judge = Judging(rules(given), given["model_confidence"], control, meter)

    def take(changed: Mapping[str, Any]) -> None:
        judge.take(rules(changed), changed["model_confidence"])

    return ClassifierActor(host, judge, tracer, control=control, models=judge, meter=meter), take


def rules(given: Mapping[str, Any]) -> Classifier:
    """What judges by the configured rules, and then by the built-in ones if these are wanted."""
    from models.classification.rules import Classifier, compile_rule

    return Classifier([compile_rule(**rule) for rule in given["rules"]], builtin=given["builtin_rules"])


def responder_actor(config: bytes, host: Host) -> Actor:
    """actors.responder.ResponderActor with the receivers of the settings."""
    from actors.responder import ResponderActor
    from actors.runtime.clock import SystemClock
    from actors.targets import Targets
    from services.actions.table import Actions

    given = msgspec.msgpack.decode(config)
    _log_as(given)
    actions = Actions(given)
    targets = Targets.of(given, SystemClock(), actions.by_name)

    def take(changed: Mapping[str, Any]) -> None:
        actions.take(changed)
        targets.take(changed)
        if worker is not None:
            worker.take(changed)

    control = _followed(given, processes.RESPONDER, take, RESPONDER_FOLLOWS)
    worker = _worker(given, host, actions, targets, control) if given["playbooks"] else None
    return ResponderActor(
        host,
        actions.by_name,
        control=control,
        targets=targets,
        tracer=_tracer(given["telemetry"], host.name),
        worker=worker,
    )


def _worker(
    given: Mapping[str, Any], host: Host, actions: Actions, targets: Targets, control: ControlTail
) -> PlaybookWorker:
    """What does the actions of playbooks, with the receivers as they are at the time, within the same bounds as notifications."""
    from actors.runtime.clock import SystemClock
    from models.partition.sharding import TENANT
    from services.edge.shards import EdgeShards, lines_to
    from services.playbooks.open import open_worker

    clock = SystemClock()
    lines = lines_to(given["shards"], host.peers, clock, hold_s=given["hold_s"])
    edge = EdgeShards(lines, lambda: control.state.slots, TENANT)
    return open_worker(given, actions.typed, clock, targets, edge=edge)


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


def trainer_actor(config: bytes, host: Host) -> Actor:
    """actors.trainer.TrainerActor over the chosen stores, at low priority."""
    from actors.trainer import TrainerActor
    from services.learning.learner import Bounds
    from services.wiring.telling import tell_control

    given = msgspec.msgpack.decode(config)
    _log_as(given)
    os.nice(TRAINER_NICE)
    stores = open_stores(given["place"])

    def take(changed: Mapping[str, Any]) -> None:
        learner.rules, learner.bounds = rules(changed), Bounds.of(changed)

    control = _followed(given, processes.TRAINER, take, (Slots, ChangedSettings, ModelVersions))
    learner = tenant_learner(given, host, given["shards"], stores.archive, control)
    tell = partial(tell_control, host.peers, CONTROL_ACTOR, hold_s=given["hold_s"])
    return TrainerActor(host.name, control, learner, tell)


def tenant_learner(
    given: Mapping[str, Any],
    host: Host,
    shards: Sequence[str],
    open_archive: Callable[[str], Archive],
    control: ControlTail,
) -> TenantLearner:
    """What trains by the incidents of these shards and their archives."""
    from services.api.asking import Asking
    from services.learning.learner import Bounds, TenantLearner

    archives = [open_archive(partition_name(index)) for index in range(len(shards))]

    def shard_of(slot: int) -> int:
        slots = control.state.slots
        assert slots is not None
        return slots.owners[slot]

    def ask(shard: int, query: bytes) -> Awaitable[bytes]:
        return host.peers.call(shards[shard], "ask", query, FOLLOWER_TIMEOUT_S)

    def asking_of(tenant: str) -> Asking:
        return Asking(ask, len(shards), shard_of, archives, tenant=tenant)

    async def close() -> None:
        for archive in archives:
            await archive.close()

    return TenantLearner(asking_of, rules(given), Bounds.of(given), close)


def publisher_actor(config: bytes, host: Host) -> Actor:
    """services.feed.publish.Publisher over the chosen stores and the feed's Redis."""
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
        _followed(given, processes.PUBLISHER, sections=(Slots, ChangedSettings)),
        clock,
    )


def correlator_actor(config: bytes, host: Host) -> Actor:
    """actors.correlator.Correlator over the chosen stores."""
    from actors.correlator import Correlator
    from actors.runtime.clock import SystemClock
    from models.partition.sharding import TENANT
    from models.topology.topology import TOPOLOGY
    from services.feed.relate import IncidentReader
    from services.topology.file import reader_of

    given = msgspec.msgpack.decode(config)
    _log_as(given)
    stores = open_stores(given["place"])
    shards = {partition_name(index): actor for index, actor in enumerate(given["shards"])}

    def take(changed: Mapping[str, Any]) -> None:
        actor.take_rules(correlation_rules(changed))

    actor = Correlator(
        host,
        stores.log(TOPOLOGY),
        SystemClock(),
        correlation_rules(given),
        shards,
        [
            IncidentReader(name, stores.log(name), stores.archive(name), asking(host.peers, shard), TENANT)
            for name, shard in shards.items()
        ],
        _followed(given, processes.CORRELATOR, take, sections=(Slots, Begun, ChangedSettings)),
        reader_of(given["topology_file"]),
    )
    return actor


def correlation_rules(given: Mapping[str, Any]) -> Rules:
    """What the correlator goes by."""
    from models.topology.situations import Rules

    return Rules(
        given["window_s"], given["tolerance_s"], given["hops"], given["mutes"], frozenset(given["mutable"])
    )


def asking(peers: Peers, actor: str) -> Callable[[bytes], Awaitable[bytes]]:
    """How a follower of a shard's log asks the shard."""
    return lambda query: peers.call(actor, "ask", query, FOLLOWER_TIMEOUT_S)


def announcer_actor(config: bytes, host: Host) -> Actor:
    """services.feed.announce.Announcer over the chosen stores and the broker of the settings."""
    from actors.runtime.clock import SystemClock
    from models.control.polls import Polls
    from models.settings.all import Settings
    from services.feed.announce import Announcer
    from services.feed.writers.table import open_writer
    from services.wiring.telling import tell_control

    given = msgspec.msgpack.decode(config)
    _log_as(given)
    stores = open_stores(given["place"])
    messaging = Settings.model_validate_json(given["settings"]).messaging
    partitions = [partition_name(index) for index in range(len(given["shards"]))]
    return Announcer(
        host,
        dict(zip(partitions, given["shards"], strict=True)),
        stores.log,
        stores.archive,
        open_writer(messaging, given["messaging_password"], host.name),
        messaging.process,
        messaging.orchestrate,
        _followed(given, processes.ANNOUNCER, sections=(Slots, ChangedSettings, Polls)),
        partial(tell_control, host.peers, CONTROL_ACTOR, hold_s=given["hold_s"]),
        SystemClock(),
    )


def collector_actor(config: bytes, host: Host) -> Actor:
    """services.wiring.collector.Collector with the sources of the settings."""
    from actors.runtime.clock import SystemClock
    from models.metrics import Meter
    from models.partition.sharding import TENANT
    from models.settings.all import Settings
    from services.ingest.sources.table import open_sources
    from services.wiring.collector import Collector
    from services.wiring.station import Station

    given = msgspec.msgpack.decode(config)
    _log_as(given)
    settings = Settings.model_validate_json(given["settings"])
    station = Station(
        settings,
        host.peers,
        SystemClock(),
        Meter(host.name),
        open_tracer(settings, host.name),
        open_log(settings, CONTROL),
        open_dead_letters(settings),
        [shard_actor_name(index) for index in range(settings.state.partitions)],
        CONTROL_ACTOR,
        start=given["start"],
        tenant=TENANT,
    )
    return Collector(host.name, station, open_sources, given)


def _log_as(given: Mapping[str, str]) -> None:
    from services.machine.logs import configure

    configure(given["level"], given["format"])


def _followed(
    given: Mapping[str, Any],
    kind: str,
    take: Callable[[Mapping[str, Any]], None] | None = None,
    sections: Iterable[type[Section]] = (ChangedSettings,),
) -> ControlTail:
    """The control log as an actor follows it: `sections` of it, which hold the changed settings."""
    from actors.control_tail import ControlTail

    return ControlTail(open_stores(given["place"]).log(CONTROL), _watch(given, kind, take), sections)


def _watch(
    given: Mapping[str, Any], kind: str, take: Callable[[Mapping[str, Any]], None] | None = None
) -> SettingsWatch:
    """Sees to it that a change of settings is gone by: the log's level by every process, the rest by `take`, which gets all
    that this kind goes by."""
    from actors.control_tail import SettingsWatch
    from services.machine.logs import set_level

    def taken(changed: SettingsChanged) -> None:
        values = processes.given_by(changed, kind)
        set_level(str(values["level"]))
        if take is not None:
            take(values)

    return SettingsWatch(given["start"], taken)
