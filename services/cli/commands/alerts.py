"""`llm-im alerts list`: single alerts, whatever incident they belong to."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli.shared import filters, ids, output, terminal
from services.cli.shared.exits import EPILOG
from services.cli.shared.options import Asked, with_options
from services.cli.shared.output import Column, Form, Output, Row

PATH = "/v1/alerts"

app = typer.Typer(help="List alerts.", no_args_is_help=True, epilog=EPILOG)


def _why(row: Row) -> str:
    """The newest reason for where an alert is."""
    return terminal.plain(row["why"][-1]["reason"]) if row.get("why") else "-"


COLUMNS = (
    Column("fingerprint", lambda row: terminal.plain(row["fingerprint"]), lambda row: row["fingerprint"]),
    Column("state", lambda row: "firing" if row["firing"] else "ended", None),
    Column("firing", None, lambda row: "true" if row["firing"] else "false"),
    Column("since", lambda row: terminal.since(row["starts_at"]), lambda row: row["starts_at"], right=True),
    Column(
        "seen",
        lambda row: terminal.since(row["last_seen_at"]),
        lambda row: row["last_seen_at"],
        wide=True,
        right=True,
    ),
    Column("ended", None, lambda row: row["ends_at"]),
    Column(
        "incident",
        lambda row: terminal.short_id(terminal.plain(row["incident_id"])),
        lambda row: row["incident_id"],
    ),
    Column("source", lambda row: terminal.plain(row["source"]), lambda row: row["source"], wide=True),
    Column(
        "sender",
        lambda row: terminal.plain(row.get("sender") or "-"),
        lambda row: row.get("sender"),
        wide=True,
    ),
    Column("why", _why, _why, wide=True, gives_way=True),
    Column(
        "labels",
        lambda row: terminal.pairs(row["labels"]),
        lambda row: terminal.pairs(row["labels"]),
        gives_way=True,
    ),
)


@app.command("list", epilog=EPILOG)
@with_options
def list_alerts(
    matchers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MATCHER",
            help='Label matchers, such as service=~"llm-.*"; all must match.',
            show_default=False,
        ),
    ] = None,
    ended: Annotated[
        bool, typer.Option("--ended", help="Alerts that have ended, instead of firing ones.")
    ] = False,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=100_000, help="Show at most this many.")
    ] = 50,
    form: Form = Output.TABLE,
    *,
    asked: Asked,
) -> None:
    """List firing alerts.

    llm-im alerts list service=~"llm-.*" alertname!=Watchdog
    """
    query = [*filters.labels(matchers or ()), ("firing", "false" if ended else "true")]
    found = list(ids.walk(asked.client(), query, limit + 1, PATH))
    write(found[:limit], len(found) > limit, output.form_of(form, asked.as_json))


def write(found: list[Row], more: bool, form: Output) -> None:
    """Alerts in the form that was asked for."""
    match form:
        case Output.JSON:
            output.write_json({"items": found, "more": more})
            return
        case Output.CSV:
            output.write_csv(COLUMNS, found)
        case Output.ID:
            output.write_ids(found, "fingerprint")
        case _ if found:
            output.write_table(COLUMNS, found, form is Output.WIDE)
        case _:
            typer.echo("no alert matches")
    if more:
        typer.echo(f"there are more than these {len(found):,}: --limit", err=True)
