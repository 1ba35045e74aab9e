"""Every kind of actor, one row each: what its actors are called, which there are by the settings, what makes one, and what it
is given beside what the sections of the settings give its kind (`for_process`). Start, health, `config reload` and `down` go
over this table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass

import msgspec

from models.errors import Broken
from models.partition.sharding import partition_name
from models.settings.all import Settings
from models.settings.processes import (
    ANNOUNCER,
    BACKUP,
    CLASSIFIER,
    COLLECTOR,
    CONTROL,
    CORRELATOR,
    GATEWAY,
    PUBLISHER,
    RESPONDER,
    SHARD,
    TRAINER,
    encode_given,
)
from models.settings.secrets import holds_secret, revealed
from services.ingest.sources.table import wanted
from services.settings.shown import masked_json
from services.stores.choice import feed_of, place_of
from services.wiring.bootstrap import (
    ANNOUNCER_ACTOR,
    BACKUP_ACTOR,
    CONTROL_ACTOR,
    CORRELATOR_ACTOR,
    PUBLISHER_ACTOR,
    backup_target,
    shard_actor_name,
)

FACTORIES = "services.wiring.bootstrap"


@dataclass(frozen=True, slots=True)
class ActorKind:
    """A row. Names begin with the kind: `shard-0000-a`. `names`: who is started with these settings, none for a kind that they
    do not ask for. `factory`: "module:function", run in the actor's process with what `config` says of the one at that place
    of `names`. `missing`: what people miss while one is silent; "" for a kind that nobody waits for. `tells_why`: its `status`
    says why it can't do its work, by what is held up."""

    kind: str
    names: Callable[[Settings], list[str]]
    factory: str
    config: Callable[[Settings, int], Mapping[str, object]] = lambda _settings, _index: {}
    missing: str = ""
    tells_why: bool = False

    @property
    def prefix(self) -> str:
        return f"{self.kind}-"


@dataclass(frozen=True, slots=True)
class ActorPlan:
    """One actor to start: its name, its factory as "module:function", and what the factory is given."""

    kind: str
    name: str
    factory: str
    config: bytes


def _classifiers(settings: Settings) -> list[str]:
    return [f"classifier-{index}" for index in range(settings.classification.pool)]


def _responders(settings: Settings) -> list[str]:
    notify = settings.notify
    return (
        []
        if notify.why_off and not settings.playbooks.enabled
        else [f"responder-{index}" for index in range(notify.responders)]
    )


def _collectors(settings: Settings) -> list[str]:
    count = settings.messaging.collectors if settings.messaging.is_read else 1
    return [f"collector-{index}" for index in range(count)] if wanted(settings) else []


def _shards(settings: Settings) -> list[str]:
    return [shard_actor_name(index) for index in range(settings.state.partitions)]


def _control_config(settings: Settings, _index: int) -> Mapping[str, object]:
    trainer = {
        **{name: revealed(value) for name, value in settings.given_to(TRAINER).items()},
        "shards": _shards(settings),
        "hold_s": settings.server.hold,
    }
    return {"partitions": settings.state.partitions, "settings": masked_json(settings), "trainer": trainer}


def _backup_config(settings: Settings, _index: int) -> Mapping[str, object]:
    from services.upkeep.backup.signing import key_of

    return {"target": backup_target(settings), "key": key_of(settings)}


def _shard_config(settings: Settings, index: int) -> Mapping[str, object]:
    return {
        "partition": partition_name(index),
        "classifiers": _classifiers(settings),
        "responders": _responders(settings),
        "shards": _shards(settings),
    }


def _publisher_config(settings: Settings, _index: int) -> Mapping[str, object]:
    feed = feed_of(settings)
    assert feed is not None
    return {"feed": asdict(feed), "shards": _shards(settings)}


def _announcer_config(settings: Settings, _index: int) -> Mapping[str, object]:
    return {
        "settings": masked_json(settings),
        "shards": _shards(settings),
        "hold_s": settings.server.hold,
    }


