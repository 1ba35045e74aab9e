"""The contexts file: names for the systems that a person works with, and where the token of each is.

    current = "prod"

    [contexts.prod]
    url = "https://incidents.example.org"
    token_file = "/home/me/.secrets/llm-im"     # or token_env = "VARIABLE", or, when asked for, token = "..."

It holds where tokens are, and in the last case one itself: it is written whole, mode 600, or not at all.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path

from services.cli.shared.exits import ExitCode, Failure

CONTEXT_VARIABLE = "LLM_IM_CONTEXT"
#: Letters that a TOML key takes without quotes, and a shell too.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
#: One word that fits into a header.
_TOKEN = re.compile(r"[!-~]{1,400}")
#: A wrong file (a log, a disk image) is not read whole.
_READ_MAX = 4096


@dataclass(frozen=True, slots=True)
class Context:
    """One system. At most one of the three says where its token is."""

    url: str
    token_file: str = ""
    token_env: str = ""
    token: str = field(default="", repr=False)
    #: For https: the authorities to trust, and our certificate with its key.
    ca_file: str = ""
    cert: str = ""
    key: str = ""

    @property
    def has_token(self) -> bool:
        """Whether a token belongs to it."""
        return bool(self.token_file or self.token_env or self.token)

    @property
    def token_from(self) -> str:
        """Where its token comes from, in words that do not show it."""
        if self.token_file:
            return f"file {self.token_file}"
        if self.token_env:
            return f"variable {self.token_env}"
        return "this file" if self.token else "none"

    def secret(self) -> str:
        """The token, "" when it has none. Raises Failure when it is not where it should be."""
        if self.token_env:
            if not (found := os.environ.get(self.token_env, "")):
                raise Failure(f"the token should be in the variable {self.token_env}, which is not set")
            return token_of(found, self.token_env)
        if self.token_file:
            return token_in(self.token_file)
        return self.token


@dataclass(slots=True)
class Contexts:
    """What the file holds. `current` "": none is chosen."""

    current: str = ""
    named: dict[str, Context] = field(default_factory=dict)

    def get(self, name: str, code: ExitCode = ExitCode.USAGE) -> Context:
        """The context of that name. Raises Failure naming those there are."""
        if name not in self.named:
            there = ", ".join(sorted(self.named)) or "none yet; make one: llm-im context add NAME --url URL"
            raise Failure(f"there is no context {name!r}; there are: {there}", code)
        return self.named[name]


def path() -> Path:
    """Where the file is; below "~" for a user without a home."""
    folder = os.path.expanduser(os.environ.get("XDG_CONFIG_HOME") or "~/.config")
    return Path(folder) / "llm-im" / "contexts.toml"


def read() -> Contexts:
    """The file's contexts; none when there is no file. Raises Failure when it can't be read."""
    file = path()
    try:
        found = tomllib.loads(file.read_text("utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        return Contexts()
    # TOMLDecodeError and UnicodeDecodeError are ValueErrors
    except (OSError, ValueError, RecursionError) as error:
        raise Failure(f"can't read {file}: {error}", ExitCode.USAGE) from error
    made = Contexts()
    known = {each.name for each in fields(Context)}
    for name, entries in _table(found, "contexts", file).items():
        if not isinstance(entries, dict) or not isinstance(entries.get("url"), str):
            raise Failure(f"{file}: contexts.{name}: expected a table with a url", ExitCode.USAGE)
        for key, value in entries.items():
            if key not in known or not isinstance(value, str):
                raise Failure(
                    f"{file}: contexts.{name}.{key}: expected a text named one of {', '.join(sorted(known))}",
                    ExitCode.USAGE,
                )
        made.named[name] = Context(**entries)
    made.current = str(found.get("current", ""))
    return made


def write(contexts: Contexts) -> None:
    """Write the file anew, for its owner only."""
    lines = ["# Written by `llm-im context`.", f"current = {_quoted(contexts.current)}"]
    for name, context in sorted(contexts.named.items()):
        lines += ["", f"[contexts.{name}]"]
        lines += [
            f"{each.name} = {_quoted(value)}"
            for each in fields(Context)
            if (value := getattr(context, each.name))
        ]
    file = path()
    if str(file).startswith("~"):
        raise Failure("you have no home folder to keep contexts in: set HOME or XDG_CONFIG_HOME")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # mkstemp makes it mode 600 from the first byte on.
        descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=".contexts-")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as out:
                out.write("\n".join(lines) + "\n")
            os.replace(temporary, file)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise Failure(f"can't write {file}: {error.strerror}") from error


def token_in(file: str) -> str:
    """The token in a file, or on stdin for "-". Raises Failure, which never repeats what it read."""
    try:
        if file == "-":
            found = sys.stdin.read(_READ_MAX)
        else:
            with open(os.path.expanduser(file), encoding="utf-8-sig") as opened:
                found = opened.read(_READ_MAX)
    except OSError as error:
        raise Failure(f"can't read the token in {file}: {error.strerror}", ExitCode.USAGE) from error
    except ValueError:  # no text, or no name of a file
        found = ""
    return token_of(found, "stdin" if file == "-" else file)


def token_of(text: str, origin: str) -> str:
    """The token that a text from there is. Raises Failure when it is none, and does not repeat it."""
    found = text.strip()
    if _TOKEN.fullmatch(found) is None:
        raise Failure(f"{origin} holds no token: expected one line, llmim_...", ExitCode.USAGE)
    return found


def check_name(name: str) -> None:
    """Raises Failure for a name that is none."""
    if not _NAME.fullmatch(name):
        raise Failure(
            f"{name!r} is not a valid context name: expected letters, digits, - and _", ExitCode.USAGE
        )


def _table(found: dict[str, object], name: str, file: Path) -> dict[str, dict[str, str]]:
    table = found.get(name, {})
    if not isinstance(table, dict):
        raise Failure(f"{file}: {name}: expected a table", ExitCode.USAGE)
    return table


def _quoted(text: str) -> str:
    """A TOML string. JSON's is one too, but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
