"""Actions that ask the world: http, health_check, verify_resolution, metrics_snapshot (a real Prometheus too), logs_capture, war rooms.
Local servers check each request against the documented API.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from models.playbook.work import CAPTURE_MAX, FAILED, SUCCEEDED
from services.playbooks import prometheus
from services.playbooks.quoting import quoted
from tests.clock import ManualClock
from tests.cluster.conftest import program
from tests.contract.playbook_world import Got, answering, desk, serving
from tests.ports import free_port

pytestmark = pytest.mark.asyncio
LOOPBACK = ("127.0.0.0/8",)
NOW = 1_700_000_000.0


# http


async def test_http_sends_what_is_written() -> None:
    async with serving(answering(201, {"id": 5})) as server, desk(allow=LOOPBACK) as here:
        done = await here.do(
            "http", key="k1", method="POST", url=server.url + "/jobs/{{ incident.service }}",
            headers={"X-Team": "{{ incident.labels.service }}"}, body={"id": "{{ incident.id }}", "n": "{{ 2 }}"}, expect=[200, 201],
        )  # fmt: skip

    [got] = server.got
    assert (got.method, got.path, got.json) == ("POST", "/jobs/llm-api", {"id": got.json["id"], "n": 2})
    assert got.headers["X-Team"] == "llm-api"
    assert got.headers["Idempotency-Key"] == "k1"
    assert got.headers["Content-Type"] == "application/json"
    assert (done.status, done.outputs) == (SUCCEEDED, {"status": 201, "body": {"id": 5}})


@pytest.mark.parametrize(
    ("status", "expect", "contains", "ok"),
    [
        (200, "2xx", "", True), (204, "2xx", "", True), (302, "2xx", "", False), (302, 302, "", True), (500, "2xx", "", False),
        (503, [200, 503], "", True), (200, 200, "well", True), (200, 200, "ill", False),
    ],
)  # fmt: skip
async def test_http_succeeds_with_what_was_expected(
    status: int, expect: Any, contains: str, ok: bool
) -> None:
    handler = answering(
        status, b"all is well" if status not in (204, 302) else b"", Location="http://127.0.0.1:1/"
    )
    async with serving(handler) as server, desk(allow=LOOPBACK) as here:
        done = await here.do("http", url=server.url, expect=expect, contains=contains)

    assert (done.status == SUCCEEDED) is ok
    assert len(server.got) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/",
        "http://localhost:{port}/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]:{port}/",
        "http://0x7f000001:{port}/",
    ],
)
@pytest.mark.parametrize("type_", ["http", "health_check"])
async def test_an_address_from_outside_the_settings_is_guarded(type_: str, url: str) -> None:
    async with serving(answering()) as server, desk() as here:
        target = url.format(port=server.url.rpartition(":")[2])
        name = "url" if type_ == "http" else "endpoint"
        done = await here.do(
            type_,
            params={name: "{{ incident.metadata.health_url }}"},
            incident={"metadata": {"health_url": target}},
        )

    assert (done.status, done.final, done.reached) == (FAILED, True, False)
    assert "[outbound] allow" in done.detail
    assert not server.got


async def test_what_the_operator_allows_while_it_runs_is_allowed() -> None:
    async with serving(answering()) as server, desk() as here:
        refused = await here.do("http", url=server.url)
        here.worker.take({"outbound_allow": LOOPBACK})
        done = await here.do("http", url=server.url)

    assert (refused.status, done.status) == (FAILED, SUCCEEDED)


async def test_an_endless_answer_is_cut() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65536)
        except ConnectionError:
            pass
        return response

    async with serving(endless) as server, desk(allow=LOOPBACK) as here:
        done = await here.do("http", url=server.url, capture=True)

    assert done.captures[0].cut
    assert len(done.captures[0].text) <= CAPTURE_MAX


# health_check, verify_resolution


async def test_a_health_check_tells_well_from_not_well_and_from_not_askable() -> None:
    async with serving(answering(200)) as well, serving(answering(503)) as ill, desk(allow=LOOPBACK) as here:
        good = await here.do("health_check", endpoint=well.url, expect=200, timeout="30s")
        bad = await here.do("health_check", endpoint=ill.url)
        away = await here.do("health_check", endpoint="http://127.0.0.1:1/")
        nowhere = await here.do("health_check")

    assert (good.status, good.outputs) == (SUCCEEDED, {"healthy": True, "status": 200})
    assert [(each.status, each.final) for each in (bad, away, nowhere)] == [
        (FAILED, False),
        (FAILED, False),
        (FAILED, True),
    ]
    assert bad.outputs == {"healthy": False, "status": 503}
    assert "health_url in [playbooks.services]" in nowhere.detail


async def test_a_service_has_a_health_url_in_the_settings_which_is_trusted() -> None:
    async with serving(answering(200)) as server:
        given = {
            "services": {
                "llm-*": {
                    "by": "http",
                    "url": "http://127.0.0.1:1",
                    "health_url": server.url + "/{service}/healthz",
                }
            }
        }
        async with desk(given) as here:
            by_service = await here.do("health_check")
            by_url = await here.do("health_check", endpoint=f"{server.url}/llm-api/healthz")
            other = await here.do("health_check", endpoint=f"{server.url}/other")

    assert [each.status for each in (by_service, by_url, other)] == [SUCCEEDED, SUCCEEDED, FAILED]
    assert [got.path for got in server.got] == ["/llm-api/healthz"] * 2


async def test_verify_resolution_repeats_the_last_health_check_of_the_run() -> None:
    run = {
        "last": {
            "health_check": {
                "endpoint": "{{ incident.metadata.health_url }}",
                "expect": 204,
                "timeout": "{{ variables.t }}",
            }
        }
    }
    async with serving(answering(204, b"")) as server, desk(allow=LOOPBACK) as here:
        incident = {"metadata": {"health_url": server.url + "/health"}}
        good = await here.do("verify_resolution", check="health_check", run=run, incident=incident)
        other = await here.do("verify_resolution", expect=200, run=run, incident=incident)
        none = await here.do("verify_resolution", run={"last": {}}, incident=incident)

    assert [each.status for each in (good, other, none)] == [SUCCEEDED, FAILED, FAILED]
    assert [got.path for got in server.got] == ["/health", "/health"]
    assert none.final


async def test_verify_resolution_gives_it_time() -> None:
    asked = 0

    async def recovers(_request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        return web.Response(status=200 if asked == 3 else 503)

    async with serving(recovers) as server, desk(allow=LOOPBACK) as here:
        done = await here.do("verify_resolution", endpoint=server.url, within="10s", interval="1ms")

    assert (done.status, asked) == (SUCCEEDED, 3)


# Prometheus


def _vector(*values: str) -> dict[str, Any]:
    result = [
        {"metric": {"instance": str(place)}, "value": [NOW, value]} for place, value in enumerate(values)
    ]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


@pytest.mark.parametrize(
    ("values", "params", "ok"),
    [
        (("0.01", "0.02"), {"below": 0.05}, True), (("0.01", "0.2"), {"below": 0.05}, False), (("7",), {"above": 5}, True),
        (("5",), {"above": 5}, False), ((), {"below": 1}, False), (("NaN",), {"below": 1}, False),
    ],
)  # fmt: skip
async def test_verify_resolution_compares_a_metric(
    values: tuple[str, ...], params: dict[str, Any], ok: bool
) -> None:
    async with (
        serving(answering(200, _vector(*values))) as server,
        desk({"prometheus": {"url": server.url}}, clock=ManualClock(NOW)) as here,
    ):
        done = await here.do("verify_resolution", check="metric", query="error_ratio", params=params)

    assert (done.status == SUCCEEDED) is ok
    assert (server.got[0].path, server.got[0].query) == (
        "/api/v1/query",
        {"query": "error_ratio", "time": "1700000000.000"},
    )


async def test_metrics_are_asked_for_as_the_api_says_and_kept() -> None:
    series = [
        {
            "metric": {"__name__": "up", "service": "llm-api"},
            "values": [[NOW - 60, "1"], [NOW, "0"], [NOW, "NaN"]],
        }
    ]
    body = {"status": "success", "data": {"resultType": "matrix", "result": series}, "warnings": ["w"]}
    async with serving(answering(200, body)) as server:
        given = {"prometheus": {"url": server.url + "/", "token": "prometheus-t0ken"}}
        async with desk(given, clock=ManualClock(NOW)) as here:
            done = await here.do(
                "metrics_snapshot",
                source="prometheus",
                query='up{service="{{ incident.labels.service }}"}',
                duration="15m",
            )

    [got] = server.got
    assert (got.method, got.path) == ("GET", "/api/v1/query_range")
    assert got.query == {
        "query": 'up{service="llm-api"}',
        "start": "1699999100.000",
        "end": "1700000000.000",
        "step": "8",
    }
    assert got.headers["Authorization"] == "Bearer prometheus-t0ken"
    assert done.outputs["figures"] == [
        {"metric": {"__name__": "up", "service": "llm-api"}, "points": 2, "last": 0.0, "min": 0.0, "max": 1.0}
    ]
    kept = json.loads(done.captures[0].text)
    assert (kept["series"], kept["warnings"], kept["query"]) == (series, ["w"], 'up{service="llm-api"}')


async def test_a_label_cannot_end_the_string_that_it_stands_in() -> None:
    hostile = '"} or vector(1) #`\\'
    async with (
        serving(
            answering(200, {"status": "success", "data": {"resultType": "matrix", "result": []}})
        ) as server,
        desk({"prometheus": {"url": server.url}}) as here,
    ):
        await here.do(
            "metrics_snapshot",
            query='up{service="{{ incident.labels.service }}"}',
            incident={"labels": {"service": hostile}},
        )

    assert server.got[0].query["query"] == 'up{service="\\x22} or vector(1) #\\x60\\x5c"}'
    assert quoted({"a": ["x", 1, None]}) == {"a": ["x", 1, None]}


@pytest.mark.parametrize(
    ("status", "body", "final", "said"),
    [
        (
            400,
            {"status": "error", "errorType": "bad_data", "error": "parse error: unexpected }"},
            True,
            "parse error",
        ),
        (
            422,
            {"status": "error", "error": "query processing would load too many samples"},
            True,
            "too many samples",
        ),
        (503, {"status": "error", "error": "query timed out"}, False, "timed out"),
        (200, {"status": "error", "error": "it lies"}, False, "it lies"),
        (200, b"<html>login</html>", False, "something else than a result"),
        (
            200,
            {"status": "success", "data": {"resultType": "scalar", "result": [1, "1"]}},
            False,
            "not a matrix",
        ),
        (302, {}, False, "302"),
    ],
)
async def test_what_prometheus_does_not_answer_well_is_told(
    status: int, body: Any, final: bool, said: str
) -> None:
    async with serving(answering(status, body)) as server, desk({"prometheus": {"url": server.url}}) as here:
        done = await here.do("metrics_snapshot", query="up")

    assert (done.status, done.final) == (FAILED, final)
    assert said in done.detail


async def test_of_too_many_series_whole_ones_are_kept() -> None:
    series = [{"metric": {"pod": f"p{n}"}, "values": [[NOW, "1"]] * 100} for n in range(1000)]
    async with (
        serving(
            answering(200, {"status": "success", "data": {"resultType": "matrix", "result": series}})
        ) as server,
        desk({"prometheus": {"url": server.url}}) as here,
    ):
        done = await here.do("metrics_snapshot", query="up")

    assert done.captures[0].cut
    assert 10 < len(json.loads(done.captures[0].text)["series"]) < 1000
    assert done.outputs["series"] == 1000


async def test_points_are_as_many_as_people_read_and_prometheus_gives() -> None:
    assert prometheus.step_for(900.0) == 8
    assert prometheus.step_for(30.0) == 1.0
    assert prometheus.step_for(86_400.0 * 7, 1.0) * 11_000 >= 86_400 * 7


@pytest.fixture(scope="module")
def real_prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Debian's, which scrapes itself every 200 ms."""
    import subprocess

    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    config = folder / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 200ms}\nscrape_configs:\n- job_name: self\n  static_configs:\n"
        f"  - targets: ['127.0.0.1:{port}']\n    labels: {{service: llm-api}}\n"
    )
    process = subprocess.Popen(
        [program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
         f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until = time.monotonic() + 60.0
    while time.monotonic() < until:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1.0):
                break
        except OSError:
            time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(20)


async def test_a_real_prometheus_is_read(real_prometheus: str) -> None:
    query = 'up{service="{{ incident.labels.service }}"}'
    async with desk({"prometheus": {"url": real_prometheus}}) as here:
        async with asyncio.timeout(60):
            while True:
                verified = await here.do("verify_resolution", check="metric", query=query, above=0.5)
                if verified.status == SUCCEEDED:
                    break
                await asyncio.sleep(0.1)
        done = await here.do("metrics_snapshot", query=query, duration="1m")
        hostile = await here.do(
            "metrics_snapshot", query=query, incident={"labels": {"service": 'it\'s "odd"\\ \n`'}}
        )
        wrong = await here.do("metrics_snapshot", query="up{")

    assert done.status == SUCCEEDED
    [figures] = done.outputs["figures"]
    assert (figures["metric"]["service"], figures["last"]) == ("llm-api", 1.0)
    assert (hostile.status, hostile.outputs["series"]) == (SUCCEEDED, 0)
    assert (wrong.status, wrong.final) == (FAILED, True)
    assert "parse error" in wrong.detail


# Loki


class Loki:
    """Lines one second apart, the newest at NOW; answers as Loki does, `limit` and `end` as documented."""

    def __init__(self, count: int, limit_max: int = 5000, text: str = "line {n}") -> None:
        self.lines = [(int((NOW - n) * 1e9), text.format(n=n)) for n in range(1, count + 1)]
        self.limit_max = limit_max

    async def serve(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        limit = int(query["limit"])
        if limit > self.limit_max:
            return web.Response(
                status=400,
                text=f"max entries limit per query exceeded, limit > max_entries_limit ({limit} > {self.limit_max})",
            )
        assert query["direction"] == "backward"
        found = [each for each in self.lines if int(query["start"]) <= each[0] < int(query["end"])][:limit]
        streams = [
            {
                "stream": {"pod": str(half)},
                "values": [[str(at), text] for place, (at, text) in enumerate(found) if place % 2 == half],
            }
            for half in (0, 1)
        ]
        return web.json_response(
            {"status": "success", "data": {"resultType": "streams", "result": streams, "stats": {}}}
        )


async def test_log_lines_are_asked_for_in_pages_and_kept_in_their_order() -> None:
    loki = Loki(700, limit_max=300)
    async with serving(loki.serve) as server:
        given = {"loki": {"url": server.url, "tenant": "llm", "page": 300}}
        async with desk(given, clock=ManualClock(NOW)) as here:
            done = await here.do(
                "logs_capture",
                source="loki",
                query='{service="{{ incident.labels.service }}"}',
                duration="15m",
                max_lines=10000,
            )
            few = await here.do("logs_capture", query="{}", duration="15m", max_lines=5)

    first: Got = server.got[0]
    assert first.path == "/loki/api/v1/query_range"
    assert first.headers["X-Scope-OrgID"] == "llm"
    assert first.query["query"] == '{service="llm-api"}'
    assert int(first.query["end"]) - int(first.query["start"]) == 900 * 10**9
    lines = done.captures[0].text.split("\n")
    assert [len(lines), lines[0][-8:], lines[-1][-6:]] == [700, "line 700", "line 1"]
    assert lines == sorted(lines)
    assert [got.query["limit"] for got in server.got] == ["300", "300", "300", "5"]
    assert few.outputs == {"lines": 5}
    assert few.detail.endswith("there are more")


async def test_more_lines_than_can_be_kept_are_cut_from_the_oldest() -> None:
    loki = Loki(3000, text="line {n} " + "x" * 1000)
    async with (
        serving(loki.serve) as server,
        desk({"loki": {"url": server.url}}, clock=ManualClock(NOW)) as here,
    ):
        done = await here.do("logs_capture", query="{}", duration="2h", max_lines=10000)

    [capture] = done.captures
    assert capture.cut
    assert len(capture.text.encode()) <= CAPTURE_MAX
    assert "line 1 " in capture.text.split("\n")[-1]


async def test_what_loki_refuses_is_told_in_its_words() -> None:
    async with (
        serving(Loki(1, limit_max=10).serve) as server,
        desk({"loki": {"url": server.url, "page": 5000}}, clock=ManualClock(NOW)) as here,
    ):
        done = await here.do("logs_capture", query="{}", max_lines=100)
        none = await here.do("logs_capture", query="{}", max_lines=0)
    async with desk() as without:
        unset = await without.do("logs_capture", query="{}")

    assert (done.status, done.final) == (FAILED, True)
    assert "max entries limit per query exceeded" in done.detail
    assert "max_lines: expected 1 to 100000" in none.detail
    assert "no Loki is set: playbooks.loki.url" in unset.detail


# War rooms


class Slack:
    """Slack's Web API, as far as a war room needs it: https://docs.slack.dev/reference/methods."""

    def __init__(self) -> None:
        self.channels: dict[str, str] = {}
        self.invited: list[str] = []
        self.said: list[dict[str, str]] = []

    async def serve(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != "Bearer xoxb-war-room-t0ken":
            return web.json_response({"ok": False, "error": "invalid_auth"})
        method, body = request.path.rpartition("/")[2], {}
        if request.method == "POST":
            assert request.content_type == "application/json"
            body = await request.json()
        match method:
            case "conversations.create":
                if body["name"] in self.channels.values():
                    return web.json_response({"ok": False, "error": "name_taken"})
                if len(body["name"]) > 80 or body["name"] != body["name"].lower():
                    return web.json_response({"ok": False, "error": "invalid_name_specials"})
                self.channels[f"C{len(self.channels)}"] = body["name"]
                return web.json_response(
                    {"ok": True, "channel": {"id": f"C{len(self.channels) - 1}", "name": body["name"]}}
                )
            case "conversations.list":
                page = int(request.query.get("cursor") or 0)
                rows = [{"id": key, "name": name} for key, name in self.channels.items()]
                return web.json_response(
                    {
                        "ok": True,
                        "channels": rows if page else [],
                        "response_metadata": {"next_cursor": "" if page else "1"},
                    }
                )
            case "users.lookupByEmail":
                if request.query["email"] == "alice@example.org":
                    return web.json_response({"ok": True, "user": {"id": "U0000ALICE"}})
                return web.json_response({"ok": False, "error": "users_not_found"})
            case "conversations.invite":
                if body["users"] in self.invited:
                    return web.json_response({"ok": False, "error": "already_in_channel"})
                self.invited.append(body["users"])
                return web.json_response({"ok": True})
            case "chat.postMessage":
                self.said.append(body)
                return web.json_response({"ok": True, "ts": "1.2"})
        return web.json_response({"ok": False, "error": "unknown_method"})


async def test_a_war_room_of_slack_is_made_once() -> None:
    slack = Slack()
    async with serving(slack.serve) as server:
        given = {"war_room": {"slack_token": "xoxb-war-room-t0ken", "slack_api": server.url + "/api"}}
        people = {"assignees": ["alice@example.org", "bob@example.org", "U0CAROL12"]}
        invite = ["{{ incident.assignees }}", "platform-leads"]
        async with desk(given) as here:
            done = await here.do(
                "create_war_room", platform="slack", invite=invite, incident=people, key="k1"
            )
        async with desk(given) as fresh:
            again = await fresh.do(
                "create_war_room", platform="slack", invite=invite, incident=people, key="k1", again=True
            )

    assert slack.channels == {"C0": "inc-llm-api-0000000000aa"}
    assert slack.invited == ["U0000ALICE,U0CAROL12"]
    assert len(slack.said) == 1
    assert done.outputs == again.outputs
    assert done.outputs["not_invited"] == ["bob@example.org", "platform-leads"]
    assert [(each.what, each.value) for each in done.effects] == [
        ("link", "https://slack.com/app_redirect?channel=C0")
    ]


async def test_a_war_room_is_a_link_where_the_settings_make_one(tmp_path: Path) -> None:
    given = {
        "war_room": {
            "links": {"zoom": "https://zoom.example.org/j/{{ incident.id }}", "odd": "{{ incident.title }}"}
        }
    }
    async with desk(given) as here:
        done = await here.do(
            "create_war_room", platform="zoom", invite=["{{ incident.assignees }}", "platform-leads"]
        )
        odd = await here.do("create_war_room", platform="odd")
        unknown = await here.do("create_war_room", platform="meet")
        no_token = await here.do("create_war_room", platform="slack")

    assert done.effects[0].value.startswith("https://zoom.example.org/j/0199a0c0-")
    assert done.detail.startswith("war room for alice, platform-leads: ")
    assert "it makes no URL" in odd.detail
    assert "playbooks.war_room.links.meet" in unknown.detail
    assert "playbooks.war_room.slack_token" in no_token.detail


async def test_what_slack_refuses_is_no_room_and_the_token_is_not_told() -> None:
    async with serving(Slack().serve) as server:
        given = {"war_room": {"slack_token": "xoxb-wrong-t0ken", "slack_api": server.url}}
        async with desk(given) as here:
            done = await here.do("create_war_room", platform="slack")

    assert (done.status, done.final) == (FAILED, True)
    assert "Slack answered invalid_auth" in done.detail
    assert "t0ken" not in repr(done)
