"""`llm-im formats list|try`: which formats there are, and what one makes of a file. Nothing is sent, and nothing need run."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli.shared import terminal
from services.cli.shared.exits import EPILOG, ExitCode, Failure
from services.cli.shared.where import AsJson, Config, loaded_of

app = typer.Typer(help="Formats of other senders.", no_args_is_help=True, epilog=EPILOG)


@app.command("list", epilog=EPILOG)
def list_(as_json: AsJson = False) -> None:
    """List the formats: where each is posted, what it takes, and by which fields a body without a name is known."""
    from services.ingest.formats.paths import paths_of
    from services.ingest.formats.table import all_formats

    rows = [
        {
            "format": name,
            "paths": [*paths_of(kind)],
            "summary": getattr(kind, "summary", "our own" if name == "v1" else "Alertmanager's API v2"),
            "recognised_by": getattr(kind, "shape", ""),
        }
        for name, kind in all_formats().items()
    ]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = terminal.table("format", "path", "what it takes")
    for row in rows:
        table.add_row(str(row["format"]), " ".join(row["paths"]), str(row["summary"]))
    terminal.console().print(table)


@app.command("try", epilog=EPILOG)
def try_(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A body as its sender posts it, or - for stdin.")
    ],
    as_: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="NAME",
            help="The format, or a mapping's name. Default: known by its shape.",
            show_default=False,
        ),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(
            "--header",
            "-H",
            metavar="NAME:VALUE",
            help="A header that the sender adds. Repeatable.",
            show_default=False,
        ),
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show the alerts that a file would make. Exit code 1 if any of it would be refused.

    llm-im formats try alert.json --as datadog
    """
    from models.errors import IncidentManagerError
    from models.settings.all import Settings

    settings: Settings = loaded_of(config).settings
    body = _read(file)
    try:
        name, alerts, faults = _alerts(settings, body, as_, dict(map(_header, header or [])))
    except IncidentManagerError as error:
        name, alerts, faults = as_ or "", [], [{"index": -1, "error": str(error)}]
    if as_json:
        typer.echo(json.dumps({"format": name, "alerts": alerts, "refused": faults}))
    else:
        _show(name, alerts, faults)
    raise typer.Exit(ExitCode.FAILED if faults else ExitCode.OK)


def _alerts(
    settings: Any, body: bytes, as_: str | None, headers: dict[bytes, bytes]
) -> tuple[str, list[dict[str, Any]], list[dict[str, Any]]]:
    """The format's name, the alerts, and what is refused. Raises what a format does."""
    import msgspec

    from models.alerts.alert import Content, service_of
    from models.partition.sharding import TENANT
    from services.ingest.formats.format import Request, Shared, at_once
    from services.ingest.formats.remembered import Remembered
    from services.ingest.formats.table import open_formats

    services = tuple(settings.grouping.service_labels)
    shared = Shared(Remembered(TENANT, services, settings.lifecycle.max_alert_bytes), settings)
    forms = open_formats(shared)
    # A signature is the sender's affair, and not in the file.
    for form in forms.values():
        form.is_signed = False
    name, path = as_ or "events", ""
    if name not in forms and any(each.name == name for each in settings.formats.mappings):
        name, path = "mapped", f"{forms['mapped'].path}/{name}"
    if name not in forms:
        raise Failure(f"there is no format {name!r}; llm-im formats list shows them", ExitCode.USAGE)
    form = forms[name]
    request = Request(
        path or form.path, body, time.time(), headers=headers, content_type=_type_of(body, headers)
    )
    if form.prepares:
        asyncio.run(form.prepare(request))
    reading = at_once(form.steps(request))
    alerts = []
    for column, end in enumerate(reading.ends):
        content = msgspec.msgpack.decode(reading.body(column), type=Content)
        said = reading.said[column] if reading.said else 0
        alerts.append(
            {
                "status": "resolved" if said or end <= request.received_at else "firing",
                "service": service_of(content.labels, services),
                "labels": content.labels,
                "annotations": content.annotations,
                "url": content.generator_url,
            }
        )
    faults = [{"index": fault.index, "error": fault.message} for fault in reading.faults]
    return (reading.note if name == "events" else name), alerts, faults


def _type_of(body: bytes, headers: dict[bytes, bytes]) -> str:
    """What a body is, when its sender's header does not say so."""
    if b"content-type" in headers:
        return headers[b"content-type"].partition(b";")[0].strip().decode("latin-1")
    start = body.lstrip()[:1]
    if start in (b"{", b"["):
        return "application/json"
    return "message/rfc822" if start.isalpha() and b":" in body[:200] else "application/json"


def _show(name: str, alerts: list[dict[str, Any]], faults: list[dict[str, Any]]) -> None:
    typer.echo(
        f"format    {terminal.plain(name or 'none')}: {len(alerts)} alert{'' if len(alerts) == 1 else 's'}"
    )
    for alert in alerts:
        notes = alert["annotations"]
        title = notes.get("summary") or notes.get("title") or alert["labels"].get("alertname", "")
        typer.echo("")
        for word, said in (
            (alert["status"], title),
            ("service", alert["service"]),
            ("severity", " ".join(filter(None, (notes.get("severity"), notes.get("sender_severity"))))),
            ("labels", ", ".join(f"{label}={value}" for label, value in alert["labels"].items())),
            ("notes", ", ".join(f"{note}={value}" for note, value in notes.items() if note != "summary")),
            ("link", alert["url"]),
        ):
            if said:
                typer.echo(f"{word:<9} {terminal.plain(said)}")
    for fault in faults:
        place = f"alert {fault['index']}" if fault["index"] >= 0 else "refused"
        typer.echo(f"{place:<9} {terminal.plain(fault['error'])}", err=True)


def _header(given: str) -> tuple[bytes, bytes]:
    name, colon, value = given.partition(":")
    if not colon or not name.strip():
        raise Failure(f"{given!r} is not a header: expected NAME:VALUE", ExitCode.USAGE)
    return name.strip().lower().encode(), value.strip().encode()


def _read(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise Failure(f"can't read {name}: {error.strerror}", ExitCode.USAGE) from error
