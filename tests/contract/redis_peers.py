"""Real Redis servers for the tests: one alone, a primary with replicas and Sentinels, a cluster. All on loopback ports
and in folders of their own, ended by pid. `REDIS_SERVER` names another redis-server than the one on the PATH."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from tests.ports import free_port

START_TIMEOUT_S = 20
#: As an operator would set it who wants to keep what was acknowledged.
DURABLE = ("--appendonly", "yes", "--appendfsync", "always", "--save", "", "--repl-diskless-sync-delay", "0")


def redis_server() -> str:
    """The program; without it the test is skipped by name, and fails where CI promised it."""
    found = os.environ.get("REDIS_SERVER") or shutil.which("redis-server")
    if found is None:
        why = "redis-server is not installed (scripts/peers.sh installs it where it may)"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return found


def wait_until(true: Callable[[], object], what: str, timeout_s: float = START_TIMEOUT_S) -> None:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        try:
            if true():
                return
        except (RedisError, OSError, KeyError):
            pass
        time.sleep(0.05)
    raise TimeoutError(f"{what}: not within {timeout_s:g} s")


class Server:
    """One redis-server process."""

    def __init__(self, folder: Path, *settings: str, port: int | None = None) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.settings = settings
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> Server:
        command = [redis_server()]
        if self.settings[:1] == ("sentinel",):
            command += [str(self.folder / "sentinel.conf"), "--sentinel"]
        else:
            command += [
                "--bind",
                "127.0.0.1",
                "--port",
                str(self.port),
                "--dir",
                str(self.folder),
                *self.settings,
            ]
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            wait_until(lambda: self.client().ping(), f"redis-server on {self.port}")
        except TimeoutError:
            self.stop(signal.SIGKILL)
            raise TimeoutError((self.folder / "log").read_text()[-2000:]) from None
        return self

    def stop(self, by: signal.Signals = signal.SIGTERM) -> None:
        if self.process is None:
            return
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(by)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def pause(self) -> None:
        """It lives, holds its connections, and answers nobody."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def client(self) -> Redis:
        return Redis(port=self.port, protocol=2, socket_timeout=5)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


class Failover:
    """A primary, two replicas, three Sentinels."""

    SERVICE = "llm-im"

    def __init__(self, folder: Path) -> None:
        common = (*DURABLE, "--min-replicas-to-write", "1")
        self.primary = Server(folder / "primary", *common)
        self.replicas = [
            Server(folder / f"replica{number}", *common, "--replicaof", f"127.0.0.1 {self.primary.port}")
            for number in range(2)
        ]
        self.sentinels = [Server(folder / f"sentinel{number}", "sentinel") for number in range(3)]

    def start(self) -> Failover:
        self.primary.start()
        for replica in self.replicas:
            replica.start()
        wait_until(lambda: self.primary.client().info("replication")["connected_slaves"] == 2, "replicas")
        for each in self.replicas:
            wait_until(partial(_follows, each), "link")
        for sentinel in self.sentinels:
            (sentinel.folder / "sentinel.conf").write_text(
                f"port {sentinel.port}\nbind 127.0.0.1\ndir {sentinel.folder}\n"
                f"sentinel monitor {self.SERVICE} 127.0.0.1 {self.primary.port} 2\n"
                f"sentinel down-after-milliseconds {self.SERVICE} 1000\n"
                f"sentinel failover-timeout {self.SERVICE} 5000\n"
            )
            sentinel.start()
        for sentinel in self.sentinels:
            wait_until(partial(self._knows_all, sentinel), "Sentinels that know each other")
        return self

    def _replicas_follow(self) -> bool:
        told = self.primary.client().info("replication")
        return [told[name]["state"] for name in ("slave0", "slave1")] == ["online", "online"]

    def _knows_all(self, sentinel: Server) -> bool:
        state = sentinel.client().sentinel_master(self.SERVICE)
        assert isinstance(state, dict)
        return bool(state["num-slaves"] == 2 and state["num-other-sentinels"] == 2)

    def stop(self) -> None:
        for each in (*self.sentinels, *self.replicas, self.primary):
            each.stop(signal.SIGKILL)

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        return f"redis+sentinel://{hosts}/{self.SERVICE}"


class Cluster:
    """Three nodes that share the slots."""

    def __init__(self, folder: Path) -> None:
        self.nodes = [
            Server(
                folder / f"node{number}", *DURABLE, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000",
                port=free_port(10_000),  # a cluster's bus is there
            )
            for number in range(3)
        ]  # fmt: skip

    def start(self) -> Cluster:
        for node in self.nodes:
            node.start()
        for number, node in enumerate(self.nodes):
            first, last = number * 16384 // 3, (number + 1) * 16384 // 3
            node.client().execute_command("CLUSTER", "ADDSLOTS", *range(first, last))
            node.client().execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            node.client().execute_command("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port)
        for node in self.nodes:
            wait_until(partial(_knows_the_cluster, node), "cluster")
        return self

    def stop(self) -> None:
        for node in self.nodes:
            node.stop(signal.SIGKILL)

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)


def _follows(replica: Server) -> bool:
    return bool(replica.client().info("replication")["master_link_status"] == "up")


def _knows_the_cluster(node: Server) -> bool:
    told = node.client().cluster("INFO")
    return bool(told["cluster_state"] == "ok" and told["cluster_known_nodes"] == "3")
