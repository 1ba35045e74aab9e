"""`llm-im config reload` on a real Ray: every process goes by it, none is started anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from services import launch
from services.cli.exits import ExitCode
from tests.cluster.instance import Cluster, until

pytestmark = pytest.mark.cluster

#: Two gateways, two shards, the control actor, a classifier, a responder.
PROCESSES = 7


def processes_that_logged(cluster: Cluster, text: str) -> int:
    """Gateways among them, whose stderr Serve would take away."""
    logs = (Path(cluster.instance.private_dir) / launch.RAY_FOLDER).glob("session_latest/logs/worker-*.err")
    lines = [
        line
        for path in logs
        for line in path.read_text("utf-8", "replace").splitlines()
        if text in line and line.startswith("{")
    ]
    return len(lines)


def reload(cluster: Cluster, *words: str, code: int = 0) -> str:
    return cluster.cli(
        "config", "reload", "--data", str(cluster.data), "--port", str(cluster.port),
        "--url", f"http://127.0.0.1:{cluster.port}", *words, code=code,
    )  # fmt: skip


def test_a_reload_reaches_every_process_without_a_restart(cluster: Cluster, tmp_path: Path) -> None:
    before = cluster.pids()
    file = tmp_path / "llm-im.toml"
    file.write_text('[notify.wait]\nP4 = "7m"\n[logging]\nlevel = "DEBUG"\n')

    said = reload(cluster, "--config", str(file))

    assert 'notify.wait.P4: "5m" -> "7m"' in said and 'logging.level: "INFO" -> "DEBUG"' in said
    until(
        "every process to say that it goes by it",
        lambda: processes_that_logged(cluster, '"settings changed"') == PROCESSES,
        10.0,
    )
    assert cluster.pids().keys() == before.keys()
    assert '"SettingsChanged"' in cluster.cli("log", "tail", "control", "--data", str(cluster.data), "--json")

    said = reload(cluster)

    assert "2 settings changed" in said
    assert "nothing differs" in reload(cluster)


def test_a_setting_that_needs_a_restart_is_refused_by_name(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "llm-im.toml"
    file.write_text('[server]\ngateways = 3\n[logging]\nlevel = "DEBUG"\n')

    reload(cluster, "--config", str(file), code=ExitCode.CONFLICT)

    assert "nothing differs" in reload(cluster)
