"""`llm-im incidents merge|unmerge`: one incident to handle instead of several."""

from __future__ import annotations

from services.cli.shared.ids import ManyIds, OneId
from services.cli.shared.options import Asked, DryRun, IfVersion, Reason, VerbOptions, Yes, with_options
from services.cli.shared.run_verb import Action, body, do_with


@with_options
def merge(
    incident: OneId,
    children: ManyIds = None,
    reason: Reason = None,
    if_version: IfVersion = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    *,
    asked: Asked,
) -> None:
    """Merge incidents into the first one: they become its children, and you handle only the first, which shows all alerts.

    llm-im incidents merge 4e5f60718293 7a2b8c3d4e5f 8c3d4e5f6071 --reason "one cause"
    """
    action = Action("merge", "merged", body(reason=reason), joint="with", asks=True)
    do_with(action, incident, children, VerbOptions(None, if_version, dry_run, yes, asked))


@with_options
def unmerge(
    incident: OneId,
    children: ManyIds = None,
    reason: Reason = None,
    if_version: IfVersion = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    *,
    asked: Asked,
) -> None:
    """Make child incidents independent again.

    llm-im incidents unmerge 4e5f60718293 7a2b8c3d4e5f
    """
    action = Action("unmerge", "separated", body(reason=reason), joint="from", asks=True)
    do_with(action, incident, children, VerbOptions(None, if_version, dry_run, yes, asked))
