"""`llm-im backup create` and `restore` killed (SIGKILL) at any moment, over and over, and then let be. `make soak`.

KILL_SEED repeats one run; the machine's timing is still its own.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from models.control.control import CONTROL
from tests.api.gateway_in_process import SqliteStores, alert, system
from tests.contract import backup_peers as peers
from tests.simulation.dump import difference

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
KILLS = 25
REQUESTS, ALERTS = 300, 100
#: The first kills come early, the last ones up to so late: the start of Python is in it, and then the work.
LONGEST_S = 2.5


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with thirty thousand series and an archive."""
    folder = tmp_path_factory.mktemp("backup-soak")

    async def fill() -> None:
        async with system(SqliteStores(folder / "store")) as ours:
            for number in range(REQUESTS):
                alerts = [
                    alert(f"A{number % 50}", f"service-{each}", pod=str(number)) for each in range(ALERTS)
                ]
                assert (await ours.post("/v1/alerts", alerts)).status == 202
        archive = peers.sqlite(folder / "store").archive("shard/0000")
        for day in range(60):
            at = time.time() - (day + 2) * peers.DAY_S
            await archive.put([peers.archived(number, at + number, at + number) for number in range(200)])
        await archive.close()

    asyncio.run(fill())
    return folder


@contextmanager
def command(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(
        [sys.executable, "-m", "services.cli", "backup", *words],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def killed_and_then_let_be(chance: random.Random, *words: str) -> int:
    """How many of the kills met it at work."""
    met = 0
    for number in range(KILLS):
        with command(*words) as child:
            try:
                child.wait(chance.uniform(0.3, 0.3 + LONGEST_S * (number + 1) / KILLS))
            except subprocess.TimeoutExpired:
                met += 1
                continue
            # It was faster than the kill: for a restore that is the end.
            assert child.returncode == 0, child.stdout.read() if child.stdout else b""
            if "restore" in words:
                return met
    with command(*words) as child:
        out, _ = child.communicate(timeout=120)
        assert child.returncode == 0, out
    return met


def test_kills_in_the_middle_leave_whole_backups_and_a_restore_that_ends(store: Path, tmp_path: Path) -> None:
    seed = int(os.environ.get("KILL_SEED", str(random.randrange(10_000))))
    chance = random.Random(seed)
    print(f"KILL_SEED={seed}")
    target, new = str(tmp_path / "kept"), tmp_path / "new"

    made = killed_and_then_let_be(
        chance, "create", "--target", target, "--data", str(store), "--retention", "90d"
    )
    for word in ("list", "verify"):
        with command(word, "--target", target, "--data", str(store)) as child:
            out, _ = child.communicate(timeout=120)
            assert child.returncode == 0 and b"BROKEN" not in out, out
    key = str(store / "backup.key")
    restored = killed_and_then_let_be(
        chance, "restore", "--target", target, "--data", str(new), "--key-file", key
    )

    print(f"{made} kills met a backup at work, {restored} a restore")
    assert made and restored
    for partition in ("shard/0000", "shard/0001"):
        before = asyncio.run(peers.state(peers.sqlite(store / "store"), partition))
        after = asyncio.run(peers.state(peers.sqlite(new / "store"), partition))
        assert difference(before, after) == ""
    counts = [
        asyncio.run(peers.sqlite(each / "store").archive("shard/0000").count()) for each in (store, new)
    ]
    assert counts[0] == counts[1] == 60 * 200
    assert asyncio.run(peers.sqlite(new / "store").log(CONTROL).last_seq()) == 3, (
        "slots, copy begun, copy ended"
    )
