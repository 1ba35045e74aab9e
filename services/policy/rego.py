"""Policies in Rego from files, evaluated by regopy (rego-cpp): for those who run no policy server. The same files give the same
decisions in OPA. Compiled here, evaluated in processes of their own (rego_process.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from models.errors import Malformed, Unavailable
from models.playbook.policy import PolicyEvalRequest, PolicyEvalResponse, denied, response_of
from services.policy import rego_process

if TYPE_CHECKING:
    from regopy import Interpreter

#: Of all files together: a policy is written by people.
FILES_MAX_BYTES = 4 * 1024 * 1024
#: regopy also takes the syntax from before OPA 1.0, which OPA refuses, and gives such rules another meaning.
_V1 = re.compile(r"^\s*import\s+rego\.v1\s*$", re.MULTILINE)
#: A rule of the old syntax: `allowed { ... }` without `if`.
_V0 = re.compile(r"^[A-Za-z_]\w*(\([^)\n]*\)|\[[^]\n]*\])?\s*\{", re.MULTILINE)


#: regopy writes texts into JSON without escaping them, and ends them at NUL: a label with a quote in it, repeated in a reason, would
#: say `"allowed": true` for itself. What could end or break a text goes in as a character of private use, and comes back as itself.
#: So a policy never sees quotes, backslashes and control characters of its input as these.
_PRIVATE = 0xF0000
_UNSAFE = (*range(0x20), 0x22, 0x5C, 0x7F)
_HIDDEN = {code: chr(_PRIVATE + code) for code in _UNSAFE}
_SHOWN = {_PRIVATE + code: chr(code) for code in _UNSAFE}


#: Evaluations at a time, each in a process of its own of some 30 MB, which is kept: one that hangs holds up no other.
PROCESSES_MAX = 4
#: A decision is small; an answer that is longer is none.
ANSWER_MAX = 256 * 1024
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}


class RegoPolicy:
    """Port Policy."""

    def __init__(self, files: Sequence[str], rule: str = "incidents") -> None:
        """`files`: `.rego` are policies, `.json` are data. `rule` is the package, or the rule in it, whose value is the decision.
        Reads and compiles all of them. Raises Malformed, which names the file; Unavailable without regopy."""
        self._policies = json.dumps(_read(files, rule.replace(".", "/"))).encode()
        self._places = asyncio.Semaphore(PROCESSES_MAX)
        self._idle: list[asyncio.subprocess.Process] = []
        self._is_closed = False

    async def evaluate(self, request: PolicyEvalRequest) -> PolicyEvalResponse:
        given = json.dumps(_texts(msgspec.to_builtins(request), _HIDDEN)).encode()
        async with self._places:
            process = self._waiting() or await self._started()
            try:
                answer = await _asked(process, given)
            except BaseException:
                # Also when nobody waits any more: what is still evaluated there would be taken for the next answer.
                _kill(process)
                raise
            if self._is_closed:
                _kill(process)
            else:
                self._idle.append(process)
        if "error" in answer:
            # Nobody is away who could be asked later: it is this input, whoever wrote that.
            raise Malformed(answer["error"])
        if "value" not in answer:
            return denied("the policy has no such rule, or none that holds")
        return response_of(_texts(answer["value"], _SHOWN))

    async def close(self) -> None:
        self._is_closed = True
        idle, self._idle = self._idle, []
        for process in idle:
            _kill(process)
            await process.wait()

    def _waiting(self) -> asyncio.subprocess.Process | None:
        """One that has evaluated before. What ended since then (somebody killed it, memory ran out) says nothing of the next input, and
        would deny it."""
        while self._idle:
            process = self._idle.pop()
            if process.returncode is None:
                return process
        return None

    async def _started(self) -> asyncio.subprocess.Process:
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", rego_process.__file__,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=_ENVIRONMENT,
                limit=ANSWER_MAX,
            )  # fmt: skip
        except OSError as error:
            raise Unavailable(f"no process for the policy: {error.strerror}") from error
        assert process.stdin is not None
        process.stdin.write(self._policies + b"\n")
        return process


async def _asked(process: asyncio.subprocess.Process, given: bytes) -> dict[str, Any]:
    """The answer to an input. Raises Malformed when there is none: that too is this input, and no reason to allow anything."""
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(given + b"\n")
        await process.stdin.drain()
        line = await process.stdout.readline()
    except ValueError:
        raise Malformed(f"the policy's answer is longer than {ANSWER_MAX} bytes") from None
    except ConnectionError:
        line = b""
    if line.endswith(b"\n"):
        found: dict[str, Any] = json.loads(line)
        return found
    if await process.wait() == -signal.SIGPROF:
        raise Malformed(
            f"the policy comes to no decision within {rego_process.EVALUATION_S:g} s for this input"
        )
    raise Malformed("the policy could not be evaluated for this input: whoever evaluated it ended")


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()


def _texts(value: Any, by: Mapping[int, str]) -> Any:
    """The same with every text in it, keys too, translated."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode().translate(by)
    if isinstance(value, Mapping):
        return {_texts(name, by): _texts(each, by) for name, each in value.items()}
    return [_texts(each, by) for each in value] if isinstance(value, list | tuple) else value


