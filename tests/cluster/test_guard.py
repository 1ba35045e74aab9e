"""Tokens on a real instance: the first one made before it starts, then Prometheus, amtool, kills and a lost admin."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import program
from tests.cluster.instance import Answer, Cluster, running, until
from tests.ports import free_port

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
#: A second to follow the log, and what a busy machine adds.
REVOKED_WITHIN_S = 3.0
CONFIG = """
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%s]
alerting:
  alertmanagers:
  - authorization: {credentials_file: %s}
    static_configs: [{targets: ['%s']}]
"""
RULES = """
groups:
- name: test
  rules:
  - alert: AlwaysOn
    expr: vector(1)
    labels: {service: guarded, severity: warning}
"""


class Guarded:
    """An instance with tokens on. `admin` is a file with an admin's secret."""

    def __init__(self, cluster: Cluster, admin: Path) -> None:
        self.cluster = cluster
        self.admin = admin

    def cli(self, *words: str, code: int = 0, token: Path | None = None) -> str:
        file = token or self.admin
        return self.cluster.cli(*words, "--url", self.cluster.url, "--token-file", str(file), code=code)

    def call(self, method: str, path: str, secret: str | None = None, body: object = None) -> Answer:
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        return self.cluster.call(method, path, body, headers=headers)

    def make(self, name: str, *scopes: str) -> str:
        words = [word for scope in scopes for word in ("--scope", scope)]
        return self.cli("tokens", "create", name, *words).strip()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    # With a token an instance may listen everywhere.
    cluster = Cluster(folder / "data", free_port(), host="0.0.0.0")
    admin = folder / "admin.token"
    cluster.cli("tokens", "create", "admin", "--scope", "admin", "--local",
                "--data", str(cluster.data), "--out", str(admin))  # fmt: skip
    with running(cluster):
        cluster.wait_ready()
        yield Guarded(cluster, admin)


def test_it_becomes_ready_on_every_address_of_the_machine(guarded: Guarded) -> None:
    guarded.cluster.says_that_it_is_ready()


def test_a_token_made_before_the_first_start_is_good_and_nothing_goes_without_one(guarded: Guarded) -> None:
    without = [
        guarded.call("GET", "/v1/incidents").status,
        guarded.call("GET", "/metrics").status,
        guarded.call("POST", "/v1/alerts", None, {"labels": {"alertname": "A"}}).status,
        guarded.call("POST", "/api/v2/alerts", None, [{"labels": {"alertname": "A"}}]).status,
        guarded.call("GET", "/-/healthy").status,
    ]

    assert without == [401, 401, 401, 401, 200]
    assert guarded.cli("incidents", "list") == "no open incidents\n"


def test_prometheus_and_amtool_give_their_tokens_by_file(guarded: Guarded, tmp_path: Path) -> None:
    sender, reader = tmp_path / "sender", tmp_path / "reader"
    sender.write_text(guarded.make("prometheus", "ingest:alertmanager"))
    reader.write_text(guarded.make("amtool", "read"))
    rules, config, http = tmp_path / "rules.yaml", tmp_path / "prometheus.yaml", tmp_path / "http.yaml"
    rules.write_text(RULES)
    config.write_text(CONFIG % (rules, sender, guarded.cluster.authority))
    http.write_text(f"authorization:\n  credentials_file: {reader}\n")
    amtool, binary = program("amtool"), program("prometheus")

    def shown() -> bool:
        done = subprocess.run(
            [amtool, f"--alertmanager.url={guarded.cluster.url}", f"--http.config.file={http}", "-o", "json",
             "alert", "query", "service=guarded"],
            env={"HOME": str(tmp_path)}, capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
        return len(json.loads(done.stdout)) == 1

    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [binary, f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'tsdb'}",
             f"--web.listen-address=127.0.0.1:{free_port()}", "--rules.alert.resend-delay=1s"],
            stdout=log, stderr=log, cwd=tmp_path,
        )  # fmt: skip
    try:
        until("amtool sees Prometheus' alert", shown, 30.0, poll_s=0.3)
    finally:
        process.terminate()
        process.wait(10)


def test_a_new_token_is_good_at_once_at_every_gateway_and_a_revoked_one_soon_at_none(
    guarded: Guarded,
) -> None:
    secret = guarded.make("many", "ingest:v1")
    alert = {"labels": {"alertname": "Many", "service": "many"}}

    at_once = [guarded.call("POST", "/v1/alerts", secret, alert).status for _ in range(20)]
    guarded.cli("tokens", "revoke", "many")
    refused = 0

    def ten_in_a_row() -> bool:
        nonlocal refused
        refused = refused + 1 if guarded.call("POST", "/v1/alerts", secret, alert).status == 401 else 0
        return refused >= 10

    assert at_once == [202] * 20
    until("every gateway refuses it", ten_in_a_row, REVOKED_WITHIN_S)


def test_killed_gateways_and_a_killed_writer_forget_no_token(guarded: Guarded) -> None:
    secret = guarded.make("survivor", "read")
    cluster = guarded.cluster
    cluster.kill(cluster.actor_pid("control-a"))
    for pid in cluster.gateway_pids():
        cluster.kill(pid)
    cluster.settled()

    assert guarded.call("GET", "/v1/incidents", secret).status == 200
    assert guarded.call("GET", "/v1/incidents").status == 401
    assert json.loads(guarded.cli("tokens", "list", "--json"))["items"]
    guarded.make("after the kill", "read")


def test_a_lost_admin_is_replaced_while_it_runs(guarded: Guarded, tmp_path: Path) -> None:
    guarded.cli("tokens", "revoke", "admin", "--force")
    until("it is refused", lambda: guarded.call("GET", "/v1/tokens", guarded.admin.read_text().strip()).status == 401,
          REVOKED_WITHIN_S)  # fmt: skip

    another = tmp_path / "another"
    guarded.cluster.cli("tokens", "create", "another", "--scope", "admin", "--local",
                        "--data", str(guarded.cluster.data), "--out", str(another))  # fmt: skip

    assert "another" in guarded.cli("tokens", "list", token=another)
    guarded.admin = another


def test_no_secret_is_in_any_log_or_file_of_the_instance(guarded: Guarded) -> None:
    secrets = [guarded.admin.read_text().strip(), guarded.make("quiet", "read")]
    keys = [each.split("_", 2)[2].encode() for each in secrets]
    for secret in secrets:
        guarded.call("POST", "/v1/tokens", secret, b"{")
        guarded.call("GET", "/nothing", secret + "x")
    instance = guarded.cluster.instance
    files = [
        path
        for folder in (guarded.cluster.data, Path(instance.private_dir))
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    ]

    holding = [str(path) for path in files if any(key in path.read_bytes() for key in keys)]

    assert len(files) > 10
    assert not holding
