"""`llm-im escalation list|show|delete`: who is told next while nobody acknowledges."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from services.cli.shared import output, terminal
from services.cli.shared.entries import answered, write_all
from services.cli.shared.exits import EPILOG
from services.cli.shared.options import Asked, with_options
from services.cli.shared.output import Column, Form, Output, Row

PATH = "/v1/escalations"
SEE = "llm-im escalation list"

app = typer.Typer(help="Who is told next while nobody acknowledges.", no_args_is_help=True, epilog=EPILOG)

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="As shown by llm-im escalation list.", show_default=False)
]


def _levels(row: Row) -> str:
    return " > ".join(f"{', '.join(each['tell'])} ({each['timeout']})" for each in row["levels"])


COLUMNS = (
    Column("name", lambda row: terminal.plain(row["name"]), lambda row: row["name"]),
    Column("levels", lambda row: terminal.plain(_levels(row)), _levels, gives_way=True),
    Column("repeat", lambda row: str(row["repeat"]), lambda row: row["repeat"], right=True),
    Column(
        "fallback",
        lambda row: terminal.plain(", ".join(row["fallback"])) or "-",
        lambda row: ", ".join(row["fallback"]),
        gives_way=True,
    ),
)


@app.command("list", epilog=EPILOG)
@with_options
def list_policies(form: Form = Output.TABLE, *, asked: Asked) -> None:
    """List escalation policies.

    llm-im escalation list
    """
    rows = asked.client().get_json(PATH)["items"]
    write_all(COLUMNS, rows, form, asked, "no escalation policies; make them with llm-im people apply")


@app.command(epilog=EPILOG)
@with_options
def show(name: Name, *, asked: Asked) -> None:
    """Show an escalation policy, and who would be told now.

    llm-im escalation show critical
    """
    client = asked.client()
    found = answered(client, client.get(_path(name)), 200, see=SEE)
    if asked.as_json:
        output.write_json(found)
        return
    on_call = {row["schedule"]: row["person"] for row in client.get_json("/v1/oncall")["items"]}
    out = terminal.console()
    for number, level in enumerate(found["levels"], 1):
        out.print(
            f"  level {number:<7}{terminal.plain(_told(level['tell'], on_call))}, {level['timeout']} to acknowledge"
        )
    if found["repeat"]:
        out.print(f"  {'repeat':<13}{found['repeat']} times")
    if found["fallback"]:
        out.print(f"  {'fallback':<13}{terminal.plain(_told(found['fallback'], on_call))}")
    if found["ack_timeout"] != "0s":
        out.print(f"  {'begins anew':<13}{found['ack_timeout']} after an acknowledgement without an end")


@app.command(epilog=EPILOG)
@with_options
def delete(name: Name, *, asked: Asked) -> None:
    """Delete an escalation policy that no route names any more.

    llm-im escalation delete critical
    """
    client = asked.client()
    answered(client, client.delete(_path(name)), 204, see=SEE)
    if asked.as_json:
        output.write_json({"deleted": [name]})
    else:
        typer.echo(f"{terminal.plain(name)} is deleted")


def _told(targets: list[str], on_call: dict[str, str | None]) -> str:
    """Targets, and behind a schedule who is on call in it."""
    return ", ".join(
        f"{each} ({on_call.get(each.partition(':')[2]) or 'nobody'} now)"
        if each.startswith("schedule:")
        else each
        for each in targets
    )


def _path(name: str) -> str:
    return f"{PATH}/{quote(name, safe='')}"
