"""`llm-im incidents create`: an incident by hand."""

from __future__ import annotations

import http.client
from typing import Annotated

import typer

from services.cli.shared import filters, ids, output
from services.cli.shared.exits import ExitCode, Failure
from services.cli.shared.options import Asked, Reason, with_options
from services.cli.shared.run_verb import body, say
from services.cli.shared.words import Message, MessageFile, text_of


@with_options
def create(
    service: Annotated[str, typer.Option("--service", "-s", metavar="NAME", help="The affected service.")],
    title: Annotated[str, typer.Option("--title", "-t", metavar="TEXT", help="One line for people.")],
    severity: Annotated[
        str | None,
        typer.Option(metavar="P0..P4", help="Default: the classifier decides.", show_default=False),
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--type", help=", ".join(filters.VALUES["type"]) + ".", show_default=False)
    ] = None,
    impact: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Impact: who is affected, and how.", show_default=False)
    ] = None,
    message: Message = None,
    file: MessageFile = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", "-l", metavar="NAME=VALUE", help="Repeatable.", show_default=False),
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option("--to", metavar="PERSON", help="Who works on it. Repeatable.", show_default=False),
    ] = None,
    reason: Reason = None,
    *,
    asked: Asked,
) -> None:
    """Open an incident by hand. It has no alerts, and only a person resolves it. Describe it with -m or -F.

    llm-im incidents create --service llm-api --title "Answers in the wrong language" --severity P2 --to alice
    """
    labels = {}
    for word in label or ():
        name, is_pair, value = word.partition("=")
        if not is_pair or not name:
            raise Failure(f"--label: {word!r} is not valid; expected NAME=VALUE", ExitCode.USAGE)
        labels[name] = value
    given = body(
        service=service,
        title=title,
        description=text_of(message, file),
        severity=filters.value_of("severity", severity) if severity is not None else None,
        incident_type=filters.value_of("type", kind) if kind is not None else None,
        impact=impact,
        labels=labels,
        assignees=to,
        reason=reason,
    )
    client = asked.client()
    reply = client.post_json(ids.PATH, given)
    made = reply.json()
    if reply.status != http.client.CREATED or not isinstance(made, dict):
        raise client.failure(reply)
    if asked.as_json:
        output.write_json(made)
    else:
        say(made, "created")
