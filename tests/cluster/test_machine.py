"""What an instance takes of its machine: no file of the folder where it was started, a bounded folder of logs, no port that
tells other users of it; and what people see of its processes."""

from __future__ import annotations

import http.client
import json
import os
import signal
from pathlib import Path

import pytest

from services.machine.environment import RAY_FOLDER, RAY_LOG_BYTES
from services.machine.processes import described
from tests.cluster.instance import Cluster, until
from tests.cluster.test_listeners import listeners

pytestmark = pytest.mark.cluster


def environment_of(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode("utf-8", "replace").split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def test_no_file_of_the_folder_where_it_was_started_is_imported(cluster: Cluster) -> None:
    typed_in = cluster.data.parent / "cwd"

    assert (typed_in / "msgspec" / "__init__.py").exists(), "a look that finds nothing proves nothing"
    assert not (typed_in / "IMPORTED").exists()
    for pid in cluster.pids():
        assert not Path(os.readlink(f"/proc/{pid}/cwd")).is_relative_to(typed_in)


def test_ray_logs_no_statistics_and_rotates_every_file(cluster: Cluster) -> None:
    folder = Path(cluster.instance.private_dir) / RAY_FOLDER / "session_latest" / "logs"
    texts = {path.name: path.read_text("utf-8", "replace") for path in folder.rglob("*") if path.is_file()}
    texts.pop("debug_state.txt", None)  # written anew each time, so it does not grow

    assert len(texts) > 20
    told = [name for name, text in texts.items() if "Event stats:" in text or "Global stats:" in text]
    assert not told
    # Workers inherit it from the raylet, and write their titles ("ray::...") over their own environment.
    for name in ("raylet", "gcs_server"):
        (pid,) = cluster.named_pids(name)
        bounds = environment_of(pid)
        assert (
            bounds["RAY_ROTATION_MAX_BYTES"] == str(RAY_LOG_BYTES)
            and bounds["RAY_ROTATION_BACKUP_COUNT"] == "1"
        )
    # Minutes of a test's life, kills and starts included. With statistics it is more than that in two hours of rest.
    size = sum(map(len, texts.values()))
    print(f"{len(texts)} files, {size:,} bytes")
    assert size < 10_000_000


def test_what_our_processes_log_is_one_file_of_the_data_folder(cluster: Cluster) -> None:
    path = cluster.data / "log" / "llm-im.log"

    found = [json.loads(line) for line in path.read_text().splitlines()]

    assert {"shard-0000-a", "shard-0001-a", "control-a"} <= {line.get("actor") for line in found}
    assert any(str(line.get("gateway", "")).startswith("gateway-") for line in found)
    assert path.stat().st_mode & 0o077 == 0


def test_no_port_tells_other_users_of_ray_s_metrics(cluster: Cluster) -> None:
    pids = {process.pid: process.what for process in described(cluster.instance)}
    asked = 0
    for place, holder in listeners(pids).items():
        port = int(place.split(":")[1], 16)
        # Ours ask for a token once there is one; the session's instance has none.
        if port == cluster.port or holder.startswith(("gateway", "Ray Serve's fallback proxy")):
            continue
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/metrics")
            body = connection.getresponse().read(2_000)
            asked += 1
        except (OSError, http.client.HTTPException):
            continue  # gRPC
        finally:
            connection.close()
        assert b"# TYPE" not in body, f"port {port}: {body[:200]!r}"
    assert asked, "a look that finds nothing proves nothing"


def test_status_and_ps_name_every_process(cluster: Cluster) -> None:
    said = json.loads(cluster.cli("status", "--data", str(cluster.data), "--json"))

    processes = {each["what"]: each for each in said["instance"]["processes"]}
    assert {
        "shard-0000-a", "shard-0001-a", "control-a", "classifier-0", "responder-0", "gateway",
        "HAProxy, the front port", "keeps HAProxy", "Ray's head", "Ray's agent",
    } <= set(processes)  # fmt: skip
    assert all(1_000_000 < each["memory_bytes"] < 1_000_000_000 for each in processes.values())
    titles = cluster.pids()
    for actor in cluster.actors():
        assert titles[cluster.actor_pid(actor)] == f"ray::{actor}"
        assert processes[actor]["pid"] == cluster.actor_pid(actor)
    assert "shard-0000-a" in cluster.cli("status", "--data", str(cluster.data))


def others(cluster: Cluster, pid: int) -> dict[int, str]:
    return {other: title for other, title in cluster.pids().items() if other != pid}


def test_a_classifier_that_hangs_is_told_and_replaced(cluster: Cluster) -> None:
    hanging = cluster.actor_pid("classifier-0")
    cluster.kill(hanging, signal.SIGSTOP)
    try:
        sent = cluster.call(
            "POST",
            "/v1/alerts",
            {"labels": {"alertname": "Hangs", "service": "hangs", "severity": "critical"}},
        )
        assert sent.status < 300

        def is_told() -> bool:
            return "classifier-0" in cluster.get("/health/ready").get("reasons", {})

        until("health says so", is_told, 20.0)
        # By its title: who asks its socket fills the queue of one that takes no connection.
        until("a new process", lambda: "ray::classifier-0" in others(cluster, hanging).values(), 60.0)
    finally:
        cluster.kill(hanging, signal.SIGKILL)

    def is_classified() -> bool:
        (incident,) = cluster.incidents("&service=hangs")
        return incident["classified_by"] is not None

    until("what it owed is classified", is_classified, 40.0)
    cluster.wait_ready()
