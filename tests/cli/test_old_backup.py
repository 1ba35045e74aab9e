"""Backups that earlier programs made are restored with nothing lost: tests/data/backups."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from models.backup import time_of
from models.control.tokens import KEY_BYTES, secret_of
from services.cli.main import app
from tests.api.gateway_in_process import SettableClock, SqliteStores, System, alert, system

FOLDERS = sorted(each for each in (Path(__file__).parents[1] / "data/backups").iterdir() if each.is_dir())
ADMIN = {"Authorization": f"Bearer {secret_of('00' * 6, bytes(KEY_BYTES))}"}
BEARER = [(b"authorization", ADMIN["Authorization"].encode())]
#: What was sent under the key "once", to six services.
BODY = [alert("Down", f"service-{number}", pod=pod) for number in range(6) for pod in ("a", "b")]


def run(*words: str) -> Result:
    return CliRunner().invoke(app, words, prog_name="llm-im")


@pytest.fixture(autouse=True)
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("LLM_IM_")]:
        monkeypatch.delenv(name)


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A backup in a place of its own."""
    folder: Path = request.param
    shutil.copytree(folder, tmp_path / "kept")
    return tmp_path / "kept"


def test_it_is_whole_and_taken_only_by_who_accepts_that_nobody_signed_it(old: Path) -> None:
    refused = run("backup", "restore", "--target", "kept", "--data", "new")
    verified = run("backup", "verify", "--target", "kept", "--accept-unsigned")

    assert refused.exit_code != 0 and "--accept-unsigned" in refused.stderr
    assert not Path("new").exists() or run("log", "stats", "--data", "new").exit_code != 0
    assert verified.exit_code == 0, verified.output
    assert [line.split()[:2] for line in verified.stdout.splitlines()[:3]] == [
        ["control", "ok"],
        ["shard/0000", "ok"],
        ["shard/0001", "ok"],
    ]


def test_everything_is_there_after_it_was_restored(old: Path) -> None:
    restored = run("backup", "restore", "--target", "kept", "--data", "new", "--accept-unsigned")
    checked = run("store", "verify", "--data", "new")

    assert restored.exit_code == 0, restored.output
    assert checked.exit_code == 0, checked.output
    identity = next((old / "backups").glob("*.json")).stem
    asyncio.run(looks_the_same(json.loads((old / "shown.json").read_text()), time_of(identity)))


async def looks_the_same(shown: dict[str, dict[str, object]], at: float) -> None:
    """Started at the time of the backup it shows what was shown then, and knows what it is sent again."""
    clock = SettableClock()
    clock.heard_s = at + 1.0 - time.time()
    async with system(SqliteStores(Path("new/store")), clock=clock) as ours:
        closed = await ours.get("/v1/incidents")
        assert closed.status == 401, "the token is kept: nobody comes in without"
        assert await pictured(ours, shown) == shown

        repeated = await ours.post("/v1/alerts", BODY, headers={**ADMIN, "Idempotency-Key": "once"})
        again = await ours.post("/v1/alerts", BODY, headers=ADMIN)

        assert [repeated.status, again.status] == [202, 202]
        assert {str(each["decision"]) for each in again.items} == {"repeated"}
        assert len((await ours.request("GET", "/v1/incidents?limit=100", [b""], BEARER)).items) == len(shown)


async def pictured(ours: System, shown: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    """The same fields of all incidents, those in the archive among them."""
    items = (await ours.request("GET", "/v1/incidents?limit=100", [b""], BEARER)).items
    fields = next(iter(shown.values()))
    return {str(each["id"]): {field: each[field] for field in fields} for each in items}
