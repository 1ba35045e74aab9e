"""`llm-im incidents label|severity`: what an incident is, by a person's word."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from services.cli.shared import filters
from services.cli.shared.exits import ExitCode, Failure
from services.cli.shared.run_verb import Deed, DryRun, IfVersion, Manner, Reason, Where, Yes, body, do
from services.cli.shared.where import AsJson, InContext, TokenFile, Url

_SEVERITY = re.compile(r"[pP]\d")
#: What a person's word can be taken back for, and how the server calls it.
_CLEARABLE = {"severity": "severity", "type": "incident_type", "impact": "impact"}


def label(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ID|NAME=VALUE|NAME-",
            help="Incident ids (- reads them from stdin), labels to set, labels to remove.",
            show_default=False,
        ),
    ] = None,
    reason: Reason = None,
    where: Where = None,
    if_version: IfVersion = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Set labels of an incident (NAME=VALUE) and remove others (NAME-). Its alerts keep theirs.

    llm-im incidents label 4e5f60718293 team=inference env-
    """
    ids = [word for word in words or () if word == "-" or not ("=" in word or word.endswith("-"))]
    labels = {
        name: value for name, is_pair, value in (word.partition("=") for word in words or ()) if is_pair
    }
    remove = [word[:-1] for word in words or () if word.endswith("-") and "=" not in word and word != "-"]
    if not labels and not remove:
        raise Failure("no labels given: NAME=VALUE to set one, NAME- to remove one", ExitCode.USAGE)
    if "" in labels:
        raise Failure(f"a label has no name: ={labels['']}", ExitCode.USAGE)
    deed = Deed("label", "labelled", body(set=labels, remove=remove, reason=reason))
    do(deed, ids, Manner(url, context, token_file, as_json, dry_run, yes, if_version, where))


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
    where: Where = None,
    if_version: IfVersion = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
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
    deed = Deed("reclassify", "reclassified", {**given, **body(reason=reason)}, asks=True)
    do(deed, ids, Manner(url, context, token_file, as_json, dry_run, yes, if_version, where))
