"""`llm-im formats list|try`: which formats there are, and what one makes of a file. Nothing is sent, and nothing need run."""

from __future__ import annotations

import json
from typing import Any

import typer

from services.cli.shared import body_of_sender, terminal
from services.cli.shared.body_of_sender import As, File, Headers
from services.cli.shared.exits import EPILOG, ExitCode
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
    file: File,
    as_: As = None,
    header: Headers = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show the alerts that a file would make. Exit code 1 if any of it would be refused.

    llm-im formats try alert.json --as datadog
    """
    from models.alerts.alert import service_of
    from models.errors import IncidentManagerError
    from models.settings.all import Settings

    settings: Settings = loaded_of(config).settings
    alerts: list[dict[str, Any]] = []
    try:
        read = body_of_sender.read(settings, file, as_, header)
    except IncidentManagerError as error:
        name, faults = as_ or "", [{"index": -1, "error": str(error)}]
    else:
        name, faults = read.format, read.faults
        for column in range(len(read.reading.places)):
            content = read.content(column)
            alerts.append(
                {
                    "status": "resolved" if read.is_end(column) else "firing",
                    "service": service_of(content.labels, settings.grouping.service_labels),
                    "labels": content.labels,
                    "annotations": content.annotations,
                    "url": content.generator_url,
                }
            )
    if as_json:
        typer.echo(json.dumps({"format": name, "alerts": alerts, "refused": faults}))
    else:
        _show(name, alerts, faults)
    raise typer.Exit(ExitCode.FAILED if faults else ExitCode.OK)


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
    body_of_sender.show_faults(faults)
