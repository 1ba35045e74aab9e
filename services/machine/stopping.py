"""Ends all processes of an instance and removes what it left. Called by services/machine/launch.py."""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from models.errors import Unavailable
from services.machine.environment import RAY_FOLDER
from services.machine.instance import Instance
from services.machine.processes import Process, processes

#: After SIGUSR1 HAProxy takes no new connection and finishes what it has; an alert takes milliseconds.
FRONT_DRAIN_S = 2.0
#: `ray start --block` ends its children one after the other; a worker in a long call needs the rest.
TERM_TIMEOUT_S = 10.0
#: Without a head nothing can end in order any more, and some of Ray's processes then wait for a GCS that is gone.
ORPHAN_TIMEOUT_S = 1.0
KILL_TIMEOUT_S = 5.0
POLL_S = 0.1

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class StopReport:
    """What `stop` found and did. `killed` names the processes that did not leave when asked."""

    was_running: bool
    ended: int
    killed: tuple[str, ...]
    took_s: float


def clear(data_dir: Path, instance: Instance, progress: Progress) -> StopReport:
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
