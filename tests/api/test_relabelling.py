"""Relabelling on the way in: labels change before service, shard and incident are found by them; a table is read again when it changes;
and what began by other rules still ends."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import websockets
from structlog.testing import capture_logs

from services.ingest import rules as kept
from tests.api.gateway_in_process import SECOND_SHARD_SERVICE, System, alert, system
from tests.api.test_filters import counted, followed
from tests.api.test_reload import reload

pytestmark = pytest.mark.asyncio

BY_POD = {
    "name": "service of the pod",
    "from": "pod",
    "extract": "(.+)-[0-9a-f]+-[a-z0-9]{5}",
    "service": "$1",
}
REPLICAS = {"name": "replicas are one", "drop": ["prometheus_replica"]}


def from_pod(of: str, name: str = "Down", **labels: str) -> dict[str, dict[str, str]]:
    return {"labels": {"alertname": name, "pod": f"{of}-7d9f8c6b5-x2x1z", **labels}}


async def services(ours: System) -> set[str]:
    return {str(each["service"]) for each in (await ours.get("/v1/incidents")).items}


async def labels(ours: System) -> list[dict[str, str]]:
    return [each["labels"] for each in await ours.alerts()]


async def test_the_service_is_found_by_the_labels_that_the_rules_gave(both_ways: str) -> None:
    async with system(ingest={"relabel": [BY_POD, REPLICAS]}) as ours:
        sent = [from_pod(SECOND_SHARD_SERVICE, prometheus_replica=each) for each in "ab"]
        first = await ours.post("/api/v2/alerts", sent)
        again = await ours.post("/api/v2/alerts", sent)
        ended = [each | {"endsAt": "2026-01-01T00:00:00Z"} for each in sent[:1]]
        mixed = await ours.post("/v1/alerts", from_pod("api", "Slow") | {"source": "mine"})

        assert (first.status, again.status, mixed.status) == (200, 200, 202)
        assert await services(ours) == {SECOND_SHARD_SERVICE, "api"}
        assert sorted(each["alertname"] for each in await labels(ours)) == ["Down", "Slow"]
        assert not any("prometheus_replica" in each for each in await labels(ours))

        assert (await ours.post("/api/v2/alerts", ended)).status == 200
        assert await ours.names() == {"Slow"}


async def test_webhooks_and_websockets_are_relabelled_alike() -> None:
    falco = {
        "rule": "Shell",
        "output": "a shell",
        "priority": "Critical",
        "output_fields": {"k8s.pod.name": "x"},
    }
    team = {
        "name": "falco is security's",
        "format": "falco",
        "set": {"team": "security"},
        "service": "cluster",
    }
    async with system(ingest={"relabel": [team, BY_POD]}) as ours:
        answer = await ours.post("/v1/events", falco)
        port = await ours.listen()
        async with websockets.connect(f"ws://127.0.0.1:{port}/v1/stream/alerts") as stream:
            await stream.recv()
            await stream.send(json.dumps({"id": 1, "alerts": [from_pod("rag")]}))
            frame = json.loads(await stream.recv())

        assert answer.items[0]["decision"] == frame["body"]["items"][0]["decision"] == "opened"
        assert await services(ours) == {"cluster", "rag"}
        assert {each.get("team") for each in await labels(ours)} == {"security", None}


async def test_people_see_what_a_label_was_before() -> None:
    async with system(ingest={"relabel": [BY_POD]}) as ours:
        await ours.post("/v1/alerts", from_pod("api", service="unknown"))

        [found] = await ours.alerts()
        assert found["annotations"]["relabelled"] == "service was unknown"


async def test_filters_go_by_the_labels_that_the_rules_gave() -> None:
    rules = {
        "relabel": [{"name": "dev is low", "matchers": ['env="dev"'], "set": {"severity": "info"}}],
        "filters": [{"name": "no info", "min_severity": "P3"}],
    }
    async with system(ingest=rules) as ours:
        answer = await ours.post("/v1/alerts", alert("A", env="dev", severity="critical"))

        assert answer.items[0]["decision"] == "filtered"


async def test_a_bound_token_is_bound_to_the_labels_that_the_rules_gave() -> None:
    rules = [{"name": "team", "matchers": ['service="api"'], "set": {"team": "ml"}}]
    async with system(ingest={"relabel": rules}) as ours:
        admin = await token(ours, "ops", ["admin"])
        bound = await token(ours, "ml", ["ingest:v1"], admin, match=['team="ml"'])

        mine = await ours.post("/v1/alerts", alert("A", "api", team="db"), headers=bound)
        theirs = await ours.post("/v1/alerts", alert("A", "db", team="db"), headers=bound)

        assert (mine.status, theirs.status) == (202, 403)


async def token(
    ours: System, name: str, scopes: list[str], headers: dict[str, str] | None = None, **more: object
) -> dict[str, str]:
    answer = await ours.post("/v1/tokens", {"name": name, "scopes": scopes, **more}, headers=headers or {})
    assert answer.status == 201, answer.body
    return {"Authorization": f"Bearer {answer.json['token']}"}


# -- tables ----------------------------------------------------------------------------------------------------


def table(tmp_path: Path, text: str) -> str:
    path = tmp_path / "teams.csv"
    path.write_text(text)
    return str(path)


async def test_a_table_gives_labels_and_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = table(tmp_path, "\ufeffservice,team,tier\napi,ml,1\ndb,,2\n")
    rule = {"name": "team", "from": "service", "map": path}
    async with system(ingest={"relabel": [rule]}) as ours:
        await ours.post("/v1/alerts", [alert("A", "api"), alert("A", "db"), alert("A", "web")])
        assert {(each["service"], each.get("team"), each.get("tier")) for each in await labels(ours)} == {
            ("api", "ml", "1"), ("db", None, "2"), ("web", None, None),
        }  # fmt: skip

        Path(path).write_text("service,team\napi,search\n")
        await followed(ours)
        await ours.post("/v1/alerts", alert("B", "api"))

        assert [each["team"] for each in await labels(ours) if each["alertname"] == "B"] == ["search"]


async def test_a_table_that_becomes_wrong_is_told_and_the_one_before_goes_on(tmp_path: Path) -> None:
    path = table(tmp_path, "service,team\napi,ml\n")
    async with system(ingest={"relabel": [{"name": "team", "from": "service", "map": path}]}) as ours:
        Path(path).write_text("service,team\napi,ml\napi,secret-team\n")
        with capture_logs() as logs:
            await followed(ours)
            await followed(ours)
        await ours.post("/v1/alerts", alert("A"))

        assert [each.get("team") for each in await labels(ours)] == ["ml"]
        told = [str(line) for line in logs if "can't be read" in line["event"]]
        assert len(told) == 1 and "line 3: line 2 has the same first column" in told[0]
        assert "secret-team" not in told[0]

        os.remove(path)
        await followed(ours)
        await ours.post("/v1/alerts", alert("B"))
        assert [each.get("team") for each in await labels(ours)] == ["ml", "ml"]


async def test_without_its_table_at_a_start_alerts_are_taken_without_the_rule(tmp_path: Path) -> None:
    path = str(tmp_path / "missing.csv")
    rules = [{"name": "team", "from": "service", "map": path}, {"name": "x", "set": {"x": "y"}}]
    async with system(ingest={"relabel": rules}) as ours:
        assert (await ours.post("/v1/alerts", alert("A"))).status == 202

        Path(path).write_text("service,team\napi,ml\n")
        await followed(ours)
        await ours.post("/v1/alerts", alert("B"))

        assert sorted((each["alertname"], each.get("team"), each["x"]) for each in await labels(ours)) == [
            ("A", None, "y"), ("B", "ml", "y"),
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "line 1: expected a header with two columns or more"),
        ("service;team\n", "line 1: expected a header with two columns or more"),
        ("service,team,team\n", "line 1: two columns of the header have one name"),
        ("service,\n", "line 1: expected the name of a label"),
        ("service,team\na,b\nc\n", "line 3: expected 2 columns as in the header, it has 1"),
        ("service,team\n,b\n", "line 2: expected something in the first column"),
        ('service,team\n"a,b\n', "line 2: unexpected end of data"),
        ("service,team\na,\0\n", "line 2: expected text"),
        ("service,team\na," + "x" * 1001, "line 2: a cell has over 1000 characters"),
    ],
)
async def test_a_reload_with_a_wrong_table_changes_nothing_and_says_where(
    shared: System, tmp_path: Path, text: str, why: str
) -> None:
    rule = {"name": "team", "from": "service", "map": table(tmp_path, text)}

    answer = await reload(shared, {"ingest": {"relabel": [rule]}})

    assert answer.status == 400, answer.body
    assert f"ingest.relabel[0].map: {rule['map']}: {why}" in answer.json["detail"]
    assert shared.gateway.station.settings.ingest.relabel == []


# -- what began by other rules ---------------------------------------------------------------------------------


async def test_an_end_ends_what_began_before_the_rules_changed(ours: System, both_ways: str) -> None:
    down, slow = from_pod("api"), from_pod("db", "Slow")
    await ours.post("/v1/alerts", [down, slow])
    assert (await reload(ours, {"ingest": {"relabel": [BY_POD]}})).status == 200
    await followed(ours)
    # One is sent again and is another alert now, the other is not heard of until it ends.
    again = await ours.post("/v1/alerts", down)
    assert again.items[0]["decision"] == "opened"
    assert len(await ours.alerts()) == 3

    ended = await ours.post("/v1/alerts", [each | {"status": "resolved"} for each in (down, slow)])

    assert [each["decision"] for each in ended.items] == ["resolved", "resolved"]
    assert all(each["incident_id"] for each in ended.items)
    assert await ours.alerts() == []


async def test_ends_by_prometheus_reach_what_began_before_too(ours: System, both_ways: str) -> None:
    await ours.post("/api/v2/alerts", [from_pod("api") | {"startsAt": "2026-01-01T00:00:00Z"}])
    assert (await reload(ours, {"ingest": {"relabel": [BY_POD, REPLICAS]}})).status == 200
    await followed(ours)
    over = {"startsAt": "2026-01-01T00:00:00Z", "endsAt": "2026-01-01T01:00:00Z"}

    for _ in range(2):  # a plain request is known as such from the second on
        assert (await ours.post("/api/v2/alerts", [from_pod("api") | over])).status == 200

    assert await ours.alerts() == []


async def test_an_end_that_is_repeated_is_told_to_former_series_once(ours: System) -> None:
    assert (await reload(ours, {"ingest": {"relabel": [BY_POD]}})).status == 200
    await followed(ours)
    ours.clock.heard_s += kept.SETTLED_S
    over = from_pod("api") | {"startsAt": "2026-01-01T00:00:00Z", "endsAt": "2026-01-01T01:00:00Z"}

    async def unknown() -> float:
        # To what it is called now, and to what it would have been called before.
        figures = (await ours.get("/v1/stats")).json["alerts"]["by_decision"]
        return float(figures.get("unknown_resolve", 0))

    told = []
    for _ in range(3):
        assert (await ours.post("/api/v2/alerts", [over])).status == 200
        told.append(await unknown())

    assert told == [2, 3, 4]


async def test_what_began_without_rules_ends_after_a_restart_with_some(tmp_path: Path) -> None:
    from tests.api.gateway_in_process import MemoryStores

    stores = MemoryStores()
    async with system(stores) as ours:
        await ours.post("/v1/alerts", from_pod("api"))
    async with system(stores, ingest={"relabel": [BY_POD]}) as ours:
        answer = await ours.post("/v1/alerts", from_pod("api") | {"status": "resolved"})

        assert answer.items[0]["decision"] == "resolved"
        assert await ours.alerts() == []


async def test_a_delivery_that_comes_twice_after_a_change_is_answered_alike(ours: System) -> None:
    await ours.post("/v1/alerts", from_pod("api"))
    assert (await reload(ours, {"ingest": {"relabel": [BY_POD]}})).status == 200
    await followed(ours)
    over = from_pod("api") | {"status": "resolved"}

    first, again = [await ours.post("/v1/alerts", over, headers={"Idempotency-Key": "x"}) for _ in range(2)]

    assert (first.status, first.items[0]["decision"]) == (202, "resolved")
    assert again.status == 202
    assert await ours.alerts() == []


async def test_former_rules_are_forgotten_in_the_end(ours: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "KEPT_S", 60.0)
    monkeypatch.setattr(kept, "FORMER_MAX", 4)
    for drop in ("a", "b", "c", "d", "e", "f"):
        assert (await reload(ours, {"ingest": {"relabel": [{"name": "x", "drop": [drop]}]}})).status == 200
        await followed(ours)
    rules = ours.gateway.station.rules
    assert rules.rules is not None and len(rules.rules.former) == kept.FORMER_MAX

    ours.clock.heard_s += 61.0
    await followed(ours)

    assert rules.rules.former == ()


async def test_what_is_ended_by_its_key_alone_is_found_after_it_was_relabelled() -> None:
    from tests.api.gateway_in_process import MemoryStores

    rules = {"relabel": [{"name": "s", "matchers": ['service="api"'], "service": "llm"}]}
    event = {
        "routing_key": "k", "event_action": "trigger", "dedup_key": "d1",
        "payload": {"summary": "down", "source": "api", "severity": "critical", "component": "api"},
    }  # fmt: skip
    stores = MemoryStores()
    async with system(stores, ingest=rules) as ours:
        assert (await ours.post("/v2/enqueue", event)).status == 202
        assert await services(ours) == {"llm"}
    # Another gateway, which did not take it, asks the shards; what they say must not be relabelled again.
    async with system(
        stores, ingest={"relabel": [*rules["relabel"], {"name": "n", "service": "other"}]}
    ) as ours:
        over = {key: value for key, value in event.items() if key != "payload"} | {"event_action": "resolve"}
        assert (await ours.post("/v2/enqueue", over)).status == 202
        assert await ours.alerts() == []


# -- by gRPC ---------------------------------------------------------------------------------------------------


async def test_alerts_by_grpc_are_relabelled_and_filtered_and_end_after_a_change() -> None:
    from services.proto import incident_pb2 as pb
    from tests.api.test_grpc import Client, message
    from tests.ports import free_port

    port = free_port()
    rules = {"filters": [{"name": "no dev", "ignored_labels": ["env=dev"]}]}
    async with system(server={"grpc": True, "grpc_port": port}, ingest=rules) as ours:
        client = Client(port)
        async with client.channel:
            first = await client.stream([message(1), message(2, labels={"env": "dev"})])
            alone = await client.sentinel.SubmitAlert(message(3, labels={"env": "dev"}))
            renamed = {"relabel": [{"name": "one", "service": "llm", "set": {"by": "rule"}}]}
            assert (
                await reload(ours, {"server": {"grpc": True, "grpc_port": port}, "ingest": renamed})
            ).status == 200
            await followed(ours)
            again = await client.stream([message(1)])
            both = {(each["service"], each.get("by")) for each in await labels(ours)}
            ended = await client.stream([message(1, resolved=True)])

        dropped, accepted = pb.ACK_STATUS_DROPPED, pb.ACK_STATUS_ACCEPTED
        assert [ack.status for ack in first] == [accepted, dropped]
        assert (alone.status, first[1].reason) == (
            dropped, "dropped by the filter 'no dev': env=\"dev\" is ignored",
        )  # fmt: skip
        assert again[0].status == accepted
        assert both == {("s1", None), ("llm", "rule")}
        assert ended[0].status == accepted
        assert await ours.alerts() == []


# -- what senders may write ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["$1", "${1}", "\n", "\u202eabc", "é\U0001f525", "x" * 16_000, '"', "a" * 1024]
)
async def test_odd_values_are_taken_and_never_read_as_a_rule(value: str) -> None:
    rules = [
        {"name": "copy", "from": "from", "extract": "(?s)(.*)", "set": {"to": "<$1>"}},
        {"name": "rename", "rename": {"from": "was"}},
    ]
    async with system(ingest={"relabel": rules}) as ours:
        answer = await ours.post("/v1/alerts", alert("A", **{"from": value}))

        assert answer.status == 202
        [found] = await labels(ours)
        assert found["was"] == value
        too_long = len(value) > 1024
        assert found.get("to") == (None if too_long else f"<{value}>")
        assert counted(ours, "llm_im_relabel_failed_total") == ({("copy",): 1} if too_long else {})
