"""Whatever a person types, whatever a server answers and however the machine is: one line and an exit code, never a
traceback."""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import Result

from models.errors import Unavailable
from services.cli import in_ray
from services.cli.main import app
from services.cli.shared.exits import ExitCode
from services.machine import launch
from services.settings.load import load
from tests.cli.incident_server import Answer, IncidentServer, incident
from tests.cli.test_commands import commands

ROOT = Path(__file__).resolve().parents[2]
TREE = typer.main.get_command(app)
COMMANDS = list(commands(TREE))
#: What nobody should type: no UTF-8, nothing, control characters, other numbers, other kinds of values, very much.
HOSTILE = (
    "\udcff", "a\udc80b", "", " ", "\x1b[31m", "\x01", "\n", "\u202e", "🙂", "-1", "0", "1e400", "nan", "99999999999999999999",
    "9" * 5000, "a" * 100_000, "=", "a=", "=b", "a=b", "a=~(", "a=~(a+)+$", "a!~[", "[", "{", "http://[::1", "http://[::1]:x", "//",
    "http://a b", "http://" + "a" * 70 + ".example", "http://.x", "http://x:99999", "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00", "2026-02-30T00:00:00Z", "/", "/dev/null", "/dev/null/x", ".", "..", "~nobody-here/x", "$(x)",
    "*", "%", "%s", "{0}", "--", "-", "-x", "@", "null", "shard/0000", "shard/9999999", "s3://", "s3:/", "memory://x", "P9", "1w",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_more: object) -> Any:
        raise Unavailable("not in this test")

    monkeypatch.setattr(launch, "start_local", refuse)
    monkeypatch.setattr(in_ray.Driver, "begin", refuse)


@pytest.fixture(autouse=True)
def _few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.cli.commands.send.TRIES", 1)
    monkeypatch.setattr("time.sleep", lambda _s: None)
    monkeypatch.setattr("services.cli.shared.local_control.PATIENCE_S", 0.2)


Run = Callable[..., Result]


def told(result: Result, words: object) -> None:
    """It ended in a way that cli.md describes."""
    shown = repr(words)[:300]
    assert result.exception is None or isinstance(result.exception, SystemExit), (shown, result.exc_info)
    assert result.exit_code in set(ExitCode), (shown, result.exit_code)
    assert "Traceback" not in result.output + result.stderr, shown
    if result.exit_code and "llm-im: " in result.stderr:
        assert "understands" not in result.stderr, (shown, result.stderr)


def parameters(words: list[str]) -> list[Any]:
    command: Any = TREE
    for word in words:
        command = command.commands[word]
    return [each for each in command.params if each.name not in ("help", "version")]


def is_endless(words: list[str]) -> bool:
    return words == ["incidents", "watch"]


@pytest.mark.parametrize("words", [each for each in COMMANDS if not is_endless(each)], ids=" ".join)
def test_no_argument_ends_in_a_traceback(words: list[str], run: Run, incidents: IncidentServer) -> None:
    chance = random.Random(" ".join(words))
    incidents.hold(incident(1), incident(2))
    known = parameters(words)
    flags = {"--follow", "--watch"}
    tried: list[list[str]] = []
    # Every third value, and with the next commands the others: no value is a matter of one command.
    for hostile in HOSTILE[COMMANDS.index(words) % 3 :: 3]:
        given = [*words]
        for each in known:
            if each.param_type_name == "argument":
                given += [hostile] * chance.randint(1 if each.required else 0, 2)
            elif each.opts[0] in flags:
                continue
            elif chance.random() < (0.9 if each.required else 0.25):
                given += [each.opts[0]] if each.is_flag else [each.opts[0], hostile]
        if given not in tried:
            told(run(*given, stdin="\x00\n"), given)
        tried.append(given)
    for each in known:  # one at a time, so that one mistake does not hide the next
        if each.param_type_name == "argument" or each.is_flag or each.opts[0] in flags:
            continue
        hostile = chance.choice(HOSTILE)
        told(run(*words, each.opts[0], hostile), [*words, each.opts[0], hostile])


@pytest.mark.parametrize("words", [["incidents", "list", "--text", "\udcff"], ["send", "a=\udc80"], ["\udcff"],
                                   ["up", "--data", "\udcff"]])  # fmt: skip
def test_what_is_not_utf_8_is_named(run: Run, words: list[str]) -> None:
    result = run(*words)

    assert result.exit_code == 2
    assert "is not UTF-8" in result.stderr and result.stderr.count("\n") == 1


