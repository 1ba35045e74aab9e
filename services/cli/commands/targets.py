"""`llm-im targets`: the receivers and hosts that are called, and which of them fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.shared import output, terminal
from services.cli.shared.options import Asked, with_options
from services.cli.shared.output import Column, Form, Output, Row

if TYPE_CHECKING:
    from rich.text import Text

PATH = "/v1/targets"


def _state(row: Row) -> Text:
    from rich.text import Text

    return Text(terminal.plain(row["state"]), "" if row["state"] == "closed" else "bold red")


def _rate(row: Row) -> str:
    return "-" if row["rate_per_s"] is None else f"{row['rate_per_s']:g}/s"


COLUMNS = (
    Column("target", lambda row: terminal.plain(row["target"]), lambda row: row["target"]),
    Column(
        "responder", lambda row: terminal.plain(row["responder"]), lambda row: row["responder"], wide=True
    ),
    Column("state", _state, lambda row: row["state"]),
    Column("since", lambda row: terminal.since(row["since"]), lambda row: row["since"], right=True),
    Column(
        "broken",
        lambda row: terminal.since(row["broken_since"]),
        lambda row: row["broken_since"],
        right=True,
    ),
    Column(
        "retry",
        lambda row: terminal.when(row["retry_at"]) if row["retry_at"] else "-",
        lambda row: row["retry_at"],
    ),
    Column("failures", lambda row: f"{row['failures']:,}", lambda row: row["failures"], right=True),
    Column(
        "in flight",
        lambda row: f"{row['in_flight']:,} of {row['max_in_flight']:,}",
        lambda row: row["in_flight"],
        right=True,
    ),
    Column("rate", _rate, lambda row: row["rate_per_s"], right=True),
    Column(
        "failed",
        lambda row: terminal.since(row["last_error_at"]),
        lambda row: row["last_error_at"],
        right=True,
        wide=True,
    ),
    Column(
        "last error",
        lambda row: terminal.plain(row["last_error"] or "-"),
        lambda row: row["last_error"],
        gives_way=True,
        roomy=60,
    ),
)


@with_options
def targets(
    broken: Annotated[
        bool, typer.Option("--broken", help="Only those that are not called because they fail.")
    ] = False,
    form: Form = Output.TABLE,
    *,
    asked: Asked,
) -> None:
    """List the receivers and hosts that responders call, and which of them fail.

    llm-im targets

    llm-im targets --broken -o wide
    """
    body = asked.client().get_json(PATH)
    rows = [each for each in body["items"] if not broken or each["state"] != "closed"]
    match output.form_of(form, asked.as_json):
        case Output.JSON:
            output.write_json({**body, "items": rows})
        case Output.CSV:
            output.write_csv(COLUMNS, rows)
        case Output.ID:
            output.write_ids(rows, "target")
        case shown if rows:
            output.write_table(COLUMNS, rows, shown is Output.WIDE)
        case _:
            typer.echo("no target is broken" if broken else "no target: nothing is to be called")
    for name in body["silent"]:
        typer.echo(f"{terminal.plain(name)} does not answer: its targets are missing", err=True)
