"""`llm-im incidents split`: some of its alerts become an incident of their own."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli.shared import ids, output
from services.cli.shared.exits import ExitCode, Failure
from services.cli.shared.ids import OneId
from services.cli.shared.options import Asked, DryRun, IfVersion, Reason, VerbOptions, with_options
from services.cli.shared.run_verb import Action, body, call, do_each, say


@with_options
def split(
    incident: OneId,
    alerts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FINGERPRINT",
            help="Fingerprints of the alerts to move (see `incidents alerts`); - reads them from stdin.",
            show_default=False,
        ),
    ] = None,
    title: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="Title of the new incident. Default: the same title.", show_default=False
        ),
    ] = None,
    reason: Reason = None,
    if_version: IfVersion = None,
    dry_run: DryRun = False,
    *,
    asked: Asked,
) -> None:
    """Move some alerts of an incident to a new one, and print its id.

    llm-im incidents split 4e5f60718293 2327b1eec6158b0d --title "Only the batch queue"
    """
    client = asked.client()
    target = ids.find_one(client, incident)
    moved = ids.with_stdin(alerts or ())
    if not moved:
        raise Failure(f"no alerts given; to see them: llm-im incidents alerts {target}", ExitCode.USAGE)
    action = Action("split", "split", body(alerts=moved, title=title, reason=reason))
    if dry_run:
        do_each(client, action, [(target, action.body)], VerbOptions(dry_run=dry_run, asked=asked))
        return
    made = call(client, action, target, action.body, if_version).json()
    if asked.as_json:
        output.write_json(made)
    else:
        say(made, f"split from {target}")
