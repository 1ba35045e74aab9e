"""`llm-im incidents resolve`: how an incident ended."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from services.cli.shared.ids import ManyIds
from services.cli.shared.options import VerbOptions, with_options
from services.cli.shared.run_verb import Action, body, do
from services.cli.shared.words import Message, MessageFile, text_of


class Method(StrEnum):
    """How it was ended (models/incidents/verbs.py, METHODS)."""

    MANUAL = "Manual"
    ASSISTED = "AutoAssistedManual"
    AUTOMATED = "Automated"


@with_options
def resolve(
    ids: ManyIds = None,
    method: Annotated[
        Method, typer.Option(case_sensitive=False, help="How it was resolved.")
    ] = Method.MANUAL,
    cause: Annotated[
        str | None, typer.Option("--cause", "-c", metavar="TEXT", help="The root cause.", show_default=False)
    ] = None,
    message: Message = None,
    file: MessageFile = None,
    *,
    options: VerbOptions,
) -> None:
    """Resolve an incident: how (--method), the root cause (--cause), and notes (-m, -F).

    llm-im incidents resolve 4e5f60718293 --cause "bad rollout" -m "rolled back to 1.4"

    llm-im incidents list -o id severity=P4 | llm-im incidents resolve - --yes
    """
    given = body(method=method.value, root_cause=cause, notes=text_of(message, file))
    action = Action("resolve", "resolved", given, asks=True)
    do(action, ids, options)
