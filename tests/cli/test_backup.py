"""`llm-im backup` on real SQLite stores: what it says, in words and in JSON, and its exit codes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
from datetime import datetime
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from models.backup import Backup
from models.errors import Conflict, Unavailable
from services.cli.main import app
from services.machine import launch
from services.upkeep.backup.retention import newest_whole
from services.upkeep.backup.signing import Signing
from services.upkeep.backup.target import Target
from services.upkeep.kept.delivery_ids import KeptDeliveryIds
from tests.api.gateway_in_process import SqliteStores, alert, system

KEY_FILE = "LLM_IM_DISASTER_RECOVERY__BACKUP_KEY_FILE"


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["backup", *words], prog_name="llm-im")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in which three alerts were taken, and which no test changes."""
    folder = tmp_path_factory.mktemp("data")

    async def take() -> None:
        async with system(SqliteStores(folder / "store")) as ours:
            for number, service in enumerate(("api", "db", "api")):
                assert (await ours.post("/v1/alerts", [alert(f"A{number}", service)])).status == 202

    asyncio.run(take())
    return folder


@pytest.fixture(autouse=True)
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("LLM_IM_")]:
        monkeypatch.delenv(name)
    # As one does who restores elsewhere; test_a_backup_is_signed... go without.
    (tmp_path / "key").write_text("ab" * 32)
    monkeypatch.setenv(KEY_FILE, str(tmp_path / "key"))


def create(store: Path, target: str = "kept") -> str:
    result = run("create", "--target", target, "--data", str(store), "--json")
    assert result.exit_code == 0, result.output
    return str(json.loads(result.stdout)["id"])


def incidents_of(folder: Path) -> int:
    async def count() -> int:
        async with system(SqliteStores(folder / "store")) as ours:
            return len((await ours.get("/v1/incidents")).items)

    return asyncio.run(count())


def test_one_is_made_listed_verified_and_restored(store: Path) -> None:
    made = run("create", "--target", "kept", "--data", str(store))
    assert made.exit_code == 0, made.output
    assert "4 partitions" in made.stdout and "copying 4 partitions" in made.stderr
    identity = made.stdout.split()[1].rstrip(":")

    listed = run("list", "--target", "kept")
    assert listed.exit_code == 0
    assert listed.stdout.splitlines()[0].split() == ["ID", "AGE", "SIZE", "FROM", "UP", "TO", "SEQS", "STATE"]
    assert identity in listed.stdout and "shard/0001:0-" in listed.stdout and "whole" in listed.stdout

    verified = run("verify", "--target", "kept")
    assert verified.exit_code == 0
    assert f"backup {identity} is whole, signed" in verified.stdout
    assert "shard/0000    ok" in verified.stdout and "2 incidents (2 open), 2 series" in verified.stdout

    restored = run("restore", "--target", "kept", "--data", "new")
    assert restored.exit_code == 0, restored.output
    assert f"backup {identity} is restored, 3 incidents are open in it; now: llm-im up" in restored.stdout
    assert "--data" in restored.stdout.splitlines()[-1]
    assert incidents_of(Path("new")) == 3


def test_every_command_has_json_for_programs(store: Path) -> None:
    identity = create(store)

    (listed,) = json.loads(run("list", "--target", "kept", "--json").stdout)["items"]
    verified = json.loads(run("verify", identity, "--target", "kept", "--json").stdout)
    restored = json.loads(
        run("restore", "--at", identity, "--target", "kept", "--data", "new", "--json").stdout
    )

    assert (listed["id"], listed["broken"], listed["from"], listed["backend"]) == (
        identity,
        "",
        None,
        "sqlite",
    )
    assert listed["partitions"]["shard/0000"]["first_seq"] == 0
    assert datetime.fromisoformat(listed["up_to"]).tzinfo is not None
    assert (verified["id"], verified["whole"]) == (identity, True)
    assert [each["partition"] for each in verified["parts"]] == [
        "control",
        "shard/0000",
        "shard/0001",
        "topology",
    ]
    seqs = {name: each["last_seq"] for name, each in listed["partitions"].items()}
    assert {name: each["seq"] for name, each in restored["partitions"].items()} == seqs
    assert restored["partitions"]["shard/0000"]["open"] == 2


