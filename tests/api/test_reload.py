"""POST /v1/config/reload: every process goes by it, also one that starts later; what needs a restart changes nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import datetime

import pytest

from actors.control import ControlActor
from actors.control_tail import ControlTail, SettingsWatch
from actors.folding import fold_control
from actors.runtime.host import Host
from actors.runtime.local import LocalCluster
from models.control.control import encode_message
from models.control.events import SettingsChanged
from models.errors import Malformed, OutcomeUnknown, Unavailable
from models.ports import EventLog
from services.stores.memory.log import MemoryEventLog
from services.stores.memory.store import MemoryStore
from services.wiring import bootstrap
from tests.api.gateway_in_process import Reply, SettableClock, System, alert, system

PATH = "/v1/config/reload"


async def reload(ours: System, settings: object) -> Reply:
    return await ours.post(
        PATH, {"state": {"partitions": 2}, **settings} if isinstance(settings, dict) else settings
    )


async def soon(holds: Callable[[], bool], timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.02)


def shard(ours: System, index: int = 0) -> object:
    return ours.cluster.get(ours.shards[index]).settings  # type: ignore[union-attr]


@pytest.mark.asyncio
async def test_a_reload_says_what_changed_and_gateways_shards_and_classifiers_go_by_it(ours: System) -> None:
    rules = ours.cluster.get("classifier-0").judge.rules  # type: ignore[union-attr]
    answer = await reload(
        ours,
        {
            "lifecycle": {"resolve_timeout": "1h", "reopen_window": "10m"},
            "classification": {"rules": [{"name": "ours", "labels": {"team": "ml"}, "severity": "P0"}]},
        },
    )

    assert answer.status == 200, answer.body
    assert answer.json == {
        "changed": [
            {"key": "lifecycle.resolve_timeout", "before": "5m", "after": "1h"},
            {"key": "lifecycle.reopen_window", "before": "30m", "after": "10m"},
            {"key": "classification.rules", "before": [],
             "after": [{"name": "ours", "labels": {"team": "ml"}, "severity": "P0"}]},
        ]
    }  # fmt: skip
    # The gateway that took it goes by it at once, the rest within a look at the control log.
    assert ours.gateway.station.settings.lifecycle.resolve_timeout == 3600.0
    assert "resolve_timeout: 1h" in json.loads((await ours.get("/api/v2/status")).body)["config"]["original"]
    await soon(lambda: all(shard(ours, index).reopen_window_s == 600.0 for index in (0, 1)))  # type: ignore[attr-defined]
    await soon(lambda: ours.cluster.get("classifier-0").judge.rules is not rules)  # type: ignore[union-attr]
    await ours.post("/v1/alerts", [alert("Odd", team="ml")])

    async def severity() -> str:
        [incident] = (await ours.get("/v1/incidents")).items
        return str(incident["severity"]) if incident["classified_by"] else ""

    async with asyncio.timeout(5):
        while not (found := await severity()):
            await asyncio.sleep(0.02)
    assert found == "P0"


@pytest.mark.asyncio
async def test_alerts_end_by_the_new_resolve_timeout(ours: System) -> None:
    assert (await reload(ours, {"lifecycle": {"resolve_timeout": "1h"}})).status == 200

    await ours.post("/api/v2/alerts", [alert("Down")])

    [found] = await ours.alerts()
    began, ends = (str(found[name])[:19] for name in ("startsAt", "endsAt"))
    assert 59 <= _minutes(ends) - _minutes(began) <= 61


def _minutes(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp() / 60)


@pytest.mark.asyncio
async def test_the_same_settings_change_nothing_and_write_no_event(ours: System) -> None:
    answer = await reload(ours, {})

    assert (answer.status, answer.json) == (200, {"changed": []})
    assert (await fold_control(ours.stores.log("control"))).settings is None


@pytest.mark.asyncio
async def test_what_needs_a_restart_is_named_and_nothing_changes(ours: System) -> None:
    answer = await reload(ours, {"server": {"gateways": 7}, "logging": {"level": "ERROR"}})

    assert answer.status == 409
    assert answer.json["type"] == "urn:llm-im:problem:needs-restart"
    assert str(answer.json["detail"]).startswith("server.gateways: changed, and that needs a restart")
    assert ours.gateway.station.settings.logging.level == "INFO"
    assert (await fold_control(ours.stores.log("control"))).settings is None


@pytest.mark.parametrize(
    ("body", "field", "detail"),
    [
        ({"servr": {}}, "servr", "there is no such section; did you mean server?"),
        ({"logging": {"level": "LOUD"}}, "logging.level", 'expected DEBUG, INFO, WARNING or ERROR, not "LOUD"'),
        ({"classification": {"rules": [{"name": "a", "words": "("}]}}, "classification.rules[0].words",
         "expected a regular expression in RE2's syntax, not '(': error parsing regexp: missing closing ): `^(?:()$`"),
        (b"{", "body", "Invalid JSON: EOF while parsing an object at line 1 column 1"),
        (b"[]", "body", "expected a table"),
        (b"", "body", "Invalid JSON: EOF while parsing a value at line 1 column 0"),
        (b"\xff", "body", "Invalid JSON: expected value at line 1 column 1"),
    ],
)  # fmt: skip
@pytest.mark.asyncio
async def test_a_mistake_is_a_400_that_names_the_setting(
    body: object, field: str, detail: str, shared: System
) -> None:
    answer = await shared.post(PATH, body)

    assert answer.status == 400
    assert answer.json["errors"] == [{"field": field, "detail": detail}]


@pytest.mark.asyncio
@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
async def test_a_web_page_can_not_make_a_browser_change_settings(
    shared: System, content_type: str | None
) -> None:
    # Another type would need a preflight, which nobody here answers.
    answer = await shared.post(PATH, {"logging": {"level": "ERROR"}}, content_type=content_type)

    assert answer.status == 415
    assert shared.gateway.station.settings.logging.level == "INFO"


@pytest.mark.asyncio
async def test_a_byte_order_mark_before_the_settings_is_passed_over(shared: System) -> None:
    assert (await shared.post(PATH, b"\xef\xbb\xbf{}")).status == 200


@pytest.mark.asyncio
async def test_a_body_past_its_bound_is_a_413(shared: System) -> None:
    assert (await shared.post(PATH, b" " * (1024 * 1024 + 1))).status == 413


@pytest.mark.asyncio
async def test_without_the_control_partition_it_is_a_503_and_nothing_changes(ours: System) -> None:
    ours.cluster.kill(bootstrap.CONTROL_ACTOR)

    answer = await reload(ours, {"logging": {"level": "ERROR"}})

    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert ours.gateway.station.settings.logging.level == "INFO"


@pytest.mark.asyncio
async def test_a_shard_that_starts_later_goes_by_it_from_its_first_decision(ours: System) -> None:
    await reload(ours, {"lifecycle": {"reopen_window": "10m"}})

    await ours.crash(ours.shards[0])
    await ours.cluster.restart(ours.shards[0])
    await ours.ready()

    assert shard(ours).reopen_window_s == 600.0  # type: ignore[attr-defined]


@pytest.mark.asyncio
async def test_two_reloads_after_each_other_come_to_the_last() -> None:
    async with system() as ours:
        await reload(ours, {"notify": {"wait": {"P2": "1m"}}, "lifecycle": {"reopen_window": "10m"}})
        answer = await reload(ours, {"notify": {"wait": {"P2": "2m"}}})

        assert answer.json == {
            "changed": [
                {"key": "lifecycle.reopen_window", "before": "10m", "after": "30m"},
                {"key": "notify.wait.P2", "before": "1m", "after": "2m"},
            ]
        }
        await soon(lambda: shard(ours).wait_s[2] == 120.0)  # type: ignore[attr-defined]
        assert shard(ours).reopen_window_s == 1800.0  # type: ignore[attr-defined]


@pytest.mark.asyncio
async def test_the_log_names_who_changed_what(ours: System) -> None:
    await ours.post(
        PATH, {"state": {"partitions": 2}, "logging": {"level": "ERROR"}}, headers={"X-Actor": "mary"}
    )

    changed = ours.gateway.station.tail.state.settings
    assert changed is not None
    assert (changed.actor, changed.changes) == ("mary", {"logging.level": "ERROR"})


# The control actor


def changed(start: str = "one", level: str = "ERROR") -> SettingsChanged:
    return SettingsChanged(start, "ops", {"logging.level": level}, "{}", b"", b"", level)


async def control(cluster: LocalCluster, log: Callable[[], EventLog], taken: list[SettingsChanged]) -> None:
    def made(host: Host) -> ControlActor:
        return ControlActor(host, log(), SettableClock(), 2, SettingsWatch("one", taken.append))

    await cluster.start("control-a", made)
    async with asyncio.timeout(5):
        while b'"ready":true' not in await cluster.call("control-a", "status", b"", 1):
            await asyncio.sleep(0.01)


def encoded(event: SettingsChanged) -> bytes:
    return encode_message(event)


@pytest.mark.asyncio
async def test_a_change_outlives_the_control_actor_and_one_of_another_start_holds_no_more() -> None:
    store, cluster = MemoryStore(), LocalCluster()
    taken: list[SettingsChanged] = []
    await control(cluster, lambda: MemoryEventLog(store, "control"), taken)
    await cluster.call("control-a", "change", encoded(changed()), 1)
    await cluster.stop()
    assert taken == [changed()]

    again: list[SettingsChanged] = []
    await control(cluster, lambda: MemoryEventLog(store, "control"), again)
    assert again == [changed()]
    await cluster.call("control-a", "change", encoded(changed("two", "DEBUG")), 1)
    assert again == [changed()]
    await cluster.stop()


class Unsure(MemoryEventLog):
    """A log whose next append after `fail` was set has an outcome that nobody knows: it was stored."""

    fail = False

    async def append(self, epoch, first_seq, frames):  # type: ignore[no-untyped-def]
        await super().append(epoch, first_seq, frames)
        if self.fail:
            self.fail = False
            raise OutcomeUnknown("the disk said nothing")


@pytest.mark.asyncio
async def test_a_change_of_unknown_outcome_is_read_again_before_the_next() -> None:
    store, cluster = MemoryStore(), LocalCluster()
    log = Unsure(store, "control")
    taken: list[SettingsChanged] = []
    await control(cluster, lambda: log, taken)

    log.fail = True
    with pytest.raises(Unavailable):
        await cluster.call("control-a", "change", encoded(changed(level="ERROR")), 1)
    async with asyncio.timeout(10):
        while not taken:
            await asyncio.sleep(0.01)
    await cluster.call("control-a", "change", encoded(changed(level="DEBUG")), 1)

    assert [each.level for each in taken] == ["ERROR", "DEBUG"]
    assert await log.last_seq() == 3
    await cluster.stop()


class Interrupted(MemoryEventLog):
    """A log of which one page can be read, the next fails or is given up, and then all."""

    def __init__(self, store: MemoryStore, error: BaseException) -> None:
        super().__init__(store, "control")
        self._pages = iter((None, error))

    async def read(self, after, *limits):  # type: ignore[no-untyped-def]
        if error := next(self._pages, None):
            raise error
        return await super().read(after, *limits)


@pytest.mark.parametrize("error", [Unavailable("away"), asyncio.CancelledError()])
@pytest.mark.asyncio
async def test_a_change_that_was_read_before_the_store_went_away_is_gone_by(error: BaseException) -> None:
    store, cluster = MemoryStore(), LocalCluster()
    await control(cluster, lambda: MemoryEventLog(store, "control"), [])
    await cluster.call("control-a", "change", encoded(changed()), 1)
    await cluster.stop()
    taken: list[SettingsChanged] = []
    tail = ControlTail(Interrupted(store, error), SettingsWatch("one", taken.append))

    with pytest.raises(type(error)):
        await tail.follow()
    await tail.follow()

    assert taken == [changed()]


@pytest.mark.asyncio
async def test_the_control_actor_says_by_which_settings_all_go_now() -> None:
    store, cluster = MemoryStore(), LocalCluster()

    def made(host: Host) -> ControlActor:
        log, watch = MemoryEventLog(store, "control"), SettingsWatch("one", lambda _: None)
        return ControlActor(host, log, SettableClock(), 2, watch, "as started")

    async def said() -> object:
        return json.loads(await cluster.call("control-a", "status", b"", 1))["settings"]

    await cluster.start("control-a", made)
    async with asyncio.timeout(5):
        while await store_is_empty(store):
            await asyncio.sleep(0.01)
    assert await said() == "as started"
    await cluster.call("control-a", "change", encoded(changed("before")), 1)
    assert await said() == "as started"
    await cluster.call("control-a", "change", encoded(changed()), 1)
    assert await said() == "{}"
    await cluster.stop()


async def store_is_empty(store: MemoryStore) -> bool:
    return not await MemoryEventLog(store, "control").last_seq()


@pytest.mark.asyncio
async def test_what_is_no_change_is_refused() -> None:
    store, cluster = MemoryStore(), LocalCluster()
    await control(cluster, lambda: MemoryEventLog(store, "control"), [])

    with pytest.raises(Malformed):
        await cluster.call("control-a", "change", b"\xc1", 1)
    await cluster.stop()
