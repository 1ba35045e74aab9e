"""Correlation in a whole system: services by REST and by the command line, situations that incidents show, symptoms that wait."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors import correlator
from actors.begun import has_begun
from actors.correlator import Correlator
from actors.folding import fold_control
from models.incidents import summaries
from models.incidents.lines import SYSTEM, line_of
from models.incidents.relation import Part, Relation
from models.partition.sharding import TENANT
from models.shard.events import IncidentOpened
from models.shard.settings import ShardSettings
from models.stream.happenings import Happening
from models.topology.topology import TOPOLOGY
from services.feed import relate
from services.upkeep.resharding import reshard
from services.wiring.bootstrap import CORRELATOR_ACTOR
from tests.api.gateway_in_process import MemoryStores, Reply, SettableClock, System, system
from tests.api.test_moving import Kept
from tests.command_line import CommandLine

pytestmark = pytest.mark.asyncio

#: Nobody waits so long: a condition that does not come about fails the test.
PATIENCE_S = 15.0
ON = {"enabled": True}
SHOP: dict[str, Any] = {
    "source": "cmdb",
    "services": [{"name": "web", "criticality": "critical", "depends_on": ["api"]}, {"name": "alone"}],
    "dependencies": [
        {"caller": "api", "callee": "db", "kind": "database"},
        {"caller": "jobs", "callee": "db"},
    ],
}


async def send(ours: System, method: str, path: str, body: object = None) -> Reply:
    data = b"" if body is None else json.dumps(body).encode()
    headers = [] if body is None else [(b"content-type", b"application/json")]
    return await ours.request(method, path, [data], headers)


async def until(found: Callable[[], Awaitable[Any]]) -> Any:
    """What is found, once there is something."""
    async with asyncio.timeout(PATIENCE_S):
        while not (it := await found()):
            await asyncio.sleep(0.02)
        return it


async def declare(ours: System, body: object = SHOP) -> None:
    async def taken() -> bool:
        answer = await send(ours, "PUT", "/v1/topology", body)
        assert answer.status in (200, 503), answer
        return answer.status == 200

    await until(taken)


async def incident_of(ours: System, service: str) -> dict[str, Any]:
    async def found() -> dict[str, Any] | None:
        items = (await ours.get(f"/v1/incidents?service={service}")).items
        return items[0] if items else None

    incident: dict[str, Any] = await until(found)
    return incident


async def related(ours: System, service: str) -> dict[str, Any]:
    """The incident of a service, once it says what it is related to."""

    async def found() -> dict[str, Any] | None:
        incident = await incident_of(ours, service)
        return incident if incident["situation"] else None

    incident: dict[str, Any] = await until(found)
    return incident


async def fire(ours: System, *services: str, status: str = "firing") -> None:
    for service in services:
        labels = {"alertname": "Slow", "service": service, "severity": "warning"}
        answer = await ours.post("/v1/alerts", {"labels": labels, "status": status})
        assert answer.status == 202, answer


# -- the graph -----------------------------------------------------------------------------------------------


async def test_services_come_by_rest_and_are_shown_with_what_they_need() -> None:
    async with system(correlation=ON) as ours:
        await declare(ours)

        page = (await ours.get("/v1/topology")).json
        assert [each["name"] for each in page["items"]] == ["alone", "api", "db", "jobs", "web"]
        assert (page["service_count"], page["dependency_count"]) == (5, 3)
        assert page["sources"][0]["name"] == "cmdb"
        short = (await ours.get("/v1/topology?limit=2")).json
        assert short["next"] == "api"
        db = (await ours.get("/v1/topology/service?name=db")).json
        assert db["reached_by"] == {"api": 1, "jobs": 1, "web": 2}
        assert db["service"]["needed_by"][0]["kinds"] == ["database"]
        way = (await ours.get("/v1/topology/path?caller=web&callee=db")).items
        assert [each["callee"] for each in way] == ["api", "db"]
        assert (await ours.get("/v1/topology/path?caller=db&callee=web")).items == []
        assert (await ours.get("/v1/topology/service?name=nobody")).status == 404

        one = {"caller": "db", "callee": "disk"}
        assert (await send(ours, "POST", "/v1/topology/dependencies", one)).status == 200
        assert (await ours.get("/v1/topology")).json["dependency_count"] == 4
        gone = "/v1/topology/dependencies?caller=db&callee=disk"
        assert (await send(ours, "DELETE", gone)).status == 204
        assert (await send(ours, "DELETE", gone)).status == 404
        assert (await send(ours, "DELETE", "/v1/topology?source=cmdb")).status == 204
        assert (await ours.get("/v1/topology")).items == []


async def test_what_is_wrong_with_a_topology_is_named_and_changes_nothing() -> None:
    async with system(correlation=ON) as ours:
        await declare(ours)
        for body, said in (
            ({"dependencies": [{"caller": "a", "callee": "a"}]}, "can't depend on itself"),
            ({"dependencies": [{"caller": "a"}]}, "dependencies.0.callee"),
            ({"services": [{"name": "a", "criticality": "huge"}]}, "services.0.criticality"),
            ({"services": [{"name": "a", "colour": "red"}]}, "services.0.colour"),
        ):
            answer = await send(ours, "PUT", "/v1/topology", body)
            assert answer.status == 400, answer
            assert said in answer.body.decode(), answer

        assert (await ours.get("/v1/topology")).json["dependency_count"] == 3


async def test_without_correlation_it_is_said_how_to_turn_it_on() -> None:
    async with system() as ours:
        for method, path, body in (
            ("GET", "/v1/topology", None),
            ("PUT", "/v1/topology", SHOP),
            ("GET", "/v1/situations", None),
        ):
            answer = await send(ours, method, path, body)
            assert answer.status == 409
            assert "correlation.enabled = true" in answer.json["detail"]
        await fire(ours, "db")
        assert (await incident_of(ours, "db"))["situation"] is None


async def test_the_file_of_the_settings_is_read_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "services.yaml"
    file.write_text("services:\n- name: web\n  depends_on: [api, db]\n")
    async with system(correlation={**ON, "topology_file": str(file)}) as ours:

        async def read() -> bool:
            answer = await ours.get("/v1/topology")
            return answer.status == 200 and answer.json["dependency_count"] == 2

        await until(read)
        assert (await ours.get("/v1/topology")).json["sources"][0]["name"] == "file"


async def test_a_file_that_cannot_be_read_is_told_by_health() -> None:
    async with system(correlation={**ON, "topology_file": "/nowhere/services.yaml"}) as ours:

        async def told() -> bool:
            ready = (await ours.get("/health/ready")).body.decode()
            return "/nowhere/services.yaml: No such file or directory" in ready

        await until(told)


# -- situations ----------------------------------------------------------------------------------------------


async def test_incidents_say_which_situation_they_are_part_of_and_what_probably_caused_it() -> None:
    async with system(correlation=ON) as ours:
        await declare(ours)
        await fire(ours, "db", "api", "web", "mail")

        async def whole() -> dict[str, Any] | None:
            web = await incident_of(ours, "web")
            return web if web["situation"] and web["situation"]["incidents"] == 3 else None

        web = await until(whole)
        db = await related(ours, "db")
        assert db["situation"]["part"] == "cause"
        assert web["situation"]["part"] == "symptom"
        assert web["situation"]["symptom_of"] == db["id"]
        first = web["probable_causes"][0]
        assert (first["service"], first["incident"]) == ("db", db["id"])
        assert "all 2 other affected services depend on it" in first["reasons"]
        lines = [each["event_type"] for each in db["timeline"]]
        assert "IncidentRelated" in lines
        assert (await incident_of(ours, "mail"))["situation"] is None

        [situation] = (await ours.get("/v1/situations")).items
        assert [each["service"] for each in situation["incidents"]] == ["db", "api", "web"]
        one = await ours.get(f"/v1/situations/{situation['id']}")
        assert one.json["id"] == web["situation"]["id"]
        assert (await ours.get(f"/v1/situations/{db['id']}")).status == 404


async def test_a_situation_ends_with_its_incidents() -> None:
    async with system(correlation=ON) as ours:
        await declare(ours)
        await fire(ours, "db", "api")
        await related(ours, "db")
        await fire(ours, "db", "api", status="resolved")

        async def ended() -> list[Any]:
            return (await ours.get("/v1/situations?state=ended")).items

        [situation] = await until(ended)
        assert situation["ended_at"]
        assert situation["probable_causes"][0]["service"] == "db"
        assert (await ours.get("/v1/situations")).items == []


async def test_a_correlator_that_was_away_goes_on_where_it_was_and_nobody_missed_it() -> None:
    stores = MemoryStores()
    async with system(stores, correlation=ON) as ours:
        await declare(ours)
        await fire(ours, "db", "api")
        before = await related(ours, "api")
        correlator = ours.cluster.get(CORRELATOR_ACTOR)
        assert isinstance(correlator, Correlator)
        await correlator.stop()
        await fire(ours, "web")
        assert (await incident_of(ours, "web"))["situation"] is None
    async with system(stores, correlation=ON) as ours:

        async def joined() -> dict[str, Any] | None:
            web = await incident_of(ours, "web")
            return web if web["situation"] else None

        web = await until(joined)
        assert web["situation"]["id"] == before["situation"]["id"]
        assert (await ours.get("/v1/topology")).json["dependency_count"] == 3


async def test_metrics_and_health_speak_of_it() -> None:
    async with system(correlation=ON) as ours:
        await declare(ours)
        await fire(ours, "db", "api")
        await related(ours, "api")

        metrics = (await ours.get("/metrics")).body.decode()

        assert 'llm_im_topology_dependencies{actor="correlator-0"' in metrics
        assert 'llm_im_situations_open{actor="correlator-0",partition="topology"} 1' in metrics


async def test_after_resharding_each_is_told_in_the_shard_where_it_is_and_what_ended_is_over() -> None:
    kept = Kept()
    shop = {"dependencies": [*SHOP["dependencies"], {"caller": "cart", "callee": "api"}]}
    async with system(kept, correlation=ON) as ours:  # type: ignore[arg-type]
        await declare(ours, {**SHOP, **shop})
        await fire(ours, "db", "api", "web")
        for service in ("db", "api", "web"):
            await related(ours, service)
        away = ours.cluster.get(CORRELATOR_ACTOR)
        assert isinstance(away, Correlator)
        await away.stop()
        await fire(ours, "db", status="resolved")
    await reshard(kept, ShardSettings(), 1, SettableClock(), lambda _text: None)
    async with system(kept, correlation=ON, state={"partitions": 1}) as ours:  # type: ignore[arg-type]

        async def over() -> bool:
            answer = await ours.get("/v1/situations")
            ended = [
                each["service"]
                for situation in (answer.items if answer.status == 200 else ())
                for each in situation["incidents"]
                if each["ended_at"]
            ]
            return ended == ["db"]

        await until(over)
        await fire(ours, "cart")

        async def all_know() -> bool:
            found = [await related(ours, each) for each in ("api", "web", "cart")]
            return all(each["situation"]["incidents"] == 4 for each in found)

        await until(all_know)


async def test_a_log_that_is_gone_is_not_begun_anew_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.control.LEASE_S", 0.3)  # how often it looks what has begun
    stores = MemoryStores()
    async with system(stores, correlation=ON) as ours:
        await declare(ours)

        async def noted() -> bool:
            return TOPOLOGY in (await fold_control(stores.log("control"))).begun

        await until(noted)
    del stores.store.partitions[TOPOLOGY]
    async with system(stores, correlation=ON) as ours:

        async def told() -> bool:
            return "its log is gone" in (await ours.get("/health/ready")).body.decode()

        await until(told)
        assert not await has_begun(stores.log(TOPOLOGY))


async def test_what_incidents_were_told_is_not_remembered_for_ever() -> None:
    clock = SettableClock()
    outbox = correlator._Outbox(clock)
    relation = Relation(b"s" * 16, Part.RELATED, 2)
    for number in range(100):
        outbox.sent(b"%016d" % number, relation)
        assert outbox.may_wait(b"%016d" % number, relation)
        clock.ahead_s += 1.0

    assert len(outbox._told) <= correlator.CALM_S + 1


async def test_that_its_end_was_told_is_not_that_somebody_knows_it_opened_again() -> None:
    event = IncidentOpened(
        b"i" * 16, 0, TENANT, "db", "db", {}, "db is slow", "", "test", {}, {}, False, "test", 0.0
    )
    now = summaries.opened(event, 100.0)
    again = msgspec.structs.replace(now, reopened=1)

    def news(reason: str) -> bool:
        line = line_of("NotificationSent", SYSTEM, reason, reason)
        happening = Happening(1, 0, 100.0, None, line, again, again, True)
        return relate._incidents([happening])[now.id].told

    assert news("reopened")
    assert not news("resolved")


# -- the command line ----------------------------------------------------------------------------------------


async def test_it_is_all_there_on_the_command_line(tmp_path: Path) -> None:
    async with system(correlation=ON) as ours:
        run = CommandLine(f"http://127.0.0.1:{await ours.listen()}", COLUMNS="200")

        file = tmp_path / "services.json"
        file.write_text(json.dumps(SHOP))
        await declare(ours, {"source": "x"})

        assert "cmdb: 2 services, 3 dependencies" in await run("topology", "import", str(file))
        assert "jobs" in await run("topology", "list")
        assert "cmdb" in await run("topology", "list", "--sources")
        shown = await run("topology", "show", "db")
        assert "web (2)" in shown
        assert "database" in shown
        assert "web -> api -> db" in await run("topology", "path", "web", "db")
        assert "leads to web" in await run("topology", "path", "db", "web", code=5)
        assert "db -> disk" in await run("topology", "add", "db", "disk", "--kind", "volume")
        assert "is forgotten" in await run("topology", "remove", "db", "disk")

        await fire(ours, "db", "api")
        incident = await related(ours, "api")
        listed = await run("situations", "list")
        assert "db" in listed
        identity = incident["situation"]["id"]
        whole = await run("situations", "show", identity)
        assert "the other affected service depends on it" in whole
        assert f"situation {identity}" in await run("situations", "show", identity[-12:])
        heading = await run("incidents", "show", incident["id"])
        assert f"{identity}  (symptom, with 1 other incident)" in heading
        assert "likely cause" in heading


# -- symptoms that wait --------------------------------------------------------------------------------------


async def test_one_slow_database_pages_once() -> None:
    heard: list[dict[str, Any]] = []

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        size = next(
            int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
        )
        heard.append(json.loads(await reader.readexactly(size)))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(receive, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    quick = dict.fromkeys(("P0", "P1", "P2", "P3", "P4"), "0s")
    notify = {"webhook": {"url": url}, "wait": quick, "interval": "0s"}
    async with server, system(correlation={**ON, "mute_symptoms": True}, notify=notify) as ours:
        await declare(ours)
        await fire(ours, "db")

        async def paged() -> bool:
            return bool(heard)

        await until(paged)
        await fire(ours, "api", "jobs", "web")

        async def waits() -> bool:
            found = [await incident_of(ours, service) for service in ("api", "jobs", "web")]
            return all(
                each["situation"] and each["situation"]["muted_until"] and each["timeline"][-1]
                for each in found
            )

        await until(waits)
        await asyncio.sleep(0.5)  # somebody who was to be told would have been by now
        assert [each["incident"]["service"] for each in heard] == ["db"]
        api = await incident_of(ours, "api")
        assert "NotificationWithheld" in [each["event_type"] for each in api["timeline"]]

        # They end with their cause, and only who was told of something hears of its end.
        await fire(ours, "api", "jobs", "web", "db", status="resolved")

        async def resolved() -> bool:
            return len(heard) > 1

        await until(resolved)
        assert [(each["incident"]["service"], each["status"]) for each in heard] == [
            ("db", "firing"),
            ("db", "resolved"),
        ]
