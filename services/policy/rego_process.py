"""A process that evaluates policies in Rego, started by rego.py, which can't stop an evaluation that runs on and on: whoever evaluates
ends with it. A program of its own, so that it starts quickly: it imports nothing of ours.

A line of JSON each: first what Policies says, then an input after the other, and for each an answer: {"value": ...}, {"undefined": true} or
{"error": ...}.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from typing import Any

#: Of processor time, so that a busy machine denies nothing. An evaluation takes some milliseconds; what takes this long, SIGPROF ends, and
#: this process with it.
EVALUATION_S = 3.0


def main() -> None:
    # What it ends by itself leaves no core.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "wb")
    # Whatever a library prints is no answer.
    os.dup2(2, 1)
    questions = sys.stdin.buffer
    policies = json.loads(questions.readline())
    bundle, asked, entry = _built(policies)
    for line in questions:
        given = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, policies["seconds"])
        answer = _answer(bundle, asked, entry, given)
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(answer + b"\n")
        answers.flush()


def _built(policies: dict[str, Any]) -> tuple[Any, Any, str]:
    import regopy

    def interpreter() -> Any:
        made = regopy.Interpreter()
        made.log_level = regopy.LogLevel.NONE
        return made

    builder = interpreter()
    for name, source in policies["modules"]:
        builder.add_module(name, source)
    for source in policies["data"]:
        builder.add_data_json(source)
    entry = policies["entry"]
    # What builds can't be asked afterwards: it answers `undefined`.
    return builder.build(None, [entry]), interpreter(), entry


def _answer(bundle: Any, asked: Any, entry: str, given: object) -> bytes:
    import regopy

    try:
        asked.set_input(given)
        output = asked.query_bundle_entrypoint(bundle, entry)
    except (regopy.RegoError, ValueError):
        # Its text repeats the input.
        return _json({"error": "the policy could not be evaluated for this input"})
    if not output.ok():
        return _json({"error": "the policy gives an error for this input (as when two rules disagree)"})
    if str(output) == "undefined" or not output.results or not output.results[0].expressions:
        return _json({"undefined": True})
    try:
        return _json({"value": output.results[0].expressions[0]})
    except (TypeError, ValueError):
        return _json({"error": "the policy gives a value that JSON does not have"})


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


if __name__ == "__main__":
    main()
