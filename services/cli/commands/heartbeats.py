"""`llm-im heartbeats list|show|set|delete|pause|resume|beat`: what must be heard from regularly."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from services.cli.shared import filters, moments, output, terminal
from services.cli.shared.client import Client, Reply
from services.cli.shared.exits import EPILOG, ExitCode, Failure
from services.cli.shared.options import Asked, with_options
from services.cli.shared.output import Column, Form, Output, Row

if TYPE_CHECKING:
    from rich.text import Text

PATH = "/v1/heartbeats"
#: Heartbeats of one page of the list.
PAGE = 5000

app = typer.Typer(
    help="Watch what must be heard from regularly: jobs, Prometheus.", no_args_is_help=True, epilog=EPILOG
)

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="As shown by llm-im heartbeats list.", show_default=False)
]
Names = Annotated[
    list[str],
    typer.Argument(metavar="NAME...", help="As shown by llm-im heartbeats list.", show_default=False),
]
_STYLES = {"missed": "bold red", "late": "yellow", "paused": "dim"}


def _state(row: Row) -> Text:
    from rich.text import Text

    return Text(terminal.plain(row["state"]), _STYLES.get(row["state"], ""))


def _due(row: Row) -> str:
    return terminal.when(row["missed_at"] or row["due_at"])


COLUMNS = (
    Column("name", lambda row: terminal.plain(row["name"]), lambda row: row["name"]),
    Column("state", _state, lambda row: row["state"]),
    Column(
        "last beat",
        lambda row: terminal.when(row["last_beat_at"]),
        lambda row: row["last_beat_at"],
        right=True,
    ),
    Column("missed", _due, lambda row: row["due_at"], right=True),
    Column("every", lambda row: terminal.plain(row["interval"]), lambda row: row["interval"], right=True),
    Column(
        "grace", lambda row: terminal.plain(row["grace"]), lambda row: row["grace"], right=True, wide=True
    ),
    Column("severity", lambda row: terminal.severity(row["severity"]), lambda row: row["severity"]),
    Column("service", lambda row: terminal.plain(row["service"]), lambda row: row["service"], gives_way=True),
    Column(
        "incident",
        lambda row: terminal.short_id(terminal.plain(row["incident_id"])) if row["incident_id"] else "-",
        lambda row: row["incident_id"],
    ),
)


@app.command("list", epilog=EPILOG)
@with_options
def list_heartbeats(
    state: Annotated[
        list[str] | None,
        typer.Option("--state", help="new, up, late, missed or paused; repeatable.", show_default=False),
    ] = None,
    form: Form = Output.TABLE,
    *,
    asked: Asked,
) -> None:
    """List heartbeats: how each is, when it was heard last, and when it is missed.

    llm-im heartbeats list --state missed --state late
    """
    client, found, after = asked.client(), [], ""
    while True:
        query = [*(("state", each) for each in state or ()), ("limit", str(PAGE)), ("after", after)]
        page = client.get_json(PATH, query)
        found += page["items"]
        if page["next"] is None:
            break
        after = page["next"]
    match output.form_of(form, asked.as_json):
        case Output.JSON:
            output.write_json({"items": found})
        case Output.CSV:
            output.write_csv(COLUMNS, found)
        case Output.ID:
            output.write_ids(found, "name")
        case kind if found:
            output.write_table(COLUMNS, found, kind is Output.WIDE)
        case _:
            typer.echo(
                "no matching heartbeats" if state else "no heartbeats; make one with llm-im heartbeats set"
            )


@app.command(epilog=EPILOG)
@with_options
def show(name: Name, *, asked: Asked) -> None:
    """Show one heartbeat."""
    client = asked.client()
    _write(_json(client, client.get(_path(name)), 200), asked)


@app.command("set", epilog=EPILOG)
@with_options
def set_heartbeat(
    name: Name,
    every: Annotated[
        str | None,
        typer.Option(
            "--every",
            "-e",
            metavar="DURATION",
            help="It must be heard at least this often.",
            show_default=False,
        ),
    ] = None,
    grace: Annotated[
        str | None,
        typer.Option(
            "--grace",
            "-g",
            metavar="DURATION",
            help="So much later it is missed; 1m for a new one.",
            show_default=False,
        ),
    ] = None,
    service: Annotated[
        str | None,
        typer.Option(
            "--service",
            "-s",
            help="The service of its incident; its own name for a new one.",
            show_default=False,
        ),
    ] = None,
    severity: Annotated[
        str | None,
        typer.Option("--severity", help="Of its incident, P0 to P4; P2 for a new one.", show_default=False),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            "-l",
            metavar="NAME=VALUE",
            help="Further labels of its alert. Repeatable.",
            show_default=False,
        ),
    ] = None,
    runbook: Annotated[
        str | None,
        typer.Option("--runbook", metavar="URL", help="What to do when it is missed.", show_default=False),
    ] = None,
    matchers: Annotated[
        list[str] | None,
        typer.Option(
            "--alert",
            "-a",
            metavar="MATCHER",
            help="An alert that matches is a beat: alertname=Watchdog. Repeatable; all must match.",
            show_default=False,
        ),
    ] = None,
    *,
    asked: Asked,
) -> None:
    """Make a heartbeat, or change what you name of one. A new one is missed only after it was heard once.

    llm-im heartbeats set nightly-backup --every 1d --grace 1h --service db --severity P1

    llm-im heartbeats set prometheus --every 5m --alert alertname=Watchdog
    """
    client, path = asked.client(), _path(name)
    before = client.get(path)
    known: Row = _json(client, before, 200) if before.status != 404 else {}
    if every is None and not known:
        raise Failure("a new heartbeat needs --every DURATION", ExitCode.USAGE)
    kept = ("interval", "grace", "service", "severity", "labels", "runbook", "matchers")
    body = {field: known[field] for field in kept if field in known}
    given = {
        "interval": None if every is None else moments.span(every, "--every"),
        "grace": None if grace is None else _span(grace, "--grace"),
        "service": service,
        "severity": severity,
        "labels": _labels(labels),
        "runbook": runbook,
        "matchers": None if matchers is None else [text for _name, text in filters.labels(matchers)],
    }
    body.update({field: value for field, value in given.items() if value is not None})
    reply = client.put_json(path, body)
    found = _json(client, reply, 200 if known else 201)
    if asked.as_json:
        output.write_json(found)
        return
    typer.echo(f"{terminal.plain(name)}: every {found['interval']}, missed {found['grace']} later")
    if not known and not found["matchers"]:
        typer.echo(f"beat it with: curl -fsS --retry 3 {client.url}{path}/beat", err=True)


@app.command(epilog=EPILOG)
@with_options
def delete(names: Names, *, asked: Asked) -> None:
    """Delete heartbeats. Incidents of those that are missed are resolved.

    llm-im heartbeats pause nightly-backup
    """
    client = asked.client()
    for name in names:
        _json(client, client.delete(_path(name)), 204)
        if not asked.as_json:
            typer.echo(f"{terminal.plain(name)} is deleted")
    if asked.as_json:
        output.write_json({"deleted": names})


@app.command(epilog=EPILOG)
@with_options
def pause(names: Names, *, asked: Asked) -> None:
    """Miss them no more until they go on. Incidents of those that are missed are resolved.

    llm-im heartbeats pause nightly-backup
    """
    _each(names, "pause", "is paused", asked)


@app.command(epilog=EPILOG)
@with_options
def resume(names: Names, *, asked: Asked) -> None:
    """Wait for them again, a whole interval from now on.

    llm-im heartbeats resume nightly-backup
    """
    _each(names, "resume", "is waited for", asked)


@app.command(epilog=EPILOG)
@with_options
def beat(
    name: Name,
    fail: Annotated[
        bool, typer.Option("--fail", help="Say that it failed: its incident opens at once.")
    ] = False,
    message: Annotated[
        str | None,
        typer.Option(
            "--message", "-m", metavar="TEXT", help="With --fail: what went wrong.", show_default=False
        ),
    ] = None,
    *,
    asked: Asked,
) -> None:
    """Say that a heartbeat was heard, as the job itself does.

    llm-im heartbeats beat nightly-backup
    """
    if message is not None and not fail:
        raise Failure("--message says what went wrong, and needs --fail", ExitCode.USAGE)
    client = asked.client()
    path = f"{_path(name)}/{'fail' if fail else 'beat'}"
    reply = client.post(path, (message or "").encode(), "text/plain")
    if reply.status != 200:
        raise client.failure(reply, _hint(reply))
    if asked.as_json:
        output.write_json({"name": name, "failed": fail})
    else:
        typer.echo(f"{terminal.plain(name)} {'has failed' if fail else 'was heard'}")


def _each(names: list[str], verb: str, words: str, asked: Asked) -> None:
    client, done = asked.client(), []
    for name in names:
        done.append(_json(client, client.post_json(f"{_path(name)}/{verb}", {}), 200))
        if not asked.as_json:
            typer.echo(f"{terminal.plain(name)} {words}")
    if asked.as_json:
        output.write_json({"items": done})


def _write(found: Row, asked: Asked) -> None:
    if asked.as_json:
        output.write_json(found)
        return
    out = terminal.console()
    for name, text in (
        ("name", found["name"]),
        ("state", found["state"]),
        ("last beat", _moment(found["last_beat_at"])),
        ("missed" if found["missed_at"] else "missed at", _moment(found["missed_at"] or found["due_at"])),
        ("incident", found["incident_id"]),
        ("every", found["interval"]),
        ("grace", found["grace"]),
        ("service", found["service"]),
        ("severity", found["severity"]),
        ("labels", terminal.pairs(found["labels"])),
        ("runbook", found["runbook"]),
        ("alerts", " ".join(found["matchers"])),
        ("changed", f"{found['changed_at']} by {found['changed_by']}"),
        ("settings", "changed in heartbeats.expected of the settings" if found["from_settings"] else ""),
    ):
        if text:
            out.print(f"  {name:<12}{terminal.plain(text)}")


def _moment(at: str | None) -> str:
    return f"{at}  ({terminal.when(at)})" if at else ""


def _labels(words: list[str] | None) -> dict[str, str] | None:
    if words is None:
        return None
    found = {}
    for word in words:
        name, is_pair, value = word.partition("=")
        if not is_pair or not name:
            raise Failure(f"--label: {word!r} is not valid; expected NAME=VALUE", ExitCode.USAGE)
        found[name] = value
    return found


def _span(text: str, option: str) -> str:
    return "0s" if re.fullmatch("0[smhdw]?", text) else moments.span(text, option)


def _path(name: str) -> str:
    return f"{PATH}/{quote(name, safe='')}"


def _json(client: Client, reply: Reply, status: int) -> Any:
    if reply.status == status:
        return reply.json() if reply.body else None
    raise client.failure(reply, _hint(reply))


def _hint(reply: Reply) -> str:
    return "see llm-im heartbeats list" if reply.status == 404 else ""
