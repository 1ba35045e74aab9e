"""Programs that know nothing of us: Debian's Prometheus (2.42) and amtool (0.25) take us for an Alertmanager."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import program
from tests.cluster.instance import Cluster, until
from tests.cluster.receiver import Receiver
from tests.ports import free_port

pytestmark = pytest.mark.cluster

RULES = """
groups:
- name: test
  rules:
  - alert: AlwaysOn
    expr: vector(1)
    labels: {service: prometheus-on, severity: warning}
    annotations: {summary: fires until it is stopped}
  - alert: EndsSoon
    expr: vector(1) unless sum(prometheus_notifications_sent_total) > %d
    labels: {service: prometheus-ends, severity: critical}
    annotations: {summary: ends by itself once so much was sent}
"""
CONFIG = """
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%s]
alerting:
  alertmanagers:
  - static_configs: [{targets: ['%s']}]
scrape_configs:
- job_name: itself
  static_configs: [{targets: ['127.0.0.1:%d']}]
"""


#: So much is sent by no test.
NEVER = 10**9


@contextmanager
def prometheus(
    folder: Path, ours: str, name: str = "prometheus", *, ends_after: int = NEVER
) -> Iterator[str]:
    """A Prometheus with two rules that sends to `ours`; its URL. Its services are `name`-on and `name`-ends, of which the second
    ends when so many alerts of both were sent."""
    binary, port = program("prometheus"), free_port()
    rules, config = folder / "rules.yaml", folder / "prometheus.yaml"
    rules.write_text(RULES.replace("service: prometheus-", f"service: {name}-") % ends_after)
    config.write_text(CONFIG % (rules, ours, port))
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                binary, f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}", "--rules.alert.resend-delay=1s",
            ],
            stdout=log, stderr=log, cwd=folder,
        )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def counters(url: str) -> dict[str, float]:
    """prometheus_notifications_*_total, summed over their labels."""
    found: dict[str, float] = {}
    with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("prometheus_notifications_") and "_total" in line:
                name = line.split("{")[0].split(" ")[0]
                found[name] = found.get(name, 0.0) + float(line.rsplit(" ", 1)[1])
    return found


def incident_of(cluster: Cluster, service: str) -> dict[str, object]:
    """The service's only incident; an empty one while there is none."""
    found = list(cluster.incidents(f"&service={service}"))
    assert len(found) <= 1, found
    return found[0] if found else {}


def test_prometheus_opens_an_incident_repeats_it_and_resolves_it(cluster: Cluster, tmp_path: Path) -> None:
    with prometheus(tmp_path, cluster.authority, ends_after=12) as url:

        def is_active() -> bool:
            with urllib.request.urlopen(f"{url}/api/v1/alertmanagers", timeout=5) as answer:
                active = json.load(answer)["data"]["activeAlertmanagers"]
            return bool(active == [{"url": f"{cluster.url}/api/v2/alerts"}])

        until("Prometheus knows us", is_active, 20.0, poll_s=0.1)
        # What its rules gave before it had found any Alertmanager it has dropped by itself.
        before = counters(url)
        until("the incident opens", lambda: incident_of(cluster, "prometheus-ends"), 15.0, poll_s=0.1)
        opened = incident_of(cluster, "prometheus-ends")
        assert opened["resolved_at"] is None and opened["alerts_firing"] == 1

        def decisions() -> dict[str, int]:
            (alert,) = cluster.incident_alerts(str(opened["id"]))
            why: Any = alert["why"]
            return {each["decision"]: each["count"] for each in why}

        def state() -> object:
            return incident_of(cluster, "prometheus-ends").get("state") == "Resolved"

        took_s = until("the incident resolves", state, 30.0, poll_s=0.1)
        counted = {name: count - before[name] for name, count in counters(url).items()}

    print(f"resolved {took_s:.1f} s after it opened; {counted}")
    assert counted["prometheus_notifications_sent_total"] >= 5
    assert counted["prometheus_notifications_errors_total"] == 0
    assert counted["prometheus_notifications_dropped_total"] == 0
    ended = incident_of(cluster, "prometheus-ends")
    assert ended["id"] == opened["id"] and ended["resolved_at"] is not None and ended["alerts_firing"] == 0
    why = decisions()
    assert why["opened"] == 1 and why["repeated"] >= 2 and why["resolved"] == 1
    still = incident_of(cluster, "prometheus-on")
    assert still["state"] != "Resolved" and still["alerts"] == 1


@pytest.fixture
def amtool(cluster: Cluster, tmp_path: Path) -> Amtool:
    return Amtool(program("amtool"), cluster, tmp_path)


