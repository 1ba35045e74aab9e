"""`llm-im store`: what a person sees of checking and moving what is kept."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sqlite3
import urllib.error
import urllib.request
from array import array
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from actors.clock import SystemClock
from models.errors import Conflict
from models.events import SlotArrived, SlotsAssigned
from models.ports import DeadLetter
from models.sharding import SlotMap
from services.bootstrap import open_dead_letters
from services.cli.main import app
from services.cli.where import settings_of
from services.closed_door import closed_door
from services.offline import Offline
from services.slots import as_assigned, control_state
from services.stores.choice import open_stores, place_of
from services.stores.sqlite import file_path
from services.verifying import verify
from tests.api.gateway_in_process import SqliteStores, alert, system

SERVICES = [f"service-{number}" for number in range(12)]


def run(*arguments: str) -> Result:
    """`llm-im store` with these words."""
    return CliRunner().invoke(app, ["store", *arguments])


@pytest.fixture
def used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data folder that a system was used on, in ./var."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("LLM_IM_", "RAY_"))]:
        monkeypatch.delenv(name)
    folder = tmp_path / "var" / "store"
    folder.mkdir(parents=True)

    async def use() -> None:
        async with system(SqliteStores(folder)) as ours:
            body = [alert("Down", service) for service in SERVICES]
            assert (await ours.post("/v1/alerts", body)).status == 202

    asyncio.run(use())
    yield tmp_path


def test_what_is_whole_is_ok(used: Path) -> None:
    result = run("verify")
    as_json = json.loads(run("verify", "--json").stdout)

    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["control", "ok"],
        ["shard/0000", "ok"],
        ["shard/0001", "ok"],
    ]
    assert (
        sum(each["incidents"] for each in as_json) == sum(each["series"] for each in as_json) == len(SERVICES)
    )


def test_what_is_damaged_or_in_the_wrong_place_is_named(used: Path) -> None:
    async def swap() -> None:
        settings = settings_of(None)
        async with Offline(open_stores(place_of(settings)), "test", SystemClock()) as offline:
            control = await offline.take("control")
            state = await control_state(settings)
            assert state.slots is not None
            other = SlotMap(2, tuple(1 - owner for owner in state.slots.owners))
            await control.append([SlotsAssigned(2, array("H", other.owners).tobytes())], 0.0)

    asyncio.run(swap())
    with sqlite3.connect(file_path(used / "var" / "store", "shard/0001")) as database:
        database.execute("UPDATE appends SET frames = x'00' WHERE first_seq = 1")

    result = run("verify")

    assert result.exit_code == 1
    assert "control       ok" in result.stdout
    assert "shard/0000    WRONG" in result.stdout and "is another partition's" in result.stdout
    assert "shard/0001    WRONG" in result.stdout and "seq 1" in result.stdout


def test_frames_that_are_whole_and_do_not_fit_what_was_before_are_named(used: Path) -> None:
    async def write() -> None:
        async with Offline(open_stores(place_of(settings_of(None))), "test", SystemClock()) as offline:
            no_incident = SlotArrived(1, 2, [msgspec.msgpack.encode([b"x" * 16])], [b""])
            await (await offline.take("shard/0000")).append([no_incident], 0.0)

    asyncio.run(write())

    result = run("verify")

    assert result.exit_code == 1
    assert "shard/0000    WRONG" in result.stdout and "can't be made" in result.stdout
    assert "shard/0001    ok" in result.stdout


def test_resharding_says_what_it_did_and_log_commands_know_of_it(used: Path) -> None:
    result = run("reshard", "--partitions", "3")
    again = run("reshard", "--partitions", "3")
    verified = run("verify")

    assert result.exit_code == 0, result.output
    assert "3 partitions after" in result.stdout
    assert again.exit_code == 6 and "there are 3 partitions already" in again.stderr
    assert verified.exit_code == 0 and "shard/0002" in verified.stdout
    assert as_assigned(settings_of(None)).state.partitions == 3
    assert "shard/0002" in CliRunner().invoke(app, ["log", "stats"]).stdout


def test_a_move_that_is_not_done_keeps_the_system_from_starting(used: Path) -> None:
    async def begin() -> None:
        settings = settings_of(None)
        async with Offline(open_stores(place_of(settings)), "llm-im-reshard", SystemClock()) as offline:
            control = await offline.take("control")
            await control.append((await control_state(settings)).reshard(3), 0.0)

    asyncio.run(begin())

    with pytest.raises(Conflict, match="llm-im store reshard --partitions 3"):
        as_assigned(settings_of(None))
    up = CliRunner().invoke(app, ["up"])
    assert up.exit_code == 6 and "llm-im store reshard --partitions 3" in up.stderr
    assert "is not done" in run("verify").stdout

    assert run("reshard", "--partitions", "3").exit_code == 0
    assert run("verify").exit_code == 0


def test_a_migration_is_looked_at_first_and_then_done(used: Path) -> None:
    (used / "new.toml").write_text('[state]\npath = "other"\n')

    dry = run("migrate", "--to", "new.toml", "--dry-run")
    assert not (used / "other").exists()
    result = run("migrate", "--to", "new.toml")
    again = run("migrate", "--to", "new.toml")

    assert dry.exit_code == 0 and "shard/0001" in dry.stdout and "(0 there)" in dry.stdout
    assert result.exit_code == 0, result.output
    assert "all the same in both" in result.stdout
    assert "llm-im up --config new.toml" in result.stdout
    assert again.exit_code == 6 and "whole already" in again.stderr
    assert CliRunner().invoke(app, ["store", "verify", "--config", "new.toml"]).exit_code == 0


def letters_in(*config: str) -> list[bytes]:
    async def read() -> list[bytes]:
        letters = open_dead_letters(settings_of(Path(*config) if config else None))
        try:
            return [each.payload for each in await letters.page(0, 100)]
        finally:
            await letters.close()

    return asyncio.run(read())


def put_letter(payload: bytes, *config: str) -> None:
    async def put() -> None:
        letters = open_dead_letters(settings_of(Path(*config) if config else None))
        try:
            await letters.add([DeadLetter(SystemClock().now(), "default", "v1", "not JSON", payload)])
        finally:
            await letters.close()

    asyncio.run(put())


def test_dead_letters_go_along_but_never_into_a_store_that_is_refused(used: Path) -> None:
    (used / "new.toml").write_text('[state]\npath = "other"\n')
    (used / "foreign.toml").write_text('[state]\npath = "foreign"\n')
    put_letter(b"first")
    put_letter(b"second")
    shutil.copytree("var", "foreign")
    put_letter(b"third")

    refused = run("migrate", "--to", "foreign.toml")
    done = run("migrate", "--to", "new.toml")

    assert refused.exit_code == 6 and "the target holds" in refused.stderr
    assert letters_in("foreign.toml") == [b"first", b"second"]
    assert done.exit_code == 0 and "3 dead letters" in done.stdout
    assert letters_in("new.toml") == [b"first", b"second", b"third"]


def test_a_store_on_which_nothing_was_ever_started_is_not_called_whole(used: Path) -> None:
    result = run("verify", "--data", "elsewhere")

    assert result.exit_code == 1
    assert "no system was ever started on this store" in result.stdout
    assert not (used / "elsewhere").exists()


def test_mistakes_are_named(used: Path) -> None:
    (used / "same.toml").write_text("")
    (used / "nowhere.toml").write_text('[state]\nbackend = "redis"\n')

    same = run("migrate", "--to", "same.toml")
    nowhere = run("migrate", "--to", "nowhere.toml")
    missing = run("migrate", "--to", "not-there.toml")

    assert same.exit_code == 2 and "both are the same store" in same.stderr
    assert nowhere.exit_code == 1 and "state.redis.url" in nowhere.stderr
    assert missing.exit_code != 0 and "not-there.toml" in missing.stderr
    assert run("reshard", "--partitions", "0").exit_code == 2


def test_meanwhile_senders_are_told_to_try_again() -> None:
    async def ask() -> tuple[int, str | None, bytes]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        async with closed_door("127.0.0.1", port) as is_ours, closed_door("127.0.0.1", port) as second:
            assert is_ours and not second
            return await asyncio.to_thread(post, port)

    def post(port: int) -> tuple[int, str | None, bytes]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/v2/alerts", b"x" * 300_000, method="POST"
        )
        try:
            urllib.request.urlopen(request, timeout=10)
        except urllib.error.HTTPError as error:
            return error.code, error.headers["Retry-After"], error.read()
        raise AssertionError("answered as if it were stored")

    status, retry_after, body = asyncio.run(ask())

    assert (status, retry_after) == (503, "5")
    assert json.loads(body)["error"] == "unavailable"


def test_beside_a_system_that_truncates_its_logs_nothing_is_taken_for_damage(used: Path) -> None:
    async def both() -> list[list[str]]:
        over = asyncio.Event()
        stores = SqliteStores(used / "var" / "store")
        async with system(stores, state={"snapshot_every_frames": 30}) as ours:

            async def send() -> None:
                number = 0
                while not over.is_set():
                    number += 1
                    body = [alert(f"Down{number}", service) for service in SERVICES]
                    assert (await ours.post("/v1/alerts", body)).status == 202

            sending = asyncio.create_task(send())
            found = []
            for _ in range(5):
                await asyncio.sleep(0.1)
                found += [each.problems for each in await verify(settings_of(None), 2)]
            over.set()
            await sending
            marks = await stores.log("shard/0000").marks()
            assert len(marks) == 2, "nothing was truncated"
        return found

    assert asyncio.run(both()) == [[]] * 15
