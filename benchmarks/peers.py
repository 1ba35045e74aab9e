"""Other servers to compare with, started for one benchmark and ended by pid after it. Used by ingest,
sustained and stores."""

import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ALERTMANAGER = Path("/usr/bin/prometheus-alertmanager")
#: It answers within a second on an idle machine; a busy one gets some more.
READY_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0

# The usual grouping, the default waits, and nobody to tell: what is measured is intake, grouping and
# dispatch.
_CONFIG = """\
route:
  receiver: nobody
  group_by: [alertname, service]
  group_wait: 30s
  group_interval: 5m
  repeat_interval: 4h
receivers:
  - name: nobody
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """A running server."""

    name: str
    url: str
    pid: int


@contextmanager
def alertmanager(port: int = 0, *, name: str = "alertmanager", binary: Path = ALERTMANAGER) -> Iterator[Peer]:
    """Prometheus Alertmanager alone (no cluster) on loopback with empty storage; ready when entered, gone
    when left.

    port 0 takes a free one. Raises RuntimeError if it does not become ready; its own last words are in the
    message.
    """
    if not binary.exists():
        raise RuntimeError(f"{binary} is missing: apt-get install prometheus-alertmanager")
    port = port or free_port()
    with tempfile.TemporaryDirectory(prefix="llm-im-bench-") as folder:
        config, log = Path(folder, "alertmanager.yml"), Path(folder, "log")
        config.write_text(_CONFIG)
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    binary,
                    f"--config.file={config}",
                    f"--storage.path={folder}/data",
                    "--cluster.listen-address=",
                    f"--web.listen-address=127.0.0.1:{port}",
                    "--log.level=error",
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            peer = Peer(name, f"http://127.0.0.1:{port}", process.pid)
            _wait_ready(peer, process, log)
            yield peer
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def redis() -> Iterator[Peer]:
    """A redis-server alone on loopback that syncs every write, as our store asks for; gone when left."""
    if (binary := shutil.which("redis-server")) is None:
        raise RuntimeError("redis-server is missing: apt-get install redis-server")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="llm-im-bench-") as folder:
        command = [binary, "--bind", "127.0.0.1", "--port", str(port), "--dir", folder, "--save", ""]
        with Path(folder, "log").open("wb") as output:
            process = subprocess.Popen(
                [*command, "--appendonly", "yes", "--appendfsync", "always"], stdout=output, stderr=output
            )
        try:
            deadline = time.monotonic() + READY_TIMEOUT_S
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(
                        f"redis-server did not start: {Path(folder, 'log').read_text()[-500:]}"
                    )
                time.sleep(0.05)
            yield Peer("redis", f"redis://127.0.0.1:{port}", process.pid)
        finally:
            process.kill()  # what it holds is the benchmark's own
            process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_ready(peer: Peer, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < give_up and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{peer.url}/-/ready", timeout=1) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.05)
    raise RuntimeError(f"{peer.name} did not become ready: {log.read_text(errors='replace')[-500:]}")
