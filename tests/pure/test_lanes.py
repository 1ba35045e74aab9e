"""The lanes of `make test`: every test is in one, and one that takes too long fails."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path

import pytest

from tests import lanes

ROOT = Path(__file__).resolve().parents[2]
#: Plugins that a made lane does without.
NEEDLESS = ("schemathesis", "anyio", "asyncio", "timeout", "cacheprovider")
QUICK = "def test_it() -> None:\n    pass\n"
SLOW = "import time\n\ndef test_it() -> None:\n    time.sleep(1.5)\n"


def lane(folder: Path, test: str, budget_s: float) -> lanes.Lane:
    file = folder / "test_made.py"
    file.write_text(test)
    return lanes.Lane("made", (file.name,), budget_s, workers=())


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(lanes, "ROOT", tmp_path)
    monkeypatch.setattr(lanes, "RESULTS", tmp_path)
    (tmp_path / "conftest.py").write_text(
        "from hypothesis import settings\nsettings.register_profile('lane')\n"
    )
    # Ours with its plugins takes three seconds to start; that of Hypothesis is the one that a lane's words need.
    (tmp_path / "pytest.ini").write_text(
        f"[pytest]\naddopts = {' '.join(f'-p no:{each}' for each in NEEDLESS)}\n"
    )
    return tmp_path


def test_every_folder_with_tests_is_in_one_lane() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    paths = settings["tool"]["pytest"]["ini_options"]["testpaths"]

    in_lanes = [path for lane in lanes.LANES.values() for path in lane.paths]

    assert sorted([*in_lanes, "tests/soak"]) == sorted(paths)


def test_every_lane_has_one_turn() -> None:
    assert sorted(chain(*lanes.TRACKS, lanes.ALONE)) == sorted(lanes.LANES)


def test_a_lane_that_the_makefile_does_not_know_is_none() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")

    for name in lanes.LANES:
        assert f"test-{name}" in makefile or f"\n{name}: " in makefile


def test_a_lane_over_its_budget_fails_though_its_tests_pass(own: Path) -> None:
    ran = lanes.Ran(lane(own, QUICK, 10.0), cpu_s=30.0, wall_s=20.0, alone_s=15.0)
    ran.counts |= {"tests": 3, "skipped": 1}

    assert ran.has_failed
    assert "OVER ITS BUDGET" in lanes.table([ran], 20.0)
    assert lanes.table([ran], 20.0).splitlines()[-1] == "1 lanes failed, 2 passed, 1 skipped in 20.00s"


def test_what_others_compute_meanwhile_is_not_counted(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "_idle_s", lambda: 0.0)

    ran = lanes.run(lane(own, SLOW, 100.0), [])

    assert ran.wall_s > 1.5
    assert ran.alone_s == pytest.approx(ran.cpu_s / (os.cpu_count() or 1))


def test_sleep_on_an_idle_machine_counts_as_computing_does(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cores = os.cpu_count() or 1
    monkeypatch.setattr(lanes, "_idle_s", chain([100.0], repeat(100.0 + cores * 1.5)).__next__)

    ran = lanes.run(lane(own, SLOW, 1.0), [])

    assert ran.counts["tests"] == 1
    assert ran.is_over


def test_a_lane_that_hangs_is_ended_and_says_where(
    own: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    there = own / "there"
    hangs = f"import pathlib, time\n\ndef test_it():\n    pathlib.Path({str(there)!r}).touch()\n    time.sleep(100)\n"
    # Without workers: the stacks of several processes run into each other.
    hung = lane(own, hangs, 2.0)
    monkeypatch.setattr(lanes, "_idle_s", lambda: 1000.0 if there.exists() else 0.0)

    ran = lanes.run(hung, [])

    told = capfd.readouterr().err
    assert ran.has_failed and "lane made hangs" in told and "in test_it" in told


def test_a_worker_that_dies_fails_its_lane_at_once(own: Path) -> None:
    dies = "import os, pytest\n\n@pytest.mark.parametrize('n', range(9))\ndef test_it(n) -> None:\n    os._exit(1)\n"

    ran = lanes.run(replace(lane(own, dies, 60.0), workers=lanes.WORKERS), [])

    assert ran.has_failed


def test_a_failure_of_a_lane_is_that_of_the_run(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        lanes, "LANES", {"made": lane(own, "def test_it() -> None:\n    assert not 1\n", 100.0)}
    )

    assert lanes.main(["made"]) == 1
    assert lanes.main(["other"]) == 2


def test_where_a_lane_selects_none_of_the_words_it_passes(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "LANES", {"made": lane(own, QUICK, 100.0)})

    assert lanes.main(["made", "--", "-k", "nothing"]) == 0


def test_what_runs_beside_a_lane_is_shown_and_fails_it(
    own: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    beside = (("-c", "print('one finding'); raise SystemExit(3)"),)
    monkeypatch.setattr(lanes, "LANES", {"made": replace(lane(own, QUICK, 100.0), beside=beside)})

    assert lanes.main(["made"]) == 3
    assert "one finding" in capfd.readouterr().out


TWO = """
LANES = {name: Lane(name, (f"test_{name}.py",), 100, workers=()) for name in ("one", "two")}
TRACKS, ALONE = (("one",), ("two",)), ()
"""


def two_lanes(own: Path, one: str, two: str) -> subprocess.Popen[str]:
    """`python -m tests.lanes` where these are all."""
    (own / "tests").mkdir()
    (own / "tests" / "__init__.py").touch()
    (own / "test_one.py").write_text(one)
    (own / "test_two.py").write_text(two)
    source = (ROOT / "tests" / "lanes.py").read_text("utf-8")
    head, main = source.split("\nif __name__", 1)
    (own / "tests" / "lanes.py").write_text(f"{head}{TWO}\nif __name__{main}")
    return subprocess.Popen([sys.executable, "-m", "tests.lanes"], cwd=own, stdout=subprocess.PIPE, text=True)


def test_lanes_run_side_by_side_and_one_that_fails_is_shown_and_fails_the_run(own: Path) -> None:
    meets = "import pathlib, time\n\ndef test_it():\n    pathlib.Path({mine!r}).touch()\n    while not pathlib.Path({other!r}).exists():\n        time.sleep(0.02)\n"
    one, two = (str(own / name) for name in ("one", "two"))
    fails = meets.format(mine=two, other=one) + "    assert not 1, 'so it is'\n"

    made = two_lanes(own, meets.format(mine=one, other=two), fails)
    out, _ = made.communicate(timeout=60)

    assert made.returncode == 1
    assert "so it is" in out
    assert out.splitlines()[-1].startswith("1 lanes failed, 1 failed, 1 passed, 0 skipped in ")


def test_lanes_that_are_to_end_end_what_they_started(own: Path) -> None:
    hangs = "import os, pathlib, time\n\ndef test_it():\n    pathlib.Path({mine!r}).write_text(str(os.getpid()))\n    time.sleep(100)\n"
    pids = [own / name for name in ("one", "two")]
    made = two_lanes(own, *(hangs.format(mine=str(each)) for each in pids))
    while not all(each.exists() and each.read_text() for each in pids):
        assert made.poll() is None
        time.sleep(0.02)

    made.terminate()
    out, _ = made.communicate(timeout=60)

    assert made.returncode == 2, out
    assert "2 lanes failed" in out
    assert not [each for each in pids if Path(f"/proc/{each.read_text()}").exists()]
