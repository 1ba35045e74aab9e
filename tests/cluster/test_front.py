"""A real start on each kind of address: whoever is named in `server.http_host` is listened on, and it becomes ready."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from services.machine.front import authority, called_at
from tests.cluster.instance import Cluster, running
from tests.ports import free_port

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


@pytest.mark.parametrize("host", ["127.0.0.2", "::1", "0.0.0.0"])
def test_it_becomes_ready_on_whatever_address_it_listens(tmp_path: Path, host: str) -> None:
    try:
        with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError as error:
        pytest.skip(f"{host}: {error}")
    settings = {"LLM_IM_SERVER__HTTP_HOST": host, "LLM_IM_SERVER__GATEWAYS": "1"}
    cluster = Cluster(tmp_path / "data", free_port(), settings, partitions=1)
    if host == "0.0.0.0":
        cluster.cli("tokens", "create", "admin", "--scope", "admin", "--local", "--data", str(cluster.data))

    with running(cluster):
        said = json.loads(cluster.cli("status", "--data", str(cluster.data), "--json"))

    assert (said["state"], said["url"]) == ("ready", f"http://{authority(called_at(host), cluster.port)}")
