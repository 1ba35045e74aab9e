"""Alive, ready, and counted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from models.errors import Unavailable
from models.metrics import METRICS, ActorMetrics, Meter, decode, encode
from models.settings.all import Settings
from services.api.app import build_app
from services.api.health import HealthGather, render
from services.api.v1.commands import Commands
from tests.api.stand_in import AWAY, StandIn

ROOT = Path(__file__).parents[2]


def client(stand_in: StandIn) -> TestClient:
    return TestClient(stand_in.app())


def test_it_is_live_while_it_answers() -> None:
    answer = client(StandIn(started=False, silent={0: AWAY, 1: AWAY})).get("/health/live")

    assert (answer.status_code, answer.json()) == (200, {"status": "live"})


def test_it_is_not_ready_before_the_first_start_is_complete() -> None:
    answer = client(StandIn(started=False)).get("/health/ready")

    assert (answer.status_code, answer.json()["status"]) == (503, "starting")


def test_it_is_ready_when_every_shard_answers() -> None:
    answer = client(StandIn()).get("/health/ready")

    assert (answer.status_code, answer.json()) == (
        200,
        {"status": "ready", "degraded": [], "notifications": "on"},
    )


def test_it_is_ready_and_names_the_shards_that_do_not_answer() -> None:
    answer = client(StandIn(shards=3, silent={1: AWAY})).get("/health/ready")

    assert answer.status_code == 200
    assert answer.json() == {
        "status": "degraded",
        "degraded": ["shard/0001"],
        "reasons": {"shard/0001": "it is restarting"},
        "notifications": "on",
    }


def test_it_is_not_ready_when_no_shard_answers() -> None:
    answer = client(StandIn(silent={0: AWAY, 1: AWAY})).get("/health/ready")

    assert (answer.status_code, answer.json()["degraded"]) == (503, ["shard/0000", "shard/0001"])


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics"])
def test_probes_may_ask_for_the_head_alone(path: str) -> None:
    assert client(StandIn()).head(path).status_code == 200


def test_metrics_are_prometheus_text_with_the_actor_on_every_series() -> None:
    meter = Meter("shard-0", partition="shard/0000")
    meter.count("llm_im_alerts_received_total", 64, door='a"b\\c\nd')
    meter.count("llm_im_alerts_received_total", 1, door='a"b\\c\nd')
    meter.set("llm_im_dedup_ratio", 0.25)
    meter.total("llm_im_alerts_decided_total", 7, decision="opened")

    answer = client(StandIn(readings=[meter.read()])).get("/metrics")

    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.text.splitlines() == [
        "# HELP llm_im_alerts_received_total Alerts that reached a shard, by door; one requested again with its body counts twice.",
        "# TYPE llm_im_alerts_received_total counter",
        r'llm_im_alerts_received_total{actor="shard-0",partition="shard/0000",door="a\"b\\c\nd"} 65',
        "# HELP llm_im_alerts_decided_total Alerts decided by a shard, by decision.",
        "# TYPE llm_im_alerts_decided_total counter",
        'llm_im_alerts_decided_total{actor="shard-0",partition="shard/0000",decision="opened"} 7',
        "# HELP llm_im_dedup_ratio Share of decided alerts that were repeats or duplicates, 0 to 1.",
        "# TYPE llm_im_dedup_ratio gauge",
        'llm_im_dedup_ratio{actor="shard-0",partition="shard/0000"} 0.25',
    ]


def test_a_histogram_counts_up_to_each_bound() -> None:
    meter = Meter("shard-0")
    for size in (1, 4, 5, 100_000):
        meter.observe("llm_im_ingest_batch_size", size)

    text = render([meter.read()])

    found = dict(re.findall(r'_bucket\{actor="shard-0",le="([^"]+)"\} (\d+)', text))
    assert (found["1"], found["4"], found["16"], found["16384"], found["+Inf"]) == ("1", "2", "3", "3", "4")
    assert 'llm_im_ingest_batch_size_sum{actor="shard-0"} 100010' in text
    assert 'llm_im_ingest_batch_size_count{actor="shard-0"} 4' in text


def test_actors_that_count_the_same_stand_under_one_heading() -> None:
    readings = []
    for name in ("shard-0", "shard-1"):
        meter = Meter(name)
        meter.set("llm_im_open_incidents", 1)
        readings.append(meter.read())

    text = render(readings)

    assert text.count("# TYPE llm_im_open_incidents gauge") == 1
    assert text.count("llm_im_open_incidents{") == 2


def test_a_reading_survives_the_wire() -> None:
    meter = Meter("shard-0", partition="shard/0000")
    meter.count("llm_im_snapshots_total")
    meter.observe("llm_im_append_seconds", 0.003)

    assert decode(encode(meter.read())) == meter.read()


def test_prometheus_own_parser_reads_what_we_write() -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    meter = Meter("shard-0")
    for name, metric in METRICS.items():
        match metric.kind:
            case "counter":
                meter.count(name, 0.5)
            case "gauge":
                meter.set(name, 0.5)
            case "histogram":
                meter.observe(name, 0.5)

    families = list(parser.text_string_to_metric_families(render([meter.read()])))

    assert len(families) == len(METRICS)


def test_scrapes_within_a_second_share_one_gathering() -> None:
    stand_in = StandIn()
    asked = client(stand_in)

    asked.get("/metrics")
    asked.get("/metrics")
    stand_in.clock.forward(1)
    asked.get("/metrics")

    assert stand_in.gathered == 2


def test_metrics_are_503_when_no_actor_answers() -> None:
    async def gather() -> list[ActorMetrics]:
        raise Unavailable("all are away")

    stand_in = StandIn()
    app = build_app(
        stand_in.reads,
        Commands(stand_in.tell_shard, stand_in.reads),
        HealthGather(gather, lambda: True),
        stand_in.tails,
        Settings,
        clock=stand_in.clock,
        tokens=stand_in.tokens,
        silences=stand_in.silences,
        targets=stand_in.targets,
        receivers=stand_in.receivers,
        playbooks=stand_in.playbooks,
        edge=stand_in.edge,
        letters=stand_in.letters,
        topology=stand_in.topology,
        models=stand_in.models,
        heartbeats=stand_in.heartbeats,
        people=stand_in.people,
        reload=stand_in.reload,
    )

    answer = TestClient(app).get("/metrics")

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_every_metric_that_the_code_counts_is_described() -> None:
    used = {
        name
        for folder in ("actors", "services")
        for path in (ROOT / folder).rglob("*.py")
        for name in re.findall(
            r'\.(?:count|total|set|observe)\(\s*"((?:llm_im|incident)_\w+)"', path.read_text()
        )
    }

    assert used - set(METRICS) == set()