WHOLE = "019ab000-0001-7001-8000-000000000001"
ASKING = (
    ["incidents", "list"], ["incidents", "list", "-o", "csv"], ["incidents", "list", "-o", "id"],
    ["incidents", "show", WHOLE], ["incidents", "show", "0001"], ["incidents", "alerts", WHOLE], ["incidents", "timeline", WHOLE],
    ["incidents", "ack", WHOLE], ["incidents", "close", WHOLE, WHOLE[:-1] + "2", "--yes"], ["incidents", "split", WHOLE, "00"],
    ["incidents", "ack", "--where", "service=x", "--yes"], ["incidents", "create", "-s", "x", "-t", "y"],
    ["alerts", "list"], ["stats"], ["targets"], ["targets", "-o", "csv"], ["send", "a=b"], ["tokens", "list"], ["tokens", "create", "x", "--scope", "read"],
    ["tokens", "revoke", "x"], ["tokens", "rotate", "x"], ["config", "reload"], ["status"],
)  # fmt: skip


@pytest.mark.parametrize("body", [[], {}, "x", 7, None, {"items": [{}]}, {"items": {}}, {"items": [7]}, {"items": [{"id": 7}], "next": 3},
                                  {"items": [], "next": "x"}, b"", b"<html>", b"\xff\xfe", b"[" * 100_000], ids=lambda body: repr(body)[:24])  # fmt: skip
def test_a_stranger_at_the_url_is_no_traceback(run: Run, incidents: IncidentServer, body: object) -> None:
    for status in (200, 201, 302, 503):
        incidents.answer = lambda _asked, status=status: Answer(status, body)  # type: ignore[method-assign, misc]
        # Whatever is no success is looked at in one place: not with every command.
        for words in ASKING if status == 200 else ASKING[status % 4 :: 4]:
            result = run(*words)

            assert isinstance(result.exception, SystemExit | None), (words, result.exc_info)
            assert "Traceback" not in result.output + result.stderr
            assert result.stderr.count("\n") <= 3, result.stderr
    assert len(incidents.asked) < 1000, "it asks without an end"


READING = (["incidents", "list"], ["status"], ["down"], ["config", "check"], ["log", "verify"], ["context", "list"],
           ["tokens", "list", "--local"], ["up"])  # fmt: skip
VALUES = ("\udcff", "{\udcff", "[" * 5000, "\x1b[2J", "~nobody/x", "http://[::1", "/dev/null/x", "9" * 5000)


@pytest.mark.parametrize(
    "name", ["LLM_IM_URL", "LLM_IM_CONTEXT", "LLM_IM_TOKEN", "LLM_IM_TOKEN_FILE", "LLM_IM_CONFIG", "LLM_IM_STATE__PATH",
             "LLM_IM_SERVER__HTTP_HOST", "LLM_IM_STATE", "LLM_IM_GROUPING__GROUP_BY", "DEPLOYMENT_MODE", "RUST_LOG", "HOME",
             "XDG_CONFIG_HOME", "COLUMNS", "RAY_ADDRESS", "LOGNAME", "TMPDIR"]
)  # fmt: skip
def test_no_variable_ends_in_a_traceback(run: Run, name: str) -> None:
    for place, value in enumerate(VALUES):
        # Every command with every variable, and with every value: not with each pair of them.
        for words in (READING * 2)[place::3][:3]:
            told(run(*words, **{name: value}), (words, name, value))


# Files


@pytest.fixture
def in_use(elsewhere: Path, run: Run) -> Path:
    """A folder in which every file is there that a command may open."""
    (elsewhere / "llm-im.toml").write_text("[state]\npartitions = 1\n")
    (elsewhere / "other.toml").write_text('[state]\npath = "other"\n')
    (elsewhere / "alerts.json").write_text('[{"labels": {"alertname": "x"}}]')
    (elsewhere / "text").write_text("words")
    run("tokens", "create", "admin", "--scope", "admin", "--local", "--out", "admin.token")
    run("context", "add", "here", "--url", "http://127.0.0.1:1", "--token-file", "admin.token")
    return elsewhere


CODES = (errno.EACCES, errno.ENOSPC, errno.EISDIR, errno.EIO)


class Failing:
    """Lets the n-th kind of call that touches a file below `folder` fail, and counts them. A kind is what is done to which
    file: the same done again goes through the same code mostly."""

    def __init__(self, folder: Path, number: int, code: int) -> None:
        self.folder, self.number, self.code = str(folder), number, code
        self.kinds: dict[tuple[str, str], int] = {}

    def wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def called(path: Any = ".", *args: Any, **more: Any) -> Any:
            if isinstance(path, (str, bytes, os.PathLike)) and "site-packages" not in os.fsdecode(path):
                whole = os.path.abspath(os.fsdecode(path))
                if whole.startswith(self.folder):
                    # Names made by chance are one.
                    kind = self.kinds.setdefault((name, _DIGITS.sub("", whole)), len(self.kinds) + 1)
                    if kind == self.number:
                        raise OSError(self.code, os.strerror(self.code), os.fsdecode(path))
            return real(path, *args, **more)

        return called


_DIGITS = re.compile("[0-9a-f]{6,}|[0-9]+")