def _interpreter() -> Interpreter:
    try:
        import regopy
    except ImportError:
        raise Unavailable(
            "policies in files need regopy: install llm-incident-manager[rego], or use a policy server"
        ) from None
    interpreter = regopy.Interpreter()
    # Errors come as exceptions; otherwise they would also be written to our stderr. The library's default for all
    # interpreters must not be set: version 1.5 aborts the process.
    interpreter.log_level = regopy.LogLevel.NONE
    return interpreter


def _read(files: Sequence[str], entry: str) -> dict[str, Any]:
    """What an evaluating process is given, after it was compiled here: people get errors at once, with the file's name."""
    builder = _interpreter()
    size = 0
    modules: list[tuple[str, str]] = []
    data: list[str] = []
    for name in files:
        try:
            source = Path(name).read_text("utf-8")
        except OSError as error:
            raise Malformed(f"{name}: can't be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise Malformed(f"{name}: expected UTF-8") from None
        size += len(source)
        if size > FILES_MAX_BYTES:
            raise Malformed(f"{name}: all policies together are longer than {FILES_MAX_BYTES} bytes")
        if name.endswith(".json"):
            _add_data(builder, name, source)
            data.append(source)
        else:
            _add_module(builder, name, source)
            modules.append((name, source))
    import regopy

    try:
        bundle = builder.build(None, [entry])
    except regopy.RegoError as error:
        raise Malformed(f"{', '.join(files)}: {_said(error)}") from None
    if not bundle.ok():
        raise Malformed(f"{', '.join(files)}: the policies can't be compiled")
    return {"modules": modules, "data": data, "entry": entry, "seconds": rego_process.EVALUATION_S}


def _add_data(builder: Interpreter, name: str, source: str) -> None:
    try:
        data = json.loads(source)
    except ValueError as error:
        raise Malformed(f"{name}: not JSON: {error}") from None
    if not isinstance(data, dict):
        raise Malformed(f"{name}: expected an object")
    builder.add_data_json(source)


def _add_module(builder: Interpreter, name: str, source: str) -> None:
    if not _V1.search(source):
        raise Malformed(
            f"{name}: expected `import rego.v1`: without it old syntax would be read differently than OPA does"
        )
    if (old := _V0.search(source)) is not None:
        line = source.count("\n", 0, old.start()) + 1
        raise Malformed(f"{name}: line {line}: expected `if` before the body of a rule")
    import regopy

    try:
        builder.add_module(name, source)
    except regopy.RegoError as error:
        raise Malformed(f"{name}: {_said(error)}") from None


def _said(error: Exception) -> str:
    """The library's messages without its tree: `(errormsg 16:this is unclosed)`."""
    found = re.findall(r"\(errormsg \d+:([^)]*)\)", str(error))
    return "; ".join(dict.fromkeys(found))[:300] or type(error).__name__
