"""`llm-im log` on a real SQLite log: whole, damaged in the middle, torn at its end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import apsw
import msgspec
import pytest
from typer.testing import CliRunner, Result

from models.alerts.alert import Content
from models.control.control import ControlState
from models.control.events import PartitionsBegan, SettingsChanged
from models.control.slots import Slots
from models.partition.event import Event
from models.partition.frames import NO_DIGEST, encode_frame
from models.partitions import decode_frame
from models.shard.events import AlertsObserved, IncidentOpened, SeriesOpened
from models.shard.messages import Decision
from services.cli.main import app
from services.cli.shared.events import lines
from services.settings.load import load_settings
from services.wiring.bootstrap import open_log

INCIDENT = UUID("019ab000-0000-7001-8000-00000000aaaa")
PARTITION, FILE = "shard/0000", "shard-0000.db"


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["log", *words], prog_name="llm-im")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with a log of one opened incident and three repeats, an append each."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("LLM_IM_")]:
        monkeypatch.delenv(name)
    asyncio.run(write(tmp_path / "var"))
    return tmp_path / "var"


async def write(folder: Path) -> None:
    body = msgspec.msgpack.encode(Content({"alertname": "X", "evil": "a\x1b[2Jb"}, {}, 1000.0))
    opened = IncidentOpened(
        INCIDENT.bytes, 1, "default", "llm-api", "key", {"service": "llm-api"}, "a title", "", "test", {}, {}
    )
    first = [
        opened,
        SeriesOpened(0, b"k" * 24, INCIDENT.bytes, float("inf"), body, int(Decision.OPENED)),
    ]
    repeat = [AlertsObserved(b"\0\0\0\0", b"\0" * 8)]
    log = open_log(load_settings(None, {"state.path": str(folder)}), PARTITION)
    epoch = (await log.open("test", 1000.0, 1.0)).epoch
    digest = NO_DIGEST
    appends: list[Sequence[Event]] = [first, repeat, repeat, repeat]
    for seq, events in enumerate(appends, 1):
        frame, digest = encode_frame(seq, 1000.0 + seq, "default", None, events, digest)
        await log.append(epoch, seq, [frame])
    await log.release(epoch)
    await log.close()
    await begin(folder)


async def begin(folder: Path) -> None:
    """The control partition, which knows of both shards; the other one has begun, too."""
    settings = load_settings(None, {"state.path": str(folder)})
    control, other = open_log(settings, "control"), open_log(settings, "shard/0001")
    epoch = (await control.open("test", 1000.0, 1.0)).epoch
    events = [*ControlState().of(Slots).begin(2), PartitionsBegan([PARTITION])]
    await control.append(epoch, 1, [encode_frame(1, 1000.0, "default", None, events, NO_DIGEST)[0]])
    await control.release(epoch)
    await control.close()
    await other.release((await other.open("test", 1000.0, 1.0)).epoch)
    await other.close()


def delete(folder: Path, which: str) -> None:
    """Rows of the shard's appends."""
    (path,) = folder.rglob(FILE)
    connection = apsw.Connection(str(path))
    connection.execute(f"DELETE FROM appends WHERE {which}")
    connection.close()


def damage(folder: Path, seq: int) -> None:
    (path,) = folder.rglob(FILE)
    connection = apsw.Connection(str(path))
    stored = bytearray(connection.execute("SELECT frames FROM appends WHERE first_seq = ?", (seq,)).get)
    stored[-1] ^= 1
    connection.execute("UPDATE appends SET frames = ? WHERE first_seq = ?", (bytes(stored), seq))
    connection.close()


def test_a_whole_log_is_verified() -> None:
    result = run("verify")

    assert result.exit_code == 0
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [
        ["control", "ok"],
        ["shard/0000", "ok"],
        ["shard/0001", "ok"],
        ["topology", "ok"],
    ]
    assert "4 frames (1 to 4)" in result.stdout


@pytest.mark.parametrize(
    ("which", "told"),
    [
        ("first_seq = 4", "at seq 4: frames 4 to 4 are missing: the log's record says that it ends at 4"),
        ("first_seq > 1", "at seq 2: frames 2 to 4 are missing"),
        ("first_seq < 3", "at seq 1: frames 1 to 2 are missing"),
        ("first_seq > 0", "at seq 1: frames 1 to 4 are missing"),
    ],
    ids=["the last", "all but the first", "the first", "all"],
)
def test_appends_that_are_gone_are_missed(folder: Path, which: str, told: str) -> None:
    delete(folder, which)

    result = run("verify")

    assert result.exit_code == 1
    assert f"shard/0000    DAMAGED  {told}" in result.stdout


def test_a_shard_whose_file_is_gone_is_missed(folder: Path) -> None:
    for path in folder.rglob(f"{FILE}*"):
        path.unlink()

    log, store = run("verify"), CliRunner().invoke(app, ["store", "verify"])

    assert (log.exit_code, store.exit_code) == (1, 1)
    assert "shard/0000    DAMAGED  its log is gone: the control log says that it had begun" in log.stdout
    assert "its log is gone" in store.stdout


def test_a_shard_that_the_slot_map_names_and_that_never_began_is_told(folder: Path) -> None:
    for path in folder.rglob("shard-0001.db*"):
        path.unlink()

    result = run("verify")

    assert result.exit_code == 1
    assert "it has no data, but the slot map names it" in result.stdout


