"""`llm-im oncall who|schedules|shifts|override|overrides|cancel|check`: who is on call, and who is instead."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from services.cli.shared import moments, output, terminal
from services.cli.shared.entries import answered, write_all
from services.cli.shared.exits import EPILOG, ExitCode, Failure
from services.cli.shared.options import Asked, with_options
from services.cli.shared.output import Column, Form, Output, Row

SCHEDULES, ONCALL = "/v1/schedules", "/v1/oncall"
SEE = "llm-im oncall schedules"

app = typer.Typer(help="Who is on call, and who is instead.", no_args_is_help=True, epilog=EPILOG)

Schedule = Annotated[
    str, typer.Argument(metavar="SCHEDULE", help="As shown by llm-im oncall schedules.", show_default=False)
]


def _who(row: Row) -> str:
    if row.get("problem"):
        return "unknown"
    return terminal.plain(row["person"]) if row["person"] else "nobody"


def _by(row: Row) -> str:
    if row.get("problem"):
        return str(row["problem"])
    return f"override {row['override']}" if row["override"] else row["layer"] or ""


WHO = (
    Column("schedule", lambda row: terminal.plain(row["schedule"]), lambda row: row["schedule"]),
    Column("on call", _who, lambda row: row["person"]),
    Column(
        "until",
        lambda row: terminal.when(row["until"]) if row["until"] else "-",
        lambda row: row["until"],
        right=True,
    ),
    Column("next", lambda row: terminal.plain(row["next"] or "-"), lambda row: row["next"]),
    Column("by", lambda row: terminal.plain(_by(row)), _by, gives_way=True),
)
SHIFTS = (
    Column("from", lambda row: row["starts_at"], lambda row: row["starts_at"]),
    Column("until", lambda row: row["ends_at"], lambda row: row["ends_at"]),
    Column("on call", _who, lambda row: row["person"]),
    Column("by", lambda row: terminal.plain(_by(row)), _by, gives_way=True),
)


def _people(row: Row) -> str:
    return ", ".join(dict.fromkeys(each for layer in row["layers"] for each in layer["people"]))


LISTED = (
    Column("name", lambda row: terminal.plain(row["name"]), lambda row: row["name"]),
    Column("time zone", lambda row: terminal.plain(row["time_zone"]), lambda row: row["time_zone"]),
    Column("layers", lambda row: str(len(row["layers"])), lambda row: len(row["layers"]), right=True),
    Column("people", lambda row: terminal.plain(_people(row)), _people, gives_way=True),
)
OVERRIDES = (
    Column("id", lambda row: terminal.plain(row["id"]), lambda row: row["id"]),
    Column("person", lambda row: terminal.plain(row["person"]), lambda row: row["person"]),
    Column("from", lambda row: row["starts_at"], lambda row: row["starts_at"]),
    Column("until", lambda row: row["ends_at"], lambda row: row["ends_at"]),
    Column("by", lambda row: terminal.plain(row["by"]), lambda row: row["by"]),
    Column("reason", lambda row: terminal.plain(row["reason"]), lambda row: row["reason"], gives_way=True),
)


@app.command(epilog=EPILOG)
@with_options
def who(
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="TIME", help="When, RFC 3339 or a time from now.", show_default=False),
    ] = None,
    form: Form = Output.TABLE,
    *,
    asked: Asked,
) -> None:
    """Who is on call now, until when, and who is next.

    llm-im oncall who
    """
    query = [] if at is None else [("at", moments.future(at, "--at"))]
    rows = asked.client().get_json(ONCALL, query)["items"]
    write_all(WHO, rows, form, asked, "no schedules; make them with llm-im people apply", "schedule")


@app.command(epilog=EPILOG)
@with_options
def schedules(form: Form = Output.TABLE, *, asked: Asked) -> None:
    """List schedules.

    llm-im oncall schedules
    """
    rows = asked.client().get_json(SCHEDULES)["items"]
    write_all(LISTED, rows, form, asked, "no schedules; make them with llm-im people apply")


@app.command(epilog=EPILOG)
@with_options
def shifts(
    schedule: Schedule,
    starts: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="From when; default now.", show_default=False)
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            "--until", metavar="TIME", help="Until when; default two weeks later.", show_default=False
        ),
    ] = None,
    form: Form = Output.TABLE,
    *,
    asked: Asked,
) -> None:
    """Show who is on call when, with every handover and every gap.

    llm-im oncall shifts primary --until 4w
    """
    query = [
        *([] if starts is None else [("from", moments.future(starts, "--from"))]),
        *([] if until is None else [("until", moments.future(until, "--until"))]),
    ]
    client = asked.client()
    found = answered(client, client.get(_path(schedule, "shifts"), query), 200, see=SEE)
    write_all(SHIFTS, found["items"], form, asked, "nothing there", "person")


@app.command(epilog=EPILOG)
@with_options
def override(
    schedule: Schedule,
    person: Annotated[
        str, typer.Argument(metavar="PERSON", help="Who is on call instead.", show_default=False)
    ],
    span: Annotated[
        str | None,
        typer.Option("--for", "-f", metavar="DURATION", help="For how long, like 8h.", show_default=False),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Until when, RFC 3339.", show_default=False)
    ] = None,
    starts: Annotated[
        str | None,
        typer.Option("--start", metavar="TIME", help="From when; default now.", show_default=False),
    ] = None,
    reason: Annotated[
        str, typer.Option("--reason", "-r", metavar="TEXT", help="Why.", show_default=False)
    ] = "",
    *,
    asked: Asked,
) -> None:
    """Have somebody else be on call for a while.

    llm-im oncall override primary ben --for 8h --reason dentist
    """
    if (span is None) == (until is None):
        raise Failure("say how long: --for DURATION or --until TIME", ExitCode.USAGE)
    body: dict[str, Any] = {"person": person, "reason": reason}
    if span is not None:
        body["ends_in"] = moments.span(span, "--for")
    if until is not None:
        body["ends_at"] = moments.future(until, "--until")
    if starts is not None:
        body["starts_at"] = moments.future(starts, "--start")
    client = asked.client()
    made = answered(client, client.post_json(_path(schedule, "overrides"), body), 201, see=SEE)
    if asked.as_json:
        output.write_json(made)
        return
    typer.echo(
        f"{terminal.plain(person)} is on call in {terminal.plain(schedule)} from {made['starts_at']} until {made['ends_at']}"
    )
    typer.echo(f"take it back with: llm-im oncall cancel {terminal.plain(schedule)} {made['id']}", err=True)


@app.command(epilog=EPILOG)
@with_options
def overrides(schedule: Schedule, form: Form = Output.TABLE, *, asked: Asked) -> None:
    """List overrides that are not over.

    llm-im oncall overrides primary
    """
    client = asked.client()
    found = answered(client, client.get(_path(schedule, "overrides")), 200, see=SEE)
    write_all(OVERRIDES, found["items"], form, asked, "no overrides", "id")


@app.command(epilog=EPILOG)
@with_options
def cancel(
    schedule: Schedule,
    identity: Annotated[
        str, typer.Argument(metavar="ID", help="As shown by llm-im oncall overrides.", show_default=False)
    ],
    *,
    asked: Asked,
) -> None:
    """Take an override back.

    llm-im oncall cancel primary 3f2a90c1d4e5b6a7
    """
    client = asked.client()
    path = f"{_path(schedule, 'overrides')}/{quote(identity, safe='')}"
    answered(client, client.delete(path), 204, see=f"llm-im oncall overrides {schedule}")
    if asked.as_json:
        output.write_json({"deleted": [identity]})
    else:
        typer.echo(f"override {terminal.plain(identity)} is taken back")


@app.command(epilog=EPILOG)
@with_options
def check(
    until: Annotated[
        str | None,
        typer.Option(
            "--until", metavar="TIME", help="How far to look; default two weeks.", show_default=False
        ),
    ] = None,
    *,
    asked: Asked,
) -> None:
    """Look for what would keep somebody from being told: gaps, people without contacts. Exit code 1 when there is something.

    llm-im oncall check --until 4w
    """
    query = [] if until is None else [("until", moments.future(until, "--until"))]
    found = asked.client().get_json(f"{ONCALL}/check", query)["items"]
    if asked.as_json:
        output.write_json({"items": found})
    for each in [] if asked.as_json else found:
        typer.echo(terminal.plain(each))
    if found:
        raise typer.Exit(ExitCode.FAILED)
    if not asked.as_json:
        typer.echo("nothing would keep anybody from being told")


def _path(schedule: str, rest: str) -> str:
    return f"{SCHEDULES}/{quote(schedule, safe='')}/{rest}"
