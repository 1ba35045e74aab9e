"""`llm-im silences add|list|show|extend|expire|preview`: mutes alerts for a while."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from services.cli.shared import filters, ids, moments, output, terminal
from services.cli.shared.client import Client, Reply
from services.cli.shared.exits import EPILOG, ExitCode, Failure
from services.cli.shared.output import Column, Form, Output, Row
from services.cli.shared.where import AsJson, InContext, TokenFile, Url, client_of

PATH = "/v1/silences"

app = typer.Typer(help="Mute alerts for a while.", no_args_is_help=True, epilog=EPILOG)

Matchers = Annotated[
    list[str],
    typer.Argument(
        metavar="MATCHER...", help='Label matchers: service=api severity=~"P3|P4"; all must match.'
    ),
]
Which = Annotated[
    str, typer.Argument(metavar="ID", help="As shown by llm-im silences list.", show_default=False)
]
Until = Annotated[
    str | None,
    typer.Option(
        "--for", "-f", metavar="DURATION", help="How long it lasts, like 2h or 1d12h.", show_default=False
    ),
]
EndsAt = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="When it ends, RFC 3339.", show_default=False)
]
Comment = Annotated[
    str | None,
    typer.Option(
        "--comment", "-c", metavar="TEXT", help="Why; shown wherever it mutes something.", show_default=False
    ),
]

COLUMNS = (
    Column("id", lambda row: terminal.plain(row["id"]), lambda row: row["id"]),
    Column("state", lambda row: terminal.plain(row["state"]), lambda row: row["state"]),
    Column("starts", None, lambda row: row["starts_at"]),
    Column("ends", lambda row: terminal.when(row["ends_at"]), lambda row: row["ends_at"]),
    Column(
        "by",
        lambda row: terminal.plain(row["created_by"]),
        lambda row: row["created_by"],
        gives_way=True,
    ),
    Column(
        "matchers",
        lambda row: terminal.plain(" ".join(row["matchers"])),
        lambda row: " ".join(row["matchers"]),
        gives_way=True,
    ),
    Column(
        "comment",
        lambda row: terminal.plain(row["comment"]),
        lambda row: row["comment"],
        gives_way=True,
        leaves=1,
    ),
)


@app.command(epilog=EPILOG)
def add(
    matchers: Matchers,
    span: Until = None,
    until: EndsAt = None,
    starts: Annotated[
        str | None,
        typer.Option("--start", metavar="TIME", help="When it starts; default now.", show_default=False),
    ] = None,
    comment: Comment = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Even if it mutes more than silences.force_share of the firing alerts."),
    ] = False,
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Mute all matching alerts for a while, those that fire now and new ones.

    llm-im silences add service=llm-api severity=~"P3|P4" --for 2h --comment "deploy of 1.8"
    """
    client = client_of(url, context, token_file)
    body = {
        "matchers": _written(matchers),
        "comment": comment or "",
        "force": force,
        **_end(span, until, needed=True),
        **({} if starts is None else {"starts_at": moments.future(starts, "--start")}),
    }
    made = _json(client, client.post_json(PATH, body), 201)
    if as_json:
        output.write_json(made)
        return
    _say(made["silence"], "mutes" if made["silence"]["state"] == "active" else "will mute")
    typer.echo(f"{made['muted']:,} of the {made['firing']:,} firing alerts match", err=True)


@app.command("list", epilog=EPILOG)
def list_silences(
    matchers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MATCHER", help="Only silences that have exactly this matcher.", show_default=False
        ),
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(
            "--state", help="pending, active or expired; default the first two.", show_default=False
        ),
    ] = None,
    author: Annotated[
        str | None,
        typer.Option(
            "--by",
            metavar="NAME",
            help="Only silences made or last changed by this name.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=100_000, help="Show at most this many.")
    ] = 50,
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    form: Form = Output.TABLE,
    as_json: AsJson = False,
) -> None:
    """List silences that are active or pending; expired ones are kept for five days."""
    query = [*filters.labels(matchers or ()), *(("state", each) for each in state or ())]
    if author is not None:
        query.append(("created_by", author))
    found = list(ids.walk(client_of(url, context, token_file), query, limit + 1, PATH))
    output.write_list(COLUMNS, found, limit, output.form_of(form, as_json), "no matching silences")


