"""A real Ray on this machine is started, found again, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.errors import Refused
from services.ingest.formats.paths import paths_of
from services.ingest.formats.table import all_formats
from services.ingest.formats.v1 import V1Format
from services.machine import haproxy, launch
from services.machine.instance import Instance
from services.machine.processes import MARK
from tests.ports import free_port

pytestmark = pytest.mark.timeout(180)

END_TIMEOUT_S = 10.0
LOOPBACK_IN_PROC = ("0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000")
START_SERVE = """
import sys
from pathlib import Path
from services.machine import launch
instance = launch.running(Path(sys.argv[1]))
launch.adopt(instance)
import ray
from ray import serve
ray.init(address=instance.ray_address, log_to_driver=False)
serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": instance.http_port})
"""


def quiet(message: str) -> None:
    """Progress that nobody reads."""


def marked_pids(instance: Instance) -> list[int]:
    mark = f"{MARK}={instance.instance_id}".encode()
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if mark in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                found.append(int(entry))
        except OSError:
            continue
    return found


def kill(pid: int) -> None:
    """SIGKILL, and wait for the end: on a busy machine a process outlives its signal by a moment."""
    handle = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        ended, _, _ = select.select([handle], [], [], END_TIMEOUT_S)
        assert ended, f"process {pid} did not end within {END_TIMEOUT_S} s"
    finally:
        os.close(handle)


def open_listeners(pids: list[int]) -> list[str]:
    """Listening TCP sockets of these processes that are reachable from elsewhere."""
    ours = set()
    for pid in pids:
        for handle in os.listdir(f"/proc/{pid}/fd"):
            try:
                ours.add(os.readlink(f"/proc/{pid}/fd/{handle}"))
            except OSError:
                continue
    reachable = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            address, port = fields[1].split(":")
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in ours and address not in LOOPBACK_IN_PROC:
                reachable.append(f"{address}:{int(port, 16)}")
    return reachable


@pytest.fixture(autouse=True)
def empty_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "data"
    folder.mkdir()
    yield folder
    launch.stop(folder, progress=quiet)


def test_an_instance_listens_on_loopback_only_and_leaves_nothing(data_dir: Path) -> None:
    instance = launch.start_local(data_dir, free_port(), num_cpus=1, progress=quiet)
    root = Path(launch.__file__).parents[2]
    subprocess.run(
        [sys.executable, "-c", START_SERVE, str(data_dir)], check=True, timeout=90,
        env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True,
    )  # fmt: skip

    assert open_listeners(marked_pids(instance)) == []
    (admin_socket,) = Path(instance.private_dir).glob("s/*/a")
    assert stat.S_IMODE(admin_socket.stat().st_mode) & 0o077 == 0
    for folder in ("run", "log"):
        assert stat.S_IMODE((data_dir / folder).stat().st_mode) == 0o700

    again = launch.start_local(data_dir, instance.http_port, progress=quiet)
    assert again == instance
    head = data_dir / "run" / "head.pid"
    assert head.read_text() == f"{instance.pid}\n"

    report = launch.stop(data_dir, progress=quiet)
    assert report.was_running and report.killed == ()
    assert marked_pids(instance) == []
    assert not Path(instance.private_dir).exists() and not head.exists()
    assert launch.running(data_dir) is None
    assert not launch.stop(data_dir, progress=quiet).was_running


def test_a_start_after_the_raylet_was_killed_cleans_up_and_starts_anew(data_dir: Path) -> None:
    first = launch.start_local(data_dir, free_port(), num_cpus=1, progress=quiet)
    raylet = next(
        pid for pid in marked_pids(first) if Path(f"/proc/{pid}/comm").read_text().strip() == "raylet"
    )

    kill(raylet)
    second = launch.start_local(data_dir, first.http_port, num_cpus=1, progress=quiet)

    assert second.instance_id != first.instance_id
    assert marked_pids(first) == []
    assert launch.running(data_dir) == second


def test_a_taken_port_is_refused_with_its_holder(data_dir: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]

        with pytest.raises(Refused, match=rf":{port}: held by .* \(pid {os.getpid()}\).*http_port"):
            launch.start_local(data_dir, port, progress=quiet)

    assert launch.running(data_dir) is None


def test_hardening_a_config_twice_changes_nothing_more() -> None:
    config = (
        "global\n    log 127.0.0.1:514 local0 info\n    stats socket /a mode 666 level admin expose-fd listeners\n"
        "defaults\n    mode http\n    errorfile 503 /x/500.http\n"
        "frontend prometheus\n    bind :9101\n    no log\n"
        "frontend http_frontend\n    bind 127.0.0.1:8000\n"
        "listen stats\n  bind *:8404\n  stats enable\n"
    )

    once = haproxy.harden(config, front_host="0.0.0.0", error_file="/ours.http")

    assert haproxy.harden(once, front_host="0.0.0.0", error_file="/ours.http") == once
    assert "mode 600" in once and "9101" not in once and "8404" not in once and "514" not in once
    assert "bind 0.0.0.0:8000" in once and "errorfile 503 /ours.http" in once
    assert "timeout http-request" in once


def test_a_killed_gateway_s_request_is_sent_again_only_where_twice_is_once() -> None:
    config = (
        "frontend http_frontend\n    bind *:8000\n    default_backend b\n"
        "frontend grpc_frontend\n    bind *:9000\nbackend b\n    retry-on conn-failure empty-response\n"
    )

    paths = [path for kind in all_formats().values() for path in paths_of(kind)]
    rule = haproxy.send_once(paths)

    def harden(config: str) -> str:
        return haproxy.harden(config, front_host="127.0.0.1", error_file="/ours.http", alert_paths=paths)

    once = harden(config)

    assert once.count(rule) == 1
    assert once.index("bind 127.0.0.1:8000") < once.index(rule) < once.index("default_backend")
    assert harden(once) == once
    pattern = re.search(r"path_reg (\S+)", rule)
    assert pattern is not None
    for path in (*paths, f"/{V1Format.path}/"):
        assert re.search(pattern[1], path.replace("{", "").replace("}", ""))
    assert not re.search(pattern[1], f"{V1Format.path}/x")


def test_a_template_we_do_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="mode 666"):
        haproxy.harden(
            "global\n    stats socket /a level admin mode 666\n", front_host="127.0.0.1", error_file="/e"
        )
