"""`make` on a fresh machine: which Python it takes, what it says when none fits, what it installs, and only once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = (
    "sh",
    "make",
    "dirname",
    "cksum",
    "cat",
    "grep",
    "id",
    "tee",
    "sed",
    "tail",
    "mv",
    "chmod",
    "rm",
    "flock",
)

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="needs make")


class Machine:
    """A folder with the Makefile, an empty lock, and a PATH that holds what a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a project"  # a space: people have them
        self.bin = folder / "bin"
        self.bin.mkdir()
        for tool in TOOLS:
            if found := shutil.which(tool):
                (self.bin / tool).symlink_to(found)
        self.root.mkdir()
        shutil.copy(ROOT / "Makefile", self.root)
        shutil.copytree(ROOT / "scripts", self.root / "scripts")
        (self.root / "models").mkdir()
        (self.root / "models" / "__init__.py").write_text("PLACE = 'ours'\n")
        (self.root / "requirements").mkdir()
        self.lock = self.root / "requirements" / "runtime.txt"
        self.lock.write_text("# nothing\n")

    def program(self, name: str, script: str) -> Path:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def make(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.bin), "HOME": str(self.root), "PIP_NO_INDEX": "1"}
        return subprocess.run(
            ["make", *words],
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    @property
    def python(self) -> Path:
        return self.root / ".venv" / "bin" / "python"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Machine, subprocess.CompletedProcess[str]]:
    """One on which `make install` was typed, and what it said: making an environment takes seconds."""
    made = Machine(tmp_path_factory.mktemp("installed"))
    return made, made.make("install", f"PYTHON={sys.executable}")


def test_help_names_every_target(machine: Machine) -> None:
    told = machine.make("help").stdout

    assert [line.split()[1] for line in told.splitlines() if line.startswith("make ")] == [
        "up", "down", "test", "check", "test-stores", "test-api", "test-cli", "test-browser", "test-sim", "test-ray", "soak", "bench", "lint", "docs", "proto", "lock",
    ]  # fmt: skip


def test_down_before_anything_was_installed_is_no_failure(machine: Machine) -> None:
    done = machine.make("down")

    assert (done.returncode, done.stdout) == (0, "nothing runs: there is no .venv\n")


@pytest.mark.parametrize("version", ["3.10", "3.14"])
def test_a_python_that_is_too_old_or_too_new_is_refused_by_name(machine: Machine, version: str) -> None:
    given = machine.program("python3.99", f"echo {version}")

    done = machine.make("up", f"PYTHON={given}")

    assert done.returncode != 0
    assert f"{given} is CPython {version}; this needs CPython 3.11, 3.12 or 3.13" in done.stderr
    assert "make PYTHON=/path/to/python3.13 up" in done.stderr


def test_where_no_python_fits_it_says_what_was_seen_and_what_to_type(machine: Machine) -> None:
    machine.program("python3", "echo 3.14")
    machine.program("python3.13", "echo 'command not found' >&2; exit 127")  # a pyenv shim
    machine.program("apt-get", "exit 1")

    done = machine.make("up")

    assert done.returncode != 0
    assert "Seen: python3 is 3.14" in done.stderr
    assert "python3.13 is" not in done.stderr
    assert "Type: apt-get install" in done.stderr


def test_where_venv_is_missing_it_prints_the_line_to_type(machine: Machine) -> None:
    machine.program("python3.11", "case $2 in *ensurepip*) exit 1;; *) echo 3.11;; esac")

    done = machine.make("up")

    assert done.returncode != 0
    assert "apt-get install python3.11-venv" in done.stderr


def test_it_installs_once_and_again_when_the_lock_changes(
    installed: tuple[Machine, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    machine, first = installed

    second = machine.make("install")
    machine.lock.write_text("# changed\n")
    third = machine.make("install")

    assert (first.returncode, second.returncode, third.returncode) == (0, 0, 0), first.stderr + third.stderr
    assert "installing 0 locked packages" in first.stdout
    assert second.stdout == ""
    assert "installing" in third.stdout
    assert "making" not in third.stdout, "the same environment"
    code = "import importlib.metadata as m; print(sorted(each.name for each in m.distributions()))"
    held = subprocess.run([machine.python, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert held.stdout == "[]\n", "an empty lock: no pip, no setuptools"
    code = "import models; print(models.PLACE)"
    (tmp_path / "elsewhere" / "models").mkdir(parents=True)
    found = subprocess.run(
        [machine.python, "-P", "-c", code],
        cwd=tmp_path / "elsewhere",
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "ours\n"
    assert os.access(machine.root / ".venv" / "bin" / "llm-im", os.X_OK)


def test_what_pip_could_not_install_is_told_and_tried_again(
    installed: tuple[Machine, subprocess.CompletedProcess[str]],
) -> None:
    machine, _ = installed
    machine.lock.write_text("there-is-no-such-package==1.0 --hash=sha256:" + "0" * 64 + "\n")

    first = machine.make("install")
    second = machine.make("install")

    for done in (first, second):
        assert done.returncode != 0
        assert "there-is-no-such-package" in done.stderr
        assert "all it said is in" in done.stderr


def test_without_root_it_prints_the_line_that_installs_prometheus_and_goes_on(machine: Machine) -> None:
    (machine.bin / "id").unlink()
    machine.program("id", "echo 1000")
    machine.program("apt-get", "exit 1")

    done = machine.make("peers")

    assert done.returncode == 0
    assert "sudo apt-get update && sudo apt-get install --no-install-recommends prometheus" in done.stderr
