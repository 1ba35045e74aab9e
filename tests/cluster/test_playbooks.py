"""Appendix B's playbook, as it stands, on a real instance: a restart that helps, one that is not needed, one that fails. And runs whose
processes are killed.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import kills, runs_under_kills
from tests.cluster.conftest import program
from tests.cluster.instance import ROOT, Cluster, running, until
from tests.cluster.played import CounterApi, LokiApi, Played, ServicesApi, keys_of
from tests.ports import free_port
from tests.receivers.api import SECRET
from tests.receivers.pagers import PagerDutyApi
from tests.receivers.slack import SlackApi

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

BOOK = ROOT / "tests" / "data" / "playbooks" / "appendix-b.yaml"
BOOK_NAME = "Critical Infrastructure Failure Response"
#: Services: the restart mends one, one is well already, and of one the restart fails.
MENDED, WELL, SICK = "llm-api", "llm-cache", "llm-gateway"
#: The playbook waits for 30 s, and tries what failed three times more.
RUN_TIMEOUT_S = 90.0

SETTINGS = """
[outbound]
allow = ["127.0.0.1"]
rate = "none"

[notify]
interval = "0s"
[notify.route]
receivers = ["ops-slack", "platform-oncall"]
[notify.receivers.ops-slack]
type = "slack"
token = "xoxb-{secret}"
channel = "#ops"
api_url = "http://{slack}/api"
[notify.receivers.platform-oncall]
type = "pagerduty"
routing_key = "{oncall_key}"
api_url = "http://{pager}"
[notify.receivers.critical-escalation]
type = "pagerduty"
routing_key = "{escalation_key}"
api_url = "http://{escalation}"

[playbooks]
enabled = true
folder = "{books}"
[playbooks.prometheus]
url = "{prometheus}"
[playbooks.loki]
url = "http://{loki}"
[playbooks.services."llm-*"]
by = "http"
url = "http://{services}/{{action}}/{{service}}"
token = "{secret}"
health_url = "http://{services}/health/{{service}}"
[playbooks.war_room.links]
zoom = "https://meet.example.org/{{{{ incident.id }}}}"
"""
SCRAPE = """
global: {scrape_interval: 1s}
scrape_configs:
- job_name: llm
  static_configs:
"""


@dataclass
class World:
    """An instance, and whom it acts upon."""

    cluster: Cluster
    slack: SlackApi
    pager: PagerDutyApi
    escalation: PagerDutyApi
    loki: LokiApi
    services: ServicesApi
    played: Played

    def run_of(self, incident: str) -> dict[str, Any]:
        """Its only run, {} while there is none."""
        runs = self.cluster.get(f"/v1/incidents/{incident}/runs")["items"]
        assert len(runs) <= 1, runs
        return runs[0] if runs else {}

    def is_over(self, incident: str) -> bool:
        return bool(self.run_of(incident).get("ended_at"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("playbooks")
    books = folder / "books"
    books.mkdir()
    shutil.copy(BOOK, books)
    slack, pager, escalation, loki = SlackApi(), PagerDutyApi(), PagerDutyApi(), LokiApi()
    services = ServicesApi({MENDED: False, WELL: True, SICK: False}, mended_by_restart=(MENDED,))
    with (
        Played(slack=slack, pager=pager, escalation=escalation, loki=loki, services=services) as played,
        metrics(folder) as prometheus,
    ):
        config = folder / "llm-im.toml"
        config.write_text(
            SETTINGS.format(
                **played.place, books=books, prometheus=prometheus, secret=SECRET,
                oncall_key="a" * 32, escalation_key="b" * 32,
            )
        )  # fmt: skip
        with running(Cluster(folder / "data", free_port(), {"LLM_IM_CONFIG": str(config)})) as cluster:
            cluster.settled()
            yield World(cluster, slack, pager, escalation, loki, services, played)


@contextmanager
def metrics(folder: Path) -> Iterator[str]:
    """A Prometheus that knows `up` of each service; its URL."""
    binary, port = program("prometheus"), free_port()
    config = folder / "prometheus.yaml"
    rows = "".join(
        f"  - {{targets: ['127.0.0.1:{port}'], labels: {{service: {name}}}}}\n"
        for name in (MENDED, WELL, SICK)
    )
    config.write_text(SCRAPE + rows)
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [binary, f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}"],
            stdout=log, stderr=log, cwd=folder,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"

    def known() -> bool:
        asked = urllib.parse.urlencode({"query": "count(up == 1)"})
        with urllib.request.urlopen(f"{url}/api/v1/query?{asked}", timeout=5) as answer:
            found = json.load(answer)["data"]["result"]
        return bool(found) and found[0]["value"][1] == "3"

    try:
        until("Prometheus has scraped all services", known, 30.0, poll_s=0.2)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def told(world: World) -> dict[str, str]:
    """Alerts for the three services; their incidents' ids, once the run of each is over."""
    for name in (MENDED, WELL, SICK):
        alert = {
            "labels": {"alertname": "NodeDown", "service": name, "severity": "critical", "incident_type": "infrastructure"},
            "annotations": {
                "summary": f"{name}: a node is down",
                "description": "no replica answers",
                "health_url": f"http://{world.played.place['services']}/health/{name}",
            },
        }  # fmt: skip
        answer = world.cluster.call("POST", "/v1/alerts", alert)
        assert answer.status == 202, answer.body

    found: dict[str, str] = {}

    def opened() -> bool:
        found.update({str(each["service"]): str(each["id"]) for each in world.cluster.incidents()})
        return len(found) == 3

    until("three incidents", opened, 20.0)
    until("their runs end", lambda: all(map(world.is_over, found.values())), RUN_TIMEOUT_S, poll_s=0.2)
    return found


def test_the_restart_helps_and_the_incident_resolves_by_itself(world: World, told: dict[str, str]) -> None:
    incident = told[MENDED]
    run, shown = world.run_of(incident), world.cluster.get(f"/v1/incidents/{incident}")

    assert (run["status"], run["playbook"]) == ("succeeded", BOOK_NAME)
    assert did(run, "automated_remediation") == {
        "health_check": "failed", "service_restart": "succeeded", "wait": "succeeded", "verify_resolution": "succeeded",
    }  # fmt: skip
    assert did(run, "resolve").keys() >= {"incident_resolve", "slack_notification", "schedule_postmortem"}
    assert (shown["state"], shown["resolution"]["resolution_method"]) == ("Resolved", "Automated")
    assert shown["resolution"]["resolved_by"] == f"playbook {BOOK_NAME}"
    assert shown["active_playbook"] is None
    assert states(shown) == ["Detected -> Triaged", "Triaged -> Remediating"]
    kinds = [line["event_type"] for line in shown["timeline"]]
    assert in_order(kinds, "Created", "PlaybookStarted", "ActionExecuted", "Resolved", "TaskPlanned", "PlaybookCompleted")  # fmt: skip

    assert len(world.services.changed(MENDED)) == 1
    until("PagerDuty is told of the end", lambda: not world.pager.made[incident]["open"], 10.0)
    assert world.pager.made[incident]["pages"] == 1
    assert incident not in world.escalation.made
    until(
        "Slack shows the end", lambda: [each for each in world.slack.updated if is_over(each, MENDED)], 10.0
    )
    words = [str(each) for each in world.slack.posted if MENDED in str(each) or incident in str(each)]
    assert len([each for each in words if "CRITICAL INCIDENT" in each and "no replica answers" in each]) == 1
    assert len([each for each in words if f"Incident {incident} resolved automatically" in each]) == 1