def failing_calls(
    monkeypatch: pytest.MonkeyPatch, folder: Path, act: Callable[[], Result]
) -> Iterator[Result]:
    """The act with its first, second, third ... kind of file operation failing, until there is none that could; each in two
    ways, which take turns."""
    for number, code in ((each, code) for each in range(1, 200) for code in CODES[each % 2 :: 2]):
        broken = Failing(folder, number, code)
        with monkeypatch.context() as patch:
            for owner, names in (
                (os, ("open", "mkdir", "replace", "unlink", "stat", "listdir", "scandir", "lstat", "chmod")),
                (builtins, ("open",)),
                (io, ("open",)),
            ):
                for name in names:
                    patch.setattr(owner, name, broken.wrap(name, getattr(owner, name)))
            result = act()
        yield result
        if len(broken.kinds) < number:
            return
    raise AssertionError("so many file operations are no command")


@pytest.mark.parametrize(
    "words",
    [
        ["send", "alerts.json"], ["incidents", "comment", "019ab000-0001-7001-8000-000000000001", "-F", "text"],
        ["context", "add", "two", "--url", "http://127.0.0.1:2"], ["context", "use", "here"], ["context", "list"], ["context", "remove", "here"],
        ["incidents", "list"], ["incidents", "list", "--token-file", "admin.token"], ["status"], ["down"], ["up"], ["config", "check"],
        ["config", "show"], ["log", "verify"], ["log", "tail"], ["store", "verify"], ["store", "migrate", "--to", "other.toml"],
        ["store", "reshard", "--partitions", "2"], ["backup", "create", "--target", "backups"], ["backup", "list", "--target", "backups"],
        ["tokens", "list", "--local"], ["tokens", "create", "b", "--scope", "read", "--local", "--out", "b.token"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_no_file_operation_that_fails_is_a_traceback(
    run: Run, in_use: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    for result in failing_calls(monkeypatch, in_use, lambda: run(*words)):
        told(result, words)


# The machine


def typed(*words: str, script: str = "{}", **env: str) -> subprocess.CompletedProcess[str]:
    """What a shell runs in place of {}."""
    command = f"{sys.executable} -m services.cli {' '.join(words)}"
    return subprocess.run(
        ["bash", "-c", script.format(command)], cwd=ROOT, capture_output=True, text=True, timeout=60,
        env={**os.environ, **env},
    )  # fmt: skip


@pytest.mark.parametrize("words", [["--help"], ["config", "schema"], ["config", "show"], ["--version"], ["completion", "bash"]],
                         ids=" ".join)  # fmt: skip
def test_output_to_a_full_device_is_one_line(words: list[str]) -> None:
    result = typed(*words, script="{} > /dev/full")

    assert result.returncode == 1
    assert result.stderr == "llm-im: can't write the output: No space left on device\n"


@pytest.mark.parametrize(
    "script", ["{} >&-", "{} <&-", "{} | true; exit ${{PIPESTATUS[0]}}", "{} 2>&-", "{} > /dev/full 2>&1"]
)
def test_closed_and_full_descriptors_are_quiet(script: str) -> None:
    result = typed("config", "schema", script=script)

    assert result.returncode in (0, 1)
    assert result.stderr == ""


def test_a_working_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    script = f"mkdir {gone} && cd {gone} && rmdir {gone} && PYTHONPATH={ROOT} {{}}"

    for words in (["up"], ["down"], ["status"], ["config", "check"], ["send", "x"]):
        result = typed(*words, script=script)

        assert result.returncode in (1, 2, 3), (words, result)
        assert "Traceback" not in result.stderr and result.stderr.count("\n") == 1, result.stderr


def test_up_in_a_folder_that_can_t_be_written_is_one_line(
    run: Run, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    (elsewhere / "file").write_text("")
    monkeypatch.chdir(elsewhere)

    result = run("up", "--data", "file/var")

    assert result.exit_code == 1
    assert str(elsewhere / "file") in result.stderr and result.stderr.count("\n") == 1


def test_a_bug_is_told_in_a_line_and_shows_its_traceback_when_asked() -> None:
    code = "from services.cli import main; main.app = lambda **_: {}['x']; main.main()"
    plain = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    whole = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60,
                           env={**os.environ, "LLM_IM_TRACEBACK": "1"})  # fmt: skip

    assert plain.returncode == 1
    assert plain.stderr.startswith("llm-im: a bug in llm-im: KeyError: 'x'") and plain.stderr.count("\n") == 1
    assert "Traceback" in whole.stderr


def test_the_variable_for_a_traceback_is_no_setting(monkeypatch: pytest.MonkeyPatch, elsewhere: Path) -> None:
    monkeypatch.setenv("LLM_IM_TRACEBACK", "1")

    assert load().sources == {}


def test_a_file_with_a_sign_in_its_name_is_a_file(
    run: Run, incidents: IncidentServer, elsewhere: Path
) -> None:
    (elsewhere / "a=b file.json").write_text(json.dumps({"labels": {"alertname": "x"}}))

    assert run("send", "a=b file.json").exit_code == 0
    assert incidents.asked[-1].body == {"labels": {"alertname": "x"}}
    missing = run("send", "./a=c.json")
    assert missing.exit_code == 2 and "can't read ./a=c.json" in missing.stderr