def test_a_control_log_that_is_gone_is_missed(folder: Path) -> None:
    for path in folder.rglob("control.db*"):
        path.unlink()

    log, store = run("verify"), CliRunner().invoke(app, ["store", "verify"])

    assert (log.exit_code, store.exit_code) == (1, 1)
    assert "control       DAMAGED  the control log is gone" in log.stdout
    assert "shard/0000    ok" in log.stdout
    assert "the control log is gone" in store.stdout


def test_every_command_says_which_store_it_reads(folder: Path) -> None:
    for words in (["verify"], ["stats"], ["tail"]):
        assert f"store     SQLite in {folder}/store; nothing runs on {folder}" in run(*words).stderr


def test_damage_in_the_middle_is_told_with_its_place(folder: Path) -> None:
    damage(folder, 2)

    result = run("verify")

    assert result.exit_code == 1
    assert "shard/0000    DAMAGED  at seq 2: checksum does not match" in result.stdout
    assert "shard/0001    ok" in result.stdout, "one that is damaged must not hide the others"


def test_a_torn_tail_is_told_as_that(folder: Path) -> None:
    damage(folder, 4)

    result = run("verify", PARTITION)

    assert result.exit_code == 1
    assert "at seq 4: the last append, up to seq 4, is torn; the next start cuts it off" in result.stdout


def test_verify_has_json_for_programs(folder: Path) -> None:
    damage(folder, 3)

    (check,) = json.loads(run("verify", PARTITION, "--json").stdout)

    assert (check["partition"], check["frames"]) == (PARTITION, 2)
    assert check["damage"].startswith("at seq 3")


def test_stats_count_events_by_type() -> None:
    result = run("stats", "--json", PARTITION)

    (counted,) = json.loads(result.stdout)
    assert counted["events"] == {"IncidentOpened": 1, "SeriesOpened": 1, "AlertsObserved": 3}
    assert (counted["frames"], counted["last_seq"], counted["snapshots"]) == (4, 4, 0)
    assert "AlertsObserved" in run("stats").stdout


def test_tail_shows_the_last_events_as_text() -> None:
    lines = run("tail", "-n", "4", PARTITION).stdout.splitlines()

    assert [line.split()[4] for line in lines] == [
        "SeriesOpened",
        "AlertsObserved",
        "AlertsObserved",
        "AlertsObserved",
    ]
    assert lines[0].startswith("1970-01-01 00:16:41.000Z  shard/0000  1  SeriesOpened  number=0")
    assert f"incident_id={INCIDENT}" in lines[0]
    assert "decision=opened" in lines[0]
    assert '"alertname": "X"' in lines[0]
    assert "\x1b" not in lines[0], "a label must not steer the terminal"
    assert "numbers" in lines[-1]


def test_tail_shows_no_more_than_asked_for() -> None:
    assert len(run("tail", "-n", "2").stdout.splitlines()) == 2
    assert run("tail", "-n", "0").stdout == ""
    assert len(run("tail", "-n", "100").stdout.splitlines()) == 5 + 2


def test_tail_has_json_for_programs() -> None:
    told = [json.loads(line) for line in run("tail", "--json", "-n", "5", PARTITION).stdout.splitlines()]

    assert [each["type"] for each in told][:2] == ["IncidentOpened", "SeriesOpened"]
    assert told[0]["event"]["incident_id"] == str(INCIDENT)
    assert told[1]["event"]["body"]["labels"]["alertname"] == "X"


@pytest.mark.parametrize("command", ["verify", "stats", "tail"])
def test_a_partition_that_is_none_is_named_with_those_there_are(command: str) -> None:
    result = run(command, "shard/9")

    assert result.exit_code == 5
    assert "there are control, shard/0000, shard/0001" in result.stderr


def test_a_folder_that_is_none_is_told(tmp_path: Path) -> None:
    result = run("verify", "--data", str(tmp_path / "elsewhere"))

    assert result.exit_code == 5
    assert f"{tmp_path / 'elsewhere'} does not exist" in result.stderr


def test_a_store_that_is_no_folder_needs_none() -> None:
    """State in a server, looked at from a machine on which nothing ever ran."""
    Path("llm-im.toml").write_text('[state]\nbackend = "redis"\nredis.url = "redis://127.0.0.1:1"\n')

    for words in (("verify",), ("stats",), ("tail",)):
        result = run(*words, "--data", "never-there")
        assert result.exit_code == 1
        assert "Redis is down" in result.stderr and "does not exist" not in result.stderr


def test_ctrl_c_ends_following_with_130(folder: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "services.cli", "log", "tail", "-f", "-n", "1", "--data", str(folder)],
        cwd=Path(__file__).resolve().parents[2], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A test run that a shell put into the background ignores SIGINT, and would hand that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        assert child.stdout is not None and child.stdout.readline()

        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=30)
    finally:
        child.kill()

    assert child.returncode == 130
    assert said.startswith("store ") and said.count("\n") == 1, said


def test_a_change_of_settings_is_told_as_json_though_it_holds_bytes_for_each_kind_of_process() -> None:
    changed = SettingsChanged(
        "start", "ops", {"logging.level": "DEBUG"}, "{}", b"", b"", "DEBUG", {"shard": b"abc"}
    )
    frame, _digest = encode_frame(1, 1000.0, "default", None, [changed], NO_DIGEST)

    [line] = lines("control", decode_frame("control", frame, 1, NO_DIGEST))

    told = json.loads(line.as_json())["event"]
    assert (told["changes"], told["processes"]) == ({"logging.level": "DEBUG"}, {"shard": "3 bytes"})
    assert "level=DEBUG" in line.as_text()
