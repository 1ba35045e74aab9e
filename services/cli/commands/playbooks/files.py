"""Playbooks in files, as the commands that need no running system read them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.shared.exits import ExitCode, Failure

if TYPE_CHECKING:
    from models.playbook.reading import Read

OneFile = Annotated[str, typer.Argument(metavar="FILE", help="A playbook, or - for stdin.")]
Fails = Annotated[
    list[str] | None,
    typer.Option(
        "--fail",
        "-f",
        metavar="STEP.ACTION",
        show_default=False,
        help="An action that fails, each time that it is tried; STEP.ACTION:N for the Nth action of the step; STEP for an "
        "approval that is denied, or another playbook that fails. Repeatable.",
    ),
]
_SUFFIXES = (".yaml", ".yml")


def read_file(name: str) -> Read:
    """The playbook in a file. Raises Malformed and TooLarge with all that is wrong, Failure when there is no such file."""
    from models.playbook.reading import read
    from services.playbooks.table import all_specs

    return read(text_of(name), "stdin" if name == "-" else name, all_specs())


def text_of(name: str) -> str:
    """What a file holds, whoever wrote it."""
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise Failure(f"{name}: {error.strerror}", ExitCode.NOT_FOUND) from error
    return data.decode("utf-8-sig", "surrogateescape")


def playbooks_in(names: list[str]) -> Iterator[str]:
    """The files that these names mean: a folder means all playbooks in it."""
    for name in names:
        path = Path(name)
        if name == "-" or not path.is_dir():
            yield name
            continue
        found = sorted(str(each) for each in path.iterdir() if each.suffix in _SUFFIXES)
        if not found:
            raise Failure(f"{name}: there is no *.yaml in it", ExitCode.NOT_FOUND)
        yield from found
