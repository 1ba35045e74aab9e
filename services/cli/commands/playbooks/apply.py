"""`llm-im playbooks apply|remove`: which playbooks a running system has."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from services.cli.commands.playbooks.files import playbooks_in, text_of
from services.cli.commands.playbooks.remote import PATH, Name, json_of, path_of
from services.cli.shared import output, terminal
from services.cli.shared.exits import ExitCode, Failure
from services.cli.shared.where import AsJson, InContext, TokenFile, Url, client_of


class ModeWord(StrEnum):
    ACTIVE = "active"
    PAUSED = "paused"
    SHADOW = "shadow"


def apply(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Playbooks, folders of them, or - for stdin.")
    ],
    mode: Annotated[
        ModeWord | None,
        typer.Option(
            "--mode",
            help="active, paused, or shadow (decides and does nothing); default: as it is, a new one active.",
            show_default=False,
        ),
    ] = None,
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Put playbooks into a running system. They run for incidents that open from now on.

    Each becomes the current version of its name. A version never changes: another text needs another version.

    llm-im playbooks apply playbooks/ --mode shadow
    """
    client = client_of(url, context, token_file)
    found: list[dict[str, Any]] = []
    failures: list[str] = []
    for name in playbooks_in(files):
        body = {"source": text_of(name), "file": name[-256:], "mode": mode or ""}
        try:
            applied = json_of(client, client.post_json(PATH, body))
        except Failure as failure:
            failures.append(str(failure))
            continue
        found.append(applied)
        if not as_json:
            _say(applied)
    if as_json:
        output.write_json({"items": found, "failures": failures})
    for each in failures:
        typer.echo(terminal.plain(each), err=True)
    if found and not all(each["runs"] for each in found):
        typer.echo("nothing runs yet: playbooks.enabled is false", err=True)
    raise typer.Exit(ExitCode.FAILED if failures else ExitCode.OK)


def _say(applied: dict[str, Any]) -> None:
    book = applied["playbook"]
    was = "applied" if applied["changed"] else "was there already"
    typer.echo(f"{terminal.plain(book['name'])} {terminal.plain(book['version'])} {was}: {book['mode']}")
    for warning in applied["warnings"]:
        typer.echo(f"  {terminal.plain(warning)} (warning)")


def remove(
    name: Name,
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
) -> None:
    """Remove a playbook. Runs under way go on.

    Its versions stay taken: applied again, each must have the same text.

    llm-im playbooks remove restart-api
    """
    client = client_of(url, context, token_file)
    reply = client.delete(path_of(name))
    if reply.status != 204:
        raise client.failure(reply, "to list them: llm-im playbooks list")
    typer.echo(f"{terminal.plain(name)} removed")