def test_the_target_of_the_settings_is_taken_when_none_is_named(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("list").exit_code == 2
    assert "give --target URL, or set disaster_recovery.backup_target" in run("list").stderr
    monkeypatch.setenv("LLM_IM_DISASTER_RECOVERY__BACKUP_TARGET", str(Path("set").absolute()))

    assert run("create", "--data", str(store)).exit_code == 0

    assert len([*Path("set", "backups").iterdir()]) == 1


def test_what_is_broken_is_told_by_its_exit_code_and_by_its_name(store: Path) -> None:
    identity = create(store)
    manifest = json.loads(Path("kept", "backups", f"{identity}.json").read_bytes())
    part = next(each for each in manifest["backup"]["parts"] if each["name"] == "shard/0001")
    file = Path("kept", "files", part["frames"][0]["digest"])
    file.write_bytes(file.read_bytes()[:-1] + b"?")

    verified = run("verify", "--target", "kept")
    assert verified.exit_code == 1
    assert f"shard/0001    BROKEN   file files/{file.name} is damaged" in verified.stdout
    assert "shard/0000    ok" in verified.stdout and f"backup {identity} is BROKEN" in verified.stdout

    file.unlink()
    listed = run("list", "--target", "kept")
    assert listed.exit_code == 1
    assert f"BROKEN file files/{file.name} is missing" in listed.stdout
    restored = run("restore", "--target", "kept", "--data", "new")
    assert restored.exit_code == 5 and "there is no complete backup in" in restored.stderr
    restored = run("restore", "--target", "kept", "--data", "new", "--at", identity)
    assert restored.exit_code == 1 and f"file files/{file.name} is missing" in restored.stderr


def test_older_ones_are_removed_behind_a_new_one(store: Path) -> None:
    old = "20200101T000000.000000Z"

    async def age(identity: str) -> None:
        target = Target("kept", Signing(bytes.fromhex("ab" * 32)))
        await target.write(msgspec.structs.replace(await target.read(identity), id=old))
        await target.remove(identity)

    asyncio.run(age(create(store)))

    result = run("create", "--target", "kept", "--data", str(store), "--retention", "30d", "--json")

    assert json.loads(result.stdout)["removed"] == [old]
    assert old not in run("list", "--target", "kept").stdout


def test_one_that_is_made_is_told_also_when_the_older_ones_stay(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def busy(*_given: object, **_more: object) -> None:
        raise Conflict("a backup is under way in kept, by process 7 on elsewhere")

    monkeypatch.setattr("services.upkeep.backup.retention.retain", busy)

    result = run("create", "--target", "kept", "--data", str(store), "--retention", "1h")
    as_json = run("create", "--target", "kept", "--data", str(store), "--retention", "1h", "--json")

    assert (result.exit_code, as_json.exit_code) == (6, 6)
    assert "4 partitions" in result.stdout and json.loads(as_json.stdout)["removed"] == []
    assert "the backup is made, but older ones were not removed: a backup is under way" in result.stderr
    assert len(json.loads(run("list", "--target", "kept", "--json").stdout)["items"]) == 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--at", "latest"], 1, "--at: 'latest' is not a backup id"),
        (["--at", "20200101T000000.000000Z"], 5, "there is no backup 20200101T000000.000000Z in"),
        (["--until", "shard/0000"], 2, "--until: 'shard/0000'; expected PARTITION=SEQ"),
        (["--until", "shard/0000=x"], 2, "expected PARTITION=SEQ"),
        (["--until", "shard/0000=99999"], 5, "has seq 0 to "),
        (["--until", "shard/0000=1", "--until-time", "1h"], 2, "not both"),
        (["--until-time", "52w"], 5, "--until-time: no backup holds"),
        (["--until-time", "yesterday"], 2, "--until-time: 'yesterday' is not a time"),
        (["--target", "s3://key:secret@bucket"], 1, "without user, password and query"),
    ],
)
def test_what_can_t_be_restored_is_told_with_its_exit_code(
    store: Path, words: list[str], code: int, said: str
) -> None:
    create(store)
    if "52w" in words:  # an empty log is restored at any time before the moment
        Path("kept", "backups").rename(Path("kept", "gone"))

    result = run("restore", "--target", "kept", "--data", "new", *words)

    assert (result.exit_code, said in result.stderr) == (code, True), result.output
    assert "secret" not in result.output
    assert not Path("new", "store").exists()


