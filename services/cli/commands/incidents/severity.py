"""`llm-im incidents severity`: what an incident is, by a person's word."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from services.cli.shared import filters
from services.cli.shared.exits import ExitCode, Failure
from services.cli.shared.options import Reason, VerbOptions, with_options
from services.cli.shared.run_verb import Action, body, do

_SEVERITY = re.compile(r"[pP]\d")
#: What a person's word can be taken back for, and how the server calls it.
_CLEARABLE = {"severity": "severity", "type": "incident_type", "impact": "impact"}


@with_options
def severity(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ID|P0|P1|P2|P3|P4",
            help="Incident ids (- reads them from stdin), and a severity.",
            show_default=False,
        ),
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--type", help=", ".join(filters.VALUES["type"]) + ".", show_default=False)
    ] = None,
    impact: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Impact: who is affected, and how.", show_default=False)
    ] = None,
    clear: Annotated[
        list[str] | None,
        typer.Option(
            metavar="severity|type|impact",
            help="Drop the value set by hand; the classifier's counts again.",
            show_default=False,
        ),
    ] = None,
    reason: Reason = None,
    *,
    options: VerbOptions,
) -> None:
    """Set severity, type or impact by hand. This overrides every classifier until you clear it.

    llm-im incidents severity 4e5f60718293 P1 --reason "customers see it"

    llm-im incidents severity 4e5f60718293 --type Security --impact "one tenant reads another's prompts"

    llm-im incidents severity 4e5f60718293 --clear severity
    """
    said = [word for word in words or () if _SEVERITY.fullmatch(word)]
    ids = [word for word in words or () if not _SEVERITY.fullmatch(word)]
    if len(said) > 1:
        raise Failure(f"one severity, not {' and '.join(said)}", ExitCode.USAGE)
    for name in clear or ():
        if name not in _CLEARABLE:
            raise Failure(f"--clear: {name!r} is not one of {', '.join(_CLEARABLE)}", ExitCode.USAGE)
    given = body(
        severity=filters.value_of("severity", said[0]) if said else None,
        incident_type=filters.value_of("type", kind) if kind is not None else None,
        impact=impact,
        clear=[_CLEARABLE[name] for name in clear or ()],
    )
    if not given:
        raise Failure("nothing to set: give P0 to P4, --type, --impact or --clear", ExitCode.USAGE)
    action = Action("reclassify", "reclassified", {**given, **body(reason=reason)}, asks=True)
    do(action, ids, options)
