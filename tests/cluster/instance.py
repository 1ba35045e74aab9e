"""An instance of ours as a test sees it: started and stopped as people do (`llm-im up`, `llm-im down`), looked at
through /proc, hurt by pid. Used by conftest.py, the tests beside it and tests/soak.

Nothing here imports ray: a process can join one instance only, and a test run has several.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from models.partition.sharding import SlotMap, slot_of
from services.machine import launch
from services.machine.front import authority, called_at
from services.machine.head import FOREIGN_SETTINGS
from services.machine.instance import Instance, read_instance
from services.machine.processes import MARK

ROOT = Path(launch.__file__).resolve().parents[2]
LOOPBACK = "127.0.0.1"
GATEWAY_TITLE = "ray::ServeReplica:llm-im:Gateways"
#: What HAProxy calls one.
REPLICA = "SERVE_REPLICA_llm-im-Gateways"
#: A cold start took 16 s on a busy machine of two cores.
UP_TIMEOUT_S = 150.0
HTTP_TIMEOUT_S = 15.0
POLL_S = 0.02


def until(what: str, holds: Callable[[], object], timeout_s: float, *, poll_s: float = POLL_S) -> float:
    """Wait until `holds()` is true; the seconds it took. An OSError or a broken answer counts as not yet."""
    began = time.monotonic()
    said: object = None
    while time.monotonic() - began < timeout_s:
        try:
            if said := holds():
                return time.monotonic() - began
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            said = error
        time.sleep(poll_s)
    raise AssertionError(f"{what}: not after {timeout_s:g} s; last: {said!r}")


@dataclass(slots=True)
class Answer:
    status: int
    body: bytes
    headers: dict[str, str]

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True)
class Cluster:
    """One data directory and what runs on it."""

    data: Path
    port: int
    settings: Mapping[str, str] = field(default_factory=dict)
    partitions: int = 2
    #: As `server.http_host`.
    host: str = LOOPBACK

    # -- up and down ---------------------------------------------------------------------------------------

    def up(self) -> float:
        """`llm-im up`; the seconds it took."""
        began = time.monotonic()
        self.cli("up", "--data", str(self.data), "--port", str(self.port))
        return time.monotonic() - began

    def down(self) -> None:
        """`llm-im down`, and whatever that left by launch.stop."""
        try:
            self.cli("down", "--data", str(self.data))
        finally:
            launch.stop(self.data, progress=lambda _text: None)

    def cli(self, *words: str, code: int = 0) -> str:
        """`llm-im words...` with this instance's settings; what it says. Its exit code must be `code`."""
        cwd = hostile_folder(self.data.parent / "cwd")
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("LLM_IM_") and name not in FOREIGN_SETTINGS
        }
        environment |= {
            "PYTHONPATH": str(ROOT),
            **self.given,
        }
        done = subprocess.run(
            [sys.executable, "-P", "-m", "services.cli", *words],
            cwd=cwd, env=environment, capture_output=True, text=True, timeout=UP_TIMEOUT_S, check=False,
        )  # fmt: skip
        said = f"{done.stdout[-1500:]} {done.stderr[-1500:]}"
        assert done.returncode == code, f"llm-im {words[0]} ended with {done.returncode}: {said}"
        return done.stdout

    @property
    def given(self) -> dict[str, str]:
        """Its settings as variables."""
        return {
            "LLM_IM_STATE__PARTITIONS": str(self.partitions),
            "LLM_IM_SERVER__HTTP_HOST": self.host,
            **self.settings,
        }

    def says_that_it_is_ready(self) -> None:
        """`llm-im status` gives the address on which it listens, and that all is well."""
        said = json.loads(self.cli("status", "--data", str(self.data), "--json"))
        assert (said["state"], said["url"]) == ("ready", self.url)

    # -- processes -----------------------------------------------------------------------------------------

    @property
    def instance(self) -> Instance:
        """As the start wrote it down."""
        known = read_instance(self.data)
        assert known is not None, f"nothing was started on {self.data}"
        return known

    def pids(self) -> dict[int, str]:
        """Every living process of the instance with its command line."""
        return processes_of(self.instance.instance_id)

    def actor_pid(self, actor: str) -> int:
        """Who listens on the actor's own socket. Raises OSError when nobody does."""
        return listener_of(Path(self.instance.private_dir) / f"{actor}.sock")

    def gateway_pids(self) -> list[int]:
        """Replicas, those that come up included."""
        return sorted(pid for pid, title in self.pids().items() if title.startswith(GATEWAY_TITLE))

    def haproxy_pids(self) -> list[int]:
        return sorted(
            pid for pid in self.pids() if Path(f"/proc/{pid}/comm").read_text().strip() == "haproxy"
        )

    def told_gateways(self) -> set[str]:
        """Of which replicas HAProxy was told and that it takes for well: a gateway's process is there a second before. Raises
        OSError while HAProxy changes."""
        (place,) = Path(self.instance.private_dir).glob("s/*/a")
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(HTTP_TIMEOUT_S)
            asked.connect(str(place))
            asked.sendall(b"show servers state\n")
            answer = asked.makefile(encoding="ascii").read()
        # be_id, be_name, srv_id, srv_name, srv_addr, srv_op_state (2: it runs) ...
        rows = [line.split() for line in answer.splitlines() if f"{REPLICA}-" in line]
        return {row[3] for row in rows if row[5] == "2"}

    def named_pids(self, comm: str) -> list[int]:
        found = []
        for pid in self.pids():
            try:
                if Path(f"/proc/{pid}/comm").read_text().strip() == comm:
                    found.append(pid)
            except OSError:
                continue
        return found

    def kill(self, pid: int, how: int = signal.SIGKILL) -> None:
        """A signal to a process of this instance, and to no other."""
        if pid in self.pids():
            os.kill(pid, how)

    # -- HTTP ----------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"http://{self.authority}"

    @property
    def grpc_port(self) -> int:
        return int(self.settings["LLM_IM_SERVER__GRPC_PORT"])

    @property
    def called_at(self) -> str:
        """The address under which this machine calls it."""
        return called_at(self.host)

    @property
    def authority(self) -> str:
        """Host and port as URLs have them."""
        return authority(self.called_at, self.port)

    def call(
        self, method: str, path: str, body: object = None, *, headers: Mapping[str, str] | None = None,
        timeout_s: float = HTTP_TIMEOUT_S,
    ) -> Answer:  # fmt: skip
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection(self.called_at, self.port, timeout=timeout_s)
        try:
            sent = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
            given = (
                {"Content-Type": "application/json", **(headers or {})}
                if sent is not None
                else dict(headers or {})
            )
            connection.request(method, path, sent, given)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()})
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """The JSON of a 200."""
        answer = self.call("GET", path, timeout_s=60.0)
        assert answer.status == 200, f"GET {path}: {answer.status} {answer.body[:300]!r}"
        return answer.json()

    def wait_ready(self, timeout_s: float = 60.0) -> float:
        """Until all shards answer; the seconds it took."""

        def ready() -> bool:
            answer = self.call("GET", "/health/ready", timeout_s=5.0)
            return answer.status == 200 and answer.json()["status"] == "ready"

        return until("ready", ready, timeout_s)

    def settled(self, timeout_s: float = 60.0) -> float:
        """Until every actor and two gateways are there, HAProxy knows both, and all answer."""
        began = time.monotonic()
        until(
            "two gateways that HAProxy knows",
            lambda: len(self.gateway_pids()) == 2 and len(self.told_gateways()) == 2,
            timeout_s,
        )
        for actor in self.actors():
            until(f"{actor} listens", partial(self.actor_pid, actor), timeout_s)
        self.wait_ready(timeout_s)
        return time.monotonic() - began

    def actors(self) -> list[str]:
        """The names with a socket: shards, control, classifiers, responders."""
        return sorted(path.stem for path in Path(self.instance.private_dir).glob("*.sock"))

    def incidents(self, query: str = "") -> Iterator[dict[str, object]]:
        """All incidents, over all pages."""
        cursor = ""
        while True:
            page = self.get(f"/v1/incidents?limit=1000{query}{cursor}")
            assert isinstance(page, dict)
            yield from page["items"]
            if page["next"] is None:
                return
            cursor = f"&cursor={page['next']}"

    def incident_alerts(self, identity: str) -> Iterator[dict[str, object]]:
        """All alerts of an incident, over all pages."""
        cursor = ""
        while True:
            page = self.get(f"/v1/incidents/{identity}/alerts?limit=1000{cursor}")
            assert isinstance(page, dict)
            yield from page["items"]
            if page["next"] is None:
                return
            cursor = f"&cursor={page['next']}"

    def service_of_shard(self, shard: int, prefix: str = "svc") -> str:
        """A service whose alerts go to this shard."""
        owners = SlotMap.even(self.partitions).owners
        return next(
            name
            for name in (f"{prefix}-{number}" for number in range(10_000))
            if owners[slot_of("default", name)] == shard
        )


def hostile_folder(folder: Path) -> Path:
    """A folder in which nobody should type `llm-im up`: Python files named like what we import, that leave a mark."""
    for name in (
        "msgspec",
        "structlog",
        "apsw",
        "asyncio",
        "fastapi",
        "ray",
        "models",
        "services",
        "sitecustomize",
    ):
        module = folder / name / "__init__.py"
        module.parent.mkdir(parents=True, exist_ok=True)
        module.write_text(f"open({str(folder / 'IMPORTED')!r}, 'a').write({name!r})\nraise ImportError\n")
    return folder


@contextmanager
def running(cluster: Cluster) -> Iterator[Cluster]:
    """Up within, down after, whatever happens."""
    try:
        cluster.up()
        yield cluster
    finally:
        launch.stop(cluster.data, progress=lambda _text: None)


def processes_of(instance_id: str) -> dict[int, str]:
    """Pid and command line of every living process that bears the instance's mark."""
    mark = f"{MARK}={instance_id}".encode()
    found = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if mark in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                found[int(entry)] = (
                    Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                )
        except OSError:  # gone meanwhile, a zombie, or another user's
            continue
    return found


def listener_of(path: Path) -> int:
    """The process that listens on a unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        pid, _uid, _gid = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(pid)
