"""`llm-im config reload` on a real Ray: every process goes by it, none is started anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services.cli.shared.exits import ExitCode
from tests.cluster.instance import Cluster, until

pytestmark = pytest.mark.cluster


def pids_that_logged(cluster: Cluster, text: str) -> set[int]:
    lines = (cluster.data / "log" / "llm-im.log").read_text("utf-8", "replace").splitlines()
    return {json.loads(line)["pid"] for line in lines if text in line}


def reload(cluster: Cluster, *words: str, code: int = 0) -> str:
    return cluster.cli(
        "config", "reload", "--data", str(cluster.data), "--port", str(cluster.port),
        "--url", cluster.url, *words, code=code,
    )  # fmt: skip


def test_a_reload_reaches_every_process_without_a_restart(cluster: Cluster, tmp_path: Path) -> None:
    before = cluster.pids()
    everyone = {cluster.actor_pid(actor): actor for actor in cluster.actors()}
    everyone |= dict.fromkeys(cluster.gateway_pids(), "gateway")
    file = tmp_path / "llm-im.toml"
    file.write_text('[notify.wait]\nP4 = "7m"\n[logging]\nlevel = "DEBUG"\n')

    said = reload(cluster, "--config", str(file))

    assert 'notify.wait.P4: "5m" -> "7m"' in said and 'logging.level: "INFO" -> "DEBUG"' in said

    def all_say_so() -> bool:
        heard = pids_that_logged(cluster, '"settings changed"')
        if silent := {pid: name for pid, name in everyone.items() if pid not in heard}:
            raise ValueError(f"nothing from {silent}")
        return True

    until("every process to say that it goes by it", all_say_so, 10.0)
    assert cluster.pids().keys() == before.keys()
    assert '"SettingsChanged"' in cluster.cli("log", "tail", "control", "--data", str(cluster.data), "--json")

    said = reload(cluster)

    assert "2 settings changed" in said
    assert "nothing to change" in reload(cluster)


def test_a_setting_that_needs_a_restart_is_refused_by_name(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "llm-im.toml"
    file.write_text('[server]\ngateways = 3\n[logging]\nlevel = "DEBUG"\n')

    reload(cluster, "--config", str(file), code=ExitCode.CONFLICT)

    assert "nothing to change" in reload(cluster)