def test_what_was_captured_is_shown(world: World, told: dict[str, str]) -> None:
    run = world.run_of(told[MENDED])
    texts = {}
    for each in run["captures"]:
        capture = world.cluster.get(f"/v1/runs/{run['id']}/captures/{each['id']}")
        texts[capture["name"]] = capture["text"]
    said = world.cluster.cli("playbooks", "history", run["id"], "--url", world.cluster.url)

    assert set(texts) == {"metrics", "logs"}
    (series,) = json.loads(texts["metrics"])["series"]
    assert series["metric"]["service"] == MENDED
    assert "line 1" in texts["logs"]
    assert "service_restart: succeeded" in said and "captured logs" in said


def test_a_service_that_is_well_is_not_restarted(world: World, told: dict[str, str]) -> None:
    incident = told[WELL]
    run, shown = world.run_of(incident), world.cluster.get(f"/v1/incidents/{incident}")

    assert did(run, "automated_remediation") == {
        "health_check": "succeeded", "service_restart": "skipped", "wait": "succeeded", "verify_resolution": "succeeded",
    }  # fmt: skip
    assert (run["status"], shown["state"]) == ("succeeded", "Resolved")
    assert "Triaged -> Remediating" not in states(shown)
    assert world.services.changed(WELL) == []


def test_a_restart_that_fails_escalates(world: World, told: dict[str, str]) -> None:
    incident = told[SICK]
    run, shown = world.run_of(incident), world.cluster.get(f"/v1/incidents/{incident}")

    assert run["status"] == "failed" and "no capacity" in run["detail"]
    assert set(did(run, "escalate").values()) == {"succeeded"}
    assert next(step["status"] for step in run["steps"] if step["id"] == "resolve") == "skipped"
    assert (shown["state"], shown["severity"], shown["active_playbook"]) == ("Remediating", "P0", None)
    tries = [call.headers["Idempotency-Key"] for call in world.services.changed(SICK)]
    assert len(tries) == len(set(tries)) == 3  # max_attempts

    assert world.pager.made[incident] == {"open": True, "pages": 1}
    assert world.escalation.made[incident] == {"open": True, "pages": 1}
    words = [str(each) for each in world.slack.posted if SICK in str(each)]
    assert (
        len([each for each in words if "@platform-leads" in each and "Manual intervention required" in each])
        == 1
    )
    assert any(f"https://meet.example.org/{incident}" in line["description"] for line in shown["timeline"])


def test_everybody_was_asked_as_documented_and_told_once(world: World, told: dict[str, str]) -> None:
    assert world.played.wrong() == {}
    for name in ("pager", "escalation", "services"):
        assert set(keys_of(world.played.apis[name]).values()) == {1}, name
    # An update and what is new in its thread are one act.
    posted = Counter((call.path, call.headers.get("Idempotency-Key")) for call in world.slack.changes)
    assert set(posted.values()) == {1}


def did(run: dict[str, Any], step: str) -> dict[str, str]:
    """How each action of a step ended."""
    found = next(each for each in run["steps"] if each["id"] == step)
    return {each["action"]: each["status"] for each in found["actions"] if each["action"] != "condition"}


def states(incident: dict[str, Any]) -> list[str]:
    """Its changes of state, as its timeline tells them."""
    told = [line["description"] for line in incident["timeline"] if line["event_type"] == "StateChanged"]
    return [text.split(":")[0] for text in told]


def in_order(found: list[str], *wanted: str) -> bool:
    """Whether all that is wanted is there, each after the one before."""
    rest = iter(found)
    return all(each in rest for each in wanted)


def is_over(message: dict[str, Any], name: str) -> bool:
    return f"[RESOLVED] {name}" in str(message["text"])


# Kills: ----------------------------------------------------------------------------------------------------------

RUNS = 100
#: What is killed while they are under way, in this order.
KILLED = ("responder-0", "shard-0000-a", "gateway", "control-a")


def test_runs_survive_kills_and_nothing_is_done_twice(world: World) -> None:
    with Played(counter=(counter := CounterApi())) as played:
        story = runs_under_kills.apply_and_send(world.cluster, played.place["counter"], RUNS)
        kills.one_by_one(world.cluster, KILLED, random.Random(RUNS))
        runs_under_kills.check(world.cluster, counter, story)