def test_a_partition_is_restored_no_further_than_it_is_told(store: Path) -> None:
    create(store)

    result = run("restore", "--target", "kept", "--data", "new", "--until", "shard/0000=1", "--json")

    assert json.loads(result.stdout)["partitions"]["shard/0000"]["incidents"] == 0
    assert incidents_of(Path("new")) == 1


def test_a_store_that_is_not_empty_or_runs_is_refused_as_a_conflict(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(store)

    result = run("restore", "--target", "kept", "--data", str(store))
    assert result.exit_code == 6
    assert "the store is not empty: control has frames up to seq" in result.stderr

    monkeypatch.setattr(launch, "running", lambda _folder: object())
    result = run("restore", "--target", "kept", "--data", "new")
    assert result.exit_code == 6
    assert "stop it first: llm-im down" in result.stderr


def test_nothing_to_back_up_is_told(tmp_path: Path) -> None:
    result = run("create", "--target", "kept", "--data", "none")

    assert result.exit_code == 6
    assert "no system was ever started on this store" in result.stderr
    assert not Path("none").exists()


def test_what_is_half_restored_is_not_started_until_the_same_was_finished(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = create(store)

    async def dying(*_arguments: object) -> None:
        raise Unavailable("the store is away")

    with monkeypatch.context() as patched:
        patched.setattr(KeptDeliveryIds, "copy", dying)
        result = run("restore", "--target", "kept", "--data", "new")
    assert (result.exit_code, "the store is away" in result.stderr) == (1, True)

    started = CliRunner().invoke(app, ["up", "--data", "new"], prog_name="llm-im")
    assert started.exit_code == 6
    assert f"this is an unfinished copy of backup {identity}" in started.stderr
    assert run("restore", "--target", "kept", "--data", "new").exit_code == 0
    assert incidents_of(Path("new")) == 3


# -- who made it ---------------------------------------------------------------------------------------------------


@pytest.fixture
def own(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the store, which makes its key itself."""
    monkeypatch.delenv(KEY_FILE)
    shutil.copytree(store, tmp_path / "own")
    return tmp_path / "own"


def changed(identity: str, *, sealed: dict[str, object]) -> None:
    """As somebody would who can write the target and has no key: all frames of a shard left out, all digests made anew."""
    path = Path("kept", "backups", f"{identity}.json")
    body = json.loads(path.read_bytes())
    body["backup"]["took_s"] = 1.5
    plain = json.dumps(body["backup"]).encode()
    found = {**body, **sealed, "blake2b": hashlib.blake2b(plain, digest_size=32).hexdigest()}
    path.write_bytes(
        b'{"blake2b":"%s","key":"%s","hmac_sha256":"%s","backup":%s}'
        % (*(str(found[name]).encode() for name in ("blake2b", "key", "hmac_sha256")), plain)
    )


def test_a_backup_is_signed_by_a_key_that_only_its_system_has(own: Path) -> None:
    create(own)

    key = own / "backup.key"
    assert key.stat().st_mode & 0o777 == 0o600 and len(key.read_text().strip()) == 64
    assert key.read_text().strip() not in "".join(
        each.read_text() for each in Path("kept", "backups").iterdir()
    )
    assert run("verify", "--target", "kept", "--data", str(own)).exit_code == 0
    before = key.read_text()
    create(own)
    assert key.read_text() == before
    listed = json.loads(run("list", "--target", "kept", "--data", str(own), "--json").stdout)["items"]
    assert [each["signature"] for each in listed] == ["signed", "signed"]


def test_a_backup_that_was_changed_and_given_new_digests_is_broken_whatever_is_accepted(own: Path) -> None:
    identity = create(own)
    changed(identity, sealed={})

    for words in (
        ["verify"],
        ["restore", "--data", "new", "--key-file", str(own / "backup.key"), "--at", identity],
    ):
        for more in ([], ["--accept-unsigned"]):
            result = run(
                *words, "--target", "kept", *more, *(["--data", str(own)] if words == ["verify"] else [])
            )
            assert result.exit_code == 1, result.output
            assert "was changed since it was signed" in result.stderr
    listed = run("list", "--target", "kept", "--data", str(own))
    assert listed.exit_code == 1 and "BROKEN" in listed.stdout
    assert not Path("new", "store").exists()


@pytest.mark.parametrize(
    ("sealed", "said"),
    [
        ({"key": "", "hmac_sha256": ""}, "not signed"),
        ({"key": "00" * 8, "hmac_sha256": "00" * 32}, "signed by another key"),
    ],
    ids=["without a signature, as older versions made them", "with the signature of somebody else"],
)
def test_a_backup_that_is_not_ours_is_restored_only_when_it_may_be_anybody_s(
    own: Path, sealed: dict[str, object], said: str
) -> None:
    identity = create(own)
    changed(identity, sealed=sealed)
    at_hand = ["--target", "kept", "--key-file", str(own / "backup.key")]

    for words in (["verify"], ["restore", "--data", "new"], ["restore", "--data", "new", "--at", identity]):
        refused = run(*words, *at_hand)
        assert refused.exit_code == 6, refused.output
        assert f"backup {identity} is {said}" in refused.stderr and "--accept-unsigned" in refused.stderr
    listed = run("list", "--target", "kept", "--data", str(own))
    verified = run("verify", *at_hand, "--accept-unsigned")
    restored = run("restore", "--data", "new", *at_hand, "--accept-unsigned")

    assert listed.exit_code == 0 and f"whole, {said}" in " ".join(listed.stdout.split())
    assert verified.exit_code == 0 and f"is whole, {said}" in verified.stdout
    assert restored.exit_code == 0, restored.output


def test_without_the_key_at_hand_a_restore_elsewhere_wants_it_or_a_word(own: Path) -> None:
    create(own)

    refused = run("restore", "--target", "kept", "--data", "new")
    wrong = run("restore", "--target", "kept", "--data", "new", "--key-file", "nowhere")
    Path("short").write_text("abc")
    short = run("restore", "--target", "kept", "--data", "new", "--key-file", "short")
    restored = run("restore", "--target", "kept", "--data", "new", "--key-file", str(own / "backup.key"))

    assert refused.exit_code == 6 and "signed by another key" in refused.stderr
    assert wrong.exit_code == 1 and "there is no file nowhere" in wrong.stderr
    assert short.exit_code == 1 and "64 hexadecimal digits" in short.stderr
    assert restored.exit_code == 0, restored.output
    assert not Path("new", "backup.key").exists(), "reading makes no key"


def test_a_foreign_backup_makes_none_of_ours_go_and_none_wait(own: Path) -> None:
    ours = create(own)
    foreign = "20991231T000000.000000Z"
    path = Path("kept", "backups", f"{ours}.json")
    body = json.loads(path.read_bytes())
    body["backup"]["id"] = foreign
    path.with_name(f"{foreign}.json").write_text(json.dumps(body))
    changed(foreign, sealed={"key": "", "hmac_sha256": ""})

    target = Target("kept", Signing(bytes.fromhex((own / "backup.key").read_text().strip())))
    newest = asyncio.run(_newest_of(target))

    assert newest is not None and newest.id == ours


async def _newest_of(target: Target) -> Backup | None:
    return await newest_whole(target, await target.files())
