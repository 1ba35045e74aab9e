"""The processes of an instance, as /proc shows them: found by the mark in their environment, signalled by pidfd. Called by
launch.py and `llm-im status`."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from services.launch_instance import Instance

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
