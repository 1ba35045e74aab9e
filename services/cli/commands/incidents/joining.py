"""`llm-im incidents link|unlink|merge|unmerge|split`: how incidents hang together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from services.cli.shared import ids, output
from services.cli.shared.exits import ExitCode, Failure
from services.cli.shared.ids import ManyIds, OneId
from services.cli.shared.run_verb import (
    Deed,
    DryRun,
    IfVersion,
    Manner,
    Reason,
    Yes,
    body,
    call,
    do_each,
    say,
)
from services.cli.shared.where import AsJson, InContext, TokenFile, Url, client_of


def link(
    incident: OneId,
    others: ManyIds = None,
    reason: Reason = None,
    if_version: IfVersion = None,
    dry_run: DryRun = False,
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Link related incidents; each stays independent.

    llm-im incidents link 4e5f60718293 7a2b8c3d4e5f
    """
    deed = Deed("link", "linked", body(reason=reason), joint="with")
    _join(deed, incident, others, Manner(url, context, token_file, as_json, dry_run, if_version=if_version))


def unlink(
    incident: OneId,
    others: ManyIds = None,
    reason: Reason = None,
    if_version: IfVersion = None,
    dry_run: DryRun = False,
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Remove links between incidents.

    llm-im incidents unlink 4e5f60718293 7a2b8c3d4e5f
    """
    deed = Deed("unlink", "unlinked", body(reason=reason), joint="from")
    _join(deed, incident, others, Manner(url, context, token_file, as_json, dry_run, if_version=if_version))


def merge(
    incident: OneId,
    parts: ManyIds = None,
    reason: Reason = None,
    if_version: IfVersion = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Merge incidents into the first one: they become its children, and you handle only the first, which shows all alerts.

    llm-im incidents merge 4e5f60718293 7a2b8c3d4e5f 8c3d4e5f6071 --reason "one cause"
    """
    deed = Deed("merge", "merged", body(reason=reason), joint="with", asks=True)
    _join(deed, incident, parts, Manner(url, context, token_file, as_json, dry_run, yes, if_version))


def unmerge(
    incident: OneId,
    parts: ManyIds = None,
    reason: Reason = None,
    if_version: IfVersion = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Make child incidents independent again.

    llm-im incidents unmerge 4e5f60718293 7a2b8c3d4e5f
    """
    deed = Deed("unmerge", "separated", body(reason=reason), joint="from", asks=True)
    _join(deed, incident, parts, Manner(url, context, token_file, as_json, dry_run, yes, if_version))


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
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Move some alerts of an incident to a new one, and print its id.

    llm-im incidents split 4e5f60718293 2327b1eec6158b0d --title "Only the batch queue"
    """
    client = client_of(url, context, token_file)
    target = ids.find_one(client, incident)
    moved = ids.with_stdin(alerts or ())
    if not moved:
        raise Failure(f"no alerts given; to see them: llm-im incidents alerts {target}", ExitCode.USAGE)
    deed = Deed("split", "split", body(alerts=moved, title=title, reason=reason))
    if dry_run:
        do_each(client, deed, [(target, deed.body)], Manner(url, context, token_file, as_json, dry_run))
        return
    made = call(client, deed, target, deed.body, if_version).json()
    if as_json:
        output.write_json(made)
    else:
        say(made, f"split from {target}")


def _join(deed: Deed, incident: str, others: Sequence[str] | None, manner: Manner) -> None:
    """The verb once for each other one; always to the first."""
    client = client_of(manner.url, manner.context, manner.token_file)
    target = ids.find_one(client, incident)
    named = ids.find(client, others or ())
    if not named:
        raise Failure(
            f"no other incident given: list their ids, or - for stdin: {deed.verb} ID OTHER...",
            ExitCode.USAGE,
        )
    if target in named:
        raise Failure(f"{target} was given twice: an incident can't be joined with itself", ExitCode.USAGE)
    if manner.if_version is not None and len(named) > 1:
        raise Failure(
            "--if-version works with one other incident only: each one changes the version", ExitCode.USAGE
        )
    acts: list[tuple[str, dict[str, Any]]] = [(target, {"incident": other, **deed.body}) for other in named]
    do_each(client, deed, acts, manner)
