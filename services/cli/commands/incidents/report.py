"""`llm-im incidents report`: what happened, who did what and when, to be pasted into an issue, printed or kept."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from services.cli.shared import ids, output, terminal
from services.cli.shared.ids import OneId
from services.cli.shared.options import Asked, with_options


class Form(StrEnum):
    """How a report is written."""

    MARKDOWN = "markdown"
    HTML = "html"
    JSON = "json"


@with_options
def report(
    incident: OneId,
    form: Annotated[
        Form, typer.Option("--format", "-f", help="markdown, html (one page that loads nothing), or json.")
    ] = Form.MARKDOWN,
    *,
    asked: Asked,
) -> None:
    """Write the post-incident report: summary, times against targets, people, timeline, alerts, runs, notifications, tasks.

    llm-im incidents report 4e5f60718293

    llm-im incidents report 4e5f60718293 --format html > report.html
    """
    client = asked.client()
    path = f"{ids.PATH}/{ids.find_one(client, incident)}/report"
    if asked.as_json or form is Form.JSON:
        output.write_json(client.get_json(path))
        return
    reply = client.get(path, [("format", str(form))])
    if reply.status != 200:
        raise client.failure(reply)
    # Whatever answered: nothing in it steers a terminal.
    for line in reply.body.decode("utf-8", "replace").rstrip("\n").split("\n"):
        typer.echo(terminal.plain(line))
