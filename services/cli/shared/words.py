"""Texts that people write: from -m, from a file or stdin, or from their editor."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from services.cli.shared.exits import ExitCode, Failure

#: A comment is at most 8,192 characters (models/incidents/verbs.py); what is far past it is the wrong file.
_READ_MAX_BYTES = 1 << 20
_EDITOR = "vi"

Message = Annotated[
    str | None, typer.Option("--message", "-m", metavar="TEXT", help="The text.", show_default=False)
]
MessageFile = Annotated[
    str | None,
    typer.Option(
        "--file",
        "-F",
        metavar="FILE|-",
        help="Read the text from a file, or from stdin (-).",
        show_default=False,
    ),
]


def text_of(message: str | None, file: str | None) -> str | None:
    """What -m or -F says; None when neither was given."""
    if message is not None and file is not None:
        raise Failure("give either -m or -F, not both", ExitCode.USAGE)
    if file is None:
        return None if message is None else _checked(message)
    if file == "-":
        data = sys.stdin.buffer.read(_READ_MAX_BYTES + 1)
    else:
        try:
            with Path(file).open("rb") as opened:
                data = opened.read(_READ_MAX_BYTES + 1)
        except OSError as error:
            raise Failure(f"can't read {file}: {error.strerror}", ExitCode.USAGE) from error
    if len(data) > _READ_MAX_BYTES:
        raise Failure(f"{file} is too long for a text: over 1 MiB", ExitCode.USAGE)
    try:
        return _checked(data.decode("utf-8-sig").strip("\n"))
    except UnicodeDecodeError as error:
        raise Failure(f"{file} is not UTF-8 text", ExitCode.USAGE) from error


def text_wanted(message: str | None, file: str | None, what: str) -> str:
    """What -m, -F or, on a terminal, the editor says. Raises Failure when nothing does."""
    given = text_of(message, file)
    if given is not None:
        return given
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Failure(f"{what} is missing: give -m TEXT, or -F FILE (- for stdin)", ExitCode.USAGE)
    return _edited(what)


def _edited(what: str) -> str:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or _EDITOR
    with tempfile.TemporaryDirectory(prefix="llm-im-") as folder:
        file = Path(folder) / "text.md"
        file.write_text(
            f"\n# {what}. Lines that begin with # are ignored; an empty text changes nothing.\n", "utf-8"
        )
        try:
            code = subprocess.call([*shlex.split(editor), str(file)])
        except (OSError, ValueError) as error:
            raise Failure(f"can't start the editor {editor!r}: set EDITOR, or give -m TEXT") from error
        if code != 0:
            raise Failure(f"the editor {editor!r} ended with exit code {code}; nothing was changed")
        lines = file.read_text("utf-8", "replace").splitlines()
    return _checked("\n".join(line for line in lines if not line.startswith("#")).strip())


def _checked(text: str) -> str:
    if not text.strip():
        raise Failure("the text is empty; nothing was changed", ExitCode.USAGE)
    return text
