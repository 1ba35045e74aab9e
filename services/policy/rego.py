"""Policies in Rego from files, evaluated in this process by regopy (rego-cpp): for those who run no policy server. The same files
give the same decisions in OPA.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from models.errors import Malformed, Unavailable
from models.playbook.policy import PolicyEvalRequest, PolicyEvalResponse, denied, response_of

if TYPE_CHECKING:
    from regopy import Bundle, Interpreter

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


class RegoPolicy:
    """Port Policy."""

    def __init__(self, files: Sequence[str], rule: str = "incidents") -> None:
        """`files`: `.rego` are policies, `.json` are data. `rule` is the package, or the rule in it, whose value is the decision.
        Reads and compiles all of them. Raises Malformed, which names the file; Unavailable without regopy."""
        self._entry = rule.replace(".", "/")
        self._bundle = _built(files, self._entry)
        # What builds can't be asked afterwards: it answers `undefined`.
        self._asked = _interpreter()
        # An interpreter has one input at a time.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rego")

    async def evaluate(self, request: PolicyEvalRequest) -> PolicyEvalResponse:
        given = _texts(msgspec.to_builtins(request), _HIDDEN)
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._evaluate, given)

    def _evaluate(self, given: dict[str, Any]) -> PolicyEvalResponse:
        import regopy

        try:
            self._asked.set_input(given)
            output = self._asked.query_bundle_entrypoint(self._bundle, self._entry)
        except (regopy.RegoError, ValueError):
            # Its text repeats the input. Nobody is away who could be asked later: it is this input, whoever wrote that.
            raise Malformed("the policy could not be evaluated for this input") from None
        if not output.ok():
            raise Malformed("the policy gives an error for this input (as when two rules disagree)")
        if str(output) == "undefined" or not output.results or not output.results[0].expressions:
            return denied("the policy has no such rule, or none that holds")
        return response_of(_texts(output.results[0].expressions[0], _SHOWN))

    async def close(self) -> None:
        self.close_now()

    def close_now(self) -> None:
        """Safe to call twice."""
        self._thread.shutdown(wait=False)


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


def _built(files: Sequence[str], entry: str) -> Bundle:
    builder = _interpreter()
    size = 0
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
        else:
            _add_module(builder, name, source)
    import regopy

    try:
        bundle = builder.build(None, [entry])
    except regopy.RegoError as error:
        raise Malformed(f"{', '.join(files)}: {_said(error)}") from None
    if not bundle.ok():
        raise Malformed(f"{', '.join(files)}: the policies can't be compiled")
    return bundle


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
