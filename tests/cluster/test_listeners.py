"""Nothing of an instance can be reached from another machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cluster.conftest import ANOTHER_LOOPBACK
from tests.cluster.instance import Cluster

pytestmark = pytest.mark.cluster

#: Addresses as /proc/net writes them: 127.0.0.1, that of the session's instance, ::ffff:127.0.0.1, ::1.
LOOPBACK = {"0100007F", "0200007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def listeners(pids: dict[int, str]) -> dict[str, str]:
    """Address and port of every listening TCP socket that these processes hold, with the process."""
    holders = {}
    for pid, command in pids.items():
        try:
            handles = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for handle in handles:
            try:
                holders[os.readlink(f"/proc/{pid}/fd/{handle}")] = f"{command[:60]} ({pid})"
            except OSError:
                continue
    found = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and (holder := holders.get(f"socket:[{fields[9]}]")):
                found[fields[1]] = holder
    return found


def test_every_listening_socket_is_on_loopback(cluster: Cluster) -> None:
    found = listeners(cluster.pids())

    outside = {place: holder for place, holder in found.items() if place.split(":")[0] not in LOOPBACK}
    assert not outside
    assert f"0200007F:{cluster.port:04X}" in found, "the front door is not among them"
    assert len(found) > 10, "a look that finds nothing proves nothing"


def test_the_actors_sockets_are_ours_alone(cluster: Cluster) -> None:
    folder = Path(cluster.instance.private_dir)

    assert len(cluster.actors()) >= 4
    assert folder.stat().st_uid == os.getuid()
    assert folder.stat().st_mode & 0o077 == 0, (
        f"{folder} can be entered by others: {oct(folder.stat().st_mode)}"
    )


def test_it_becomes_ready_on_an_address_of_loopback_that_is_not_the_first(cluster: Cluster) -> None:
    assert cluster.host == ANOTHER_LOOPBACK

    cluster.says_that_it_is_ready()
