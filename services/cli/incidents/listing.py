"""`llm-im incidents list`: what is wrong now."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from services.cli import filters, ids, look, moments, output
from services.cli.client import Client
from services.cli.exits import ExitCode, Failure
from services.cli.output import Column, Form, Output, Row
from services.cli.where import AsJson, InContext, TokenFile, Url, client_of

#: Seconds between two looks with --watch.
INTERVAL_S = 2.0


def _acknowledged_by(row: Row) -> str:
    return str(row["acknowledged"]["by"]) if row["acknowledged"] else ""


COLUMNS = (
    Column("id", lambda row: look.short_id(look.plain(row["id"])), lambda row: row["id"]),
    Column("sev", lambda row: look.severity(row["severity"]), None),
    Column("severity", None, lambda row: row["severity"]),
    Column("state", lambda row: look.plain(row["state"]), lambda row: row["state"]),
    Column("age", lambda row: look.since(row["created_at"]), None, right=True),
    Column("changed", lambda row: look.since(row["updated_at"]), None, wide=True, right=True),
    Column("created_at", None, lambda row: row["created_at"]),
    Column("updated_at", None, lambda row: row["updated_at"]),
    Column("firing", lambda row: f"{row['alerts_firing']}/{row['alerts']}", None, right=True),
    Column("alerts_firing", None, lambda row: row["alerts_firing"]),
    Column("alerts", None, lambda row: row["alerts"]),
    Column("type", lambda row: look.plain(row["incident_type"]), lambda row: row["incident_type"], wide=True),
    Column(
        "impact", lambda row: look.plain(row["impact"]), lambda row: row["impact"], wide=True, gives_way=True
    ),
    Column(
        "assignees",
        lambda row: look.plain(", ".join(row["assignees"])) or "-",
        lambda row: ", ".join(row["assignees"]),
        wide=True,
        gives_way=True,
    ),
    Column(
        "acknowledged",
        lambda row: look.plain(_acknowledged_by(row)) or "-",
        _acknowledged_by,
        wide=True,
        gives_way=True,
    ),
    Column("service", lambda row: look.plain(row["service"]), lambda row: row["service"], gives_way=True),
    Column("title", lambda row: look.plain(row["title"]), lambda row: row["title"], gives_way=True),
)


def list_incidents(
    matchers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MATCHER",
            help='severity=P0, state!=Closed, type=, service=~"llm-.*", assignee=NAME, or any label; all must hold.',
            show_default=False,
        ),
    ] = None,
    is_open: Annotated[bool, typer.Option("--open", help="Only those neither resolved nor closed.")] = False,
    state: Annotated[
        list[str] | None,
        typer.Option(help=f"{', '.join(filters.VALUES['state'])}; any of those given.", show_default=False),
    ] = None,
    severity: Annotated[
        list[str] | None, typer.Option(help="P0 to P4; any of those given.", show_default=False)
    ] = None,
    service: Annotated[list[str] | None, typer.Option(help="Any of those given.", show_default=False)] = None,
    text: Annotated[
        str | None, typer.Option(help="Part of the title, in any case.", show_default=False)
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="SPAN|TIME", help="Opened since: 2h, or RFC 3339.", show_default=False),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="SPAN|TIME", help="Opened before.", show_default=False)
    ] = None,
    changed_since: Annotated[
        str | None, typer.Option(metavar="SPAN|TIME", help="Changed since.", show_default=False)
    ] = None,
    changed_until: Annotated[
        str | None, typer.Option(metavar="SPAN|TIME", help="Last changed before.", show_default=False)
    ] = None,
    merged: Annotated[
        bool, typer.Option("--merged", help="Parts of merged incidents too; else the whole stands for them.")
    ] = False,
    sort: Annotated[
        str | None,
        typer.Option(
            help="-created_at (newest first), created_at, -updated_at, updated_at, severity (worst first), -severity.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=100_000, help="Show at most so many.")
    ] = 50,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show it anew every 2 s, on a terminal, until Ctrl-C.")
    ] = False,
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    form: Form = Output.TABLE,
    as_json: AsJson = False,
) -> None:
    """List incidents, newest first.

    llm-im incidents list --open

    llm-im incidents list severity=P0 service=~"llm-.*" state!=Closed

    llm-im incidents list team=inference --since 2h -o wide
    """
    if is_open and state:
        raise Failure("--open and --state both say which states: give one", ExitCode.USAGE)
    wanted = filters.read(
        matchers or (),
        {
            "state": list(filters.OPEN_STATES) if is_open else state or (),
            "severity": severity or (),
            "service": service or (),
        },
    )
    times = (
        ("created_after", since, "--since"),
        ("created_before", until, "--until"),
        ("updated_after", changed_since, "--changed-since"),
        ("updated_before", changed_until, "--changed-until"),
    )
    wanted.query += [
        (name, moments.past(given, option)) for name, given, option in times if given is not None
    ]
    wanted.query += [] if text is None else [("text", text)]
    wanted.query += [("merged", "true")] if merged else []
    wanted.query += [] if sort is None else [("sort", sort)]
    form = output.form_of(form, as_json)
    client = client_of(url, context, token_file)
    if watch:
        _watch(client, wanted, limit, form)
    found, more = _page(client, wanted, limit)
    _show(found, more, limit, form, wanted)


def _page(client: Client, wanted: filters.Filters, limit: int) -> tuple[list[Row], bool]:
    """The first incidents, and whether there are more."""
    found = list(ids.walk(client, wanted.query, limit + 1))
    return found[:limit], len(found) > limit


def _show(found: list[Row], more: bool, limit: int, form: Output, wanted: filters.Filters) -> None:
    match form:
        case Output.JSON:
            output.write_json({"items": found, "more": more})
            return
        case Output.CSV:
            output.write_csv(COLUMNS, found)
        case Output.ID:
            output.write_ids(found)
        case _ if found:
            output.write_table(COLUMNS, found, form is Output.WIDE)
        case _:
            typer.echo("no incidents" + (" like that" if wanted.query else ""))
            if hint := wanted.hint():
                typer.echo(hint, err=True)
    if more:
        typer.echo(f"there are more than these {limit:,}: --limit", err=True)


def _watch(client: Client, wanted: filters.Filters, limit: int, form: Output) -> None:
    """The table, drawn anew until Ctrl-C. What can't be asked meanwhile is told above the last answer."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    if form not in (Output.TABLE, Output.WIDE) or not sys.stdout.isatty():
        raise Failure("--watch draws on a terminal; for programs: llm-im incidents watch", ExitCode.USAGE)
    found, more = _page(client, wanted, limit)
    with Live(console=look.console(), screen=True, auto_refresh=False) as live:
        problem = ""
        while True:
            # The title line, the head of the table and the line below it are no rows.
            room = max(1, live.console.height - 3)
            shown = found[:room]
            head = f"{look.clock_time(time.time())[11:19]} UTC  {client.url}"
            left = f"and {len(found) - room:,} more" if len(found) > room else "and more" if more else ""
            live.update(
                Group(
                    Text(
                        head + (f"  {problem}" if problem else ""),
                        "bold red" if problem else "dim",
                        no_wrap=True,
                    ),
                    output.table(COLUMNS, shown, form is Output.WIDE, live.console.width)
                    if shown
                    else Text("no incidents"),
                    Text(left, "dim"),
                ),
                refresh=True,
            )
            time.sleep(INTERVAL_S)
            try:
                (found, more), problem = _page(client, wanted, limit), ""
            except Failure as failure:
                problem = look.plain(failure)
