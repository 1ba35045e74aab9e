"""`llm-im incidents resolve|close|reopen`: how an incident ends, and that it has not after all."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from services.cli.shared.ids import ManyIds
from services.cli.shared.run_verb import Deed, DryRun, IfVersion, Manner, Reason, Where, Yes, body, do
from services.cli.shared.where import AsJson, InContext, TokenFile, Url
from services.cli.shared.words import Message, MessageFile, text_of


class Method(StrEnum):
    """How it was ended (models/incidents/verbs.py, METHODS)."""

    MANUAL = "Manual"
    ASSISTED = "AutoAssistedManual"
    AUTOMATED = "Automated"


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
    where: Where = None,
    if_version: IfVersion = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Resolve an incident: how (--method), the root cause (--cause), and notes (-m, -F).

    llm-im incidents resolve 4e5f60718293 --cause "bad rollout" -m "rolled back to 1.4"

    llm-im incidents list -o id severity=P4 | llm-im incidents resolve - --yes
    """
    given = body(method=method.value, root_cause=cause, notes=text_of(message, file))
    deed = Deed("resolve", "resolved", given, asks=True)
    do(deed, ids, Manner(url, context, token_file, as_json, dry_run, yes, if_version, where))


def close(
    ids: ManyIds = None,
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
    """Close a resolved incident.

    llm-im incidents close 7a2b8c3d4e5f

    llm-im incidents close --where state=Resolved --where service=llm-api --dry-run
    """
    deed = Deed("close", "closed", body(reason=reason), asks=True)
    do(deed, ids, Manner(url, context, token_file, as_json, dry_run, yes, if_version, where))


def reopen(
    ids: ManyIds = None,
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
    """Reopen a resolved or closed incident.

    llm-im incidents reopen 7a2b8c3d4e5f --reason "errors are back"
    """
    deed = Deed("reopen", "reopened", body(reason=reason), asks=True)
    do(deed, ids, Manner(url, context, token_file, as_json, dry_run, yes, if_version, where))
