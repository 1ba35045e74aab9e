"""Action script: programs that behave badly are ended, with all that they started, and cost nobody else anything."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from models.playbook.work import FAILED, SUCCEEDED
from services.playbooks.actions import script
from tests.contract.playbook_world import desk

pytestmark = pytest.mark.asyncio


def a_program(folder: Path, code: str, *, python: bool = False) -> str:
    path = folder / "program"
    path.write_text(("#!/usr/bin/python3 -IS\n" if python else "#!/bin/sh\n") + code)
    path.chmod(0o755)
    return str(path)


def scripts(path: str, **more: Any) -> dict[str, Any]:
    return {"scripts": {"fix": {"path": path, **more}}}


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # Ended, and nobody has asked how yet.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


async def gone(pid: int) -> None:
    async with asyncio.timeout(30):
        while not is_gone(pid):
            await asyncio.sleep(0.02)


async def test_a_script_gets_its_arguments_and_a_bare_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUR_SECRET", "must not be seen")
    path = a_program(tmp_path, 'printf "%s|" "$@"; cat; env | sort >&2; exit 0')
    async with desk(scripts(path, args=["--fast"], environment={"REGION": "eu"})) as here:
        done = await here.do(
            "script", script="fix", args=["{{ incident.service }}", "a b; $(id)"], stdin="in", key="k1"
        )

    assert done.status == SUCCEEDED
    assert done.outputs["output"] == "--fast|llm-api|a b; $(id)|in"
    environment = dict(
        line.split("=", 1) for line in done.captures[0].text.partition("--- stderr ---\n")[2].split()
    )
    assert set(environment) == {
        "PATH",
        "LANG",
        "REGION",
        "LLM_IM_KEY",
        "LLM_IM_INCIDENT_ID",
        "LLM_IM_SCRIPT",
        "PWD",
    }
    assert environment["LLM_IM_KEY"] == "k1"


async def test_json_that_a_script_writes_is_its_outputs(tmp_path: Path) -> None:
    path = a_program(tmp_path, """echo '{"moved": 3}'""")
    async with desk(scripts(path)) as here:
        done = await here.do("script", script="fix")

    assert done.outputs["json"] == {"moved": 3}


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("echo no disk >&2; exit 3", "fix: exit code 3: no disk"),
        ("kill -9 $$", "fix: ended by signal 9"),
    ],
)
async def test_a_script_that_fails_says_how(tmp_path: Path, code: str, said: str) -> None:
    async with desk(scripts(a_program(tmp_path, code))) as here:
        done = await here.do("script", script="fix")

    assert (done.status, done.final, done.detail) == (FAILED, False, said)


async def test_a_script_that_hangs_ignores_sigterm_and_forks_away_is_ended_with_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "GRACE_S", 0.1)
    code = f"""
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pids = [os.getpid()]
for leaves in (False, True):
    child = os.fork()
    if child == 0:
        if leaves:
            os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(1000)
    pids.append(child)
with open({str(tmp_path / "pids")!r}, "w") as file:
    file.write(" ".join(map(str, pids)))
print("started", flush=True)
time.sleep(1000)
"""
    async with desk(scripts(a_program(tmp_path, code, python=True), timeout="1500ms")) as here:
        began = time.monotonic()
        done = await here.do("script", script="fix", timeout_s=60.0)
        took_s = time.monotonic() - began

    assert (done.status, done.final, done.reached) == (FAILED, False, True)
    assert "not done within 1.5 s" in done.detail
    assert done.outputs["output"] == "started\n"
    assert took_s < 30.0
    for pid in map(int, (tmp_path / "pids").read_text().split()):
        await gone(pid)


async def test_what_a_script_leaves_behind_when_it_is_done_is_ended(tmp_path: Path) -> None:
    path = a_program(tmp_path, f"sleep 1000 & echo $! > {tmp_path / 'pid'}; exit 0")
    async with desk(scripts(path)) as here:
        done = await here.do("script", script="fix", timeout_s=60.0)

    assert done.status == SUCCEEDED
    await gone(int((tmp_path / "pid").read_text()))


async def test_a_run_that_is_stopped_ends_its_script(tmp_path: Path) -> None:
    path = a_program(tmp_path, f"echo $$ > {tmp_path / 'pid'}; sleep 1000")
    async with desk(scripts(path)) as here:
        task = asyncio.create_task(here.do("script", script="fix", timeout_s=60.0))
        async with asyncio.timeout(30):
            while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
                await asyncio.sleep(0.01)
    assert task.cancelled() or (await asyncio.gather(task, return_exceptions=True))
    await gone(int((tmp_path / "pid").read_text()))


async def test_a_script_has_only_so_much_memory_and_output(tmp_path: Path) -> None:
    path = a_program(
        tmp_path, "print('x' * 1000000); data = bytearray(400 * 1024 * 1024); print('had it')", python=True
    )
    async with desk(scripts(path, memory_mib=128, output_kib=64)) as here:
        done = await here.do("script", script="fix", timeout_s=60.0)

    assert done.status == FAILED
    assert "MemoryError" in done.detail
    assert len(done.captures[0].text) < 70_000
    assert done.captures[0].cut


@pytest.mark.parametrize(
    ("mode", "said"),
    [(0o644, "expected an executable file"), (0o757, "anybody may change it"), (None, "No such file")],
)
async def test_a_program_that_may_not_be_run_is_named(tmp_path: Path, mode: int | None, said: str) -> None:
    path = a_program(tmp_path, "exit 0")
    if mode is None:
        os.unlink(path)
    else:
        os.chmod(path, mode)
    async with desk(scripts(path)) as here:
        done = await here.do("script", script="fix")

    assert (done.status, done.final, done.reached) == (FAILED, True, False)
    assert said in done.detail


async def test_only_scripts_of_the_settings_run_with_the_arguments_that_they_allow(tmp_path: Path) -> None:
    path = a_program(tmp_path, "exit 0")
    async with desk(scripts(path, allow_args=False)) as here:
        unknown = await here.do("script", script="/bin/sh")
        args = await here.do("script", script="fix", args=["-c"])
        nul = await here.do("script", script="fix")

    assert "there is no '/bin/sh' in [playbooks.scripts] (there are: fix)" in unknown.detail
    assert "the settings allow none" in args.detail
    assert nul.status == SUCCEEDED


async def test_a_file_that_is_no_program_cannot_be_run(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"\x00\x01nothing")
    path.chmod(0o755)
    async with desk(scripts(str(path))) as here:
        done = await here.do("script", script="fix")

    assert (done.status, done.final, done.reached) == (FAILED, True, False)
    assert "can't be run: Exec format error" in done.detail
