"""The table of actor kinds: a kind that is put into it is started, reloaded and ended without another line."""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType
from typing import Any

import msgspec
import pytest

from actors.control import ControlActor
from actors.control_tail import SettingsWatch
from actors.runtime.clock import SystemClock
from actors.runtime.host import Actor, Host
from actors.runtime.local import LocalCluster
from actors.shard import ShardOptions
from models.control.control import encode_message
from models.control.events import SettingsChanged
from models.settings.all import Settings
from models.settings.processes import CLASSIFIER, RESPONDER, SHARD, given_by
from models.shard.settings import ShardSettings
from services.stores.memory.log import MemoryEventLog
from services.stores.memory.store import MemoryStore
from services.wiring import actors
from services.wiring.actors import ACTORS, ActorKind, ending_order, for_gateways, missing_without, plan
from services.wiring.bootstrap import shard_settings
from services.wiring.reload import compare, event_of

FULL = Settings.model_validate(
    {
        "notify": {"webhook": {"url": "https://example.org/s3cr3t"}},
        "publish": {"redis": {"url": "redis://127.0.0.1"}},
        "messaging": {
            "backend": "nats",
            "brokers": ["nats:4222"],
            "topics": ["incidents.ingest", "incidents.process"],
            "password": "pa55word",
        },
        "disaster_recovery": {"backup_interval": "1h", "backup_target": "backups"},
        "telemetry": {"endpoint": "http://127.0.0.1:4318", "headers": {"authorization": "t0ken"}},
        "state": {"partitions": 2, "redis": {"url": "redis://:pass@127.0.0.1"}},
    }
)


def test_names_begin_with_their_kind_and_no_kind_with_another() -> None:
    for row in ACTORS:
        assert all(name.startswith(row.prefix) for name in row.names(FULL))
        assert [each.kind for each in ACTORS if row.prefix.startswith(each.prefix)] == [row.kind]


def test_actors_end_in_the_reverse_order_of_their_start_and_a_stranger_first() -> None:
    names = [name for row in ACTORS for name in row.names(FULL)]

    order = ending_order([*names, "stranger-0"])

    assert (order[0], order[-1]) == ("stranger-0", "control-a")
    assert order.index("shard-0001-a") < order.index("responder-0") < order.index("classifier-0")
    assert sorted(order[1:]) == sorted(names)


def test_each_setting_of_a_shard_is_given_by_one_section() -> None:
    given = FULL.given_to(SHARD)

    assert set(ShardSettings.__struct_fields__) <= given.keys()
    assert shard_settings(FULL).notify


def test_a_shard_takes_each_setting_that_it_is_given() -> None:
    taken = {*ShardSettings.__struct_fields__, *ShardOptions.__struct_fields__}

    # What every actor is given is taken by the wiring.
    assert FULL.given_to(SHARD).keys() - taken == {"level", "format", "telemetry"}


def test_a_gateway_gets_the_secrets_that_it_needs_and_no_other() -> None:
    text = for_gateways(FULL)

    assert "t0ken" in text and "redis://:pass@127.0.0.1" in text
    assert "s3cr3t" not in text and "redis://127.0.0.1" not in text


def test_what_holds_a_secret_is_given_at_the_start_only() -> None:
    event = event_of("start", "ops", [], FULL)

    [responder] = [each for each in plan(FULL) if each.kind == RESPONDER]
    given = msgspec.msgpack.decode(responder.config)
    assert given["receivers"]["webhook"]["url"] == "https://example.org/s3cr3t"
    assert "receivers" not in given_by(event, RESPONDER) and "telemetry" not in given_by(event, SHARD)
    assert b"s3cr3t" not in event.processes[RESPONDER]
    assert given_by(event, RESPONDER)["level"] == "INFO"


def test_a_change_from_before_there_was_a_map_of_kinds_is_read_as_it_was() -> None:
    shard = msgspec.msgpack.encode(msgspec.structs.replace(shard_settings(FULL), reopen_window_s=7.0))
    rules = msgspec.msgpack.encode(([{"name": "ours"}], False))
    old = SettingsChanged("start", "ops", {}, "{}", shard, rules, "ERROR")

    assert msgspec.convert(given_by(old, SHARD), ShardSettings).reopen_window_s == 7.0
    assert given_by(old, CLASSIFIER) == {
        "level": "ERROR",
        "rules": [{"name": "ours"}],
        "builtin_rules": False,
    }
    assert given_by(old, RESPONDER) == {"level": "ERROR"}


# A toy kind


class Toy:
    """An actor that goes by the level of the log."""

    def __init__(self, host: Host, config: bytes) -> None:
        self.host = host
        self.given: dict[str, Any] = msgspec.msgpack.decode(config)

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


TOY = ActorKind(
    "toy",
    lambda _settings: ["toy-0"],
    "toys:made",
    lambda _settings, index: {"index": index},
    "plays no more",
)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> ActorKind:
    toys = ModuleType("toys")
    toys.made = lambda config, host: Toy(host, config)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toys", toys)
    monkeypatch.setattr(actors, "ACTORS", (*ACTORS, TOY))
    return TOY


def test_a_kind_in_the_table_is_started_watched_and_ended(toy: ActorKind) -> None:
    planned = plan(FULL, "one")[-1]

    assert (planned.name, planned.factory) == ("toy-0", "toys:made")
    given = msgspec.msgpack.decode(planned.config)
    assert (given["index"], given["start"], given["level"]) == (0, "one", "INFO")
    assert missing_without("toy-0") == "plays no more"
    assert ending_order(["control-a", "toy-0"]) == ["toy-0", "control-a"]


@pytest.mark.asyncio
async def test_a_kind_in_the_table_is_told_of_a_reload_by_the_control_log(toy: ActorKind) -> None:
    store, cluster = MemoryStore(), LocalCluster()
    taken: list[dict[str, object]] = []

    def control(host: Host) -> Actor:
        watch = SettingsWatch("one", lambda changed: taken.append(given_by(changed, toy.kind)))
        return ControlActor(host, MemoryEventLog(store, "control"), SystemClock(), 2, watch)

    await cluster.start("control-a", control)
    async with asyncio.timeout(5):
        while b'"ready":true' not in await cluster.call("control-a", "status", b"", 1):
            await asyncio.sleep(0.01)
    wanted = Settings.model_validate({"logging": {"level": "ERROR"}})
    change = event_of("one", "ops", compare(Settings(), wanted), wanted)
    await cluster.call("control-a", "change", encode_message(change), 1)
    await cluster.stop()

    assert taken == [{"level": "ERROR", "format": "json"}]
