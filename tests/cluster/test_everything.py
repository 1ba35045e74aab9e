"""All processes are killed at once, and it is started again on the same data."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.cluster import audit
from tests.cluster.instance import Cluster, processes_of
from tests.cluster.load import sending

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

SEED = 333


def test_nothing_acknowledged_is_missing_after_everything_was_killed_at_once(
    cluster: Cluster, tmp_path: Path
) -> None:
    with sending(cluster, tmp_path / "told.json", seed=SEED) as load:
        time.sleep(3.0)
        before = cluster.instance
        killed = processes_of(before.instance_id)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        killed_at = time.monotonic()
        up_s = cluster.up()
        cluster.settled()
        print(
            f"{len(killed)} processes killed; up took {up_s:.1f} s, ready {time.monotonic() - killed_at:.1f} s after"
        )
        time.sleep(1.0)

    assert cluster.instance.instance_id != before.instance_id
    assert processes_of(before.instance_id) == {}
    assert load.told.unfinished == 0
    audit.check(audit.through_the_api(cluster, SEED), load.told, counted=True)
    audit.verify_logs(cluster)
