"""Starts and stops the Ray and Serve of one machine: what `llm-im up` and `llm-im down` do. Called by services/cli.

One *instance* belongs to one data directory. All its processes carry `LLM_IM_INSTANCE=<id>` in their environment
(Linux shows it in /proc), so `stop` finds exactly ours: the Ray head, its workers, and an HAProxy left by a dead one.

    <data_dir>/run/instance.json   who runs here; written before the first process starts, removed after the last
    <data_dir>/run/head.pid        the pid of Ray's head, for systemd: when that process is gone, all of it is
    <data_dir>/run/launch.lock     held while somebody starts or stops
    <data_dir>/log/llm-im.log      what all its processes log (services/machine/log_file.py)
    <data_dir>/log/ray.log         what `ray start` said; log/ray-last/ keeps the session's own logs after it ended
    /tmp/llm-im-XXXXXXXX/  (0700)  Ray's temp folder, token, sockets, HAProxy's config. Not in the data directory: a
                                   unix socket's path may have 107 characters and Serve puts a 56 character node id
                                   into it.

Everything listens on loopback, except the front door when its host says otherwise. Three settings of Ray do that:
`RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0` makes 127.0.0.1 the node's address (with `--node-ip-address=127.0.0.1` alone
Ray replaces it by the outer address and its GCS and raylet listen everywhere), Serve's `host` must be 127.0.0.1,
and services/machine/haproxy.py sees to HAProxy. Ray runs whatever it is sent, and any user of this machine reaches loopback,
so each instance has a token of its own (`ray start` makes none by itself).

No `import ray` here: the head is a child process, and the caller must put `Instance.environment` into its own
environment (`adopt`) before it imports ray.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from models import VERSION
from services.machine import front_tls
from services.machine.environment import RAY_FOLDER, serve_environment
from services.machine.head import (
    FOREIGN_SETTINGS,
    haproxy_wrapper,
    head_command,
    head_environment,
    short_temp_dir,
    wait_for_head,
)
from services.machine.instance import (
    Instance,
    empty_folder,
    fresh_log,
    launch_lock,
    read_instance,
    write_instance,
    write_private,
)
from services.machine.ports import free_block, refuse_taken_port
from services.machine.processes import is_alive
from services.machine.stopping import Progress, StopReport, clear

if TYPE_CHECKING:
    from models.settings.tls import Tls
    from services.machine.tls import Loaded

LOOPBACK = "127.0.0.1"


def start_local(
    data_dir: Path,
    http_port: int,
    *,
    http_host: str = LOOPBACK,
    probe_port: int | None = None,
    grpc_port: int | None = None,
    tls: Tls | None = None,
    num_cpus: int | None = None,
    middleware: str | None = None,
    doorkeeper: str | None = None,
    meanwhile: Callable[[], None] = lambda: None,
    progress: Progress = print,
) -> Instance:
    """Start a Ray head for this data directory, or report the one that runs. Does not start Serve.

    Safe to call twice and from two shells at once. What a crash left (processes, sockets) is ended and removed first.
    `tls`: what the front door speaks, None for clear text.
    `middleware` and `doorkeeper` are import paths of Serve's callbacks, see `serve_environment`. `meanwhile` is called when
    the instance is written down and its Ray on its way: what takes seconds and needs no Ray can begin then.
    Raises Refused when the caller must change something (port taken, another user's folder), Malformed for files of TLS,
    Unavailable when Ray failed.
    """
    data_dir = data_dir.absolute()
    with launch_lock(data_dir, "up"):
        if known := read_instance(data_dir):
            if is_alive(known):
                progress(f"already running: instance {known.instance_id}, http port {known.http_port}")
                return known
            progress(f"cleaning up after instance {known.instance_id}, which did not stop properly")
            clear(data_dir, known, progress)
        refuse_taken_port(http_host, http_port)
        if probe_port is not None:
            refuse_taken_port(http_host, probe_port, "server.probe_port")
        if grpc_port is not None:
            # Gateways share this port among themselves: with another instance they would share it unnoticed.
            refuse_taken_port(http_host, grpc_port, "server.grpc_port")
        callbacks = {"middleware": middleware, "doorkeeper": doorkeeper}
        # Before anything is started: it is said what is wrong with the files.
        secured = _secured(tls)
        ports = (http_port, probe_port)
        cpus = num_cpus or os.cpu_count() or 1
        return _start(data_dir, http_host, ports, secured, cpus, callbacks, meanwhile, progress)


def running(data_dir: Path) -> Instance | None:
    """The instance of this data directory, if its head, GCS and raylet live; else None. Changes nothing. Raises Forbidden
    when another user keeps it from being looked at."""
    known = read_instance(data_dir.absolute())
    return known if known and is_alive(known) else None


def stop(data_dir: Path, *, progress: Progress = print) -> StopReport:
    """End every process of this data directory's instance and remove what it left. Safe to call when none runs.

    The front door closes first, then Ray. Nothing acknowledged is lost by this: it is in the log already. Raises
    Forbidden when it is another user's.
    """
    data_dir = data_dir.absolute()
    with launch_lock(data_dir, "down"):
        known = read_instance(data_dir)
        if known is None:
            return StopReport(was_running=False, ended=0, killed=(), took_s=0.0)
        return clear(data_dir, known, progress)


def adopt(instance: Instance) -> None:
    """Make this process one that may talk to the instance. Call it before the first `import ray`."""
    if "ray" in sys.modules:
        raise RuntimeError(
            "adopt() must come before `import ray`: Ray reads its settings when it is imported"
        )
    for name in FOREIGN_SETTINGS:
        os.environ.pop(name, None)
    os.environ.update(instance.environment)
    if instance.ray_address:
        os.environ["RAY_ADDRESS"] = instance.ray_address


def _secured(tls: Tls | None) -> tuple[Tls, Loaded] | None:
    if tls is None or not tls.is_on:
        return None
    from services.machine.tls import load  # most starts need no certificates

    return tls, load(tls, time.time())


def _start(
    data_dir: Path,
    http_host: str,
    ports: tuple[int, int | None],
    secured: tuple[Tls, Loaded] | None,
    num_cpus: int,
    callbacks: dict[str, str | None],
    meanwhile: Callable[[], None],
    progress: Progress,
) -> Instance:
    http_port, probe_port = ports
    instance_id = secrets.token_hex(8)
    private_dir = Path(tempfile.mkdtemp(prefix="llm-im-", dir=short_temp_dir()))
    environment = serve_environment(data_dir, private_dir, free_block(), **callbacks)
    instance = Instance(
        instance_id=instance_id,
        ray_address="",
        http_host=http_host,
        http_port=http_port,
        pid=0,
        version=VERSION,
        private_dir=str(private_dir),
        started_at=time.time(),
        environment=environment,
        uid=os.geteuid(),
        https=secured is not None,
    )
    # Before the first process: if we die in the next seconds, the next start knows what to look for.
    write_instance(data_dir, instance)
    write_private(private_dir / "token", secrets.token_hex(32))
    if secured is not None:
        front_tls.write(private_dir, *secured)
    wrapper = haproxy_wrapper(private_dir, http_host, probe_port, tls=secured is not None)
    write_private(private_dir / "haproxy", wrapper, mode=0o700)
    (private_dir / RAY_FOLDER).mkdir()

    log = data_dir / "log" / "ray.log"
    progress(f"starting Ray with {num_cpus} CPUs (log: {log})")
    with fresh_log(log) as output:
        head = subprocess.Popen(
            head_command(private_dir, num_cpus),
            env=head_environment(instance),
            cwd=empty_folder(data_dir),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the starter's terminal is not for us
        )
    instance = replace(instance, pid=head.pid)
    try:
        meanwhile()
        address = wait_for_head(head, private_dir, log)
    except BaseException:
        clear(data_dir, instance, progress)
        raise
    instance = replace(instance, ray_address=address)
    write_instance(data_dir, instance)
    write_private(data_dir / "run" / "head.pid", f"{head.pid}\n")
    progress(f"Ray is up at {address}")
    return instance