class Amtool:
    def __init__(self, binary: str, cluster: Cluster, home: Path) -> None:
        self.binary, self.cluster, self.home = binary, cluster, home

    def __call__(self, *words: str, code: int = 0) -> str:
        """What it says; its exit code must be `code`."""
        done = subprocess.run(
            [self.binary, f"--alertmanager.url={self.cluster.url}", *words],
            env={"HOME": str(self.home)}, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert done.returncode == code, (
            f"amtool {' '.join(words)}: {done.returncode} {done.stdout} {done.stderr}"
        )
        return done.stdout + (done.stderr if code else "")


def test_amtool_adds_alerts_and_finds_them_by_matchers(amtool: Amtool) -> None:
    amtool("alert", "add", "AmtoolOne", "service=amtool", "instance=a", "--annotation=summary=by hand")
    amtool("alert", "add", "AmtoolTwo", "service=amtool", "instance=b")

    simple = amtool("alert", "query", "service=amtool")
    assert "AmtoolOne" in simple and "AmtoolTwo" in simple and "by hand" in simple
    one = json.loads(amtool("-o", "json", "alert", "query", "service=amtool", "alertname=~.*One"))
    assert [alert["labels"]["alertname"] for alert in one] == ["AmtoolOne"]
    other = json.loads(amtool("-o", "json", "alert", "query", "service=amtool", "instance!=a"))
    assert [alert["labels"]["instance"] for alert in other] == ["b"]
    assert json.loads(amtool("-o", "json", "alert", "query", "service=amtool", "instance=~[xyz]")) == []
    assert "AmtoolOne" in amtool("alert", "query", "AmtoolOne")


def test_amtool_resolves_an_alert(amtool: Amtool, cluster: Cluster) -> None:
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    start = f"--start={hour_ago.isoformat(timespec='seconds')}"
    amtool("alert", "add", "AmtoolEnds", "service=amtool-ends", start)
    assert incident_of(cluster, "amtool-ends")["alerts_firing"] == 1

    amtool(
        "alert", "add", "AmtoolEnds", "service=amtool-ends", start, f"--end={datetime.now(UTC).isoformat()}"
    )

    assert json.loads(amtool("-o", "json", "alert", "query", "service=amtool-ends")) == []
    assert incident_of(cluster, "amtool-ends")["state"] == "Resolved"


def test_amtool_shows_cluster_config_and_silences(amtool: Amtool) -> None:
    shown = amtool("cluster", "show")
    assert "Cluster Status" in shown and "ready" in shown
    config = amtool("config", "show")
    assert "resolve_timeout" in config and "receiver: llm-im" in config
    assert amtool("silence", "query").strip().count("\n") == 0
    assert json.loads(amtool("-o", "json", "silence", "query")) == []
    assert "llm-im" in amtool("config", "routes", "show")


def test_amtool_silences_and_what_is_silenced_is_suppressed(amtool: Amtool) -> None:
    amtool("alert", "add", "AmtoolQuiet", "service=amtool-quiet")
    silence = silenced(amtool, "amtool-quiet")

    until("it is muted", lambda: states(amtool, "amtool-quiet") == ["suppressed"], 10.0)
    amtool("silence", "expire", silence)
    until("it is not any more", lambda: states(amtool, "amtool-quiet") == ["active"], 10.0)


def test_what_prometheus_sends_into_a_silence_of_amtool_is_told_when_that_ends(
    amtool: Amtool, cluster: Cluster, receiver: Receiver, tmp_path: Path
) -> None:
    silence = silenced(amtool, "quiet-on")
    time.sleep(1.0)  # muted everywhere

    with prometheus(tmp_path, cluster.authority, "quiet"):
        until("the other one is told", lambda: bool(receiver.of("quiet-ends")), 40.0)
        until("it is muted", lambda: states(amtool, "quiet-on") == ["suppressed"], 20.0)
        muted = incident_of(cluster, "quiet-on")["muted"]
        assert muted["is_muted"] and [each["silence"] for each in muted["by"]] == [silence]  # type: ignore[index]
        until("it is held back", lambda: is_withheld(cluster, "quiet-on"), 20.0)
        assert receiver.of("quiet-on") == []

        amtool("silence", "expire", silence)
        until("it is told", lambda: bool(receiver.of("quiet-on")), 20.0)


def silenced(amtool: Amtool, service: str) -> str:
    """The id of a new silence of a service."""
    return amtool(
        "silence", "add", f"service={service}", "--comment=x", "--author=t", "--duration=1h"
    ).strip()


def states(amtool: Amtool, service: str) -> list[str]:
    shown = json.loads(amtool("-o", "json", "alert", "query", "--active", "--silenced", f"service={service}"))
    return [alert["status"]["state"] for alert in shown]


def is_withheld(cluster: Cluster, service: str) -> bool:
    muted = incident_of(cluster, service)["muted"]
    return isinstance(muted, dict) and muted["withheld"] == "opened"
