"""Another user's command, root's too: refused by name before anything is touched. A file of another user is one line and no
traceback."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from services.cli.shared.exits import ExitCode
from services.machine.instance import Instance, fresh_log
from services.machine.processes import MARK
from tests.cli.conftest import Run

NOBODY = 65534
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
#: `llm-im` as another user, once for each list of words. All is imported before, because the virtual environment may lie
#: where that user can't look; and once, because that takes seconds.
AS_OTHER = """
import importlib, json, os, pkgutil, sys, tempfile, traceback
import services, services.cli.main
for module in pkgutil.walk_packages(services.__path__, "services."):
    if module.name not in ("services.wiring.serve_app", "services.cli.__main__"):
        importlib.import_module(module.name)
os.setgroups([]); os.setgid(65534); os.setuid(65534)

def run(words):
    said = tempfile.TemporaryFile()
    if (child := os.fork()) == 0:
        os.dup2(said.fileno(), 2)
        sys.argv = ["llm-im", *words]
        code = 99
        try:
            services.cli.main.main()
        except SystemExit as done:
            code = done.code or 0
        except BaseException:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said.seek(0)
    return code, said.read().decode()

told = os.dup(1)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
os.write(told, json.dumps([run(words) for words in json.loads(sys.argv[1])]).encode())
"""

pytestmark = AS_ROOT


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can reach: pytest's own are closed."""
    folder = Path(tempfile.mkdtemp(prefix="other-user-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def running(open_folder: Path) -> Iterator[Path]:
    """The data folder of a system that runs as nobody: its three processes by name and mark, and what was written down."""
    data, private = open_folder / "data", open_folder / "private"
    environment = {MARK: "cafe", "PATH": os.environ["PATH"]}
    programs = [
        subprocess.Popen(
            ["sh", "-c", f"echo {name} > /proc/self/comm; read line"],
            stdin=subprocess.PIPE, env=environment, user=NOBODY, group=NOBODY, extra_groups=[],
        )
        for name in ("head", "gcs_server", "raylet")
    ]  # fmt: skip
    instance = Instance(
        "cafe", "127.0.0.1:1", "127.0.0.1", 1, programs[0].pid, "0", str(private), 0.0, {}, NOBODY
    )
    (data / "run").mkdir(parents=True)
    (data / "run" / "instance.json").write_bytes(msgspec.json.encode(instance))
    private.mkdir()
    (private / "token").write_text("secret")
    give_away(open_folder)
    for program in programs:
        while Path(f"/proc/{program.pid}/comm").read_text().strip() in ("sh", "python", "dash"):
            assert program.poll() is None
    yield data
    for program in programs:
        program.communicate(timeout=10)


def give_away(folder: Path) -> None:
    for place in (folder, *folder.rglob("*")):
        os.chown(place, NOBODY, NOBODY)


def as_nobody(*commands: tuple[str, ...], cwd: Path) -> list[tuple[int, str]]:
    """The exit code and stderr of each."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("LLM_IM_", "RAY_"))
    }
    environment |= {"PYTHONPATH": str(Path(__file__).parents[2]), "HOME": str(cwd), "COLUMNS": "500"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", AS_OTHER, json.dumps(commands)],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    return [(code, said) for code, said in json.loads(done.stdout)]


def seen(folder: Path) -> dict[str, tuple[int, int, int]]:
    return {
        str(place): (place.stat().st_uid, place.stat().st_mode, place.stat().st_mtime_ns)
        for place in (folder, *folder.rglob("*"))
    }


@pytest.mark.parametrize("verb", ["up", "down"])
def test_root_is_told_whose_system_it_is_and_nothing_is_touched(run: Run, running: Path, verb: str) -> None:
    before = seen(running.parent)

    result = run(verb, "--data", str(running))

    name = pwd.getpwuid(NOBODY).pw_name
    assert result.exit_code == ExitCode.FORBIDDEN
    assert f"is run by user {name}" in result.stderr
    assert f"runuser -u {name} -- llm-im {verb} --data {running}" in result.stderr
    assert seen(running.parent) == before


def test_root_sees_another_user_s_system_run(run: Run, running: Path) -> None:
    result = run("status", "--data", str(running), LLM_IM_URL="")

    assert "cafe" in result.stdout
    assert result.exit_code == ExitCode.DEGRADED  # nothing answers at its port

    result = run("store", "reshard", "--partitions", "3", "--data", str(running))

    assert result.exit_code == ExitCode.CONFLICT and "a system runs on" in result.stderr


@pytest.mark.parametrize("folder", ["run", "store"])
@pytest.mark.parametrize(
    "words",
    [
        ("up",),
        ("down",),
        ("store", "reshard", "--partitions", "3"),
        ("backup", "create", "--target", "backups"),
    ],
    ids=lambda words: words[0],
)
def test_root_writes_nothing_into_another_user_s_folder(
    run: Run, open_folder: Path, words: tuple[str, ...], folder: str
) -> None:
    data = open_folder / "data"
    (data / folder).mkdir(parents=True)
    give_away(open_folder)
    before = seen(open_folder)

    result = run(*words, "--data", str(data))

    assert result.exit_code == ExitCode.FORBIDDEN and "belongs to user" in result.stderr
    assert seen(open_folder) == before


def test_who_may_not_look_or_write_is_answered_in_one_line(open_folder: Path) -> None:
    for closed in ("data", "open/run"):
        (open_folder / closed / "run").mkdir(parents=True)
        (open_folder / closed / "run" / "instance.json").write_text("{}")
        (open_folder / closed).chmod(0o700)
    (open_folder / "open" / "run" / "instance.json").write_text("{}")
    before = seen(open_folder)
    data = ("--data", str(open_folder / "data"))
    commands = (
        ("up", *data),
        ("down", *data),
        ("status", *data),
        ("tokens", "create", "a", "--scope", "admin", "--local", *data),
        ("store", "verify", *data),
        ("down", "--data", str(open_folder / "open")),
        ("up",),  # into ./var, in a folder that is root's
    )

    for words, (code, said) in zip(commands, as_nobody(*commands, cwd=open_folder), strict=True):
        lines = said.strip().splitlines()
        assert code not in (0, 99) and "Traceback" not in said, (words, said)
        assert len([line for line in lines if line.startswith("llm-im: ")]) == len(lines) == 1, (words, said)

    assert said.startswith(f"llm-im: can't write {open_folder}/var") and "belongs to user root" in said
    assert seen(open_folder) == before


def test_a_log_that_another_user_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    left = tmp_path / "log" / "withdraw.log"
    left.write_text("old")
    os.chown(left, NOBODY, NOBODY)

    with fresh_log(left) as log:
        log.write(b"new")

    assert left.read_text() == "new" and left.stat().st_uid == os.geteuid()