@app.command(epilog=EPILOG)
def show(
    silence: Which,
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Show one silence."""
    found = _found(client_of(url, context, token_file), silence)
    if as_json:
        output.write_json(found)
        return
    out = terminal.console()
    for name, text in (
        ("id", found["id"]),
        ("state", found["state"]),
        ("matchers", " ".join(found["matchers"])),
        ("starts", f"{found['starts_at']}  ({terminal.when(found['starts_at'])})"),
        ("ends", f"{found['ends_at']}  ({terminal.when(found['ends_at'])})"),
        ("by", found["created_by"]),
        ("comment", found["comment"]),
        ("changed", found["updated_at"]),
        ("annotations", terminal.pairs(found["annotations"])),
    ):
        if text:
            out.print(f"  {name:<12}{terminal.plain(text)}")


@app.command(epilog=EPILOG)
def extend(
    silence: Which,
    span: Annotated[
        str | None,
        typer.Option("--for", "-f", metavar="DURATION", help="How long from now.", show_default=False),
    ] = None,
    until: EndsAt = None,
    comment: Comment = None,
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Move the end of a silence, later or earlier."""
    client = client_of(url, context, token_file)
    body = _end(span, until, needed=comment is None)
    if comment is not None:
        body["comment"] = comment
    reply = client.post_json(f"{PATH}/{_id(silence)}/extend", body)
    _write(_json(client, reply, 200), "now mutes", as_json)


@app.command(epilog=EPILOG)
def expire(
    silences: Annotated[
        list[str], typer.Argument(metavar="ID...", help="As shown by llm-im silences list; - reads stdin.")
    ],
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """End silences now. For alerts that still fire, notifications go out."""
    client = client_of(url, context, token_file)
    if silences == ["-"]:
        silences = typer.get_text_stream("stdin").read().split()
    done = []
    for each in silences:
        ended = _json(client, client.delete(f"{PATH}/{_id(each)}"), 200)
        done.append(ended)
        if not as_json:
            _say(ended, "has ended:")
    if as_json:
        output.write_json({"items": done})


@app.command(epilog=EPILOG)
def preview(
    matchers: Matchers,
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Show what a silence with these matchers would mute now. Makes nothing."""
    client = client_of(url, context, token_file)
    found = _json(client, client.post_json(f"{PATH}/preview", {"matchers": _written(matchers)}), 200)
    if as_json:
        output.write_json(found)
        return
    if found["incidents"]:
        table = terminal.table("MUTED", "FIRING", "INCIDENT", "TITLE", right=("MUTED", "FIRING"))
        for each in found["incidents"]:
            table.add_row(
                f"{each['muted']:,}",
                f"{each['firing']:,}",
                terminal.short_id(terminal.plain(each["id"])),
                terminal.plain(each["title"]),
            )
        terminal.console().print(table)
    more = found["incident_count"] - len(found["incidents"])
    words = f"{found['muted']:,} of the {found['firing']:,} firing alerts would be muted"
    words += f", and {more:,} more incidents" if more > 0 else ""
    typer.echo(words + ("; that needs --force" if found["needs_force"] else ""), err=True)


def _written(matchers: list[str]) -> list[str]:
    return [text for _name, text in filters.labels(matchers)]


def _end(span: str | None, until: str | None, *, needed: bool) -> dict[str, Any]:
    if span is not None and until is not None:
        raise Failure("give --for or --until, not both", ExitCode.USAGE)
    if span is not None:
        return {"duration": moments.span(span, "--for")}
    if until is not None:
        return {"ends_at": moments.future(until, "--until")}
    if needed:
        raise Failure("a silence must end: give --for DURATION or --until TIME", ExitCode.USAGE)
    return {}


def _id(given: str) -> str:
    """Raises Failure for what can be no id: it becomes a part of a path."""
    from uuid import UUID

    try:
        return str(UUID(given))
    except ValueError:
        raise Failure(
            f"{given!r} is not the id of a silence; see llm-im silences list", ExitCode.USAGE
        ) from None


def _found(client: Client, given: str) -> Row:
    found: Row = _json(client, client.get(f"{PATH}/{_id(given)}"), 200)
    return found


def _write(silence: Row, words: str, as_json: bool) -> None:
    if as_json:
        output.write_json(silence)
    else:
        _say(silence, words)


def _say(silence: Row, words: str) -> None:
    matchers = terminal.plain(" ".join(silence["matchers"]))
    typer.echo(f"{terminal.plain(silence['id'])} {words} {matchers}, until {silence['ends_at']}")


def _json(client: Client, reply: Reply, status: int) -> Any:
    if reply.status == status:
        return reply.json()
    hint = "see llm-im silences list" if reply.status == 404 else ""
    raise client.failure(reply, hint)
