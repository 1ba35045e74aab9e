"""`llm-im incidents ack|unack`: who looks after an incident."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli.shared import moments
from services.cli.shared.exits import ExitCode, Failure
from services.cli.shared.ids import ManyIds
from services.cli.shared.options import Reason, VerbOptions, with_options
from services.cli.shared.run_verb import Action, body, do


@with_options
def ack(
    ids: ManyIds = None,
    span: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="DURATION",
            help="How long the acknowledgement lasts: 30m, 2h.",
            show_default=False,
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="When the acknowledgement ends: a time, RFC 3339.", show_default=False
        ),
    ] = None,
    reason: Reason = None,
    *,
    options: VerbOptions,
) -> None:
    """Acknowledge an incident: you are on it. Without --for or --until, until it is resolved.

    llm-im incidents ack 4e5f60718293 --for 2h

    llm-im incidents ack --where service=llm-api --where state=Triaged
    """
    if span is not None and until is not None:
        raise Failure("give either --for or --until, not both", ExitCode.USAGE)
    given = body(
        **{
            "for": None if span is None else moments.span(span, "--for"),
            "until": None if until is None else moments.future(until, "--until"),
            "reason": reason,
        }
    )
    action = Action("acknowledge", "acknowledged", given)
    do(action, ids, options)


@with_options
def unack(
    ids: ManyIds = None,
    reason: Reason = None,
    *,
    options: VerbOptions,
) -> None:
    """Withdraw an acknowledgement.

    llm-im incidents unack 4e5f60718293 --reason "handed over to the day shift"
    """
    action = Action("unacknowledge", "unacknowledged", body(reason=reason))
    do(action, ids, options)
