"""The processes of an instance, as /proc shows them: found by the mark in their environment, signalled by pidfd. Called by
launch.py and `llm-im status`."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from services.machine.instance import Instance

#: Every process of an instance carries it in its environment.
MARK = "LLM_IM_INSTANCE"


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    name: str

    def send(self, instance: Instance, number: signal.Signals) -> None:
        """Signal this process and no other: a pid may have been given anew since we looked."""
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(self.pid)
            try:
                if _bears_mark(self.pid, instance):
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)


def processes(instance: Instance) -> list[Process]:
    """Every living process of the instance, except this one."""
    found: list[Process] = []
    if instance.pid:
        # When the starter itself stops its head, which is its child: else a zombie stays.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(instance.pid, os.WNOHANG)
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid() and _bears_mark(int(entry), instance):
            with contextlib.suppress(OSError):
                found.append(Process(int(entry), Path(f"/proc/{entry}/comm").read_text().strip()))
    return found


@dataclass(frozen=True, slots=True)
class Described:
    """A process for people: what it is, and its share of memory (what several processes have in common is divided among them)."""

    what: str
    pid: int
    memory_bytes: int


def described(instance: Instance) -> list[Described]:
    """Every process of the instance, those of ours first, then the larger ones."""
    found = []
    marked = processes(instance)
    for process in [*marked, *_children(marked)]:
        with contextlib.suppress(OSError):
            found.append(Described(_what(process, instance), process.pid, _memory_of(process.pid)))
    return sorted(found, key=lambda each: (each.what.startswith("Ray"), -each.memory_bytes))


def _children(marked: list[Process]) -> Iterator[Process]:
    """Ray's agents write their titles over their environment, and the mark with it. They end when their parent does."""
    known = {process.pid for process in marked}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            name, _, rest = Path(f"/proc/{entry}/stat").read_text().partition("(")[2].rpartition(")")
            if int(entry) not in known and int(rest.split()[1]) in known:
                yield Process(int(entry), name)


#: What a process calls itself, and what that is. Actors bear their own names.
_TITLES = {
    "ray::ServeReplica:llm-im:Gateways": "gateway",
    "ray::Doorkeeper": "keeps HAProxy",
    "haproxy": "HAProxy, the front port",
    "ray::ServeController": "Ray Serve's controller",
    "ray::ProxyActor": "Ray Serve's fallback proxy",
    "ray::DashboardAgent": "Ray's agent",
    "ray::RuntimeEnvAgent": "Ray's agent for environments",
    "ray::IDLE": "Ray's idle worker",
    "gcs_server": "Ray's directory (GCS)",
    "raylet": "Ray's scheduler (raylet)",
}


def _what(process: Process, instance: Instance) -> str:
    if process.pid == instance.pid:
        return "Ray's head"
    title = (
        Path(f"/proc/{process.pid}/cmdline")
        .read_bytes()
        .replace(b"\0", b" ")
        .decode(errors="replace")
        .strip()
    )
    # A class may be followed by the method that it is at.
    known = _TITLES.get(title.partition(".")[0]) or _TITLES.get(process.name)
    return known or (title.removeprefix("ray::") if title.startswith("ray::") else f"Ray's {process.name}")


def _memory_of(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # another user's, or a kernel without it
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _bears_mark(pid: int, instance: Instance) -> bool:
    try:
        # Its user's, not ours: root may look at another user's system, and must not take it for dead.
        if os.stat(f"/proc/{pid}").st_uid != instance.uid:
            return False
        return f"{MARK}={instance.instance_id}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(
            b"\0"
        )
    except OSError:  # gone, or a zombie
        return False


def is_alive(instance: Instance) -> bool:
    """The head, its GCS and its raylet: without any of the three the rest is of no use."""
    if not instance.ray_address:
        return False
    found = processes(instance)
    return {"gcs_server", "raylet"} <= {process.name for process in found} and any(
        process.pid == instance.pid for process in found
    )


def holder_of(port: int) -> str | None:
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
