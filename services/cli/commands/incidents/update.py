"""`llm-im incidents update`: an update for stakeholders, and when the next is due."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli.shared import moments
from services.cli.shared.ids import ManyIds
from services.cli.shared.options import VerbOptions, with_options
from services.cli.shared.run_verb import Action, do
from services.cli.shared.words import Message, MessageFile, text_wanted


@with_options
def update(
    ids: ManyIds = None,
    audience: Annotated[
        str,
        typer.Option(
            "--audience", "-a", metavar="NAME", help="Who the update is for: customers, support, ..."
        ),
    ] = "stakeholders",
    message: Message = None,
    file: MessageFile = None,
    upcoming: Annotated[
        str | None,
        typer.Option(
            "--next",
            metavar="DURATION|TIME",
            help="When you promise the next update: 30m, or a time, RFC 3339.",
            show_default=False,
        ),
    ] = None,
    *,
    options: VerbOptions,
) -> None:
    """Post a stakeholder update and promise the next one.

    llm-im incidents update 4e5f60718293 --audience customers -m "A fix is on its way." --next 30m
    """
    given = {"audience": audience, "text": text_wanted(message, file, "The update")}
    if upcoming is not None and moments.is_span(upcoming):
        given["next_due_in"] = moments.span(upcoming, "--next")
    elif upcoming is not None:
        given["next_due_at"] = moments.future(upcoming, "--next")
    action = Action("update", "updated", given)
    do(action, ids, options)