#: In the order of their start: who is asked comes before who asks. They end in the reverse order.
ACTORS: tuple[ActorKind, ...] = (
    ActorKind(CONTROL, lambda _: [CONTROL_ACTOR], f"{FACTORIES}:control_actor", _control_config),
    ActorKind(
        BACKUP,
        lambda settings: [] if settings.disaster_recovery.backup_interval is None else [BACKUP_ACTOR],
        f"{FACTORIES}:backup_actor",
        _backup_config,
    ),
    ActorKind(
        CLASSIFIER,
        _classifiers,
        f"{FACTORIES}:classifier_actor",
        missing="does not answer: new incidents wait for a severity and type; after 5 s they are notified without",
        tells_why=True,
    ),
    ActorKind(
        RESPONDER,
        _responders,
        f"{FACTORIES}:responder_actor",
        lambda settings, _index: {"shards": _shards(settings), "hold_s": settings.server.hold},
        missing="does not answer: it sends no notifications, and runs of playbooks wait",
    ),
    ActorKind(SHARD, _shards, f"{FACTORIES}:shard_actor", _shard_config),
    ActorKind(
        CORRELATOR,
        lambda settings: [CORRELATOR_ACTOR] if settings.correlation.enabled else [],
        f"{FACTORIES}:correlator_actor",
        lambda settings, _index: {"shards": _shards(settings)},
        missing="does not answer: new incidents are not correlated, and services can't be looked up",
        tells_why=True,
    ),
    # Hired by the control partition's writer while a model is trained: no start has one.
    ActorKind(TRAINER, lambda _: [], f"{FACTORIES}:trainer_actor"),
    ActorKind(
        PUBLISHER,
        lambda settings: [] if feed_of(settings) is None else [PUBLISHER_ACTOR],
        f"{FACTORIES}:publisher_actor",
        _publisher_config,
    ),
    ActorKind(
        ANNOUNCER,
        lambda settings: [ANNOUNCER_ACTOR] if settings.messaging.is_written else [],
        f"{FACTORIES}:announcer_actor",
        _announcer_config,
        missing="does not answer: what happens to incidents is not written to the queue",
        tells_why=True,
    ),
    ActorKind(
        COLLECTOR,
        _collectors,
        f"{FACTORIES}:collector_actor",
        lambda settings, _index: {"settings": for_gateways(settings)},
        missing="does not answer: queues are not read, and nothing is polled",
        tells_why=True,
    ),
)


def plan(settings: Settings, start: str = "") -> list[ActorPlan]:
    """All actors, in the order of their start. `start` is the same for all that is started together: what a person changes
    while it runs holds for that start."""
    return [
        ActorPlan(row.kind, name, row.factory, _config(row, settings, index, start))
        for row in ACTORS
        for index, name in enumerate(row.names(settings))
    ]


def _config(row: ActorKind, settings: Settings, index: int, start: str) -> bytes:
    given = {name: revealed(value) for name, value in settings.given_to(row.kind).items()}
    own = {"place": place_of(settings), "start": start, **row.config(settings, index)}
    if both := given.keys() & own.keys():
        raise Broken(f"{', '.join(sorted(both))}: given to {row.kind} actors twice")
    return msgspec.msgpack.encode({**given, **own})


def given_while_running(settings: Settings) -> dict[str, bytes]:
    """What each kind goes by under changed settings, for the control log. What holds a secret stays out: it is kept from the
    log, and only a restart changes it."""
    return {
        row.kind: encode_given(
            {name: value for name, value in settings.given_to(row.kind).items() if not holds_secret(value)}
        )
        for row in ACTORS
    }


def for_gateways(settings: Settings) -> str:
    """All settings as JSON, with no secret but those that a gateway needs: what Serve keeps in its controller can be read by
    whoever joins the Ray."""
    plain = msgspec.json.decode(masked_json(settings))
    for name, section in settings.sections():
        _reveal(plain[name], section.for_process(GATEWAY, settings.state.partitions))
    return msgspec.json.encode(plain).decode()


def _reveal(masked: dict[str, object], needed: Mapping[str, object]) -> None:
    for name, value in needed.items():
        inner = masked[name]
        if isinstance(inner, dict) and isinstance(value, Mapping):
            _reveal(inner, value)
        else:
            masked[name] = revealed(value)


def ending_order(names: Iterable[str]) -> list[str]:
    """These actors as they end, in the reverse order of their start; one of a kind that is not known, first."""

    def place(name: str) -> int:
        found = (index for index, row in enumerate(ACTORS) if name.startswith(row.prefix))
        return next(found, len(ACTORS))

    return sorted(names, key=lambda name: (-place(name), name))


def missing_without(name: str) -> str:
    """What people miss while this actor is silent, "" when nobody waits for it."""
    return next((row.missing for row in ACTORS if name.startswith(row.prefix)), "")


def tells_why(name: str) -> bool:
    """Whether this actor's `status` says why it can't do its work."""
    return any(row.tells_why for row in ACTORS if name.startswith(row.prefix))
