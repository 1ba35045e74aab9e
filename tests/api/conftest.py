"""Fixtures of tests/api: a system in this process (gateway_in_process.py), and Debian's Alertmanager beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.api import gateway_in_process
from tests.api.gateway_in_process import SqliteStores, System, send, system
from tests.api.queue_peers import PEERS, Peer
from tests.ports import free_port

ALERTMANAGER = "prometheus-alertmanager"


@pytest_asyncio.fixture
async def ours() -> AsyncIterator[System]:
    """A system over the memory stores, of two shards."""
    async with system() as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[System]:
    """One such system for a whole file, for tests that need no clean one: a start takes a quarter of a second."""
    async with system() as started:
        yield started


@pytest.fixture(params=["asgi", "hot"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Alerts get in by ASGI, and as plain requests by the HTTP protocol itself (services/ingest/doors/hot.py): they must not
    differ."""
    way: str = request.param
    monkeypatch.setattr(gateway_in_process, "WAY", way)
    return way


@pytest_asyncio.fixture(params=["memory", "sqlite"])
async def stored(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[System]:
    """The same over each kind of store."""
    async with system(SqliteStores(tmp_path) if request.param == "sqlite" else None) as started:
        yield started


@pytest.fixture(scope="session")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a real Alertmanager. Missing it fails in CI and skips elsewhere."""
    program = shutil.which(ALERTMANAGER)
    if program is None:
        if os.environ.get("CI"):
            pytest.fail(
                f"{ALERTMANAGER} is not installed, and CI must have it: apt-get install {ALERTMANAGER}"
            )
        pytest.skip(f"{ALERTMANAGER} is not installed: apt-get install {ALERTMANAGER}")
    folder = tmp_path_factory.mktemp("alertmanager")
    config = folder / "alertmanager.yml"
    config.write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    port = free_port()
    process = subprocess.Popen(
        [
            program,
            f"--config.file={config}",
            f"--storage.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
        ],
        stdout=subprocess.DEVNULL,
        stderr=(folder / "log").open("wb"),
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                if send(port, "GET", "/-/ready", b"", {}).status == 200:
                    break
            except OSError:
                pass
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"Alertmanager did not start: {(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="session", params=PEERS)
def peer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """Each of the brokers: a start of one takes up to a quarter of a minute. Tests have topics of their own."""
    made = PEERS[request.param](tmp_path_factory.mktemp(request.param))
    try:
        made.start()
        yield made
    finally:
        made.end()
