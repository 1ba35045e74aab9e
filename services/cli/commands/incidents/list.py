"""`llm-im incidents list`: what is wrong now."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

import typer

from services.cli.shared import filters, ids, moments, output, terminal
from services.cli.shared.client import Client
from services.cli.shared.exits import ExitCode, Failure
from services.cli.shared.options import Asked, with_options
from services.cli.shared.output import Column, Form, Output, Row

#: Seconds between two looks with --watch.
INTERVAL_S = 2.0
#: Room for the word over it.
_ALERTNAME_LEAST = len("alertname")
#: A title that is cut shorter tells nothing that the alert's name does not.
_TITLE_LEAST = 24
#: A line for people says what it has to say within this.
_TITLE_WIDE = 60


class Sort(StrEnum):
    """Orders that the server knows (models/incidents/filters.py, which takes as long to import as a command). A test compares."""

    NEWEST = "-created_at"
    OLDEST = "created_at"
    LAST_CHANGED = "-updated_at"
    FIRST_CHANGED = "updated_at"
    WORST = "severity"
    MILDEST = "-severity"


def _acknowledged(row: Row, field: str) -> str:
    return str(row["acknowledged"].get(field, "")) if row["acknowledged"] else ""


def _alertname(row: Row) -> str:
    """What its alerts are called; nothing when they differ, or when it was made by hand."""
    return str(row["group_labels"].get("alertname") or row["labels"].get("alertname") or "")


def _owner(row: Row) -> str:
    """Who works on it: who is assigned, else who acknowledged it."""
    return ", ".join(row["assignees"]) or _acknowledged(row, "by")


def _due(row: Row) -> str:
    """What was promised and not done in time, else what is to be done next."""
    due = sorted(at for at in row["due"].values() if at)
    return terminal.until(due[0]) if due else ""


def _resolution(row: Row, field: str) -> str:
    return str(row["resolution"].get(field) or "") if row["resolution"] else ""


def _text(read: Callable[[Row], str]) -> Callable[[Row], str]:
    """A cell of a text that may be missing."""
    return lambda row: terminal.plain(read(row)) or "-"


COLUMNS = (
    Column("id", lambda row: terminal.short_id(terminal.plain(row["id"])), lambda row: row["id"]),
    Column("sev", lambda row: terminal.severity(row["severity"]), None),
    Column("severity", None, lambda row: row["severity"]),
    Column("state", lambda row: terminal.plain(row["state"]), lambda row: row["state"]),
    Column("age", lambda row: terminal.age(row["created_at"]), None, right=True),
    Column("changed", lambda row: terminal.age(row["updated_at"]), None, wide=True, right=True, leaves=4),
    Column("created_at", None, lambda row: row["created_at"]),
    Column("updated_at", None, lambda row: row["updated_at"]),
    Column("acknowledged_at", None, lambda row: _acknowledged(row, "at")),
    Column("resolved_at", None, lambda row: row["resolved_at"]),
    Column("firing", lambda row: f"{row['alerts_firing']}/{row['alerts']}", None, right=True, leaves=3),
    Column("alerts_firing", None, lambda row: row["alerts_firing"]),
    Column("alerts", None, lambda row: row["alerts"]),
    Column("due", _text(_due), None, leaves=2),
    Column("type", _text(lambda row: row["incident_type"]), lambda row: row["incident_type"], wide=True, leaves=5),
    Column("impact", _text(lambda row: row["impact"]), lambda row: row["impact"], wide=True, gives_way=True, leaves=6),
    Column("assignees", None, lambda row: ", ".join(row["assignees"])),
    Column("acknowledged", None, lambda row: _acknowledged(row, "by")),
    Column("owner", _text(_owner), _owner, gives_way=True),
    Column("service", _text(lambda row: row["service"]), lambda row: row["service"], gives_way=True),
    Column("alertname", _text(_alertname), _alertname, gives_way=True, least=_ALERTNAME_LEAST),
    Column("root_cause", None, lambda row: _resolution(row, "root_cause")),
    Column("title", _text(lambda row: row["title"]), lambda row: row["title"], gives_way=True, least=_TITLE_LEAST, leaves=1, roomy=_TITLE_WIDE),
)  # fmt: skip


@with_options
def list_incidents(
    matchers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MATCHER",
            help='severity=P0, state!=Closed, type=, service=~"llm-.*", assignee=NAME, or any label; all must match.',
            show_default=False,
        ),
    ] = None,
    is_open: Annotated[
        bool, typer.Option("--open", help="Only open incidents; the default if no state is given.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", "-a", help="Resolved and closed incidents too.")] = False,
    state: Annotated[
        list[str] | None,
        typer.Option(help=f"{', '.join(filters.VALUES['state'])}; any of those given.", show_default=False),
    ] = None,
    severity: Annotated[
        list[str] | None, typer.Option(help="P0 to P4. Repeatable: any of them.", show_default=False)
    ] = None,
    service: Annotated[
        list[str] | None, typer.Option(help="Repeatable: any of them.", show_default=False)
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="Text in the title, ignoring case.", show_default=False)
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION|TIME", help="Opened since: 2h ago, or a time, RFC 3339.", show_default=False
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="DURATION|TIME", help="Opened before.", show_default=False)
    ] = None,
    changed_since: Annotated[
        str | None, typer.Option(metavar="DURATION|TIME", help="Changed since.", show_default=False)
    ] = None,
    changed_until: Annotated[
        str | None, typer.Option(metavar="DURATION|TIME", help="Last changed before.", show_default=False)
    ] = None,
    merged: Annotated[
        bool, typer.Option("--merged", help="Child incidents of merged ones too. Default: only the parents.")
    ] = False,
    sort: Annotated[
        Sort | None,
        typer.Option(
            case_sensitive=False,
            help="-created_at: newest first. severity: worst first, then newest. Default: open ones are listed "
            "worst first, others newest first.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=100_000, help="Show at most this many.")
    ] = 50,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Refresh every 2 s in the terminal, until Ctrl-C.")
    ] = False,
    form: Form = Output.TABLE,
    *,
    asked: Asked,
) -> None:
    """List open incidents, worst first, then newest. --all, --state or a state matcher lists others too.

    llm-im incidents list

    llm-im incidents list --all --since 1d

    llm-im incidents list severity=P0 service=~"llm-.*" state!=Closed

    llm-im incidents list team=inference --since 2h -o wide
    """
    if sum((is_open, every, bool(state))) > 1:
        raise Failure("give only one of --open, --all and --state", ExitCode.USAGE)
    only_open = is_open or not (every or state or filters.names_state(matchers or ()))
    wanted = filters.read(
        matchers or (),
        {
            "state": list(filters.OPEN_STATES) if only_open else state or (),
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
    order = sort or (Sort.WORST if only_open else None)
    narrowed_by = len(wanted.query) - (len(filters.OPEN_STATES) if only_open else 0)
    wanted.query += [] if order is None else [("sort", order.value)]
    form = output.form_of(form, asked.as_json)
    client = asked.client()
    if watch:
        _watch(client, wanted, limit, form)
    found, more = _page(client, wanted, limit)
    _show(found, more, limit, form)
    if not found and form in (Output.TABLE, Output.WIDE):
        typer.echo(f"no {'open ' if only_open else ''}incidents" + (" like that" if narrowed_by else ""))
        if hint := wanted.hint() or ("resolved and closed ones: --all" if only_open and narrowed_by else ""):
            typer.echo(hint, err=True)


def _page(client: Client, wanted: filters.Filters, limit: int) -> tuple[list[Row], bool]:
    """The first incidents, and whether there are more."""
    found = list(ids.walk(client, wanted.query, limit + 1))
    return found[:limit], len(found) > limit


def _show(found: list[Row], more: bool, limit: int, form: Output) -> None:
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
    if more:
        typer.echo(f"there are more than these {limit:,}: --limit", err=True)


def _watch(client: Client, wanted: filters.Filters, limit: int, form: Output) -> None:
    """The table, drawn anew until Ctrl-C. What can't be asked meanwhile is told above the last answer."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    if form not in (Output.TABLE, Output.WIDE) or not sys.stdout.isatty():
        raise Failure("--watch needs a terminal; in scripts, use: llm-im incidents watch", ExitCode.USAGE)
    found, more = _page(client, wanted, limit)
    with Live(console=terminal.console(), screen=True, auto_refresh=False) as live:
        problem = ""
        while True:
            # The title line, the head of the table and the line below it are no rows.
            room = max(1, live.console.height - 3)
            shown = found[:room]
            head = f"{terminal.clock_time(time.time())[11:19]} UTC  {client.url}"
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
                problem = terminal.plain(failure)
