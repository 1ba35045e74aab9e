"""Another user's command, root's too: refused by name before anything is touched. A file of another user is one line and no
traceback."""

from __future__ import annotations

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

from services.cli.exits import ExitCode
from services.launch_instance import Instance, fresh_log
from services.launch_processes import MARK
from tests.cli.conftest import Run

NOBODY = 65534
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
#: `llm-im` as another user. All is imported before, because the virtual environment may lie where that user can't look.
AS_OTHER = """
import importlib, os, pkgutil, sys
import services, services.cli.main
for module in pkgutil.walk_packages(services.__path__, "services."):
    if module.name not in ("services.serve_app", "services.cli.__main__"):
        importlib.import_module(module.name)
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.argv[0] = "llm-im"
services.cli.main.main()
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


def as_nobody(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("LLM_IM_", "RAY_"))
    }
    environment |= {"PYTHONPATH": str(Path(__file__).parents[2]), "HOME": str(cwd), "COLUMNS": "500"}
    return subprocess.run(
        [sys.executable, "-P", "-c", AS_OTHER, *words],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


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


def test_root_does_not_start_on_another_user_s_folder(run: Run, open_folder: Path) -> None:
    data = open_folder / "data"
    (data / "run").mkdir(parents=True)
    give_away(open_folder)
    before = seen(open_folder)

    result = run("up", "--data", str(data))

    assert result.exit_code == ExitCode.FORBIDDEN and "belongs to user" in result.stderr
    assert seen(open_folder) == before


@pytest.mark.parametrize(
    ("closed", "words"),
    [
        ("data", ("up",)),
        ("data", ("down",)),
        ("data", ("status",)),
        ("data", ("tokens", "create", "a", "--scope", "admin", "--local")),
        ("data", ("store", "verify")),
        ("data/run", ("down",)),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_who_may_not_look_is_answered_in_one_line(
    open_folder: Path, closed: str, words: tuple[str, ...]
) -> None:
    (open_folder / "data" / "run").mkdir(parents=True)
    (open_folder / "data" / "run" / "instance.json").write_text("{}")
    (open_folder / closed).chmod(0o700)
    before = seen(open_folder)

    done = as_nobody(*words, "--data", str(open_folder / "data"), cwd=open_folder)

    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert seen(open_folder) == before


def test_up_in_a_folder_that_can_t_be_written_says_so_in_one_line(open_folder: Path) -> None:
    done = as_nobody("up", cwd=open_folder)

    said = done.stderr.strip().splitlines()
    assert done.returncode == ExitCode.FAILED
    assert (
        said[-1].startswith(f"llm-im: can't write {open_folder}/var") and "belongs to user root" in said[-1]
    )
    assert "Traceback" not in done.stderr


def test_a_log_that_another_user_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    left = tmp_path / "log" / "withdraw.log"
    left.write_text("old")
    os.chown(left, NOBODY, NOBODY)

    with fresh_log(left) as log:
        log.write(b"new")

    assert left.read_text() == "new" and left.stat().st_uid == os.geteuid()
