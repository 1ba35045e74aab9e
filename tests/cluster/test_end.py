"""The session's instance is stopped, and nothing of it is left. A copy of its data is damaged: a shard whose log is damaged
in the middle stops, alone, and says where. The others go on."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from services.cli.shared.exits import ExitCode
from services.machine import launch
from services.machine.instance import Instance
from services.settings.load import load_settings
from services.stores.choice import data_dir
from services.stores.shared.chain import split_frames
from services.wiring import bootstrap
from tests.cluster.conftest import up_and_well
from tests.cluster.instance import LOOPBACK, Cluster, processes_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

DAMAGED, WELL = 1, 0
APPENDS = 40


def damage_a_frame(data: Path, index: int) -> int:
    """Flip a byte of a frame that the next start has to replay, and that is not the last: its seq."""
    settings = load_settings(None, {"state.path": str(data)})
    path = Path(data_dir(settings)) / f"shard-{index:04d}.db"
    connection = apsw.Connection(str(path))
    try:
        snapshot = connection.execute("SELECT coalesce(max(seq), 0) FROM marks").get
        last = connection.execute("SELECT max(first_seq) FROM appends").get
        after = connection.execute(
            "SELECT first_seq FROM appends WHERE first_seq > ? AND first_seq < ? ORDER BY first_seq",
            (snapshot, last),
        ).fetchall()
        assert len(after) >= 3, "too little was sent after the last snapshot"
        (seq,) = after[len(after) // 2]
        found = connection.execute("SELECT lengths, frames FROM appends WHERE first_seq = ?", (seq,)).get
        assert isinstance(found, tuple)
        lengths, stored = found
        # The first of its frames: an append holds those of all messages that came together.
        frames, (first, *_) = bytearray(stored), split_frames(lengths, stored) or [b""]
        frames[len(first) // 2] ^= 0x40
        connection.execute("UPDATE appends SET frames = ? WHERE first_seq = ?", (bytes(frames), seq))
        assert isinstance(seq, int)
        return seq
    finally:
        connection.close()


async def last_seq(data: Path, index: int) -> int:
    settings = load_settings(None, {"state.path": str(data), "state.partitions": index + 1})
    log = bootstrap.open_log(settings, bootstrap.shard_names(settings)[index])
    try:
        return await log.last_seq()
    finally:
        await log.close()


@pytest.fixture(scope="module")
def stopped(shared: Cluster) -> Instance:
    """The session's instance as it was before it was stopped, with some alerts after its last snapshots."""
    up_and_well(shared)
    for number in range(APPENDS):
        for shard in (DAMAGED, WELL):
            service = shared.service_of_shard(shard, "damage")
            alert = {"labels": {"alertname": "BeforeDamage", "service": service, "number": str(number)}}
            assert shared.call("POST", "/v1/alerts", alert).status == 202
    instance = shared.instance
    shared.cli("down", "--data", str(shared.data))
    return instance


def test_no_process_is_left_after_a_stop(stopped: Instance, shared: Cluster) -> None:
    assert processes_of(stopped.instance_id) == {}
    assert not Path(stopped.private_dir).exists()
    assert launch.running(shared.data) is None
    with pytest.raises(ConnectionRefusedError):
        shared.call("GET", "/-/healthy")


def loopback_of_ipv6() -> str:
    """::1, or 127.0.0.1 where there is no IPv6."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return "::1"
    except OSError:
        return LOOPBACK


@pytest.fixture
def copied(stopped: Instance, shared: Cluster, tmp_path: Path) -> Iterator[Cluster]:
    # On IPv6, where the machine has it: that one answers is told of each kind of address.
    copy = Cluster(
        tmp_path / "data", shared.port, shared.settings, shared.partitions, host=loopback_of_ipv6()
    )
    shutil.copytree(shared.data / "store", copy.data / "store")
    yield copy
    launch.stop(copy.data, progress=lambda _text: None)


def test_a_shard_with_a_damaged_log_stops_alone_and_names_the_place(copied: Cluster) -> None:
    seq = damage_a_frame(copied.data, DAMAGED)
    end = asyncio.run(last_seq(copied.data, DAMAGED))

    words = copied.cli(
        "up",
        "--data",
        str(copied.data),
        "--port",
        str(copied.port),
        "--timeout",
        "8",
        code=ExitCode.DEGRADED,
    )

    status = json.loads(copied.cli("status", "--data", str(copied.data), "--json", code=ExitCode.DEGRADED))
    assert (status["state"], status["url"]) == ("degraded", copied.url)
    ready = copied.get("/health/ready")
    print(words.splitlines()[-1] if words else "", ready)
    assert isinstance(ready, dict)
    assert ready["status"] == "degraded" and ready["degraded"] == [f"shard/{DAMAGED:04d}"]
    assert (
        f"partition shard/{DAMAGED:04d} is damaged at seq {seq}" in ready["reasons"][f"shard/{DAMAGED:04d}"]
    )

    # The other shard takes alerts, and what it had is there.
    well = copied.service_of_shard(WELL, "damage")
    taken = copied.call(
        "POST", "/v1/alerts", {"labels": {"alertname": "BeforeDamage", "service": well, "number": "new"}}
    )
    assert taken.status == 202, taken.body
    found = copied.call(
        "GET", f"/v1/incidents/{taken.json()['items'][0]['incident_id']}/alerts?limit=1000"
    ).json()
    assert len(found["items"]) == APPENDS + 1

    # Alerts of the damaged one are refused for now, and nothing is appended behind the damage.
    broken = copied.service_of_shard(DAMAGED, "damage")
    refused = copied.call(
        "POST", "/api/v2/alerts", [{"labels": {"alertname": "AfterDamage", "service": broken}}]
    )
    assert refused.status == 503 and refused.headers["retry-after"]
    assert asyncio.run(last_seq(copied.data, DAMAGED)) == end
    # A list without it would be a lie.
    listing = copied.call("GET", "/v1/incidents")
    assert listing.status == 503 and f"shard/{DAMAGED:04d}" in listing.body.decode()
    assert f"shard/{DAMAGED:04d}" in copied.cli(
        "log", "verify", "--data", str(copied.data), code=ExitCode.FAILED
    )
