"""`llm-im playbooks list|show`: the playbooks of a running system."""

from __future__ import annotations

import typer

from services.cli.commands.playbooks.remote import PATH, Name, path_of
from services.cli.shared import output, terminal
from services.cli.shared.output import Column, Form, Output
from services.cli.shared.where import AsJson, InContext, TokenFile, Url, client_of

COLUMNS = (
    Column("name", lambda row: terminal.plain(row["name"]), lambda row: row["name"]),
    Column("mode", lambda row: terminal.plain(row["mode"]), lambda row: row["mode"]),
    Column("version", lambda row: terminal.plain(row["version"]), lambda row: row["version"]),
    Column(
        "next",
        lambda row: terminal.when(row["next_due"]) if row["next_due"] else "",
        lambda row: row["next_due"] or "",
        gives_way=True,
    ),
    Column("since", lambda row: terminal.when(row["since"]), lambda row: row["since"]),
    Column(
        "by", lambda row: terminal.plain(row["changed_by"]), lambda row: row["changed_by"], gives_way=True
    ),
    Column(
        "description",
        lambda row: terminal.plain(row["description"]),
        lambda row: row["description"],
        gives_way=True,
        leaves=1,
    ),
)


def list_playbooks(
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    form: Form = Output.TABLE,
    as_json: AsJson = False,
) -> None:
    """List the playbooks of a running system, with their modes.

    llm-im playbooks list
    """
    items = client_of(url, context, token_file).get_json(PATH)["items"]
    match output.form_of(form, as_json):
        case Output.JSON:
            output.write_json({"items": items})
        case Output.CSV:
            output.write_csv(COLUMNS, items)
        case Output.ID:
            for each in items:
                typer.echo(terminal.plain(each["name"]))
        case kind if items:
            output.write_table(COLUMNS, items, kind is Output.WIDE)
        case _:
            typer.echo("no playbooks")


def show(
    name: Name,
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Show a playbook: its versions, and the current one as it was written.

    llm-im playbooks show restart-api
    """
    found = client_of(url, context, token_file).get_json(path_of(name))
    if as_json:
        output.write_json(found)
        return
    out = terminal.console()
    for label, text in (
        ("name", found["name"]),
        ("mode", found["mode"]),
        ("since", f"{found['since']}  ({terminal.when(found['since'])})"),
        ("by", found["changed_by"]),
        *([("schedule", f"{found['schedule']} (UTC)")] if found["schedule"] else []),
        *(
            [("next", f"{found['next_due']}  ({terminal.when(found['next_due'])})")]
            if found["next_due"]
            else []
        ),
    ):
        out.print(f"  {label:<12}{terminal.plain(text)}")
    for each in reversed(found["versions"]):
        mark = "*" if each["version"] == found["version"] else " "
        out.print(
            f"  {mark} {terminal.plain(each['version'])}  {each['applied_at']}  {terminal.plain(each['applied_by'])}"
        )
    typer.echo()
    typer.echo("\n".join(map(terminal.plain, str(found["source"]).splitlines())))
