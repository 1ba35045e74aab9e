"""Action script: runs a program that the settings allow by name ([playbooks.scripts]). No shell; an environment with nothing in it but
what the settings say, the key and the incident; limits on time, memory and output. Whatever it started ends with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

import msgspec

from models.playbook.catalog import CATALOG
from models.playbook.parameters import Script
from models.playbook.work import Capture, Done
from services.playbooks import limited
from services.playbooks.given import ScriptGiven
from services.playbooks.kind import Asked, PlaybookAction, failed, succeeded
from services.playbooks.tools import Tools

#: Characters of all arguments together, and of stdin.
ARGS_MAX = 64 * 1024
STDIN_MAX = 256 * 1024
#: Of what it wrote, what later steps see; the capture has all that is kept.
OUTPUT_CHARS = 4096
#: Between asking it to end and ending it.
GRACE_S = 1.0
#: How long what was killed may take to be gone: the kernel does that at once unless it hangs in a device.
GONE_S = 5.0
#: Between two looks whether it has ended: less than starting one takes.
POLL_S = 0.02
#: Marks all that it starts, also what leaves its process group.
MARK = "LLM_IM_SCRIPT"


@dataclass(slots=True)
class _Kept:
    """The beginning of a stream."""

    limit: int
    data: bytearray
    cut: bool = False

    @property
    def text(self) -> str:
        return self.data.decode("utf-8", "replace")


def _check(tools: Tools, asked: Asked, params: Script) -> str:
    given = tools.scripts.get(params.script)
    if given is None:
        known = ", ".join(sorted(tools.scripts)) or "none"
        return f"script: there is no {params.script[:100]!r} in [playbooks.scripts] (there are: {known})"
    if params.args and not given.allow_args:
        return f"args: the settings allow none for {params.script}"
    if sum(map(len, params.args)) > ARGS_MAX or len(params.stdin) > STDIN_MAX:
        return f"args, stdin: expected at most {ARGS_MAX} and {STDIN_MAX} characters"
    if any("\0" in each for each in params.args):
        return "args: expected text without NUL"
    try:
        found = os.stat(given.path)
    except OSError as error:
        return f"{given.path}: {error.strerror}"
    if not stat.S_ISREG(found.st_mode) or not os.access(given.path, os.X_OK):
        return f"{given.path}: expected an executable file"
    if found.st_mode & stat.S_IWOTH:
        return f"{given.path}: anybody may change it: take that right away (chmod o-w)"
    return ""


async def _run(tools: Tools, asked: Asked, params: Script) -> Done:
    given = tools.scripts[params.script]
    mark = uuid.uuid4().hex
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        **given.environment,
        **given.secrets,
        "LLM_IM_KEY": asked.key,
        "LLM_IM_INCIDENT_ID": str(asked.incident.get("id") or ""),
        MARK: mark,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", limited.__file__, str(given.memory_mib), given.path, *given.args, *params.args,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        cwd=given.folder,
        start_new_session=True,
    )  # fmt: skip
    out, errors = _Kept(given.output_kib * 1024, bytearray()), _Kept(given.output_kib * 1024, bytearray())
    timeout_s = min(given.timeout, asked.timeout_s)
    readers = [
        asyncio.create_task(_read(process.stdout, out)),
        asyncio.create_task(_read(process.stderr, errors)),
    ]
    writer = asyncio.create_task(_write(process.stdin, params.stdin))
    timed_out = False
    try:
        async with asyncio.timeout(timeout_s):
            await _exit(process)
    except TimeoutError:
        timed_out = True
    finally:
        # Also when we are told to stop: nothing of it may live on.
        await asyncio.shield(asyncio.create_task(_end(process, mark)))
        # Whoever held its output open is gone.
        _, late = await asyncio.wait(readers, timeout=GONE_S)
        for task in (*late, writer):
            task.cancel()
    return _done(params, given, process.returncode, out, errors, timed_out=timed_out, timeout_s=timeout_s)


def _done(
    params: Script, given: ScriptGiven, code: int | None, out: _Kept, errors: _Kept, *, timed_out: bool, timeout_s: float
) -> Done:  # fmt: skip
    outputs: dict[str, object] = {"exit": code, "output": out.text[:OUTPUT_CHARS]}
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        outputs["json"] = msgspec.json.decode(bytes(out.data))
    captures: tuple[Capture, ...] = ()
    if params.capture and (out.data or errors.data):
        text = out.text + (f"\n--- stderr ---\n{errors.text}" if errors.data else "")
        captures = (Capture(f"output of {params.script}", "text/plain", text, out.cut or errors.cut),)
    if timed_out:
        return failed(
            f"{params.script}: not done within {timeout_s:g} s, and ended", outputs=outputs, captures=captures
        )
    if code == 0:
        return succeeded(f"{params.script}: done", outputs, captures=captures)
    last = (errors.text.strip() or out.text.strip()).rpartition("\n")[2][:200]
    how = f"ended by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    return failed(
        f"{params.script}: {how}: {last}".rstrip(": "),
        final=code == limited.CANNOT_RUN,
        reached=code != limited.CANNOT_RUN,
        outputs=outputs,
        captures=captures,
    )


async def _read(stream: asyncio.StreamReader | None, kept: _Kept) -> None:
    """All of it is read, or the program would wait for us; the beginning is kept."""
    assert stream is not None
    while chunk := await stream.read(64 * 1024):
        room = kept.limit - len(kept.data)
        kept.data += chunk[:room]
        kept.cut = kept.cut or len(chunk) > room


async def _write(stream: asyncio.StreamWriter | None, text: str) -> None:
    assert stream is not None
    with contextlib.suppress(OSError):
        stream.write(text.encode("utf-8", "replace"))
        await stream.drain()
        stream.close()
        await stream.wait_closed()


async def _end(process: asyncio.subprocess.Process, mark: str) -> None:
    """End it and all that it started."""
    if process.returncode is None:
        _signal(process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                await _exit(process)
    _signal(process.pid, signal.SIGKILL)
    # What made a session of its own has left the group, and still bears the mark.
    for pid in await asyncio.to_thread(_marked, mark):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GONE_S):
            await _exit(process)


async def _exit(process: asyncio.subprocess.Process) -> None:
    """Until it has ended. Process.wait() would also wait for whoever it left its output to."""
    while process.returncode is None:  # noqa: ASYNC110  # it has no event of its own
        await asyncio.sleep(POLL_S)


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _marked(mark: str) -> list[int]:
    wanted = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
    return found


ACTION = PlaybookAction(CATALOG["script"], _run, _check)
