"""`llm-im store`: what a person sees of checking and moving what is kept."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import urllib.error
import urllib.request
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from actors.runtime.clock import SystemClock
from actors.shard import IncidentShard
from models import VERSION
from models.control.events import CopyEnded, SlotsAssigned
from models.control.slots import Slots
from models.errors import Conflict
from models.partition.event import Event
from models.partition.sharding import SlotMap
from models.ports import DeadLetter
from models.shard.slot_transfer import SlotArrived
from services.cli import in_ray
from services.cli.commands.up import _refuse_other
from services.cli.main import app
from services.cli.shared import which_store
from services.cli.shared.exits import Failure
from services.cli.shared.where import settings_of
from services.machine import launch
from services.machine.closed_door import closed_door
from services.machine.instance import Instance
from services.stores.choice import described, open_stores, place_of
from services.stores.sqlite.files import file_path
from services.upkeep.offline import HeldLog, Offline
from services.upkeep.verifying import verify
from services.wiring.bootstrap import open_dead_letters
from services.wiring.slots import as_assigned, control_state
from tests.api import gateway_in_process
from tests.api.gateway_in_process import SqliteStores, alert, system
from tests.contract.redis_peers import Server
from tests.ports import free_port

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
        ["topology", "ok"],
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
    assert "shard/0000    WRONG" in result.stdout and "belongs to another partition" in result.stdout
    assert "shard/0001    WRONG" in result.stdout and "seq 1" in result.stdout


def test_frames_that_are_whole_and_do_not_fit_what_was_before_are_named(used: Path) -> None:
    async def write() -> None:
        async with Offline(open_stores(place_of(settings_of(None))), "test", SystemClock()) as offline:
            no_incident = SlotArrived(1, 2, [msgspec.msgpack.encode([b"x" * 16])], [b""])
            await (await offline.take("shard/0000")).append([no_incident], 0.0)

    asyncio.run(write())

    result = run("verify")

    assert result.exit_code == 1
    assert "shard/0000    WRONG" in result.stdout and "can't be rebuilt" in result.stdout
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
            await control.append((await control_state(settings)).of(Slots).reshard(3), 0.0)

    asyncio.run(begin())

    with pytest.raises(Conflict, match="llm-im store reshard --partitions 3"):
        as_assigned(settings_of(None))
    up = CliRunner().invoke(app, ["up"])
    assert up.exit_code == 6 and "llm-im store reshard --partitions 3" in up.stderr
    assert "is not finished" in run("verify").stdout

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
    assert again.exit_code == 6 and "already complete" in again.stderr
    assert CliRunner().invoke(app, ["store", "verify", "--config", "new.toml"]).exit_code == 0


def moved(used: Path) -> None:
    (used / "new.toml").write_text('[state]\npath = "other"\n')
    result = run("migrate", "--to", "new.toml")
    assert result.exit_code == 0, result.output
    assert f"moved to SQLite in {used}/other/store" in result.stdout


def test_a_store_that_was_moved_is_used_by_nobody_without_a_word(used: Path) -> None:
    moved(used)
    said = f"this store was moved to SQLite in {used}/other/store at 20"

    with pytest.raises(Conflict, match=said):
        as_assigned(settings_of(None))
    refused = [
        ["backup", "create", "--target", "kept"],
        ["tokens", "create", "boss", "--scope", "admin", "--local"],
        ["store", "reshard", "--partitions", "3"],
        ["up"],
    ]
    for words in refused:
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 6 or isinstance(result.exception, Conflict), words
        assert said in result.stderr + str(result.exception), words
    for words in (["store", "verify"], ["log", "verify"], ["log", "stats"], ["log", "tail"]):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, words
        assert f"WARNING   {said}" in result.stderr, words
    as_assigned(settings_of(Path("new.toml")))


def test_a_store_that_was_moved_can_be_taken_up_again(used: Path) -> None:
    moved(used)

    taken = run("take-up")
    again = run("take-up")

    assert taken.exit_code == 0 and "is not here" in taken.stdout
    assert again.exit_code == 6 and "this store was not moved" in again.stderr
    as_assigned(settings_of(None))
    assert "WARNING" not in run("verify").stderr
    (used / "third.toml").write_text('[state]\npath = "third"\n')
    assert run("migrate", "--to", "third.toml").exit_code == 0
    assert CliRunner().invoke(app, ["store", "verify", "--config", "third.toml"]).exit_code == 0


def test_a_migration_that_was_killed_when_the_source_was_marked_goes_on(
    used: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception): ...

    append = HeldLog.append

    async def killed(held: HeldLog, events: Sequence[Event], now: float) -> None:
        if isinstance(events[0], CopyEnded):
            raise Killed
        await append(held, events, now)

    (used / "new.toml").write_text('[state]\npath = "other"\n')
    with monkeypatch.context() as patch:
        patch.setattr(HeldLog, "append", killed)
        assert isinstance(run("migrate", "--to", "new.toml").exception, Killed)
    for which in (None, Path("new.toml")):
        with pytest.raises(Conflict):  # nobody starts either meanwhile
            as_assigned(settings_of(which))
    (used / "third.toml").write_text('[state]\npath = "third"\n')

    elsewhere = run("migrate", "--to", "third.toml")
    dry = run("migrate", "--to", "new.toml", "--dry-run")
    result = run("migrate", "--to", "new.toml")

    assert elsewhere.exit_code == 6 and "was moved to" in elsewhere.stderr
    assert dry.exit_code == 0, dry.output
    assert result.exit_code == 0, result.output
    as_assigned(settings_of(Path("new.toml")))


def test_a_dry_run_refuses_what_the_migration_would(used: Path, tmp_path: Path) -> None:
    server = Server(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "everysec").start()
    try:
        (used / "redis.toml").write_text(f'[state]\nbackend = "redis"\nredis.url = "{server.url}"\n')
        (used / "filled.toml").write_text('[state]\npath = "filled"\n')
        shutil.copytree("var", "filled")

        for config, said in (("redis.toml", "appendfsync is 'everysec'"), ("filled.toml", "is not empty")):
            result = run("migrate", "--to", config, "--dry-run")
            assert result.exit_code in (1, 6) and said in result.stderr, (config, result.output)
    finally:
        server.stop()


def test_a_store_is_named_without_what_opens_it(used: Path) -> None:
    for state, said in (
        (
            'backend = "redis"\nredis.url = "rediss://me:s3cret@r1:7000/2"',
            "Redis at r1:7000, database 2, prefix llm-im",
        ),
        (
            'backend = "redis"\nredis.url = "redis+sentinel://:s3cret@s1,s2:7/main?sentinel_password=s3cret"',
            "Redis at s1:26379,s2:7, service main, database 0, prefix llm-im",
        ),
        (
            'backend = "postgres"\npostgres.url = "postgresql://me:s3cret@h1,h2:6/db?sslpassword=s3cret"',
            "PostgreSQL at h1,h2:6, database db, schema llm_im",
        ),
        (
            'backend = "postgres"\npostgres.url = "postgresql:///db?host=/run/pg&port=7&password=s3cret"',
            "PostgreSQL at /run/pg:7, database db, schema llm_im",
        ),
    ):
        (used / "that.toml").write_text(f"[state]\n{state}\n")
        assert described(settings_of(Path("that.toml"))) == said


def test_the_store_of_what_runs_is_compared_with_that_of_the_settings(
    used: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = Instance("i1", "", "127.0.0.1", 8080, os.getpid(), VERSION, "", 0.0, {})
    monkeypatch.setattr(launch, "running", lambda _folder: running)
    settings = settings_of(None)

    which_store.note(settings, "i1")
    assert (
        f"store     SQLite in {used}/var/store; the system that runs on {used}/var uses it"
        in run("verify").stderr
    )

    (used / "that.toml").write_text('[state]\nbackend = "redis"\nredis.url = "redis://127.0.0.1:1"\n')
    other = run("verify", "--config", "that.toml").stderr
    with pytest.raises(Failure, match="that keeps its state in SQLite"):
        request = in_ray.Request("deploy", None, "var", None, owned=True)
        _refuse_other(running, request, used / "var", settings_of(Path("that.toml")))
    assert (
        "NOT the store of the system that runs on" in other and f"it uses SQLite in {used}/var/store" in other
    )

    which_store.note(settings, "of an earlier start")
    assert f"a system runs on {used}/var" in run("verify").stderr


def test_without_its_control_log_nothing_is_started_and_no_token_made_until_the_loss_is_accepted(
    used: Path,
) -> None:
    for path in (used / "var" / "store").glob("control.db*"):
        path.unlink()

    for words in (["up"], ["tokens", "create", "boss", "--scope", "admin", "--local"]):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 1, words
        assert "the control log is gone" in result.stderr + str(result.exception), words
    assert not (used / "var" / "store" / "control.db").exists()

    result = run("accept-loss", "control")

    assert result.exit_code == 0, result.output
    assert f"2 partitions, the slots of {len(SERVICES)} incidents where these are" in result.stdout
    state = asyncio.run(control_state(settings_of(None)))
    assert state.guarded and not state.tokens
    assert run("verify").exit_code == 0
    assert run("accept-loss", "shard/0001").exit_code == 6
    made = CliRunner().invoke(app, ["tokens", "create", "boss", "--scope", "admin", "--local"])
    assert made.exit_code == 0, made.output


def test_an_incident_that_a_snapshot_lost_is_missed_by_every_reader(
    used: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_in_process, "READY_S", 2.0)  # one of its shards never is
    folder = used / "var" / "store"

    async def snapshots() -> None:
        async with system(SqliteStores(folder), state={"snapshot_every_frames": 10}) as ours:
            for number in range(60):
                assert (await ours.post("/v1/alerts", [alert(f"More{number}", SERVICES[0])])).status == 202
            async with asyncio.timeout(20):
                while await _first_seq(folder) < 2:  # truncated: there is nothing else to replay from
                    await asyncio.sleep(0.05)

    asyncio.run(snapshots())
    assert run("verify").exit_code == 0
    lost = next(each for each in ("shard/0000", "shard/0001") if asyncio.run(_first_seq(folder, each)) > 1)
    with sqlite3.connect(file_path(folder, lost)) as database:
        (key,) = database.execute("SELECT min(key) FROM records WHERE key LIKE 'i/%'").fetchone()
        database.execute("DELETE FROM records WHERE key = ?", (key,))

    log = CliRunner().invoke(app, ["log", "verify"])
    store = run("verify")
    backup = CliRunner().invoke(app, ["backup", "create", "--target", "kept"])
    (used / "new.toml").write_text('[state]\npath = "new"\n')
    migrated = run("migrate", "--to", "new.toml")

    async def start() -> list[str]:
        async with system(SqliteStores(folder)) as ours:
            return [
                str(await shard.status(b""))
                for shard in map(ours.cluster.get, ours.shards)
                if isinstance(shard, IncidentShard)
            ]

    assert (log.exit_code, store.exit_code, backup.exit_code) == (1, 1, 1)
    for said in (log.stdout, store.stdout, backup.stderr):
        assert "the snapshot is incomplete" in said and "were written" in said
    assert migrated.exit_code == 1
    assert "no snapshot of what came before can be read" in asyncio.run(start())[int(lost[-1])]


async def _first_seq(folder: Path, partition: str = "") -> int:
    """Of the log that begins last, or of this one."""
    found = []
    for name in [partition] if partition else ["shard/0000", "shard/0001"]:
        log = SqliteStores(folder).log(name)
        found.append((await log.stats())["first_seq"])
        await log.close()
    return max(found)


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
    assert "no system was ever started on it" in result.stdout
    assert not (used / "elsewhere").exists()


def test_mistakes_are_named(used: Path) -> None:
    (used / "same.toml").write_text("")
    (used / "nowhere.toml").write_text('[state]\nbackend = "redis"\n')

    same = run("migrate", "--to", "same.toml")
    nowhere = run("migrate", "--to", "nowhere.toml")
    missing = run("migrate", "--to", "not-there.toml")

    assert same.exit_code == 2 and "source and destination are the same store" in same.stderr
    assert nowhere.exit_code == 1 and "state.redis.url" in nowhere.stderr
    assert missing.exit_code != 0 and "not-there.toml" in missing.stderr
    assert run("reshard", "--partitions", "0").exit_code == 2


def test_meanwhile_senders_are_told_to_try_again() -> None:
    async def ask() -> tuple[int, str | None, bytes]:
        port = free_port()
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

    assert asyncio.run(both()) == [[]] * 20
