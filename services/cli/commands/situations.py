"""`llm-im situations list|show`: incidents that belong together, and what probably causes them."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli.shared import ids, output, terminal
from services.cli.shared.exits import EPILOG, ExitCode, Failure
from services.cli.shared.options import Asked, with_options
from services.cli.shared.output import Column, Form, Output, Row

PATH = "/v1/situations"

app = typer.Typer(
    help="Incidents that belong together, and their probable cause.", no_args_is_help=True, epilog=EPILOG
)


def _cause(row: Row) -> str:
    causes = row["probable_causes"]
    return terminal.plain(causes[0]["service"]) if causes else "-"


def _why(row: Row) -> str:
    causes = row["probable_causes"]
    return terminal.plain("; ".join(causes[0]["reasons"])) if causes else ""


COLUMNS = (
    Column("id", lambda row: terminal.short_id(terminal.plain(row["id"])), lambda row: row["id"]),
    Column("opened", lambda row: terminal.when(row["opened_at"]), lambda row: row["opened_at"]),
    Column(
        "ended",
        lambda row: terminal.when(row["ended_at"]) if row["ended_at"] else "open",
        lambda row: row["ended_at"],
    ),
    Column(
        "incidents",
        lambda row: f"{sum(not each['ended_at'] for each in row['incidents'])} of {len(row['incidents'])}",
        lambda row: len(row["incidents"]),
        right=True,
    ),
    Column("probable cause", _cause, _cause),
    Column("why", _why, _why, gives_way=True),
)


@app.command("list", epilog=EPILOG)
@with_options
def list_situations(
    state: Annotated[str, typer.Option("--state", help="open, ended or all.")] = "open",
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=100_000, help="Show at most this many.")
    ] = 50,
    form: Form = Output.TABLE,
    *,
    asked: Asked,
) -> None:
    """List situations, the newest first. One that ended is kept for seven days."""
    found = list(ids.walk(asked.client(), [("state", state)], limit + 1, PATH))
    output.write_list(COLUMNS, found, limit, output.form_of(form, asked.as_json), "no situations")


@app.command(epilog=EPILOG)
@with_options
def show(
    situation: Annotated[
        str, typer.Argument(metavar="ID", help="As shown by llm-im situations list.", show_default=False)
    ],
    *,
    asked: Asked,
) -> None:
    """Show one situation: its probable causes with the reasons, and its incidents."""
    client = asked.client()
    identity = ids.whole(situation)
    if identity is None:
        part = situation.lower()
        newest = [str(each["id"]) for each in ids.walk(client, [("state", "all")], 1000, PATH)]
        fitting = [each for each in newest if each.startswith(part) or each.endswith(part)]
        if len(fitting) != 1:
            what = f"{len(fitting)} situations have" if fitting else "no situation has"
            raise Failure(f"{what} an id like {situation!r}: llm-im situations list", ExitCode.NOT_FOUND)
        identity = fitting[0]
    found = client.get_json(f"{PATH}/{identity}")
    if asked.as_json:
        output.write_json(found)
        return
    out = terminal.console()
    out.print(f"situation {found['id']}", style="bold")
    ended = f", ended {terminal.when(found['ended_at'])}" if found["ended_at"] else ""
    out.print(f"  opened {found['opened_at']} ({terminal.when(found['opened_at'])}){ended}")
    out.print("\nProbable causes", style="bold")
    for cause in found["probable_causes"]:
        title = f"  {terminal.plain(cause['title'])}" if cause["title"] else ""
        out.print(f"  {cause['score']:.2f}  {terminal.plain(cause['service'])}{title}")
        for reason in cause["reasons"]:
            out.print(f"        {terminal.plain(reason)}")
    if not found["probable_causes"]:
        out.print("  none that anything speaks for")
    out.print("\nIncidents", style="bold")
    for each in found["incidents"]:
        style = "dim" if each["ended_at"] else None
        out.print(
            f"  {each['part']:<8}  {terminal.short_id(terminal.plain(each['incident']))}  {each['severity']}  "
            f"{terminal.plain(each['service'])}: {terminal.plain(each['title'])}  ({terminal.when(each['began_at'])})",
            style=style,
        )
