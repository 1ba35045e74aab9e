"""One log file of many processes: no line is torn, none is lost when its writer is killed, and it stays bounded. What dead
processes leave in Ray's folder stays bounded too."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from services.machine.log_file import LogFile, sweep

ROOT = Path(__file__).resolve().parents[2]
WRITER = """
import os, signal, sys
from pathlib import Path
from services.machine.log_file import LogFile
out = LogFile(Path(sys.argv[1]), int(sys.argv[2]))
for number in range(int(sys.argv[4])):
    out.write(f"{sys.argv[3]} {number:06} {'x' * 80} end\\n")
os.kill(os.getpid(), signal.SIGKILL)
"""


def write(path: Path, max_bytes: int, names: str, lines: int) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(max_bytes), name, str(lines)], cwd=ROOT
        )
        for name in names
    ]
    for writer in writers:
        assert writer.wait(60) == -9


def test_what_a_killed_process_wrote_is_there_and_no_line_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "llm-im.log"

    write(path, 100_000_000, "abc", 3_000)

    lines = path.read_text().splitlines()
    assert Counter(line[0] for line in lines) == {"a": 3_000, "b": 3_000, "c": 3_000}
    assert all(line.endswith(" end") and len(line) == 93 for line in lines)
    assert path.stat().st_mode & 0o077 == 0


def test_it_stays_bounded_and_keeps_the_newest(tmp_path: Path) -> None:
    path, bound = tmp_path / "llm-im.log", 50_000

    write(path, bound, "abc", 3_000)

    kept = sorted(tmp_path.iterdir())
    assert [each.name for each in kept] == ["llm-im.log", "llm-im.log.1"]
    # Each process may be on its way with one line when it is full.
    assert all(each.stat().st_size <= bound + 3 * 94 for each in kept)
    lines = "".join(each.read_text() for each in kept).splitlines()
    assert all(line.endswith(" end") for line in lines)
    assert any(f" {2_999:06} " in line for line in lines)


def test_a_file_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    out = LogFile(tmp_path / "llm-im.log")
    out.write("first\n")
    (tmp_path / "llm-im.log").rename(tmp_path / "away")

    out.write("second\n")

    assert (tmp_path / "llm-im.log").read_text() == "second\n"


def test_what_can_t_be_written_goes_to_stderr(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\nfrom services.machine.log_file import LogFile\n"
        f"LogFile(Path({str(tmp_path / 'none' / 'llm-im.log')!r})).write('said\\n')"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stderr == "said\n"


def test_of_dead_processes_the_newest_files_are_kept_and_of_living_ones_all(tmp_path: Path) -> None:
    (tmp_path / "serve").mkdir()
    dead = 2**22 + 1  # above the kernel's highest pid
    mine = tmp_path / f"worker-abc-01000000-{os.getpid()}.err"
    names = [f"worker-{number}-01000000-{dead + number}.err" for number in range(5)]
    names += [f"python-core-worker-{number}_{dead + number}.log" for number in range(5)]
    names += [f"serve/replica_llm-im_Gateways_{number}.log" for number in range(8)]
    for age, path in enumerate([mine, *(tmp_path / name for name in names), tmp_path / "raylet.out"]):
        path.write_text("x")
        os.utime(path, (age, age))

    sweep(tmp_path, kept=4)

    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {mine.name, "raylet.out", *names[6:10], *names[14:]}


def test_a_folder_that_is_not_there_is_no_matter(tmp_path: Path) -> None:
    sweep(tmp_path / "none")


@pytest.mark.parametrize("style", ["json", "console"])
def test_an_instance_s_processes_log_to_its_file(tmp_path: Path, style: str) -> None:
    path = tmp_path / "llm-im.log"
    code = (
        "import structlog\nfrom services.machine import logs\n"
        f"logs.configure('INFO', {style!r})\nstructlog.get_logger().info('hello', actor='shard-0000-a')"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "LLM_IM_INSTANCE_LOG": str(path)},
    )  # fmt: skip

    assert done.stderr == ""
    assert "hello" in path.read_text() and "pid" in path.read_text()
