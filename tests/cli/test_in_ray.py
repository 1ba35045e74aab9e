"""The child process that deploys: it may begin before Ray stands, and does nothing until it is told to."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from models import VERSION
from models.errors import Unavailable
from services.cli.in_ray import Driver, Request, run
from services.machine.instance import Instance, write_instance


def quiet(_text: str) -> None:
    """Progress that nobody reads."""


def written_down(data: Path) -> None:
    """An instance whose Ray is on its way."""
    (data / "run").mkdir(parents=True)
    write_instance(
        data, Instance("i1", "", "127.0.0.1", 1, 0, VERSION, str(data), time.time(), {}, os.geteuid())
    )


def request(data: Path) -> Request:
    return Request("withdraw", None, str(data), None, owned=True)


def test_what_failed_before_ray_stands_is_told_when_it_does(tmp_path: Path) -> None:
    with Driver(request(tmp_path), tmp_path / "log" / "deploy.log") as driver:
        driver.begin()
        child = driver._child
        assert child is not None
        child.wait(30)

        with pytest.raises(Unavailable, match=r"Ray ended in the meantime \(log: .*deploy.log\)"):
            driver.finish(30.0, quiet)


def test_a_ray_that_ended_before_the_child_was_told_is_named(tmp_path: Path) -> None:
    written_down(tmp_path)

    with pytest.raises(Unavailable, match="Ray ended in the meantime"):
        run(request(tmp_path), tmp_path / "log" / "withdraw.log", 60.0, quiet)


@pytest.mark.parametrize("named", [False, True])
def test_the_settings_file_of_the_folder_where_it_was_typed_is_the_one_that_is_deployed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    """What it refuses, it has read."""
    data = tmp_path / "var"
    written_down(data)
    name = "other.toml" if named else "llm-im.toml"
    (tmp_path / name).write_text("[server]\ngrpc_prt = 1\n")
    monkeypatch.chdir(tmp_path)
    deploy = Request("deploy", name if named else None, str(data), None, owned=True)

    with pytest.raises(Unavailable, match=rf"{name}: server\.grpc_prt: there is no such setting"):
        run(deploy, tmp_path / "log" / "deploy.log", 60.0, quiet)


def test_a_child_that_is_never_told_ends_with_who_began_it(tmp_path: Path) -> None:
    written_down(tmp_path)

    with Driver(request(tmp_path), tmp_path / "log" / "deploy.log") as driver:
        driver.begin()
        child = driver._child

    assert child is not None and child.returncode is not None


def test_a_child_whose_starter_was_killed_ends_by_itself(tmp_path: Path) -> None:
    written_down(tmp_path)

    with Driver(request(tmp_path), tmp_path / "log" / "deploy.log") as driver:
        driver.begin()
        child = driver._child
        assert child is not None and child.stdin is not None
        child.stdin.close()  # as the kernel does when it is gone

        assert child.wait(60) == 0
