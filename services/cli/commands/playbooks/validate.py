"""`llm-im playbooks validate`: what is wrong with playbooks, before they are applied."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.commands.playbooks.files import playbooks_in, read_file
from services.cli.shared import terminal
from services.cli.shared.exits import ExitCode
from services.cli.shared.where import AsJson, Config, loaded_of

if TYPE_CHECKING:
    from models.playbook.playbook import Playbook


def validate(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Playbooks, folders of them, or - for stdin.")
    ],
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as mistakes.")] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Check playbooks, and show every mistake with its file and line.

    Exit code 1 if there is one. No running system is needed. With --config also whether the settings know the receivers, services and
    scripts that they name.

    llm-im playbooks validate playbooks/ --config my.toml
    """  # fmt: skip
    from models.errors import IncidentManagerError

    found: list[dict[str, Any]] = []
    books: dict[str, Playbook] = {}
    for name in playbooks_in(files):
        row: dict[str, Any] = {"file": name, "errors": [], "warnings": []}
        found.append(row)
        try:
            read = read_file(name)
        except IncidentManagerError as error:
            row["errors"] = str(error).split("\n")
            continue
        row |= {"name": read.playbook.name, "version": read.playbook.version, "warnings": list(read.warnings)}
        if (other := books.setdefault(read.playbook.name, read.playbook)) is not read.playbook:
            row["errors"].append(f"{name}: there is another playbook called {other.name!r} among these files")
        if config is not None:
            row["warnings"] += [f"{name}: {each}" for each in _unknown(read.playbook, config)]
    _check_children(books, found)
    failed = any(row["errors"] or (strict and row["warnings"]) for row in found)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        _show(found)
    raise typer.Exit(ExitCode.FAILED if failed else ExitCode.OK)


def _unknown(book: Playbook, config: Path) -> list[str]:
    from models.settings.receivers import action_of
    from services.playbooks.known import unknown_in
    from services.playbooks.table import all_specs

    settings = loaded_of(config).settings
    receivers = {name: action_of(each) for name, each in settings.notify.all_receivers.items()}
    return unknown_in(
        book,
        all_specs(),
        receivers=receivers,
        services=settings.playbooks.services,
        scripts=settings.playbooks.scripts,
    )


def _check_children(books: dict[str, Playbook], found: list[dict[str, Any]]) -> None:
    """Playbooks that steps run: there are such, and none runs itself in the end."""
    from models.playbook.mistakes import near

    children = {
        name: [step.playbook for step in (*book.steps, *book.final) if step.playbook]
        for name, book in books.items()
    }
    for row in found:
        name = row.get("name", "")
        for child in children.get(name, []):
            if child not in books:
                row["warnings"].append(
                    f"{row['file']}: playbook {child!r} is not among these files{near(child, books, all_of=False)}"
                )
        if (path := _circle(name, children)) is not None:
            row["errors"].append(f"{row['file']}: playbooks run each other in a circle: {' -> '.join(path)}")


def _circle(start: str, children: dict[str, list[str]]) -> list[str] | None:
    waiting, seen = [[start]], {start}
    while waiting:
        path = waiting.pop()
        for child in children.get(path[-1], []):
            if child == start:
                return [*path, start]
            if child not in seen:
                seen.add(child)
                waiting.append([*path, child])
    return None


def _show(found: list[dict[str, Any]]) -> None:
    for row in found:
        for line in row["errors"]:
            typer.echo(terminal.plain(line))
        for line in row["warnings"]:
            typer.echo(f"{terminal.plain(line)} (warning)")
        if not row["errors"]:
            typer.echo(
                f"{terminal.plain(row['file'])}: {terminal.plain(row['name'])} {terminal.plain(row['version'])} is all right"
            )
